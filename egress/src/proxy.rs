//! The data path: from an accepted connection to bytes on their way to an upstream, and back.
//!
//! `relay` is the way of one request, and reads as one: target, decision, strip, lease, inject, send. There is no other
//! way out: [`upstream::Upstream`] takes a [`Permit`](crate::route::Permit), which only a decision makes. [`handle`]
//! alone turns a [`Reject`] into an answer.

pub mod access;
pub mod body;
pub mod clients;
pub mod connect;
pub mod connection;
pub mod cookies;
pub mod dns;
pub mod gate;
pub mod headers;
pub mod limits;
pub mod observe;
pub mod redact;
pub mod reject;
pub mod socket;
pub mod steer;
pub mod upgrade;
pub mod upstream;

#[cfg(debug_assertions)]
mod defect;
mod listen;
mod quota;
mod reload;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use egress_ca::Issuer;
use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use rustls::ServerConfig;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

pub use self::listen::{Entrance, Listener, serve};
pub use self::reload::{
    Preview, Reloaded, Reloading, Source, uncertifiable, warn_of_unnamed, warn_of_waivers,
};

use self::access::Access;
use self::body::{Download, Upload};
use self::clients::{Clients, Turn};
use self::connection::Connection;
use self::limits::Limits;
use self::redact::Redaction;
use self::reject::{Cause, Reject};
use self::upstream::Upstream;
use crate::audit::{Audit, Record};
use crate::confine::Measure;
use crate::policy::{Lasting, Policy};
use crate::route::target::{Kind, Target, Via};

/// The sidecar: what all connections share.
#[derive(Debug)]
pub struct State {
    /// What is in force. Loaded once for each request.
    pub policy: ArcSwap<Policy>,
    /// Where the next policy comes from.
    pub source: Source,
    /// Leaf certificates for tunnels.
    pub issuer: Issuer,
    /// The way out.
    pub upstream: Upstream,
    /// Who may come in.
    pub access: Access,
    /// Who is in, and how much of it.
    pub clients: Clients,
    /// Records and counters.
    pub audit: Arc<Audit>,
    /// Deadlines and caps.
    pub limits: Limits,
    /// A permit for each compressed answer that may be read at once.
    pub decoders: Arc<Semaphore>,
    /// Tells connections that the policy changed, or that the sidecar is stopping.
    pub epoch: watch::Sender<Epoch>,
    /// Connections and tunnels, to be waited for at the end.
    pub tasks: TaskTracker,
    /// A TLS configuration without a certificate, to refuse a handshake with.
    pub nothing: Arc<ServerConfig>,
    /// What the process gave up before it listened.
    pub confinement: Vec<Measure>,
    /// When the sidecar came up.
    pub started: SystemTime,
}

/// What lasting connections watch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epoch {
    /// Rises with each change of the policy or of a credential.
    pub changes: u64,
    /// The sidecar takes no more requests.
    pub stopping: bool,
}

/// Answers one request. It never fails: a [`Reject`] becomes an answer here and in [`turn_away`], and nowhere else.
pub async fn handle(
    connection: Arc<Connection>,
    request: Request<Incoming>,
    turn: Arc<Turn>,
) -> Result<Response<Download>, Infallible> {
    let version = request.version();
    // What the answer hands the connection over with, where the request asks for that.
    let kind = upgrade::kind(&request);
    let handover = match (request.method() == Method::CONNECT, &kind) {
        (true, _) => Some(StatusCode::OK),
        (false, Ok(Kind::Exchange)) => None,
        (false, _) => Some(StatusCode::SWITCHING_PROTOCOLS),
    };
    let mut record = Some(connection.state.audit.begin(&connection.client));
    let mut response = match relay(&connection, request, kind, &turn, &mut record).await {
        Ok(response) => response,
        Err(reject) => {
            if let Some(record) = &mut record {
                if let Via::Tunnel(origin) = &connection.via {
                    record.asked_at_least(origin);
                }
                reject.note(record);
            }
            if reject.cause().ends_connection(version) {
                connection.hang_up();
            }
            reject.into_response()
        }
    };
    if version == Version::HTTP_2 {
        response.headers_mut().remove(CONNECTION);
    } else if handover.is_some_and(|status| status != response.status()) {
        // The gate lets nothing more through: what follows was meant for a tunnel.
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| {
        let body = body.held_by(turn);
        match record {
            Some(record) => body.followed_by(record),
            None => body,
        }
    }))
}

