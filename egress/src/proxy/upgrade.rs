//! WebSockets: a permitted request, a verified 101, and then two streams that are copied into each other.
//!
//! No byte of the agent goes upstream before the upstream's 101 was verified (RFC 6455, section 4.1): a server that takes
//! the handshake for an ordinary request would otherwise read the agent's next bytes as a second one.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, request};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::time::timeout;

use super::State;
use super::body::Download;
use super::connection::{Connection, Takeover};
use super::headers::{check_answer, items, strip_answer};
use super::redact::Redaction;
use super::redact::frames::{Frames, Masked};
use super::reject::{Cause, Reject, Wait};
use super::socket::{Idle, Prefixed, Tally};
use super::upstream::{Answer, Stream, address_h1};
use crate::audit::Record;
use crate::policy::Lasting;
use crate::route::Permit;
use crate::route::passing::Extensions;
use crate::route::target::Kind;

/// Tells a WebSocket handshake from an ordinary request. Another upgrade is stripped like every hop-by-hop header.
///
/// # Errors
///
/// [`Cause::Handshake`] for one that asks for a WebSocket without being a handshake of RFC 6455.
pub fn kind<B>(request: &Request<B>) -> Result<Kind, Reject> {
    let headers = request.headers();
    if !has_token(headers, &UPGRADE, "websocket") {
        return Ok(Kind::Exchange);
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).and_then(|key| BASE64_STANDARD.decode(key).ok());
    let version = only(headers, &SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let whole = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has_token(headers, &CONNECTION, "upgrade")
        // Else what proves the handshake would be taken off it before it goes upstream.
        && !has_token(headers, &CONNECTION, SEC_WEBSOCKET_KEY.as_str())
        && !has_token(headers, &CONNECTION, SEC_WEBSOCKET_VERSION.as_str())
        && key.is_some_and(|key| key.len() == 16)
        && version;
    if whole {
        Ok(Kind::WebSocket)
    } else {
        Err(Reject::new(Cause::Handshake))
    }
}

/// Sends the handshake upstream, and on a verified 101 takes both connections over. Any other answer is passed back.
pub async fn open(
    connection: &Arc<Connection>,
    permit: &Permit,
    lasting: Lasting,
    head: request::Parts,
    redaction: &mut Redaction,
    record: &mut Option<Record>,
) -> Result<Response<Download>, Reject> {
    let state = &connection.state;
    let origin = permit.target().origin();
    let rule = &permit.route().rule;
    let failed = |error: hyper::Error| {
        Reject::new(Cause::UpstreamProtocol)
            .at(origin)
            .because(error)
    };
    let mut request = Request::from_parts(head, Empty::<Bytes>::new());
    address_h1(&mut request, permit)?;
    mark(request.headers_mut());
    if rule.websocket_extensions == Extensions::Drop {
        request.headers_mut().remove(SEC_WEBSOCKET_EXTENSIONS);
    }
    let offered = request.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS);
    let protocols = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    let protocols: Vec<HeaderValue> = protocols.iter().cloned().collect();
    let expected = request.headers().get(SEC_WEBSOCKET_KEY).map(accept_of);

    let (stream, peer) = state.upstream.open(permit).await?;
    if let Some(record) = record {
        record.spoke_to(peer);
    }
    let (mut sender, driver) = state
        .limits
        .http1_client()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    tokio::spawn(driver.with_upgrades());
    let answer = timeout(state.limits.answer, sender.send_request(request));
    let mut answer = answer
        .await
        .map_err(|_| Reject::new(Cause::UpstreamTimeout(Wait::Answer)).at(origin))?
        .map_err(failed)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return decline(state, answer, permit, redaction, record);
    }
    let accepted = only(answer.headers(), &SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    if accepted.is_none()
        || accepted != expected.as_deref().map(str::as_bytes)
        || !has_token(answer.headers(), &UPGRADE, "websocket")
        || !has_token(answer.headers(), &CONNECTION, "upgrade")
        // RFC 6455, section 4.1: an extension that nobody offered fails the handshake.
        || (!offered && answer.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS))
        || !takes_one_of(answer.headers(), &protocols)
    {
        return Err(Reject::new(Cause::UpstreamHandshake).at(origin));
    }
    let upstream = hyper::upgrade::on(&mut answer);
    let (mut head, _) = answer.into_parts();
    strip_answer(&mut head.headers, &rule.cookies);
    let frames = redaction.rewrite_frames(&mut head);
    mark(&mut head.headers);
    let mut record = record.take();
    if let Some(record) = &mut record {
        record.handed_over("websocket", StatusCode::SWITCHING_PROTOCOLS);
    }
    connection.take_over(Takeover::WebSocket(Box::new(WebSocket {
        upstream,
        permit: permit.clone(),
        lasting,
        frames,
        record,
    })));
    Ok(Response::from_parts(head, Download::empty()))
}

/// A WebSocket whose handshake was verified, and whose agent is about to be told so.
#[derive(Debug)]
pub struct WebSocket {
    upstream: OnUpgrade,
    permit: Permit,
    lasting: Lasting,
    frames: Option<Frames>,
    record: Option<Record>,
}

