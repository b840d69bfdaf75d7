//! Requests that a sidecar recorded, read from an audit file, from JSON lines or from a running sidecar, equal ones counted
//! together.
//!
//! A record holds no query. Who decides about one again says so where a query could make a difference.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use anyhow::anyhow;
use http::Method;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Failure, audit};
use crate::audit::id::RequestId;
use crate::audit::object;
use crate::file::open_regular;
use crate::outcome::Verdict;
use crate::route::target::{self, InvalidTarget, Origin, Scheme, Target};
use crate::route::{Line, observation};

/// Requests that were recorded alike.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    /// What they asked for, and what became of them.
    pub(super) request: Request,
    /// How many there were, and when.
    pub(super) seen: Seen,
}

/// How often something was recorded, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many times.
    pub(super) count: u64,
    /// The first time.
    pub(super) first: OffsetDateTime,
    /// The last time.
    pub(super) last: OffsetDateTime,
}

impl Seen {
    /// Adds what else was recorded.
    pub(super) fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }

    /// Both together, where there was something before.
    pub(super) fn and(self, before: Option<Self>) -> Self {
        let mut both = self;
        if let Some(before) = before {
            both.add(before);
        }
        both
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (
            object::rfc3339(self.first.into()),
            object::rfc3339(self.last.into()),
        );
        match self.count {
            1 => write!(f, "once, at {last}"),
            2 => write!(f, "twice, last at {last}"),
            count if first == last => write!(f, "{count} times, at {last}"),
            count => write!(f, "{count} times, from {first} to {last}"),
        }
    }
}

/// What a record says, but for the time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    /// The method; `-` where none could be read.
    pub(super) method: String,
    /// `http` or `https`.
    pub(super) scheme: Scheme,
    /// `host:port`, a name alone for a lookup, or nothing where the request named none.
    pub(super) host: String,
    /// The path without its query; nothing for a tunnel.
    pub(super) path: String,
    /// What kind of request it was.
    pub(super) kind: Kind,
    /// What became of it.
    pub(super) verdict: Verdict,
    /// The record's code.
    pub(super) code: String,
    /// The line of the route that decided.
    pub(super) route: Option<Line>,
    /// The slot that was injected.
    pub(super) slot: Option<String>,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// An ordinary exchange.
    Http,
    /// A WebSocket handshake.
    WebSocket,
    /// The opening of a tunnel, or a name that was looked up to open one.
    Connect,
}

/// What a record asks a policy about.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// A tunnel to an origin.
    Tunnel(Origin),
    /// A request, as far as it was recorded.
    Request(Target),
}

impl Request {
    /// Whether no route admitted it, and an observation let it through.
    pub(super) fn is_observed(&self) -> bool {
        self.verdict == Verdict::Allowed && self.code == observation::CODE
    }

    /// What was asked for, in the form that is decided on.
    ///
    /// # Errors
    ///
    /// [`InvalidTarget`], where the record names no origin, no method or no path.
    pub(super) fn asked(&self) -> Result<Asked, InvalidTarget> {
        let origin = Origin::parse(self.scheme, &self.host)?;
        let kind = match self.kind {
            Kind::Connect => return Ok(Asked::Tunnel(origin)),
            Kind::WebSocket => target::Kind::WebSocket,
            Kind::Http => target::Kind::Exchange,
        };
        let method = Method::from_bytes(self.method.as_bytes()).map_err(|_| InvalidTarget::Form)?;
        Target::new(origin, method, &self.path, kind).map(Asked::Request)
    }
}

/// Reads an audit file, or one of JSON lines; `-` is standard input.
///
/// # Errors
///
/// A usage [`Failure`] for a file that cannot be read, and for the first line that is no record.
pub(super) fn read(path: &Path) -> Result<Vec<Recorded>, Failure> {
    match path == Path::new("-") {
        true => read_lines("standard input", io::stdin().lock()),
        false => {
            let name = path.display().to_string();
            let file = open_regular(path).map_err(|error| unreadable(&name, error))?;
            let mut file = BufReader::new(file);
            let begin = file.fill_buf().map_err(|error| unreadable(&name, error))?;
            if begin.starts_with(DATABASE) {
                return read_database(path);
            }
            read_lines(&name, file)
        }
    }
}

/// How a file of SQLite begins (SQLite, "Database File Format", section 1.3).
const DATABASE: &[u8] = b"SQLite format 3\0";