/// Answers a request that is not looked at any further: there are too many, or it has too much in its head.
pub fn turn_away(connection: &Connection, version: Version, cause: Cause) -> Response<Download> {
    let reject = Reject::new(cause);
    let mut record = connection.state.audit.begin(&connection.client);
    if let Via::Tunnel(origin) = &connection.via {
        record.asks_host(origin);
    }
    reject.note(&mut record);
    if cause.ends_connection(version) {
        connection.hang_up();
    }
    let mut response = reject.into_response();
    if version == Version::HTTP_2 {
        response.headers_mut().remove(CONNECTION);
    }
    response.map(|body| body.followed_by(record))
}

/// The way of one request. The record is taken by what outlives the answer.
async fn relay(
    connection: &Arc<Connection>,
    request: Request<Incoming>,
    kind: Result<Kind, Reject>,
    turn: &Arc<Turn>,
    record: &mut Option<Record>,
) -> Result<Response<Download>, Reject> {
    let state = &connection.state;
    let Some(noted) = record else {
        return Err(Reject::new(Cause::Stopping));
    };
    noted.arrived(request.method());
    if state.epoch.borrow().stopping {
        return Err(Reject::new(Cause::Stopping));
    }
    if connection.is_forfeited() {
        return Err(Reject::new(Cause::Forfeited));
    }
    if let Via::Proxy = connection.via {
        state.access.check(request.headers())?;
    }
    if request.method() == Method::CONNECT {
        return connect::open(connection, request, noted);
    }
    headers::check(request.headers(), state.limits.header_count)?;
    let kind = kind?;
    let target = Target::from_request(&request, &connection.via, kind)?;
    noted.asks(target.method(), target.origin(), target.path());
    noted.asks_by(target.origin().scheme, target.query());
    if state.audit.refuses() {
        return Err(Reject::new(Cause::Audit).at(target.origin()));
    }

    let policy = state.policy.load_full();
    let origin = target.origin().clone();
    let permit = policy
        .routes
        .decide(target)
        .map_err(|denial| connect::denied(&origin, &denial))?;
    noted.permitted(&permit);

    let (mut head, body) = request.into_parts();
    // hyper's server keeps things there that its client would act on.
    head.extensions.clear();
    let rule = &permit.route().rule;
    let injection = rule.injection.as_ref();
    headers::strip(&mut head.headers, injection, &rule.cookies);
    let (mut generation, mut redaction) = (None, Redaction::default());
    if let Some(injection) = injection {
        let lease = policy
            .lease(injection, SystemTime::now())
            .map_err(|gone| Reject::from(gone).at(&origin))?;
        headers::inject(&mut head.headers, injection, lease.secret())?;
        noted.sends(&lease);
        #[cfg(debug_assertions)]
        defect::strike(permit.target().path(), lease.secret());
        generation = Some(lease.generation());
        redaction = Redaction::of(rule, &lease, &mut head, noted.masked(), &state.decoders);
    }
    let lasting = Lasting::new(&permit, generation);
    // Whoever holds a policy last frees it, which takes long where it has many routes: that has to be the reload.
    drop(policy);

    if kind == Kind::WebSocket {
        let opening = upgrade::open(connection, &permit, lasting, head, &mut redaction, record);
        return Box::pin(opening).await;
    }
    let received = noted.received().clone();
    let upload = Upload::new(
        body,
        received,
        state.limits.body_idle,
        head.version,
        turn.clone(),
    );
    let upload = match permit.is_observed() {
        // One that never ends would be a way out that outlasts the observation.
        true => {
            let (state, permit) = (state.clone(), permit.clone());
            upload.until(async move { state.revoked(&permit, lasting).await })
        }
        false => upload,
    };
    let request = Request::from_parts(head, upload);
    let answered = state.upstream.send(&permit, lasting, request).await?;
    noted.spoke_to(answered.peer);
    let checkin = answered.checkin;
    let (mut head, body) = answered.answer.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Reject::new(Cause::UpstreamProtocol)
            .at(&origin)
            .because("a 101 that nobody asked for"));
    }
    if head.headers.len() > state.limits.header_count {
        // HTTP/1.1 heads were counted as they were read.
        return Err(Reject::new(Cause::UpstreamProtocol)
            .at(&origin)
            .because("too many header fields"));
    }
    headers::check_answer(&head.headers).map_err(|reject| reject.at(&origin))?;
    let trailers = headers::strip_answer(&mut head.headers, &rule.cookies);
    let rewriter = redaction
        .rewrite(permit.target().method(), &mut head, &state.decoders)
        .map_err(|reject| reject.at(&origin))?;
    noted.relayed(&head);
    Ok(Response::from_parts(
        head,
        Download::relayed(body, trailers, state.limits.body_idle, checkin, rewriter),
    ))
}
