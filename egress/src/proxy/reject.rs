//! Everything that can go wrong with a request, and the one place that turns it into an answer.
//!
//! An answer of ours says what was refused and what can be done about it: fixed text, a stable code, an id, and of the
//! request only the canonical host and port. The source of a fault goes to the log alone.

mod text;
mod upstream;

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, PROXY_AUTHENTICATE, RETRY_AFTER,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderName, Response, StatusCode, Version};

pub use self::upstream::Wait;

use super::body::Download;
use super::gate::fault::Fault;
use crate::addr::Class;
use crate::audit::Record;
use crate::audit::id::RequestId;
use crate::credential::Unusable;
use crate::outcome::Verdict;
use crate::route::denial::Reason;
use crate::route::target::{InvalidTarget, Origin};

/// The header that marks an answer as ours. It is removed from every upstream's answer.
pub const X_EGRESS_ERROR: HeaderName = HeaderName::from_static("x-egress-error");

/// A request that is not, or not wholly, served.
#[derive(Debug)]
pub struct Reject {
    id: RequestId,
    cause: Cause,
    origin: Option<Origin>,
    source: Option<Box<dyn Error + Send + Sync>>,
    sent: Option<Sent>,
}

/// That a request was on its way already, with all that it was given.
#[derive(Clone, Copy, Debug)]
struct Sent {
    to: Option<SocketAddr>,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The bytes on the connection are no unambiguous HTTP/1.1.
    Framing(Fault),
    /// The request names no origin, or more than one.
    Target(InvalidTarget),
    /// An earlier request on the connection was such that no further one is taken.
    Forfeited,
    /// A header name with an underscore, or one that is no token.
    HeaderName,
    /// `Expect` with anything but `100-continue`.
    Expectation,
    /// An upgrade that is no WebSocket handshake as RFC 6455 wants it.
    Handshake,
    /// The server name in a client hello is not the tunnel's host, or missing.
    ServerName,
    /// The client hello on a steered connection names no host, or an address.
    NoServerName,
    /// What came ahead of an intercepted connection is not the machine's preamble, or has another token.
    Preamble,
    /// TLS with the agent failed: it does not speak TLS, or does not trust the bottle's CA.
    AgentTls,
    /// The proxy wants `Proxy-Authorization`.
    ClientAuth,
    /// No route admits it.
    Denied(Reason),
    /// The host resolves into a network that the route may not reach.
    Address(Class),
    /// The upstream is this sidecar itself.
    Loop,
    /// The slot's value has expired.
    Expired,
    /// The slot has no usable value any more.
    NoCredential,
    /// The name does not resolve.
    Unresolved,
    /// No connection to the upstream.
    Unreachable,
    /// TLS with the upstream failed: its certificate, most often.
    UpstreamTls,
    /// The upstream broke off or spoke no HTTP.
    UpstreamProtocol,
    /// The upstream took too long.
    UpstreamTimeout(Wait),
    /// The upstream answered a WebSocket handshake with a 101 that does not fit it.
    UpstreamHandshake,
    /// The upstream answered in a content coding in which a credential cannot be masked.
    UpstreamCoding,
    /// The proxy in front of the upstream refused.
    UpstreamProxy,
    /// As many answers are decoded as there may be at once.
    Decoders,
    /// No leaf certificate could be issued.
    Issue,
    /// What becomes of a request could not be written down.
    Audit,
    /// As many requests are under way as there may be, of this client or of all.
    Busy,
    /// The sidecar is stopping.
    Stopping,
}

/// On whose side a fault lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The agent's request.
    Client,
    /// The routes.
    Policy,
    /// The sidecar's slots.
    Credential,
    /// The upstream, or the way to it.
    Upstream,
    /// The sidecar.
    Internal,
}

impl Reject {
    /// A fault with no origin to name.
    pub fn new(cause: Cause) -> Self {
        Self {
            id: RequestId::new(),
            cause,
            origin: None,
            source: None,
            sent: None,
        }
    }

    /// Says that the request was on its way to this address when it came to its fault.
    pub fn once_sent(mut self, to: Option<SocketAddr>) -> Self {
        self.sent = Some(Sent { to });
        self
    }

    /// Names the origin that was asked for.
    pub fn at(mut self, origin: &Origin) -> Self {
        self.origin = Some(origin.clone());
        self
    }

