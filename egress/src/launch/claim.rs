//! A bottle at work: one launch at a time has it, and with it a directory of its own for as long as it lasts.
//!
//! The lock is the kernel's (flock(2)), so that a launcher that was killed holds nothing. What it left in the directory is
//! removed by the next one.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Host;

/// A bottle that is this launch's.
#[derive(Debug)]
pub struct Claim {
    directory: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Claim {
    /// Takes the bottle of this name.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn take(bottle: &str, host: &Host<'_>) -> Result<Self, Error> {
        let name = file_name(bottle);
        let begun = Instant::now();
        let (base, lock, held) = loop {
            let base = runtime_directory(host)?;
            let lock = base.join(format!("{name}.lock"));
            match lock_file(&lock) {
                Ok(held) => break (base, lock, held),
                Err(error) if begun.elapsed() > PATIENCE => {
                    return Err(match error {
                        Errno::WOULDBLOCK => Error::Taken {
                            bottle: bottle.into(),
                        },
                        error => Error::Io {
                            path: lock,
                            source: error.into(),
                        },
                    });
                }
                // The launch before is about to end, or has just removed the name of its lock, or the directory.
                Err(Errno::WOULDBLOCK | Errno::STALE | Errno::NOENT) => {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => {
                    return Err(Error::Io {
                        path: lock,
                        source: error.into(),
                    });
                }
            }
        };
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        let directory = base.join(&name);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&directory)(error));
            }
            _ => {}
        }
        private_directory(&directory).map_err(failed(&directory))?;
        Ok(Self {
            directory,
            lock,
            _held: held,
        })
    }

    /// The launch's own directory, which only its user can enter.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What cannot be removed is removed by the next launch of the bottle.
        _ = fs::remove_dir_all(&self.directory);
        _ = fs::remove_file(&self.lock);
        // The last bottle takes the directory of all with it.
        if let Some(base) = self.lock.parent() {
            _ = fs::remove_dir(base);
        }
    }
}

/// How long a launch that is ending already may take to let go of its bottle.
const PATIENCE: Duration = Duration::from_millis(300);

const PAUSE: Duration = Duration::from_millis(5);

/// Opens a file and locks it. `WOULDBLOCK` where another process has it, `STALE` where the file has lost its name
/// meanwhile: the lock of such a file excludes nobody.
fn lock_file(path: &Path) -> Result<File, Errno> {
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(errno)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    let held = file.metadata().map_err(errno)?;
    let is_same = fs::metadata(path)
        .is_ok_and(|named| (held.dev(), held.ino()) == (named.dev(), named.ino()));
    if is_same { Ok(file) } else { Err(Errno::STALE) }
}

/// Why a bottle cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another launch has it.
    #[error("the bottle `{bottle}` is at work already")]
    Taken {
        /// Its name.
        bottle: String,
    },
    /// The directory of such is another user's, or open to others.
    #[error("{} is not a directory of this user alone", .0.display())]
    Foreign(PathBuf),
    /// The system's reason.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// `$XDG_RUNTIME_DIR/egress`, which is on a tmpfs and its user's own; without it a directory of this user's in /tmp.
fn runtime_directory(host: &Host<'_>) -> Result<PathBuf, Error> {
    let user = rustix::process::geteuid().as_raw();
    let directory = directory_of_all(host);
    let failed = |source| Error::Io {
        path: directory.clone(),
        source,
    };
    match private_directory(&directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(failed)?,
    }
    // In /tmp anybody could have made it first.
    let found = fs::symlink_metadata(&directory).map_err(failed)?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        return Err(Error::Foreign(directory));
    }
    Ok(directory)
}

/// Where the directories of all launches of this user are.
pub fn directory_of_all(host: &Host<'_>) -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    (host.env)("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .map_or_else(
            || PathBuf::from(format!("/tmp/egress-{user}")),
            |path| path.join("egress"),
        )
}

fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// A bottle's name as one of a file: what is not plain is written in hex, so that two names never share a file.
fn file_name(bottle: &str) -> String {
    let mut name = String::from("b-");
    for byte in bottle.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!(".{byte:02x}"));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::SystemTime;

    use super::{Claim, Error, file_name};
    use crate::launch::Host;

    #[test]
    fn a_bottle_is_one_launchs_at_a_time_and_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = directory.path().to_owned();
        let env =
            move |name: &str| (name == "XDG_RUNTIME_DIR").then(|| OsString::from(runtime.clone()));
        let host = Host {
            env: &env,
            now: SystemTime::now(),
        };
        let first = Claim::take("dev/1", &host).expect("it is free");
        let inside = first.directory().to_owned();
        std::fs::write(inside.join("left"), "").expect("a file");
        assert!(matches!(
            Claim::take("dev/1", &host),
            Err(Error::Taken { .. })
        ));
        let other = Claim::take("dev.1", &host).expect("another bottle");
        drop(first);
        assert!(!inside.exists());
        let again = Claim::take("dev/1", &host).expect("it is free again");
        drop((again, other));
        assert_eq!(directory.path().read_dir().expect("it is there").count(), 0);
    }

    #[test]
    fn a_directory_that_others_can_enter_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let shared = directory.path().join("egress");
        std::fs::create_dir(&shared).expect("it is made");
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o755)).expect("set");
        let runtime = directory.path().to_owned();
        let env = move |_: &str| Some(OsString::from(runtime.clone()));
        let host = Host {
            env: &env,
            now: SystemTime::now(),
        };
        assert!(matches!(Claim::take("dev", &host), Err(Error::Foreign(_))));
    }

    #[test]
    fn names_stay_apart_and_inside_the_directory() {
        assert_eq!(file_name("../x"), "b-.2e.2e.2fx");
        assert_ne!(file_name("a b"), file_name("a.20b"));
    }
}
