//! Reading the audit file: rows by what is asked for, and whether the chain is whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{FromSql, ToSql, ValueRef};
use rusqlite::{Connection, OpenFlags, Statement, params_from_iter};

use super::append::SPAN;
use super::database::{Error, failed, not_to_be_had};
use super::id::RequestId;
use super::row::{Last, Link, Row};
use super::schema::{COLUMNS, recognise, start};
use crate::file::uri_path;
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
    /// The one of a refusal.
    pub id: Option<RequestId>,
    /// Rows after this number.
    pub after: Option<i64>,
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
    /// A row is as it was written, and is not found by what it asks for.
    #[error("row {0} is hidden: the index does not name it")]
    Hidden(i64),
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
        let found = std::fs::File::open(path).and_then(|file| file.metadata());
        if !found
            .map_err(|source| not_to_be_had(path, source))?
            .is_file()
        {
            return Err(Error::Foreign(path.to_owned()));
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

    /// The number of the row that this file goes on from: its first one is the next.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn begins_after(&self) -> Result<i64, Error> {
        let before = start(&self.connection);
        let (_, before) = before.map_err(|source| failed(&self.path, source))?;
        Ok(before.number)
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
        let mut read = || -> rusqlite::Result<()> {
            let mut search = Search::prepare(&self.connection, filter, COLUMNS, Order::Earliest)?;
            for stretch in std::mem::take(&mut search.stretches) {
                let mut rows = search.within(stretch)?;
                while let Some(row) = rows.next()? {
                    if take(&decoded(row)?.0) == Next::Enough {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        read().map_err(|source| failed(&self.path, source))
    }

    /// The latest rows that are asked for: how many there are, up to `most`, and the number of the first of them.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn latest(&self, filter: &Filter, most: usize) -> Result<(usize, Option<i64>), Error> {
        let read = || -> rusqlite::Result<(usize, Option<i64>)> {
            let mut found = (0, None);
            let mut search = Search::prepare(&self.connection, filter, "number", Order::Latest)?;
            for stretch in std::mem::take(&mut search.stretches).into_iter().rev() {
                let mut rows = search.within(stretch)?;
                while found.0 < most
                    && let Some(row) = rows.next()?
                {
                    found = (found.0 + 1, Some(row.get(0)?));
                }
            }
            Ok(found)
        };
        read().map_err(|source| failed(&self.path, source))
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
        let mut spans = self.connection.prepare(SPAN_AT).map_err(fail)?;
        let (mut named, mut end) = (Vec::new(), last.number);
        let mut hashes = HashMap::new();
        let query =
            format!("SELECT {COLUMNS} FROM rows CROSS JOIN kinds USING (kind) ORDER BY number");
        let mut statement = self.connection.prepare(&query).map_err(fail)?;
        let mut rows = statement.query([]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let (row, kept, kind) = decoded(row).map_err(fail)?;
            if row.number != last.number + 1 {
                return Err(Unproven::Gap {
                    expected: last.number + 1,
                    found: row.number,
                });
            }
            if row.number > end {
                (named, end) = span(&mut spans, row.number).map_err(fail)?;
            }
            if hashes.len() >= HASHES {
                hashes.clear();
            }
            let hash = hashes.entry(kind).or_insert_with(|| row.kind_hash());
            let made = row.own().link(&last.link, hash);
            if made != kept {
                return Err(Unproven::Changed(row.number));
            }
            if named.binary_search(&kind).is_err() {
                return Err(Unproven::Hidden(row.number));
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
    format!("file:{}?immutable=1", uri_path(path)).into()
}

/// How long a lock of the writer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Hashes of kinds that are remembered at once.
const HASHES: usize = 65_536;

/// The kinds that a stretch has, by its first row.
const SPAN_AT: &str = "SELECT kind, last FROM spans WHERE first = ? ORDER BY kind";

/// The kinds of a stretch, and where it ends. There are none where they do not all say the same of its end.
fn span(statement: &mut Statement<'_>, first: i64) -> rusqlite::Result<(Vec<i64>, i64)> {
    let found = statement.query_map([first], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found = found.collect::<rusqlite::Result<Vec<(i64, i64)>>>()?;
    let end = found.first().map_or(first, |(_, last)| *last);
    let is_one = end >= first && found.iter().all(|(_, last)| *last == end);
    let named = found.into_iter().map(|(kind, _)| kind);
    Ok((named.filter(|_| is_one).collect(), end.max(first)))
}

/// Rows one after the other, the first and the last of them included.
type Stretch = (i64, i64);

/// A condition, and the values in it.
type Condition = (String, Vec<Box<dyn ToSql>>);

/// A search for rows, made ready once for all stretches in which there are some of the kinds that are asked for.
struct Search<'c> {
    statement: Statement<'c>,
    stretches: Vec<Stretch>,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Earliest,
    Latest,
}

impl<'c> Search<'c> {
    fn prepare(
        connection: &'c Connection,
        filter: &Filter,
        columns: &str,
        order: Order,
    ) -> rusqlite::Result<Self> {
        let kinds = kinds(connection, filter)?;
        let stretches = stretches(connection, filter, kinds.as_ref())?;
        let order = match order {
            Order::Earliest => "ORDER BY number",
            Order::Latest => "ORDER BY number DESC",
        };
        let (mut conditions, mut values) = (String::new(), Vec::new());
        for (condition, more) in kinds.into_iter().chain(filter.of_row()) {
            conditions.push_str(" AND ");
            conditions.push_str(&condition);
            values.extend(more);
        }
        // The stretch is bound for each anew.
        let text = format!(
            "SELECT {columns} FROM rows CROSS JOIN kinds USING (kind) WHERE number BETWEEN ? AND ?{conditions} {order}"
        );
        let mut statement = connection.prepare(&text)?;
        for (place, value) in values.iter().enumerate() {
            statement.raw_bind_parameter(place + 3, value)?;
        }
        Ok(Self {
            statement,
            stretches,
        })
    }

    fn within(&mut self, stretch: Stretch) -> rusqlite::Result<rusqlite::Rows<'_>> {
        self.statement.raw_bind_parameter(1, stretch.0)?;
        self.statement.raw_bind_parameter(2, stretch.1)?;
        Ok(self.statement.raw_query())
    }
}

/// Which kinds are asked for, where not all are.
fn kinds(connection: &Connection, filter: &Filter) -> rusqlite::Result<Option<Condition>> {
    // As numbers in the text, so many are compared sooner than they are looked up.
    const FEW: usize = 64;
    let Some((conditions, values)) = filter.of_kind() else {
        return Ok(None);
    };
    let query = format!("SELECT kind FROM kinds WHERE {conditions}");
    let mut statement = connection.prepare(&format!("{query} LIMIT {}", FEW + 1))?;
    let found = statement.query_map(params_from_iter(&values), |row| row.get::<_, i64>(0))?;
    let found = found
        .map(|kind| kind.map(|kind| kind.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some(match found.len() <= FEW {
        true => (format!("kind IN ({})", found.join(", ")), Vec::new()),
        false => (format!("kind IN ({query})"), values),
    }))
}

/// The stretches that have rows of the kinds, and some others; or all.
fn stretches(
    connection: &Connection,
    filter: &Filter,
    kinds: Option<&Condition>,
) -> rusqlite::Result<Vec<Stretch>> {
    // Rows between two stretches that are rather read than left out.
    const CLOSE: i64 = 64;
    let after = filter.after.unwrap_or(0);
    let Some((condition, values)) = kinds else {
        return Ok(vec![(after + 1, i64::MAX)]);
    };
    let query = format!(
        "SELECT DISTINCT first, last FROM spans
         WHERE first > {after} - {SPAN} AND last > {after} AND {condition} ORDER BY first"
    );
    let mut statement = connection.prepare(&query)?;
    let found = statement.query_map(params_from_iter(values), |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    let mut all: Vec<Stretch> = Vec::new();
    for stretch in found {
        let (first, last): Stretch = stretch?;
        match all.last_mut() {
            Some((_, end)) if first - *end <= CLOSE => *end = last,
            _ => all.push((first.max(after + 1), last)),
        }
    }
    Ok(all)
}

impl Filter {
    /// What is asked of a kind, if anything.
    fn of_kind(&self) -> Option<Condition> {
        let mut all: Vec<&str> = Vec::new();
        let mut values: Vec<Box<dyn ToSql>> = Vec::new();
        if let Some(host) = self.host.as_ref().map(|host| host.to_ascii_lowercase()) {
            match host.contains(':') {
                true => {
                    all.push("host = ?");
                    values.push(Box::new(host));
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
        (!all.is_empty()).then(|| (all.join(" AND "), values))
    }

    /// What is asked of a row itself, but for its number.
    fn of_row(&self) -> Vec<Condition> {
        const TEXT: &str = "instr(lower(host || ' ' || path || ' ' || ifnull(query, '') || ' ' || ifnull(detail, '')), lower(?)) > 0";
        let mut all = Vec::new();
        let mut ask = |condition: &str, value: Option<Box<dyn ToSql>>| {
            all.extend(value.map(|value| (condition.to_owned(), vec![value])));
        };
        ask(TEXT, self.text.clone().map(|text| Box::new(text) as _));
        ask("id = ?", self.id.map(|id| Box::new(id.to_string()) as _));
        ask("time >= ?", self.since.map(|bound| Box::new(bound) as _));
        ask("time < ?", self.until.map(|bound| Box::new(bound) as _));
        all
    }
}

/// A row, the link that is kept with it, and its kind.
fn decoded<'r>(row: &'r rusqlite::Row<'_>) -> rusqlite::Result<(Row<'r>, Link, i64)> {
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
    Ok((decoded, Link(columns.value()?), columns.value()?))
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
