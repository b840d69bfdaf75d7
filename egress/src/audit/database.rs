//! The audit file: an SQLite database with a row for each request, each chained to the one before by a hash.
//!
//! One process writes ([`Writer`]), and any number read meanwhile ([`Reader`](super::reader::Reader)). What the chain proves, and what it
//! does not: a row that was changed, taken out or put in is found; that the last rows were cut off is found where somebody
//! noted a link of the chain that is gone.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use super::append::append;
use super::entry::Entry;
use super::kinds::Kinds;
use super::reader::beside;
use super::row::Last;
use super::schema::{APPLICATION, VERSION, create, ending, prepare, recognise};
use crate::credential::Salt;
use crate::file::directory_of;

/// Who writes the file, until it is dropped.
#[derive(Debug)]
pub struct Writer {
    // Closed in this order: with the last descriptor of a file, a process loses all its POSIX locks of it.
    connection: Connection,
    turn: File,
    path: PathBuf,
    limits: Limits,
    kinds: Kinds,
    salt: Salt,
    last: Last,
    begun: SystemTime,
}

/// When the next file is begun, and how many are kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one file.
    pub size: u64,
    /// Age of its first row.
    pub age: Duration,
    /// Earlier files that are kept beside the one that is written.
    pub kept: usize,
}

/// What came of a look at whether the next file is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// It is not.
    NotDue,
    /// It was begun.
    Begun,
    /// It is due, and somebody reads this one.
    Held,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process writes it.
    #[error("the audit file {} is written by another process", .0.display())]
    Taken(PathBuf),
    /// It is a file of another kind.
    #[error("{} is no audit file", .0.display())]
    Foreign(PathBuf),
    /// It was written by another version.
    #[error("the audit file {} has version {version}, and this program knows version {VERSION}", path.display())]
    OtherVersion {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: i32,
    },
    /// Somebody else has written rows into it.
    #[error("the audit file {} was written by somebody else", .0.display())]
    Meddled(PathBuf),
    /// The system's.
    #[error("the audit file {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The library's: a full disk, a damaged file, a lock.
    #[error("the audit file {}", path.display())]
    Database {
        /// Which file.
        path: PathBuf,
        /// What the library said.
        source: rusqlite::Error,
    },
}

impl Error {
    /// What who reads it can do about it.
    pub fn reading_hint(&self) -> &'static str {
        match self {
            Self::Foreign(_) | Self::File { .. } => {
                "name a file that `egress serve --audit` has made, as a user who may read it"
            }
            Self::Database { source, .. }
                if source.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen) =>
            {
                "name a file; beside one that is written, its -wal and -shm have to be there and be readable"
            }
            other => other.hint(),
        }
    }

    /// What who writes it can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Taken(_) => "give each sidecar an audit file of its own",
            Self::Foreign(_) => "name a file that is not there yet, or one that `--audit` has made",
            Self::OtherVersion { .. } => {
                "use the program that wrote it, or move it away to begin a new one"
            }
            Self::Meddled(_) => {
                "`egress audit verify` tells from where on; move the file away to begin a new one"
            }
            Self::File { .. } => {
                "its directory has to be there, and be writable for the sidecar's user"
            }
            Self::Database { source, .. } => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy) => {
                    "another program holds it locked: `fuser FILE` says which; try again once it lets go"
                }
                Some(rusqlite::ErrorCode::DiskFull) => "make room on its disk",
                Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
                    "it is damaged: move it away to begin a new one; `sqlite3 FILE .recover` reads what is left"
                }
                _ => {
                    "see that its disk has room and that its directory is writable for the sidecar's user"
                }
            },
        }
    }
}

