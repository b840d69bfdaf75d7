//! What is known of a request once it is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;

use super::Client;
use super::id::RequestId;
use super::row::{Own, Row};
use crate::credential::SlotName;
use crate::outcome::Verdict;
use crate::route::Line;
use crate::route::target::Scheme;

/// A finished record. It holds no header, no body and no secret.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When the request began.
    pub time: SystemTime,
    /// Who asked.
    pub client: Client,
    /// The method, where the request could be read so far.
    pub method: Option<Method>,
    /// The scheme, where the request named one.
    pub scheme: Option<Scheme>,
    /// `name:port`, or empty.
    pub host: String,
    /// The path without the query, printable.
    pub path: String,
    /// The query, where it is kept; printable.
    pub query: Option<String>,
    /// The route that decided.
    pub route: Option<Line>,
    /// What became of it.
    pub verdict: Verdict,
    /// The stable code of that.
    pub code: &'static str,
    /// The slot whose credential was sent.
    pub slot: Option<SlotName>,
    /// The fingerprint of that credential.
    pub credential: Option<Arc<str>>,
    /// The answer's status, or 0.
    pub status: u16,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Until the answer's head.
    pub head_after: Option<Duration>,
    /// Until its end.
    pub total: Duration,
    /// The address that was spoken to.
    pub upstream: Option<SocketAddr>,
    /// What a refusal is found by.
    pub id: Option<RequestId>,
    /// What only the operator is told; printable.
    pub detail: Option<String>,
}

impl Entry {
    /// The method, as it is shown.
    pub fn method(&self) -> &str {
        // HTTP/2 bounds a method by nothing but its head. None that anybody uses is longer.
        const LONGEST: usize = 32;
        let method = self.method.as_ref().map_or("-", Method::as_str);
        method.get(..LONGEST).unwrap_or(method)
    }

    /// The row of the audit file, but for its number.
    pub fn row<'e>(&'e self, bottle: Option<&'e str>) -> Row<'e> {
        let own = self.own(0, None);
        Row {
            number: own.number,
            time: own.time,
            client: self.client.to_string().into(),
            bottle: bottle.map(Into::into),
            method: self.method().into(),
            scheme: self.scheme.map(|scheme| scheme.as_str().into()),
            host: self.host.as_str().into(),
            path: own.path.into(),
            query: own.query.map(Into::into),
            route: self.route.map(i64::from),
            verdict: self.verdict.as_str().into(),
            code: self.code.into(),
            slot: self.slot.as_ref().map(|slot| slot.as_str().into()),
            credential: self.credential.as_deref().map(Into::into),
            status: self.status.into(),
            bytes_up: own.bytes_up,
            bytes_down: own.bytes_down,
            head_us: own.head_us,
            total_us: own.total_us,
            upstream: self.upstream.map(|address| address.to_string().into()),
            id: self.id.map(|id| id.to_string().into()),
            detail: own.detail.map(Into::into),
        }
    }

    /// What its row has for itself. `id` is the text of its own.
    pub(super) fn own<'e>(&'e self, number: i64, id: Option<&'e str>) -> Own<'e> {
        Own {
            number,
            time: micros(self.time.duration_since(UNIX_EPOCH).unwrap_or_default()),
            path: &self.path,
            query: self.query.as_deref(),
            bytes_up: saturated(self.received),
            bytes_down: saturated(self.sent),
            head_us: self.head_after.map(micros),
            total_us: micros(self.total),
            id,
            detail: self.detail.as_deref(),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn saturated(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
