//! What the standard library and the kept crates offer only as `unsafe`, each behind a safe function with its argument:
//! what a process is started with (descriptors and variables), what it is told (signals), and what it moves into.
//!
//! This module alone may use `unsafe`. It decides nothing, and must not grow beyond single system calls.

#![expect(
    unsafe_code,
    reason = "raw pointers into the environment, numbers that become descriptors, and bare system calls"
)]

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::FdFlags;

/// Takes over a descriptor that this process was started with, and keeps it from programs that it starts itself.
///
/// A descriptor that came through an `exec` cannot be marked close-on-exec, and all that this program opens is. So one
/// that is marked is not inherited, or was taken already. Standard output and error belong to the log.
///
/// Call it before a second thread runs.
///
/// # Errors
///
/// [`Untaken`], where the number is none of an inherited descriptor.
pub fn take_descriptor(number: RawFd) -> Result<OwnedFd, Untaken> {
    match number {
        // The standard library holds on to it. Its copy is never read.
        0 => return Ok(io::stdin().as_fd().try_clone_to_owned()?),
        1 | 2 => return Err(Untaken::Output),
        ..0 => return Err(Untaken::NotOpen),
        3.. => {}
    }
    if std::fs::symlink_metadata(format!("/dev/fd/{number}")).is_err() {
        return Err(Untaken::NotOpen);
    }
    // SAFETY: the descriptor is open, and no other thread runs that could close it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if rustix::io::fcntl_getfd(borrowed)
        .map_err(io::Error::from)?
        .contains(FdFlags::CLOEXEC)
    {
        return Err(Untaken::NotInherited);
    }
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC).map_err(io::Error::from)?;
    // SAFETY: it is open, and nothing in this process owns it: it was not marked close-on-exec, which everything is that
    // was opened here or taken over before.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Why a descriptor cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    /// Nothing is open under the number.
    #[error("no such descriptor is open")]
    NotOpen,
    /// 1 or 2.
    #[error("standard output and error are the log's")]
    Output,
    /// It belongs to the program itself, or it was named twice.
    #[error("the descriptor is not an inherited one, or it is named twice")]
    NotInherited,
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Overwrites a variable's value in the block that the kernel shows: `/proc/PID/environ` gives a process's first
/// environment to its own user for as long as it runs, even after `unsetenv`.
///
/// Call it before a second thread runs.
#[cfg(target_os = "linux")]
pub fn wipe_variable(key: &str) {
    use std::ffi::{CStr, c_char};
    unsafe extern "C" {
        static environ: *const *mut c_char;
    }
    // SAFETY: `environ` is a null-terminated array of C strings. The caller promises that no other thread runs yet, so
    // none reads or changes it meanwhile. Only bytes between `=` and the terminating NUL are written, through the
    // pointers that the C library itself handed out for a block that is mapped writable.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let length = CStr::from_ptr(*entry).count_bytes();
            let bytes = std::slice::from_raw_parts_mut((*entry).cast::<u8>(), length);
            if bytes.starts_with(key.as_bytes())
                && let Some([b'=', value @ ..]) = bytes.get_mut(key.len()..)
            {
                zeroize::Zeroize::zeroize(value);
            }
            entry = entry.add(1);
        }
    }
}

/// Elsewhere no file shows the block; the variable is left as it is.
#[cfg(not(target_os = "linux"))]
pub fn wipe_variable(_key: &str) {}

/// Does something while no signal is delivered to this thread. Those that come meanwhile are delivered afterwards.
///
/// Call it while no other thread runs, which would get them instead.
pub fn holding_signals<T>(work: impl FnOnce() -> T) -> T {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset(3) fills the set that pthread_sigmask(3) reads, and that fills the other one; neither fails with
    // these arguments.
    let before = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    };
    let done = work();
    // SAFETY: the set is the one that was in force.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    done
}

/// Moves the calling process into namespaces of its own (unshare(2)). Of the rest of its family only children that are
/// started later are in a new PID namespace.
///
/// # Errors
///
/// The system's: `EPERM` where user namespaces are forbidden, `ENOSPC` or `EUSERS` where there are too many, `EINVAL`
/// where the process has more than one thread and asks for a user namespace.
#[cfg(target_os = "linux")]
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
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
pub fn keep_descriptors() -> io::Result<()> {
    // SAFETY: with CLOEXEC no descriptor is closed in this process, so none that anybody owns becomes invalid. The call
    // takes numbers alone.
    let result = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The calls of landlock(7), for which the C library has no functions.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "system calls that take structures by their addresses"
)]
pub mod landlock {
    use std::io;
    use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

    /// struct landlock_ruleset_attr. An older kernel takes it where what it does not know is zero.
    #[repr(C)]
    struct Ruleset {
        handled_access_fs: u64,
        handled_access_net: u64,
        scoped: u64,
    }

    /// Accesses of files and directories: LANDLOCK_ACCESS_FS_* of linux/landlock.h.
    pub mod access {
        /// Opening for writing.
        pub const WRITE_FILE: u64 = 1 << 1;
        /// Opening for reading, and not to be executed.
        pub const READ_FILE: u64 = 1 << 2;
        /// Listing a directory.
        pub const READ_DIR: u64 = 1 << 3;
        /// Removing what is no directory, or moving it away.
        pub const REMOVE_FILE: u64 = 1 << 5;
        /// Making a file, or moving one there.
        pub const MAKE_REG: u64 = 1 << 8;
        /// Making a Unix socket's file.
        pub const MAKE_SOCK: u64 = 1 << 9;
        /// Cutting a file short; of the third version.
        pub const TRUNCATE: u64 = 1 << 14;