    /// Adds what only the log is told.
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The origin that was asked for, where it is known.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// The cause.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Writes the refusal into a request's record.
    pub fn note(&self, record: &mut Record) {
        let verdict = match (self.cause.verdict(), self.sent) {
            // The agent broke off, but what was sent by then was admitted, and has arrived.
            (Verdict::Denied, Some(_)) => Verdict::Failed,
            (verdict, _) => verdict,
        };
        if let Some(Sent { to }) = self.sent {
            record.spoke_to(to);
        }
        record.answered(verdict, self.cause.code(), self.cause.status().as_u16());
        record.named(self.id);
        if let Some(detail) = self.detail() {
            record.detail(detail);
        }
        if let Some(fault) = self.upstream_fault() {
            record.met(fault);
        }
    }

    /// What the log says beside the code: the chain of sources, outermost first.
    pub fn detail(&self) -> Option<String> {
        let mut text = match (self.cause, &self.source) {
            (Cause::Denied(Reason::Hazard(hazard)), _) => return Some(hazard.to_string()),
            (Cause::Denied(Reason::QueryHazard(hazard)), _) => return Some(hazard.to_string()),
            (Cause::Target(target), _) => return Some(target.to_string()),
            (Cause::Framing(fault), _) => return Some(fault.to_string()),
            (_, None) => return None,
            (Cause::Decoders, Some(source)) => {
                format!("no decoder to be had within --max-decoding: {source}")
            }
            (_, Some(source)) => source.to_string(),
        };
        let mut source = self.source.as_ref().and_then(|source| source.source());
        while let Some(error) = source {
            let next = error.to_string();
            if !text.contains(&next) {
                text = format!("{text}: {next}");
            }
            source = error.source();
        }
        Some(text)
    }

