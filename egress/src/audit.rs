//! One [`Record`] per request, and what is kept of them: a log line each, counters, the latest refusals and, where it is asked
//! for, the audit file.
//!
//! A record holds no header, no body and no secret, and a query only where the operator wants it kept.

mod append;
mod counters;
pub mod database;
pub mod entry;
pub mod feed;
pub mod id;
pub mod journal;
mod kinds;
pub mod object;
pub mod reader;
pub mod row;
mod schema;

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::header::{HeaderMap, HeaderName};
use http::{Method, StatusCode, response};

pub use self::counters::{Counters, Durations, Histogram, Open, UpstreamFault, UpstreamFaults};

use self::entry::Entry;
use self::feed::Feed;
use self::id::RequestId;
use self::journal::Journal;
use crate::credential::{Lease, SlotName};
use crate::outcome::{Outcome, Verdict};
use crate::route::target::{Origin, Scheme};
use crate::route::{Permit, Route, observation};

/// How many refusals are kept for `egress status`.
const KEPT_DENIALS: usize = 64;

/// Where records go.
#[derive(Debug, Default)]
pub struct Audit {
    /// Counters since the start.
    pub counters: Counters,
    /// The latest requests.
    pub feed: Feed,
    denials: Mutex<VecDeque<Arc<Entry>>>,
    journal: OnceLock<Journal>,
}

impl Audit {
    /// Begins the record of one request.
    pub fn begin(self: &Arc<Self>, client: &Client) -> Record {
        Record {
            audit: self.clone(),
            started: Instant::now(),
            client: client.clone(),
            method: None,
            scheme: None,
            host: String::new(),
            path: String::new(),
            query: None,
            route: None,
            is_observed: false,
            credential: None,
            kind: Kind::Exchange,
            verdict: Verdict::Failed,
            code: "aborted",
            id: None,
            detail: None,
            status: 0,
            head_after: None,
            received: Arc::default(),
            sent: 0,
            masked: Arc::default(),
            upstream: None,
        }
    }

    /// Has what comes from now on written to an audit file, too. Once.
    pub fn write_to(&self, journal: Journal) {
        _ = self.journal.set(journal);
    }

    /// The audit file, where there is one.
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.get()
    }

    /// Whether requests are to be refused, because what becomes of them could not be written down.
    pub fn refuses(&self) -> bool {
        self.journal().is_some_and(Journal::refuses)
    }

    /// Counts something as open for as long as the guard lives.
    pub fn open(self: &Arc<Self>, gauge: fn(&Counters) -> &AtomicU64) -> Open {
        Open::new(self.clone(), gauge)
    }

    /// The latest refusals, newest last.
    pub fn denials(&self) -> Vec<Arc<Entry>> {
        self.denials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Logs a finished record, shows it to whoever watches, and puts it into the audit file.
    fn take(&self, entry: Entry) {
        tracing::info!(
            target: "egress::request",
            client = %entry.client,
            method = entry.method(),
            host = entry.host,
            path = entry.path,
            route = entry.route,
            slot = entry.slot.as_ref().map(SlotName::as_str),
            verdict = entry.verdict.as_str(),
            code = entry.code,
            status = entry.status,
            bytes_up = entry.received,
            bytes_down = entry.sent,
            head_ms = entry.head_after.map(milliseconds),
            total_ms = milliseconds(entry.total),
            id = entry.id.map(tracing::field::display),
            detail = entry.detail,
        );
        let entry = Arc::new(entry);
        if entry.verdict == Verdict::Denied {
            self.keep(entry.clone());
        }
        self.feed.push(entry.clone());
        if let Some(journal) = self.journal() {
            journal.push(entry);
        }
    }

    fn keep(&self, denied: Arc<Entry>) {
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        if denials.len() == KEPT_DENIALS {
            denials.pop_front();
        }
        denials.push_back(denied);
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// A peer on the network.
    Address(IpAddr),
    /// A peer on a Unix socket.
    Local,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Local => f.write_str("unix"),
        }
    }
}

/// What a request led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An answer, or a refusal.
    Exchange,
    /// A WebSocket or a tunnel.
    Connection,
}

/// The record of one request. It is written when it is dropped: after the last byte of the answer.
#[derive(Debug)]
pub struct Record {
    audit: Arc<Audit>,
    started: Instant,
    client: Client,
    method: Option<Method>,
    scheme: Option<Scheme>,
    host: String,
    path: String,
    query: Option<String>,
    route: Option<Arc<Route>>,
    is_observed: bool,
    credential: Option<Arc<str>>,
    kind: Kind,
    verdict: Verdict,
    code: &'static str,
    id: Option<RequestId>,
    detail: Option<String>,
    status: u16,
    head_after: Option<Duration>,
    received: Arc<AtomicU64>,
    sent: u64,
    masked: Arc<AtomicU64>,
    upstream: Option<SocketAddr>,
}