fn read_database(path: &Path) -> Result<Vec<Recorded>, Failure> {
    let mut all = Collection::default();
    let mut foreign = None;
    audit::each(path, |row| match record(&row) {
        Ok((time, count, request)) => all.add(time, count, request),
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
        let (time, count, request) = record.map_err(|problem| {
            Failure::usage(anyhow!("{name}:{number}: this line is no record: {problem}"))
                .hint("one JSON object a line, with `time`, `method`, `host`, `path`, `verdict` and `code`")
        })?;
        all.add(time, count, request);
    }
    Ok(all.list)
}

/// The refusals of a running sidecar, from its answer to `GET /status`.
///
/// # Errors
///
/// A runtime [`Failure`] for one that has another form.
pub(super) fn denials(status: &Value) -> Result<Vec<Recorded>, Failure> {
    let denials = status.get("denials").and_then(Value::as_array);
    let mut all = Collection::default();
    for denial in denials.into_iter().flatten() {
        let (time, count, request) = record(&refused(denial)).map_err(|problem| {
            Failure::runtime(anyhow!("a denial of /status is no record: {problem}"))
        })?;
        all.add(time, count, request);
    }
    Ok(all.list)
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
    let request = found.map(|row| record(&row).map(|(_, _, request)| request));
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

/// A refusal of a running sidecar as a record.
fn refused(denial: &Value) -> Value {
    let mut denial = denial.clone();
    if let Value::Object(denial) = &mut denial {
        denial.insert("verdict".into(), "denied".into());
    }
    denial
}

/// A single record.
///
/// # Errors
///
/// What keeps the value from being one.
pub(super) fn one(value: &Value) -> Result<Recorded, String> {
    let mut all = Collection::default();
    let (time, count, request) = record(value)?;
    all.add(time, count, request);
    all.list.pop().ok_or_else(|| "it is empty".to_owned())
}

/// Records in the order in which each was first read.
#[derive(Default)]
struct Collection {
    list: Vec<Recorded>,
    places: HashMap<Request, usize>,
}

impl Collection {
    fn add(&mut self, time: OffsetDateTime, count: u64, request: Request) {
        let seen = Seen {
            count,
            first: time,
            last: time,
        };
        let known = self.places.get(&request).copied();
        if let Some(known) = known.and_then(|place| self.list.get_mut(place)) {
            known.seen.add(seen);
            return;
        }
        self.places.insert(request.clone(), self.list.len());
        self.list.push(Recorded { request, seen });
    }
}

fn record(value: &Value) -> Result<(OffsetDateTime, u64, Request), String> {
    let optional = |name: &str| value.get(name).filter(|value| !value.is_null());
    let text = |name: &str| {
        let text = optional(name).and_then(Value::as_str);
        text.ok_or_else(|| format!("it has no text `{name}`"))
    };
    let word = |name: &str| format!("its `{name}` is none that is known");
    let time = OffsetDateTime::parse(text("time")?, &Rfc3339)
        .map_err(|_| "its `time` is not in the form of RFC 3339".to_owned())?;
    let (method, host, code) = (text("method")?, text("host")?, text("code")?);
    let is_switched = optional("status").and_then(Value::as_u64) == Some(101);
    let kind = match optional("kind").map(Value::as_str) {
        Some(Some("http")) => Kind::Http,
        Some(Some("websocket")) => Kind::WebSocket,
        Some(Some("connect")) => Kind::Connect,
        Some(_) => return Err(word("kind")),
        None if matches!(method, "CONNECT" | "DNS") => Kind::Connect,
        None if matches!(code, "websocket" | "websocket_not_allowed") => Kind::WebSocket,
        None if code == observation::CODE && is_switched => Kind::WebSocket,
        None => Kind::Http,
    };
    let scheme = match optional("scheme").map(Value::as_str) {
        Some(Some("https")) => Scheme::Https,
        Some(Some("http")) => Scheme::Http,
        Some(_) => return Err(word("scheme")),
        // A record of a running sidecar does not say. In a tunnel nearly everything is TLS.
        None if kind != Kind::Connect && host.ends_with(":80") => Scheme::Http,
        None => Scheme::Https,
    };
    let verdict = Verdict::named(text("verdict")?).ok_or_else(|| word("verdict"))?;
    let route =
        optional("route").map(|line| line.as_u64().and_then(|line| Line::try_from(line).ok()));
    let request = Request {
        method: method.into(),
        scheme,
        host: host.into(),
        path: optional("path")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .into(),
        kind,
        verdict,
        code: code.into(),
        route: route
            .map(|line| line.ok_or_else(|| word("route")))
            .transpose()?,
        slot: optional("slot").and_then(Value::as_str).map(str::to_owned),
    };
    let count = optional("count").map_or(Some(1), Value::as_u64);
    let count = count.ok_or_else(|| "its `count` is no number".to_owned())?;
    Ok((time, count, request))
}

fn unreadable(name: &str, error: io::Error) -> Failure {
    Failure::usage(anyhow!(error).context(format!("cannot read {name}")))
        .hint("name an audit file, one of JSON lines, or `-` for standard input")
}