    /// The answer to the agent.
    pub fn into_response(self) -> Response<Download> {
        let body = self.body();
        let mut response = Response::new(Download::text(body));
        *response.status_mut() = self.cause.status();
        let headers = response.headers_mut();
        headers.insert(X_EGRESS_ERROR, HeaderValue::from_static(self.cause.code()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.cause {
            Cause::ClientAuth => {
                headers.insert(
                    PROXY_AUTHENTICATE,
                    HeaderValue::from_static("Basic realm=\"egress\""),
                );
            }
            Cause::Denied(Reason::WebSocket) => {
                // RFC 9110, section 15.5.22: a 426 says which protocol it would take.
                headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
            }
            Cause::Busy => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Cause::Handshake => {
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        if self.cause.ends_connection(Version::HTTP_11) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The answer as bytes of HTTP/1.1, for a connection whose requests cannot be parsed.
    pub fn into_bytes(self) -> Bytes {
        let body = self.body();
        let status = self.cause.status();
        format!(
            "HTTP/1.1 {} {}\r\n{X_EGRESS_ERROR}: {}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            self.cause.code(),
            body.len(),
        )
        .into()
    }

    fn body(&self) -> String {
        let message = match &self.origin {
            Some(origin) => format!("egress: {origin}: {}", self.cause),
            None => format!("egress: {}", self.cause),
        };
        let id = self.id.to_string();
        let error = serde_json::json!({ "error": {
            "message": message,
            "type": "egress",
            "code": self.cause.code(),
            "hint": self.cause.hint(),
            "request_id": id,
            // For whoever reads it beside the sidecar: it tells an agent nothing.
            "explain": format!("egress explain --id {id} --admin ADDRESS"),
        } });
        format!("{error}\n")
    }
}

impl Cause {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Framing(fault) => {
                StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::BAD_REQUEST)
            }
            // Both tell a client that another connection may do (RFC 9110, section 15.5.20).
            Self::Target(InvalidTarget::Misdirected) | Self::Forfeited => {
                StatusCode::MISDIRECTED_REQUEST
            }
            Self::Target(_) | Self::HeaderName | Self::Handshake => StatusCode::BAD_REQUEST,
            // No HTTP answer can carry these; the log shows what the status would be.
            Self::ServerName | Self::NoServerName => StatusCode::MISDIRECTED_REQUEST,
            Self::AgentTls | Self::Preamble => StatusCode::BAD_REQUEST,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::ClientAuth => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::Denied(Reason::Hazard(_) | Reason::QueryHazard(_)) => StatusCode::BAD_REQUEST,
            Self::Denied(Reason::Method) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Denied(Reason::WebSocket) => StatusCode::UPGRADE_REQUIRED,
            Self::Denied(_) | Self::Address(_) => StatusCode::FORBIDDEN,
            Self::Loop => StatusCode::LOOP_DETECTED,
            // Codex stops at once on this status and shows the message; docs/operations.md has what was tried.
            Self::Expired | Self::NoCredential => StatusCode::BAD_REQUEST,
            Self::Unresolved
            | Self::Unreachable
            | Self::UpstreamTls
            | Self::UpstreamProtocol
            | Self::UpstreamHandshake
            | Self::UpstreamCoding
            | Self::UpstreamProxy => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Issue => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy | Self::Decoders | Self::Audit | Self::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The stable code of the answer, the log and the metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Framing(fault) => fault.code(),
            Self::Target(InvalidTarget::Misdirected) => "misdirected_request",
            Self::Target(_) => "bad_target",
            Self::Forfeited => "connection_forfeited",
            Self::HeaderName => "bad_header_name",
            Self::Expectation => "bad_expectation",
            Self::Handshake => "bad_handshake",
            Self::ServerName => "server_name_mismatch",
            Self::NoServerName => "no_server_name",
            Self::Preamble => "bad_preamble",
            Self::AgentTls => "agent_tls",
            Self::ClientAuth => "client_auth_required",
            Self::Denied(reason) => reason.code(),
            Self::Address(_) => "address_not_allowed",
            Self::Loop => "proxy_loop",
            Self::Expired => "credential_expired",
            Self::NoCredential => "credential_missing",
            Self::Unresolved => "upstream_unresolved",
            Self::Unreachable => "upstream_unreachable",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::UpstreamTimeout(_) => "upstream_timeout",
            Self::UpstreamHandshake => "upstream_handshake",
            Self::UpstreamCoding => "upstream_coding",
            Self::UpstreamProxy => "upstream_proxy",
            Self::Decoders => "decoders_exhausted",
            Self::Issue => "no_certificate",
            Self::Audit => "audit_unavailable",
            Self::Busy => "too_many_requests",
            Self::Stopping => "stopping",
        }
    }

    /// On whose side it lies.
    pub fn side(self) -> Side {
        match self {
            Self::Framing(_)
            | Self::Target(_)
            | Self::Forfeited
            | Self::HeaderName
            | Self::Expectation
            | Self::Handshake
            | Self::ServerName
            | Self::NoServerName
            | Self::Preamble
            | Self::AgentTls
            | Self::ClientAuth => Side::Client,
            Self::Denied(_) | Self::Address(_) | Self::Loop => Side::Policy,
            Self::Expired | Self::NoCredential => Side::Credential,
            Self::Unresolved
            | Self::Unreachable
            | Self::UpstreamTls
            | Self::UpstreamProtocol
            | Self::UpstreamTimeout(_)
            | Self::UpstreamHandshake
            | Self::UpstreamCoding
            | Self::UpstreamProxy => Side::Upstream,
            Self::Busy | Self::Decoders | Self::Issue | Self::Audit | Self::Stopping => {
                Side::Internal
            }
        }
    }

    /// The verdict that the record gets.
    pub fn verdict(self) -> Verdict {
        match self.side() {
            Side::Client | Side::Policy => Verdict::Denied,
            Side::Credential | Side::Upstream | Side::Internal => Verdict::Failed,
        }
    }

    /// Whether nothing more is read from a connection after this answer.
    pub fn ends_connection(self, version: Version) -> bool {
        // The streams of HTTP/2 are told apart whatever becomes of one.
        if version == Version::HTTP_2 && self == Self::Framing(Fault::BodyTimeout) {
            return false;
        }
        matches!(
            self,
            Self::Framing(_) | Self::Target(_) | Self::Forfeited | Self::Stopping | Self::Handshake
        )
    }
}

impl From<InvalidTarget> for Reject {
    fn from(target: InvalidTarget) -> Self {
        Self::new(Cause::Target(target))
    }
}

impl From<Unusable> for Reject {
    fn from(reason: Unusable) -> Self {
        let cause = match reason {
            Unusable::Expired(_) => Cause::Expired,
            _ => Cause::NoCredential,
        };
        Self::new(cause).because(format!("the slot {reason}"))
    }
}
