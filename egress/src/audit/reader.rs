//! Reading the audit file: rows by what is asked for, and whether the chain is whole.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{FromSql, ToSql, ValueRef};
use rusqlite::{Connection, OpenFlags};

use super::database::{COLUMNS, Error, Last, failed, not_to_be_had, recognise, start};
use super::row::{Link, Row};
use crate::outcome::Verdict;

/// An audit file that is read, whoever writes it meanwhile.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

/// Which rows are asked for. What is not given is not asked about.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A host by its name, with or without its port.
    pub host: Option<String>,
    /// What became of the requests.
    pub verdict: Option<Verdict>,
    /// A code.
    pub code: Option<String>,
    /// A client's address.
    pub client: Option<String>,
    /// A part of the host, the path, the query or the detail.
    pub text: Option<String>,
    /// Not before this time, in microseconds since 1970.
    pub since: Option<i64>,
    /// Before this time, in microseconds since 1970.
    pub until: Option<i64>,
    /// Rows after this number.
    pub after: Option<i64>,
    /// The latest so many; `None` for all.
    pub latest: Option<usize>,
}

/// What the chain of a file proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Where the chain was before the first row.
    pub before: Last,
    /// Its end.
    pub last: Last,
    /// Whether the link that was asked for is in it.
    pub has: bool,
}

/// Why a chain is not whole, or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// Rows are missing, or there are some that nobody wrote.
    #[error("row {expected} is missing: row {found} comes where it should be")]
    Gap {
        /// The number that should have come.
        expected: i64,
        /// The one that came.
        found: i64,
    },
    /// A row is not as it was written.
    #[error("row {0} was changed, or one before it was taken out or put in")]
    Changed(i64),
    /// What the chain begins with is gone.
    #[error("the beginning of the chain was taken out")]
    Beginning,
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] Error),
}

impl Reader {
    /// Opens a file that is there.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // SQLite says no more of a missing file than that it cannot be opened.
        if let Err(source) = std::fs::File::open(path) {
            return Err(not_to_be_had(path, source));
        }
        let open = |name: &OsStr, flags| -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(name, flags)?;
            connection.busy_timeout(PATIENCE)?;
            connection.pragma_update(None, "trusted_schema", "OFF")?;
            Ok(connection)
        };
        let shared = open(path.as_os_str(), flags).map_err(|source| failed(path, source));
        let shared = shared.and_then(|shared| Ok((recognise(&shared, path)?, shared)));
        let (is_empty, connection) = match shared {
            // What is in a directory that cannot be written, and has nothing waiting beside it, is as it is.
            Err(Error::Database { .. }) if !beside(path).exists() => {
                let flags = flags | OpenFlags::SQLITE_OPEN_URI;
                let fixed = open(&immutable(path), flags).map_err(|source| failed(path, source))?;
                (recognise(&fixed, path)?, fixed)
            }
            shared => shared?,
        };
        if is_empty {
            return Err(Error::Foreign(path.to_owned()));
        }
        Ok(Self {
            connection,
            path: path.to_owned(),
        })
    }

    /// Hands each row that is asked for to `take`, the earliest first, until it has enough of them.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn rows(
        &self,
        filter: &Filter,
        mut take: impl FnMut(&Row<'_>) -> Next,
    ) -> Result<(), Error> {
        let (conditions, values) = filter.conditions();
        let latest = match filter.latest {
            // The last ones, and then in their order.
            Some(latest) => format!(
                "SELECT * FROM (SELECT {COLUMNS} FROM requests{conditions} ORDER BY number DESC LIMIT {latest}) ORDER BY number"
            ),
            None => format!("SELECT {COLUMNS} FROM requests{conditions} ORDER BY number"),
        };
        let mut read = || -> rusqlite::Result<()> {
            let mut statement = self.connection.prepare(&latest)?;
            let values: Vec<&dyn ToSql> = values.iter().map(|value| &**value).collect();
            let mut rows = statement.query(&*values)?;
            while let Some(row) = rows.next()? {
                if take(&decoded(row)?.0) == Next::Enough {
                    break;
                }
            }
            Ok(())
        };
        read().map_err(|source| failed(&self.path, source))
    }

    /// How many rows are asked for, and there.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn count(&self, filter: &Filter) -> Result<usize, Error> {
        let (conditions, values) = filter.conditions();
        let query = format!("SELECT count(*) FROM requests{conditions}");
        let values: Vec<&dyn ToSql> = values.iter().map(|value| &**value).collect();
        let count = self
            .connection
            .query_row(&query, &*values, |row| row.get::<_, u32>(0))
            .map_err(|source| failed(&self.path, source))?;
        Ok(count as usize)
    }

    /// Follows the chain from one end to the other. `link` is one that was noted before, and should be in it.
    ///
    /// # Errors
    ///
    /// [`Unproven`], with the first row that is not as it was written.
    pub fn verify(&self, link: Option<Link>) -> Result<Verified, Unproven> {
        let fail = |source| Unproven::File(failed(&self.path, source));
        let (_, before) = match start(&self.connection) {
            // It is written in one step with the tables.
            Err(rusqlite::Error::QueryReturnedNoRows) => return Err(Unproven::Beginning),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown) => {
                return Err(Unproven::Beginning);
            }
            read => read.map_err(fail)?,
        };
        let mut last = before;
        let mut has = link.is_none_or(|link| link == before.link);
        let query = format!("SELECT {COLUMNS} FROM requests ORDER BY number");
        let mut statement = self.connection.prepare(&query).map_err(fail)?;
        let mut rows = statement.query([]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let (row, kept) = decoded(row).map_err(fail)?;
            if row.number != last.number + 1 {
                return Err(Unproven::Gap {
                    expected: last.number + 1,
                    found: row.number,
                });
            }
            let made = row.link(&last.link);
            if made != kept {
                return Err(Unproven::Changed(row.number));
            }
            has |= link == Some(made);
            last = Last {
                number: row.number,
                link: made,
            };
        }
        Ok(Verified { before, last, has })
    }
}

