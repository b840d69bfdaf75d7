//! Where commands read recorded requests: an audit file, JSON lines, or a running sidecar.

use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use anyhow::anyhow;
use serde_json::Value;

use super::{Failure, audit};
use crate::advice;
use crate::advice::recorded::{Collection, Recorded, Request, record, refused};
use crate::audit::database;
use crate::audit::id::RequestId;
use crate::file::open_regular;

/// Reads an audit file, or one of JSON lines; `-` is standard input.
///
/// # Errors
///
/// A usage [`Failure`] for a file that cannot be read, and for the first line that is no record.
pub(crate) fn read(path: &Path) -> Result<Vec<Recorded>, Failure> {
    match path == Path::new("-") {
        true => read_lines("standard input", io::stdin().lock()),
        false => {
            let name = path.display().to_string();
            let file = open_regular(path).map_err(|error| unreadable(&name, error))?;
            let mut file = BufReader::new(file);
            let begin = file.fill_buf().map_err(|error| unreadable(&name, error))?;
            if begin.is_empty() {
                // Not that there was nothing to record: an audit file has its tables from the first moment on.
                return Err(unreadable(&name, io::ErrorKind::UnexpectedEof.into()));
            }
            if begin.starts_with(database::MAGIC) {
                return read_database(path);
            }
            read_lines(&name, file)
        }
    }
}

fn read_database(path: &Path) -> Result<Vec<Recorded>, Failure> {
    let mut all = Collection::default();
    let mut foreign = None;
    audit::each(path, |row| match record(&row) {
        Ok(recorded) => all.add(recorded),
        Err(problem) => foreign = foreign.take().or(Some(problem)),
    })?;
    match foreign {
        None => Ok(all.list),
        Some(problem) => Err(Failure::runtime(anyhow!(
            "{}: a row is no record: {problem}",
            path.display()
        ))),
    }
}

/// The longest line, in bytes. A record's parts are far shorter.
const LONGEST_LINE: u64 = 64 * 1024;

fn read_lines(name: &str, mut reader: impl BufRead) -> Result<Vec<Recorded>, Failure> {
    let mut all = Collection::default();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = reader
            .by_ref()
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line);
        if read.map_err(|error| unreadable(name, error))? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record = serde_json::from_slice(&line)
            .map_err(|_| "it is not one JSON object".to_owned())
            .and_then(|value| record(&value));
        let recorded = record.map_err(|problem| {
            Failure::usage(anyhow!("{name}:{number}: this line is no record: {problem}"))
                .hint("one JSON object a line, with `time`, `method`, `host`, `path`, `verdict` and `code`")
        })?;
        all.add(recorded);
    }
    Ok(all.list)
}

/// The refusals of a running sidecar, from its answer to `GET /status`.
///
/// # Errors
///
/// A runtime [`Failure`] for one that has another form.
pub(super) fn denials(status: &Value) -> Result<Vec<Recorded>, Failure> {
    advice::recorded::denials(status)
        .map_err(|problem| Failure::runtime(anyhow!("a denial of /status is no record: {problem}")))
}

/// The request that an agent was told this id of, from an audit file or from a running sidecar's answer to `GET /status`.
///
/// # Errors
///
/// A runtime [`Failure`] for a file that cannot be read, or a record of another form.
pub(super) fn named(id: RequestId, source: Source<'_>) -> Result<Option<Request>, Failure> {
    let mut found = None;
    match source {
        Source::Audit(path) => audit::named(path, id, |row| found = Some(row))?,
        Source::Status(status) => {
            let id = id.to_string();
            let denials = status.get("denials").and_then(Value::as_array);
            let mut denials = denials.into_iter().flatten();
            let is_it = |denial: &&Value| denial.get("id").and_then(Value::as_str) == Some(&id);
            found = denials.find(is_it).map(refused);
        }
    }
    let request = found.map(|row| record(&row).map(|recorded| recorded.request));
    request
        .transpose()
        .map_err(|problem| Failure::runtime(anyhow!("it is no record: {problem}")))
}

/// Where a request is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'s> {
    /// An audit file.
    Audit(&'s Path),
    /// A running sidecar's account of itself.
    Status(&'s Value),
}

fn unreadable(name: &str, error: io::Error) -> Failure {
    Failure::usage(anyhow!(error).context(format!("cannot read {name}")))
        .hint("name an audit file, one of JSON lines, or `-` for standard input")
}
