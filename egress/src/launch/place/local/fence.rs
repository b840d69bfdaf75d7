//! What the namespaces let through, and landlock(7) does not: a descriptor that the launcher handed over leads back into the
//! host's tree, and a process group reaches out of a PID namespace.
//!
//! It comes on top of the box's walls, where the kernel has it: Linux 5.19 for files, 6.12 for signals.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{FileType, OFlags};

use crate::os::landlock::{self, access, scope};

/// Puts the calling thread, and all that it starts, behind the fence. `input` is what the command will read from.
///
/// # Errors
///
/// The system's, but for one that has no landlock.
pub(super) fn raise(input: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let version = landlock::version().unwrap_or(0);
    // In the first version files could not be moved between directories at all.
    if version < 2 {
        return Ok(());
    }
    // Devices are the box's own, and programs speak to them as they like.
    let files = access::all(version.min(4));
    let scopes = if version < 6 { 0 } else { scope::SIGNALS };
    let ruleset = landlock::ruleset(files, 0, scopes)?;
    landlock::allow(&ruleset, files, File::open("/")?.as_fd())?;
    let (output, errors) = (io::stdout(), io::stderr());
    let standard = [input, Some(output.as_fd()), Some(errors.as_fd())];
    for given in standard.into_iter().flatten() {
        let access = reopened(given)? & files;
        if access == 0 {
            continue;
        }
        match landlock::allow(&ruleset, access, given) {
            // A pipe or a socket is in no file system, and leads to none.
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {}
            other => other?,
        }
    }
    landlock::restrict_self(&ruleset)
}

/// As what a standard descriptor may be opened again, by way of `/dev/stdout` and its like: as what it is. Through one that
/// was opened for writing alone the agent would read what is in that file already. A directory leads to the whole tree.
fn reopened(given: BorrowedFd<'_>) -> io::Result<u64> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(given)?.st_mode);
    if kind == FileType::Directory {
        return Ok(0);
    }
    let mode = rustix::fs::fcntl_getfl(given)? & OFlags::RWMODE;
    Ok(if mode == OFlags::RDONLY {
        access::READ_FILE
    } else if mode == OFlags::WRONLY {
        access::WRITE_FILE | access::TRUNCATE
    } else {
        access::READ_FILE | access::WRITE_FILE | access::TRUNCATE
    })
}