/// Whether more rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next one, please.
    More,
    /// No more.
    Enough,
}

/// Where rows wait until SQLite takes them over.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// The file as one that nobody changes (SQLite, "Uniform Resource Identifiers").
fn immutable(path: &Path) -> OsString {
    let mut uri = OsString::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(OsStr::from_bytes(&[*byte]));
            }
            other => uri.push(format!("%{other:02x}")),
        }
    }
    uri.push("?immutable=1");
    uri
}

/// How long a lock of the writer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

impl Filter {
    /// What follows FROM, and the values in it.
    fn conditions(&self) -> (String, Vec<Box<dyn ToSql>>) {
        let mut all: Vec<&str> = Vec::new();
        let mut values: Vec<Box<dyn ToSql>> = Vec::new();
        if let Some(host) = self.host.as_ref().map(|host| host.to_ascii_lowercase()) {
            match host.contains(':') {
                true => {
                    all.push("host = ?");
                    values.push(Box::new(host.clone()));
                }
                // A range, which the index has: what begins with the name and a colon, the character before `;`.
                false => {
                    all.push("host >= ? AND host < ?");
                    values.push(Box::new(format!("{host}:")));
                    values.push(Box::new(format!("{host};")));
                }
            }
        }
        let equal = [
            ("verdict = ?", self.verdict.map(Verdict::as_str)),
            ("code = ?", self.code.as_deref()),
            ("client = ?", self.client.as_deref()),
        ];
        for (condition, value) in equal {
            if let Some(value) = value {
                all.push(condition);
                values.push(Box::new(value.to_owned()));
            }
        }
        if let Some(text) = &self.text {
            all.push("instr(host || ' ' || path || ' ' || ifnull(query, '') || ' ' || ifnull(detail, ''), ?) > 0");
            values.push(Box::new(text.clone()));
        }
        let bounds = [
            ("time >= ?", self.since),
            ("time < ?", self.until),
            ("number > ?", self.after),
        ];
        for (condition, bound) in bounds {
            if let Some(bound) = bound {
                all.push(condition);
                values.push(Box::new(bound));
            }
        }
        let text = match all.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", all.join(" AND ")),
        };
        (text, values)
    }
}

/// A row, and the link that is kept with it.
fn decoded<'r>(row: &'r rusqlite::Row<'_>) -> rusqlite::Result<(Row<'r>, Link)> {
    let mut columns = Columns(row, 0);
    let decoded = Row {
        number: columns.value()?,
        time: columns.value()?,
        client: columns.text()?,
        bottle: columns.some_text()?,
        method: columns.text()?,
        scheme: columns.some_text()?,
        host: columns.text()?,
        path: columns.text()?,
        query: columns.some_text()?,
        route: columns.value()?,
        verdict: columns.text()?,
        code: columns.text()?,
        slot: columns.some_text()?,
        credential: columns.some_text()?,
        status: columns.value()?,
        bytes_up: columns.value()?,
        bytes_down: columns.value()?,
        head_us: columns.value()?,
        total_us: columns.value()?,
        upstream: columns.some_text()?,
        id: columns.some_text()?,
        detail: columns.some_text()?,
    };
    Ok((decoded, Link(columns.value()?)))
}

/// The columns of a row, one after the other.
struct Columns<'r, 's>(&'r rusqlite::Row<'s>, usize);

impl<'r> Columns<'r, '_> {
    fn value<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        self.1 += 1;
        self.0.get(self.1 - 1)
    }

    fn text(&mut self) -> rusqlite::Result<Cow<'r, str>> {
        Ok(self.some_text()?.unwrap_or_default())
    }

    fn some_text(&mut self) -> rusqlite::Result<Option<Cow<'r, str>>> {
        self.1 += 1;
        match self.0.get_ref(self.1 - 1)? {
            ValueRef::Null => Ok(None),
            value => Ok(Some(value.as_str()?.into())),
        }
    }
}
