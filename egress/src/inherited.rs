//! What a process gets from the one that starts it: a block of environment variables, and open descriptors.
//!
//! This module alone may use `unsafe`: the block can be overwritten through raw pointers only, and nothing but the
//! caller's word says whom a descriptor's number belongs to. Both are done before a second thread runs.

#![expect(
    unsafe_code,
    reason = "raw pointers into the environment, and numbers that become descriptors"
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
