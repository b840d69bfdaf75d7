//! Requests that a sidecar recorded, equal ones counted together.
//!
//! A record holds no query. Who decides about one again says so where a query could make a difference.

use std::collections::HashMap;
use std::fmt;

use http::Method;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::audit::object;
use crate::outcome::Verdict;
use crate::route::target::{self, InvalidTarget, Origin, Scheme, Target};
use crate::route::{Line, observation};

/// Requests that were recorded alike.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// What they asked for, and what became of them.
    pub(crate) request: Request,
    /// How many there were, and when.
    pub(crate) seen: Seen,
}

/// How often something was recorded, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How many times.
    pub(crate) count: u64,
    /// The first time.
    pub(crate) first: OffsetDateTime,
    /// The last time.
    pub(crate) last: OffsetDateTime,
}

impl Seen {
    /// Adds what else was recorded.
    pub(crate) fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }

    /// Both together, where there was something before.
    pub(crate) fn and(self, before: Option<Self>) -> Self {
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
pub(crate) struct Request {
    /// The method; `-` where none could be read.
    pub(crate) method: String,
    /// `http` or `https`.
    pub(crate) scheme: Scheme,
    /// `host:port`, a name alone for a lookup, or nothing where the request named none.
    pub(crate) host: String,
    /// The path without its query; nothing for a tunnel.
    pub(crate) path: String,
    /// What kind of request it was.
    pub(crate) kind: Kind,
    /// What became of it.
    pub(crate) verdict: Verdict,
    /// The record's code.
    pub(crate) code: String,
    /// The line of the route that decided.
    pub(crate) route: Option<Line>,
    /// The slot that was injected.
    pub(crate) slot: Option<String>,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// An ordinary exchange.
    Http,
    /// A WebSocket handshake.
    WebSocket,
    /// The opening of a tunnel, or a name that was looked up to open one.
    Connect,
}

/// What a record asks a policy about.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// A tunnel to an origin.
    Tunnel(Origin),
    /// A request, as far as it was recorded.
    Request(Target),
}

impl Request {
    /// Whether no route admitted it, and an observation let it through.
    pub(crate) fn is_observed(&self) -> bool {
        self.verdict == Verdict::Allowed && self.code == observation::CODE
    }

    /// What was asked for, in the form that is decided on.
    ///
    /// # Errors
    ///
    /// [`InvalidTarget`], where the record names no origin, no method or no path.
    pub(crate) fn asked(&self) -> Result<Asked, InvalidTarget> {
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

/// The refusals of a running sidecar, from its answer to `GET /status`.
///
/// # Errors
///
/// What is wrong with the first one of another form.
pub(crate) fn denials(status: &Value) -> Result<Vec<Recorded>, String> {
    let denials = status.get("denials").and_then(Value::as_array);
    let mut all = Collection::default();
    for denial in denials.into_iter().flatten() {
        all.add(record(&refused(denial))?);
    }
    Ok(all.list)
}

/// A refusal of a running sidecar as a record.
pub(crate) fn refused(denial: &Value) -> Value {
    let mut denial = denial.clone();
    if let Value::Object(denial) = &mut denial {
        denial.insert("verdict".into(), "denied".into());
    }
    denial
}

/// Records in the order in which each was first read.
#[derive(Default)]
pub(crate) struct Collection {
    /// Each with how often it was recorded.
    pub(crate) list: Vec<Recorded>,
    places: HashMap<Request, usize>,
}

impl Collection {
    /// Adds one.
    pub(crate) fn add(&mut self, Recorded { request, seen }: Recorded) {
        let known = self.places.get(&request).copied();
        if let Some(known) = known.and_then(|place| self.list.get_mut(place)) {
            known.seen.add(seen);
            return;
        }
        self.places.insert(request.clone(), self.list.len());
        self.list.push(Recorded { request, seen });
    }
}

/// A record in the form of an audit file's row, or what is wrong with it.
pub(crate) fn record(value: &Value) -> Result<Recorded, String> {
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
    let (first, last) = (time, time);
    let seen = Seen { count, first, last };
    Ok(Recorded { request, seen })
}
