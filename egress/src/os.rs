//! What the standard library and the kept crates offer only as `unsafe`, each behind a safe function with its argument.
//!
//! Nothing else in the crate is `unsafe`. This module decides nothing; it must not grow beyond single system calls.

/// Moves the calling process into namespaces of its own (unshare(2)). Of the rest of its family only children that are
/// started later are in a new PID namespace.
///
/// # Errors
///
/// The system's: `EPERM` where user namespaces are forbidden, `ENOSPC` or `EUSERS` where there are too many, `EINVAL`
/// where the process has more than one thread and asks for a user namespace.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "rustix marks unshare as unsafe for its FILES flag"
)]
pub fn unshare(namespaces: Namespaces) -> std::io::Result<()> {
    use rustix::thread::UnshareFlags;
    let flags = match namespaces {
        Namespaces::Box => {
            UnshareFlags::NEWUSER
                | UnshareFlags::NEWNET
                | UnshareFlags::NEWNS
                | UnshareFlags::NEWPID
                | UnshareFlags::NEWIPC
                | UnshareFlags::NEWUTS
                | UnshareFlags::NEWCGROUP
        }
    };
    // SAFETY: the one danger that rustix names is `FILES`, after which threads no longer share their descriptors. It is
    // in none of the sets above.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

/// A set of namespaces.
#[derive(Clone, Copy, Debug)]
pub enum Namespaces {
    /// User, network, mounts, processes, IPC, host name and control groups.
    Box,
}

/// Keeps every descriptor but the three standard ones from programs that are started later, whoever opened them: what the
/// launcher itself was started with is no business of an agent.
///
/// # Errors
///
/// The system's.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "libc has no safe form of close_range")]
pub fn keep_descriptors() -> std::io::Result<()> {
    // SAFETY: with CLOEXEC no descriptor is closed in this process, so none that anybody owns becomes invalid. The call
    // takes numbers alone.
    let result = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