        /// All that a version knows. In the first one files cannot be moved between directories at all.
        pub fn all(version: u32) -> u64 {
            let count = match version {
                0 | 1 => 13,
                2 => 14,
                3 | 4 => 15,
                5.. => 16,
            };
            (1 << count) - 1
        }
    }

    /// What ports are denied for: LANDLOCK_ACCESS_NET_BIND_TCP, of the fourth version.
    pub const BIND_TCP: u64 = 1;

    /// What stays inside: LANDLOCK_SCOPE_*, of the sixth version.
    pub mod scope {
        /// Connections to abstract Unix sockets.
        pub const ABSTRACT_SOCKETS: u64 = 1;
        /// Signals.
        pub const SIGNALS: u64 = 1 << 1;
    }

    /// struct landlock_path_beneath_attr.
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: RawFd,
    }

    /// struct landlock_net_port_attr.
    #[repr(C)]
    struct NetPort {
        allowed_access: u64,
        port: u64,
    }

    /// The version of the interface.
    ///
    /// # Errors
    ///
    /// The system's: `ENOSYS` where the kernel has none, `EOPNOTSUPP` where it is not switched on. A filter around this
    /// process may say anything.
    pub fn version() -> io::Result<u32> {
        const CREATE_RULESET_VERSION: u32 = 1;
        // SAFETY: with this flag the kernel reads nothing.
        let version = checked(unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<Ruleset>(),
                0_usize,
                CREATE_RULESET_VERSION,
            )
        })?;
        Ok(version.unsigned_abs())
    }

    /// A set of rules: what is denied but for exceptions, and what stays inside.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn ruleset(
        handled_access_fs: u64,
        handled_access_net: u64,
        scoped: u64,
    ) -> io::Result<OwnedFd> {
        let attributes = Ruleset {
            handled_access_fs,
            handled_access_net,
            scoped,
        };
        // SAFETY: the kernel reads as many bytes of the structure as are said, which outlives the call.
        let made = checked(unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attributes,
                size_of::<Ruleset>(),
                0_u32,
            )
        })?;
        // SAFETY: the descriptor is new, and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(made) })
    }

    /// Adds an exception for a file, or for all that is below a directory.
    ///
    /// # Errors
    ///
    /// The system's: `EBADFD` for what is in no file system, such as a pipe.
    pub fn allow(ruleset: &OwnedFd, access: u64, below: BorrowedFd<'_>) -> io::Result<()> {
        const PATH_BENEATH: u32 = 1;
        let attributes = PathBeneath {
            allowed_access: access,
            parent_fd: below.as_raw_fd(),
        };
        // SAFETY: the kernel reads this structure, which outlives the call.
        checked(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                ruleset.as_raw_fd(),
                PATH_BENEATH,
                &raw const attributes,
                0_u32,
            )
        })
        .map(|_| ())
    }

    /// Adds an exception for a TCP port; 0 is one that the system chooses.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn allow_port(ruleset: &OwnedFd, access: u64, port: u16) -> io::Result<()> {
        const NET_PORT: u32 = 2;
        let attributes = NetPort {
            allowed_access: access,
            port: port.into(),
        };
        // SAFETY: the kernel reads this structure, which outlives the call.
        checked(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                ruleset.as_raw_fd(),
                NET_PORT,
                &raw const attributes,
                0_u32,
            )
        })
        .map(|_| ())
    }

    /// Puts the calling thread, and all that it starts, under the rules. It has to be without new privileges.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn restrict_self(ruleset: &OwnedFd) -> io::Result<()> {
        // SAFETY: the call takes numbers alone.
        checked(unsafe {
            libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32)
        })
        .map(|_| ())
    }

    fn checked(result: libc::c_long) -> io::Result<RawFd> {
        match RawFd::try_from(result) {
            Ok(number) if number >= 0 => Ok(number),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// System calls that a sidecar under its own filter must not get through, each with arguments under which it changes
/// nothing where there is no filter. For tests: a build without debug assertions does not have it.
#[cfg(all(target_os = "linux", debug_assertions))]
pub fn attempts() -> impl Iterator<Item = (&'static str, io::Result<()>)> {
    let exec = libc::c_long::from(libc::PROT_EXEC);
    let anonymous = libc::c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let own = libc::c_long::from(std::process::id());
    let type_in = libc::TIOCSTI as libc::c_long;
    let calls = [
        ("ptrace", libc::SYS_ptrace, [0x4206, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [0; 4]),
        ("mprotect", libc::SYS_mprotect, [0, 0, exec, 0]),
        ("mmap", libc::SYS_mmap, [0, 0, exec, anonymous]),
        ("memfd_create", libc::SYS_memfd_create, [0; 4]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [0; 4]),
        ("bpf", libc::SYS_bpf, [0; 4]),
        ("unshare", libc::SYS_unshare, [0; 4]),
        ("clone3", libc::SYS_clone3, [0; 4]),
        ("ioctl", libc::SYS_ioctl, [-1, type_in, 0, 0]),
        ("prlimit64", libc::SYS_prlimit64, [own, 0, 0, 0]),
        ("setpriority", libc::SYS_setpriority, [3, 0, 0, 0]),
        ("sched_setattr", libc::SYS_sched_setattr, [0; 4]),
        ("ioprio_set", libc::SYS_ioprio_set, [0; 4]),
        ("ftruncate", libc::SYS_ftruncate, [-1, 0, 0, 0]),
    ];
    calls.into_iter().map(|(name, number, [a, b, c, d])| {
        // SAFETY: none of the calls writes to this process's memory: where it takes an address or a length, it is 0. The
        // protection of no byte is changed, no byte is mapped, process 0 (PTRACE_SEIZE) is nobody's, and of process limits
        // none is given.
        let result = unsafe { libc::syscall(number, a, b, c, d, 0, 0) };
        let came = if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        };
        (name, came)
    })
}