impl WebSocket {
    /// Copies frames until one side ends it.
    pub async fn run<T: AsyncRead + AsyncWrite + Unpin>(self, state: &State, mut agent: T) {
        let Ok(upstream) = self.upstream.await else {
            return;
        };
        let Ok(parts) = upstream.downcast::<TokioIo<Stream>>() else {
            return;
        };
        // Frames that came in the same packet as the 101.
        let stream = Idle::new(parts.io.into_inner(), state.limits.tunnel_idle);
        let mut upstream = Masked::new(Prefixed::new(parts.read_buf, stream), self.frames);
        let _open = state.audit.open(|counters| &counters.open_websockets);
        let revoked = state.revoked(&self.permit, self.lasting);
        splice(state, &mut agent, &mut upstream, revoked, self.record).await;
    }
}

/// Writes the two headers that make a request or an answer a WebSocket handshake.
fn mark(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Copies two streams into each other until both have ended, one fails, nothing moves for too long (both streams see
/// to that), or a reload takes away what the splice rests on (`revoked`).
pub async fn splice<A, U>(
    state: &State,
    agent: &mut A,
    upstream: &mut U,
    revoked: impl Future<Output = ()>,
    record: Option<Record>,
) where
    A: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let _open = state.audit.open(|counters| &counters.open_splices);
    let (mut agent, mut upstream) = (Tally::new(agent), Tally::new(upstream));
    let ended = tokio::select! {
        copied = copy_bidirectional(&mut agent, &mut upstream) => {
            copied.err().map(|error| ("connection_lost", error.to_string()))
        }
        () = revoked => Some(("revoked", "its route or credential was changed, or the observation ended".into())),
        () = state.drained() => Some(("stopping", "the sidecar is stopping".into())),
    };
    if let Some(mut record) = record {
        record.add_received(agent.read);
        record.add_sent(upstream.read);
        if let Some((code, detail)) = ended {
            record.ended(code, detail);
        }
    }
}

/// Passes an answer other than 101 back. The agent's connection ends with it: bytes that it sent ahead were meant for a
/// WebSocket, and are never taken for a request.
fn decline(
    state: &State,
    answer: Response<Incoming>,
    permit: &Permit,
    redaction: &mut Redaction,
    record: &mut Option<Record>,
) -> Result<Response<Download>, Reject> {
    let (mut head, body) = answer.into_parts();
    let target = permit.target();
    check_answer(&head.headers).map_err(|reject| reject.at(target.origin()))?;
    let trailers = strip_answer(&mut head.headers, &permit.route().rule.cookies);
    let rewriter = redaction
        .rewrite(target.method(), &mut head, &state.decoders)
        .map_err(|reject| reject.at(target.origin()))?;
    if let Some(record) = record {
        record.relayed(&head);
    }
    Ok(Response::from_parts(
        head,
        Download::relayed(
            Answer::Http1(body),
            trailers,
            state.limits.body_idle,
            None,
            rewriter,
        ),
    ))
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    items(headers, name).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether a server that takes a protocol takes one of those that it was offered (RFC 6455, section 4.1).
fn takes_one_of(answer: &HeaderMap, offers: &[HeaderValue]) -> bool {
    let offered = |taken: &HeaderValue| {
        let mut items = offers
            .iter()
            .flat_map(|offer| offer.as_bytes().split(|&byte| byte == b','));
        items.any(|item| item.trim_ascii() == taken.as_bytes())
    };
    !answer.contains_key(SEC_WEBSOCKET_PROTOCOL)
        || only(answer, &SEC_WEBSOCKET_PROTOCOL).is_some_and(offered)
}

/// What a server answers to a key (RFC 6455, section 4.2.2).
fn accept_of(key: &HeaderValue) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
    BASE64_STANDARD.encode(hash)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request, Version};

    use super::{accept_of, kind};
    use crate::route::target::Kind;

    fn handshake() -> http::request::Builder {
        Request::get("/")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    #[test]
    fn half_a_handshake_is_refused() {
        let cases = [
            handshake().method("POST"),
            handshake().version(Version::HTTP_10),
            handshake().version(Version::HTTP_2),
            handshake().header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            Request::get("/").header("upgrade", "websocket"),
            Request::get("/")
                .header("upgrade", "websocket")
                .header("connection", "upgrade"),
            Request::get("/")
                .header("upgrade", "websocket")
                .header("connection", "upgrade")
                .header("sec-websocket-version", "8")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            Request::get("/")
                .header("upgrade", "websocket")
                .header("connection", "upgrade")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "c2hvcnQ="),
        ];
        for case in cases {
            assert!(kind(&case.body(()).unwrap()).is_err());
        }
    }

    #[test]
    fn a_handshake_is_told_from_other_upgrades() {
        assert_eq!(
            kind(&handshake().body(()).unwrap()).unwrap(),
            Kind::WebSocket
        );
        let h2c = Request::get("/")
            .header("connection", "upgrade")
            .header("upgrade", "h2c");
        assert_eq!(kind(&h2c.body(()).unwrap()).unwrap(), Kind::Exchange);
        assert_eq!(
            kind(&Request::get("/").body(()).unwrap()).unwrap(),
            Kind::Exchange
        );
    }

    #[test]
    fn the_accept_value_is_the_one_of_rfc_6455() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_of(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