impl Record {
    /// Notes that a request is there, before anything of it can be trusted.
    pub fn arrived(&mut self, method: &Method) {
        self.method = Some(method.clone());
    }

    /// Notes what the request asks for. `path` is without the query.
    pub fn asks(&mut self, method: &Method, host: impl fmt::Display, path: &str) {
        self.method = Some(method.clone());
        self.host = host.to_string();
        self.path = printable(path);
    }

    /// Notes the scheme, and the query where it is kept.
    pub fn asks_by(&mut self, scheme: Scheme, query: Option<&str>) {
        self.scheme = Some(scheme);
        if self.audit.journal().is_some_and(Journal::keeps_query) {
            self.query = query.map(printable);
        }
    }

    /// Notes the host alone, for what is refused before it can be read.
    pub fn asks_host(&mut self, host: impl fmt::Display) {
        self.host = host.to_string();
    }

    /// Notes the host of the tunnel that a request came by, where nothing more of it could be read.
    pub fn asked_at_least(&mut self, origin: &Origin) {
        if self.host.is_empty() {
            self.asks_host(origin);
        }
    }

    /// Notes the route that decided, or that none did.
    pub fn permitted(&mut self, permit: &Permit) {
        match permit.is_observed() {
            true => self.is_observed = true,
            false => self.route = Some(permit.route().clone()),
        }
    }

    /// Notes that a tunnel is open by an observation alone.
    pub fn observed(&mut self) {
        self.is_observed = true;
    }

    /// Notes which credential was sent.
    pub fn sends(&mut self, lease: &Lease) {
        if let Some(journal) = self.audit.journal() {
            self.credential = Some(lease.fingerprint(journal.salt()));
        }
    }

    /// Notes the address that was spoken to.
    pub fn spoke_to(&mut self, upstream: Option<SocketAddr>) {
        self.upstream = upstream;
    }

    /// Notes the head of an upstream's answer, as it came.
    pub fn relayed(&mut self, head: &response::Parts) {
        self.allowed("ok", head.status);
        // It was seen on a 202, too. What is usual costs no search.
        if head.status != StatusCode::OK && is_challenge(&head.headers) {
            self.met(UpstreamFault::Challenge);
        }
    }

    /// Notes that the request became a connection of its own, whose life says nothing about how long an answer takes.
    pub fn handed_over(&mut self, code: &'static str, status: StatusCode) {
        self.allowed(code, status);
        self.kind = Kind::Connection;
    }

    /// Notes the head of an answer to what was let through. What was observed is told apart, whatever it was.
    fn allowed(&mut self, code: &'static str, status: StatusCode) {
        let code = if self.is_observed {
            observation::CODE
        } else {
            code
        };
        self.answered(Verdict::Allowed, code, status.as_u16());
    }

    /// Notes the answer's head.
    pub fn answered(&mut self, verdict: Verdict, code: &'static str, status: u16) {
        self.verdict = verdict;
        self.code = code;
        self.status = status;
        self.head_after = Some(self.started.elapsed());
    }

    /// Notes what the agent was told that the request is found by.
    pub fn named(&mut self, id: RequestId) {
        self.id = Some(id);
    }

    /// Adds what only the operator is told.
    pub fn detail(&mut self, detail: impl fmt::Display) {
        let detail = detail.to_string();
        self.detail = Some(told(&detail));
    }

    /// Notes that the answer did not arrive whole.
    pub fn broke_off(&mut self, fault: UpstreamFault, detail: impl fmt::Display) {
        self.verdict = Verdict::Failed;
        self.code = "upstream_broke_off";
        self.kind = Kind::Exchange;
        self.detail(detail);
        self.met(fault);
    }

    /// Counts a fault of the upstream.
    pub fn met(&self, fault: UpstreamFault) {
        self.audit.counters.upstream_faults.add(fault);
    }

    /// Notes why a long-lived connection ended, where it did not end by itself. That it was observed is not lost.
    pub fn ended(&mut self, code: &'static str, detail: impl fmt::Display) {
        if !self.is_observed {
            self.code = code;
        }
        self.detail(detail);
    }