impl Writer {
    /// Opens the file, or makes it, and takes the turn to write it.
    ///
    /// # Errors
    ///
    /// [`Error`], for what no later write would mend.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, Error> {
        Self::begin(path, limits, None)
    }

    /// Adds a row for each entry, all or none.
    ///
    /// # Errors
    ///
    /// [`Error::Meddled`] where the file does not end as this process left it; else the library's, and the next try may do.
    pub fn append(&mut self, entries: &[Arc<Entry>], bottle: Option<&str>) -> Result<(), Error> {
        self.stay_in_place()?;
        let appended = append(
            &mut self.connection,
            &mut self.kinds,
            self.last,
            entries,
            bottle,
        );
        match appended {
            Ok(Some(last)) => {
                self.last = last;
                Ok(())
            }
            Ok(None) => Err(Error::Meddled(self.path.clone())),
            Err(source) => Err(failed(&self.path, source)),
        }
    }

    /// Begins the next file where this one is full or old. Whoever reads it meanwhile keeps it as it is: then it is tried again
    /// later.
    ///
    /// # Errors
    ///
    /// The system's and the library's. The file is written as before.
    pub fn rotate(&mut self, now: SystemTime) -> Result<Rotated, Error> {
        if !self.is_due(now)? {
            return Ok(Rotated::NotDue);
        }
        // Out of the mode in which readers and writers share a log beside the file; it is left by the last one only.
        _ = self.connection.busy_timeout(Duration::ZERO);
        let mode: rusqlite::Result<String> =
            self.connection
                .query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0));
        _ = self.connection.busy_timeout(PATIENCE);
        match mode {
            Ok(mode) if mode == "delete" => self.next_file(now).map(|()| Rotated::Begun),
            _ => Ok(Rotated::Held),
        }
    }

    /// What fingerprints of credentials are made with.
    pub fn salt(&self) -> Salt {
        self.salt
    }

    fn begin(path: &Path, limits: Limits, after: Option<(Salt, Last)>) -> Result<Self, Error> {
        let turn = take_turn(path)?;
        let open = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(PATIENCE)?;
            Ok(connection)
        };
        let fail = |source| failed(path, source);
        let mut connection = open().map_err(fail)?;
        let is_new = recognise(&connection, path)?;
        if is_new {
            let (salt, last) = match after {
                Some(after) => after,
                None => (new_salt(path)?, Last::default()),
            };
            create(&mut connection, salt, last).map_err(fail)?;
        }
        let read = prepare(&connection).and_then(|()| ending(&connection));
        let (salt, last, first) = read.map_err(fail)?;
        Ok(Self {
            connection,
            turn,
            path: path.to_owned(),
            limits,
            kinds: Kinds::default(),
            salt,
            last,
            begun: first.unwrap_or_else(SystemTime::now),
        })
    }

    /// Begins another file where this one was taken away: what is written into one without a name is lost. The chain goes on
    /// in it, and tells that there was one before.
    fn stay_in_place(&mut self) -> Result<(), Error> {
        use std::os::unix::fs::MetadataExt as _;
        let of = |source| not_to_be_had(&self.path, source);
        let own = self.turn.metadata().map_err(of)?;
        let is_there = fs::metadata(&self.path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino()));
        // Since it was made it had its tables, whatever else waits beside it. SQLite does not look at its head again.
        if is_there && !is_ours(&self.turn).map_err(of)? {
            return Err(Error::Meddled(self.path.clone()));
        }
        if !is_there {
            let after = Some((self.salt, self.last));
            let (path, limits) = (self.path.clone(), self.limits);
            *self = Self::begin(&path, limits, after)?;
            let row = self.last.number;
            tracing::error!(
                row,
                "the audit file was taken away: another one begins after this row"
            );
        }
        Ok(())
    }

    fn is_due(&self, now: SystemTime) -> Result<bool, Error> {
        let of = |source| not_to_be_had(&self.path, source);
        // What is written waits beside the file until SQLite takes it over.
        let waiting = fs::metadata(beside(&self.path)).map_or(0, |file| file.len());
        let size = fs::metadata(&self.path).map_err(of)?.len() + waiting;
        let age = now.duration_since(self.begun).unwrap_or_default();
        Ok(size >= self.limits.size || age >= self.limits.age)
    }

    /// Moves the file away under the number of its last row, and begins another one of its name.
    fn next_file(&mut self, now: SystemTime) -> Result<(), Error> {
        let path = self.path.clone();
        let of = |source| not_to_be_had(&path, source);
        let earlier = earlier_name(&self.path, self.last.number);
        fs::rename(&self.path, &earlier).map_err(of)?;
        let after = Some((self.salt, self.last));
        match Self::begin(&self.path, self.limits, after) {
            Ok(next) => *self = Self { begun: now, ..next },
            Err(error) => {
                // It goes on as it was. Nothing is lost but the order of names.
                _ = fs::rename(&earlier, &self.path);
                _ = prepare(&self.connection);
                return Err(error);
            }
        }
        let mut files = earlier_files(&self.path).map_err(of)?;
        files.sort();
        let surplus = files.len().saturating_sub(self.limits.kept);
        for (_, file) in files.into_iter().take(surplus) {
            fs::remove_file(file).map_err(of)?;
        }
        Ok(())
    }
}

/// How a file of SQLite begins (SQLite, "Database File Format", section 1.3).
pub const MAGIC: &[u8] = b"SQLite format 3\0";

/// Whether a file begins as an audit file does.
fn is_ours(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let mut head = [0; 100];
    let read = file.read_at(&mut head, 0)?;
    Ok(read == head.len() && head.starts_with(MAGIC) && head[68..72] == APPLICATION.to_be_bytes())
}

/// How long a lock of another connection is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes the file for its owner alone, and takes the lock that each writer holds as long as it lives.
fn take_turn(path: &Path) -> Result<File, Error> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let of = |source| not_to_be_had(path, source);
    let mut options = File::options();
    options.read(true).write(true).create(true).mode(0o600);
    let file = options.open(path).map_err(of)?;
    // SQLite's own locks are of another kind (fcntl(2)) and last no longer than what they are for.
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Taken(path.to_owned())),
        Err(error) => Err(of(error.into())),
    }
}

fn new_salt(path: &Path) -> Result<Salt, Error> {
    let mut salt = Salt([0; 32]);
    aws_lc_rs::rand::fill(&mut salt.0)
        .map_err(|_| not_to_be_had(path, io::Error::other("no random numbers")))?;
    Ok(salt)
}

/// `egress.db` up to row 1234 becomes `egress.1234.db`.
fn earlier_name(path: &Path, number: i64) -> PathBuf {
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy());
    match extension {
        Some(extension) => path.with_extension(format!("{number}.{extension}")),
        None => path.with_extension(number.to_string()),
    }
}

/// The earlier files of a name, with the number of the last row of each.
pub fn earlier_files(path: &Path) -> io::Result<Vec<(i64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory_of(path))? {
        let file = entry?.path();
        let stem = match path.extension() {
            Some(extension) if file.extension() == Some(extension) => file.with_extension(""),
            Some(_) => continue,
            None => file.clone(),
        };
        let number = stem
            .extension()
            .and_then(|number| number.to_str()?.parse().ok());
        if let Some(number) =
            number.filter(|number| earlier_name(path, *number).file_name() == file.file_name())
        {
            files.push((number, file));
        }
    }
    Ok(files)
}

pub(super) fn not_to_be_had(path: &Path, source: io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        source,
    }
}

pub(super) fn failed(path: &Path, source: rusqlite::Error) -> Error {
    Error::Database {
        path: path.to_owned(),
        source,
    }
}
