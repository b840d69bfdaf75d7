//! The CA directory: who may touch it, its lock, and reading and replacing the pair of files as one.
//!
//! Everything is checked on open descriptors and reached through the directory's descriptor, so nothing can be swapped
//! between the check and the use. What the files say is not looked at here.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::Error;

const CERTIFICATE: Entry = Entry {
    name: "ca-cert.pem",
    staged: ".ca-cert.pem.new",
    mode: 0o644,
    forbidden: 0o022,
};
const KEY: Entry = Entry {
    name: "ca-key.pem",
    staged: ".ca-key.pem.new",
    mode: 0o600,
    forbidden: 0o077,
};

/// A certificate and its private key, both PEM.
pub(crate) struct Pair {
    pub(crate) certificate: Zeroizing<String>,
    pub(crate) key: Zeroizing<String>,
}

/// The directory, locked against other processes for as long as this lives.
pub(crate) struct Store {
    path: PathBuf,
    /// Holds the lock, which the kernel drops with the descriptor, also when the process is killed.
    dir: File,
}

impl Store {
    /// Opens the directory, creating it (0700) where it is missing, and waits up to ten seconds for its lock.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Self::open_within(path, Duration::from_secs(10))
    }

    fn open_within(path: &Path, patience: Duration) -> Result<Self, Error> {
        let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(|source| io_error("create", path, source))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty());
        let dir = File::from(dir.map_err(|errno| io_error("open", path, errno.into()))?);
        let mode = owned_mode(&dir, path)?;
        if mode & 0o022 != 0 {
            return Err(Error::DirectoryWritable {
                path: path.to_owned(),
                mode,
            });
        }
        lock(&dir, path, patience)?;
        Ok(Self {
            path: path.to_owned(),
            dir,
        })
    }

    /// The pair, or `None` where there is neither file.
    pub(crate) fn read(&self) -> Result<Option<Pair>, Error> {
        let (present, missing) = match (self.read_entry(&CERTIFICATE)?, self.read_entry(&KEY)?) {
            (Some(certificate), Some(key)) => return Ok(Some(Pair { certificate, key })),
            (None, None) => return Ok(None),
            (Some(_), None) => (self.certificate_path(), self.key_path()),
            (None, Some(_)) => (self.key_path(), self.certificate_path()),
        };
        Err(Error::HalfPair { present, missing })
    }

    /// Puts `pair` in place of what is there.
    ///
    /// A crash leaves the old pair, the new one or, between the two renames, halves that do not belong together: the
    /// next open refuses those (`HalfPair`, `Mismatch`).
    pub(crate) fn write(&self, pair: &Pair) -> Result<(), Error> {
        self.stage(&KEY, pair.key.as_bytes())?;
        self.stage(&CERTIFICATE, pair.certificate.as_bytes())?;
        for entry in [&KEY, &CERTIFICATE] {
            rustix::fs::renameat(&self.dir, entry.staged, &self.dir, entry.name)
                .map_err(|errno| io_error("replace", &self.path.join(entry.name), errno.into()))?;
        }
        self.dir
            .sync_all()
            .map_err(|source| io_error("sync", &self.path, source))
    }

    pub(crate) fn certificate_path(&self) -> PathBuf {
        self.path.join(CERTIFICATE.name)
    }

    pub(crate) fn key_path(&self) -> PathBuf {
        self.path.join(KEY.name)
    }

    fn read_entry(&self, entry: &Entry) -> Result<Option<Zeroizing<String>>, Error> {
        let path = self.path.join(entry.name);
        // A FIFO must not make us wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.dir, entry.name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(Error::NotRegular { path }),
            Err(errno) => return Err(io_error("open", &path, errno.into())),
        };
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(Error::NotRegular { path });
        }
        let mode = owned_mode(&file, &path)?;
        if mode & entry.forbidden != 0 {
            return Err(entry.too_open(path, mode));
        }
        match read_text(file) {
            Ok(text) => Ok(Some(text)),
            Err(source) if source.kind() == io::ErrorKind::InvalidData => Err(entry.no_text(path)),
            Err(source) => Err(io_error("read", &path, source)),
        }
    }

    fn stage(&self, entry: &Entry, text: &[u8]) -> Result<(), Error> {
        let failed = |source| io_error("write", &self.path.join(entry.staged), source);
        // Only a crashed holder of the lock can have left one.
        match rustix::fs::unlinkat(&self.dir, entry.staged, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let mode = Mode::from_bits_truncate(entry.mode);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, entry.staged, flags, mode)
            .map_err(|errno| failed(errno.into()))?;
        // The umask may have taken bits off: the certificate is for other users too.
        rustix::fs::fchmod(&file, mode).map_err(|errno| failed(errno.into()))?;
        let mut file = File::from(file);
        file.write_all(text)
            .and_then(|()| file.sync_all())
            .map_err(failed)
    }
}

/// One of the two files.
struct Entry {
    name: &'static str,
    /// Where the next version is written before it takes the name.
    staged: &'static str,
    mode: rustix::fs::RawMode,
    /// Permission bits with which the file is refused.
    forbidden: u32,
}

impl Entry {
    fn too_open(&self, path: PathBuf, mode: u32) -> Error {
        if self.name == KEY.name {
            Error::KeyNotPrivate { path, mode }
        } else {
            Error::CertificateWritable { path, mode }
        }
    }

    fn no_text(&self, path: PathBuf) -> Error {
        if self.name == KEY.name {
            Error::BadKey { path }
        } else {
            let reason = "it is not text of at most 64 KiB";
            Error::BadCertificate { path, reason }
        }
    }
}

/// The permission bits of a file that belongs to us or to root. Read from the metadata: root could open anything.
fn owned_mode(file: &File, path: &Path) -> Result<u32, Error> {
    let metadata = file
        .metadata()
        .map_err(|source| io_error("inspect", path, source))?;
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(Error::ForeignOwner {
            path: path.to_owned(),
            owner,
        });
    }
    Ok(metadata.mode() & 0o7777)
}

/// Locks the directory itself, so that a reader needs no right to write and no lock file is left behind.
///
/// Polled, since flock(2) has no timeout: anybody who may open the directory can hold its lock for ever.
fn lock(dir: &File, path: &Path, patience: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + patience;
    loop {
        match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5))
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Busy {
                    path: path.to_owned(),
                });
            }
            Err(errno) => return Err(io_error("lock", path, errno.into())),
        }
    }
}

/// Reads a file of at most 64 KiB into a buffer that never moves, so that no copy of a key stays behind. What is
/// larger or is not UTF-8 is `InvalidData`.
fn read_text(file: File) -> io::Result<Zeroizing<String>> {
    const LIMIT: usize = 64 * 1024;
    let mut text = Zeroizing::new(String::with_capacity(LIMIT + 64));
    let read = file.take(LIMIT as u64 + 1).read_to_string(&mut text)?;
    if read > LIMIT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(text)
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
