//! The tables of the audit file, and what is kept of the file itself.
//!
//! Most requests are like others but for their path, their sizes and their times. What is alike is a row of `kinds`, which is
//! written once, so that a row of `rows` is short. The view `requests` has both together. Nothing is indexed row by row:
//! `spans` says which kinds are in a stretch of rows, a stretch being what was written together, and each table only grows at
//! its end.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::database::{Error, failed};
use super::row::{Last, Link};
use crate::credential::Salt;

/// `PRAGMA application_id` (SQLite, "Magic Numbers"): EGRS.
pub(super) const APPLICATION: i32 = 0x4547_5253;
/// `PRAGMA user_version`.
pub(super) const VERSION: i32 = 2;

const SCHEMA: &str = "
    CREATE TABLE file (salt BLOB NOT NULL, number INTEGER NOT NULL, link BLOB NOT NULL) STRICT;
    CREATE TABLE kinds (
        kind INTEGER PRIMARY KEY, client TEXT NOT NULL, bottle TEXT, method TEXT NOT NULL, scheme TEXT, host TEXT NOT NULL,
        route INTEGER, verdict TEXT NOT NULL, code TEXT NOT NULL, slot TEXT, credential TEXT, status INTEGER NOT NULL, upstream TEXT
    ) STRICT;
    CREATE INDEX kinds_host ON kinds (host);
    CREATE TABLE rows (
        number INTEGER PRIMARY KEY, kind INTEGER NOT NULL, time INTEGER NOT NULL, path TEXT NOT NULL, query TEXT,
        bytes_up INTEGER NOT NULL, bytes_down INTEGER NOT NULL, head_us INTEGER, total_us INTEGER NOT NULL,
        id TEXT, detail TEXT, link BLOB NOT NULL
    ) STRICT;
    CREATE TABLE spans (
        first INTEGER NOT NULL, kind INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (first, kind)
    ) STRICT, WITHOUT ROWID;
    CREATE VIEW requests AS
        SELECT number, time, client, bottle, method, scheme, host, path, query, route, verdict, code, slot, credential, status,
               bytes_up, bytes_down, head_us, total_us, upstream, id, detail, link
        FROM rows CROSS JOIN kinds USING (kind);
";

/// The columns of the view in the order of [`Row`](super::row::Row), and the kind.
pub(super) const COLUMNS: &str = "number, time, client, bottle, method, scheme, host, path, query, route, verdict, code, slot, \
                                  credential, status, bytes_up, bytes_down, head_us, total_us, upstream, id, detail, link, kind";

/// Makes the tables, in one step: a file is empty, or whole.
pub(super) fn create(connection: &mut Connection, salt: Salt, last: Last) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    let values = params![salt.0, last.number, last.link.0];
    transaction.execute("INSERT INTO file VALUES (?1, ?2, ?3)", values)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Whether the file is empty. One of another kind, or of a later version, is refused.
pub(super) fn recognise(connection: &Connection, path: &Path) -> Result<bool, Error> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let read = || -> rusqlite::Result<(i32, i32, i64)> {
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables = connection.query_row(tables, [], |row| row.get(0))?;
        Ok((pragma("application_id")?, pragma("user_version")?, tables))
    };
    match read() {
        Ok((APPLICATION, VERSION, _)) => Ok(false),
        Ok((APPLICATION, version, _)) => Err(Error::OtherVersion {
            path: path.to_owned(),
            version,
        }),
        Ok((_, _, 0)) => Ok(true),
        Ok(_) => Err(Error::Foreign(path.to_owned())),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            Err(Error::Foreign(path.to_owned()))
        }
        Err(source) => Err(failed(path, source)),
    }
}

/// Readers do not wait for the writer, nor it for them. The last rows may be lost where the machine loses its power, and never
/// the file.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", "OFF")
}

/// The salt, the end of the chain, and when the first row was made.
pub(super) fn ending(
    connection: &Connection,
) -> rusqlite::Result<(Salt, Last, Option<SystemTime>)> {
    let (salt, _) = start(connection)?;
    let first: Option<i64> = connection
        .query_row("SELECT time FROM rows ORDER BY number LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    let first = first.and_then(|time| u64::try_from(time).ok());
    let first = first.map(|time| UNIX_EPOCH + Duration::from_micros(time));
    Ok((salt, end(connection)?, first))
}

/// Where the chain of the file ends.
pub(super) fn end(connection: &Connection) -> rusqlite::Result<Last> {
    let last = "SELECT number, link FROM rows ORDER BY number DESC LIMIT 1";
    let last = connection
        .query_row(last, [], |row| {
            Ok(Last {
                number: row.get(0)?,
                link: Link(row.get(1)?),
            })
        })
        .optional()?;
    match last {
        Some(last) => Ok(last),
        None => Ok(start(connection)?.1),
    }
}

/// The salt, and where the chain was before the file's first row.
pub(super) fn start(connection: &Connection) -> rusqlite::Result<(Salt, Last)> {
    connection.query_row("SELECT salt, number, link FROM file", [], |row| {
        let last = Last {
            number: row.get(1)?,
            link: Link(row.get(2)?),
        };
        Ok((Salt(row.get(0)?), last))
    })
}