    /// Counts bytes of the request.
    pub fn add_received(&mut self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of the answer.
    pub fn add_sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// Tells the operator which endpoint says credentials back.
    fn note_masked(&mut self) {
        let echo = match self.masked.load(Ordering::Relaxed) {
            0 => return,
            1 => "the answer repeated the credential; 1 place was masked".into(),
            places => format!("the answer repeated the credential; {places} places were masked"),
        };
        self.detail = Some(match self.detail.take() {
            Some(detail) => format!("{detail}; {echo}"),
            None => echo,
        });
    }

    /// What is known now that it is over. Its texts are taken out.
    fn entry(&mut self, total: Duration) -> Entry {
        let route = self.route.as_deref();
        let injection = route.and_then(|route| route.rule.injection.as_ref());
        Entry {
            time: SystemTime::now() - total,
            client: self.client.clone(),
            method: self.method.take(),
            scheme: self.scheme,
            host: std::mem::take(&mut self.host),
            path: std::mem::take(&mut self.path),
            query: self.query.take(),
            route: route.map(|route| route.line),
            verdict: self.verdict,
            code: self.code,
            slot: injection.map(|injection| injection.slot.clone()),
            credential: self.credential.take(),
            status: self.status,
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent,
            head_after: self.head_after,
            total,
            upstream: self.upstream,
            id: self.id,
            detail: self.detail.take(),
        }
    }

    /// The counter of the places at which the answer repeated the credential.
    pub fn masked(&self) -> &Arc<AtomicU64> {
        &self.masked
    }

    /// The counter of the request's body bytes.
    pub fn received(&self) -> &Arc<AtomicU64> {
        &self.received
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The agent did not leave: its connection is closed by what happened here.
            self.code = "defect";
            self.detail("the sidecar panicked; a line before this one has the place");
        }
        self.note_masked();
        let total = self.started.elapsed();
        let outcome = Outcome {
            verdict: self.verdict,
            code: self.code,
        };
        let route = self.route.as_deref();
        // A refusal is nobody's, also where a route had admitted the request and its host then turned out to be private.
        let admitting = route.filter(|_| self.verdict != Verdict::Denied);
        self.audit.counters.ended(
            outcome,
            admitting.map(|route| &*route.outcomes),
            (self.kind == Kind::Exchange).then_some(total),
        );
        let entry = self.entry(total);
        self.audit.take(entry);
    }
}

/// Whether Cloudflare answered in the upstream's place, with a page for a browser:
/// <https://developers.cloudflare.com/cloudflare-challenges/challenge-types/challenge-pages/detect-response/>.
fn is_challenge(headers: &HeaderMap) -> bool {
    const CF_MITIGATED: HeaderName = HeaderName::from_static("cf-mitigated");
    headers
        .get(CF_MITIGATED)
        .is_some_and(|value| value == "challenge")
}

/// A path as the log shows it: ASCII, and no longer than a line may well be. An agent chooses these bytes.
fn printable(path: &str) -> String {
    const LONGEST: usize = 512;
    let is_plain = path.len() <= LONGEST && path.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain {
        return path.into();
    }
    path.escape_default().take(LONGEST).collect()
}

/// A reason as the log shows it. Much of it is a library's, which repeats what an upstream has said: the names of its
/// certificate, for one, of which there may be tens of thousands.
fn told(detail: &str) -> String {
    const LONGEST: usize = 512;
    let mut text = String::new();
    for character in detail.chars() {
        if text.len() >= LONGEST {
            return text + "...";
        }
        match character.is_control() {
            true => text.extend(character.escape_default()),
            false => text.push(character),
        }
    }
    text
}

/// Milliseconds with three digits after the point, which is as fine as the clock is worth.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::{printable, told};

    #[test]
    fn a_path_cannot_write_to_the_terminal_or_fill_the_log() {
        assert_eq!(printable("/v1/a%20b"), "/v1/a%20b");
        assert_eq!(printable("/\u{9b}2J\u{1b}[2J"), "/\\u{9b}2J\\u{1b}[2J");
        assert_eq!(printable(&"/a".repeat(10_000)).len(), 512);
    }

    #[test]
    fn a_reason_is_no_longer_than_a_line_may_well_be_whoever_gave_it() {
        assert_eq!(told("a certificate for x.test"), "a certificate for x.test");
        assert_eq!(told("\u{9b}2J\u{1b}[2J\n"), "\\u{9b}2J\\u{1b}[2J\\n");
        assert_eq!(told(&"x.test, ".repeat(10_000)).len(), 515);
    }
}
