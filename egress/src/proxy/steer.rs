//! Connections of clients that know of no proxy: a resolver or a packet filter steered them here, and what they say first
//! tells their origin. From there on they are a CONNECT tunnel, or plain requests, under the very same checks.
//!
//! Only a name decides. The address that a client believes to talk to is recorded at the most.

pub mod preamble;

use std::sync::Arc;

use http::{Method, StatusCode};
use tokio::time::timeout;

use super::State;
use super::connect;
use super::connection::{Connection, Takeover, serve_h1};
use super::reject::{Cause, Reject};
use super::socket::{Prefixed, Socket};
use crate::route::Tls;
use crate::route::host::Host;
use crate::route::target::{Origin, Scheme};

/// Serves TLS whose server name is the origin, as a tunnel to that name's port 443 is served.
pub(super) async fn tls(connection: &Arc<Connection>, mut agent: Socket) {
    let state = &connection.state;
    let hello = tokio::select! {
        hello = timeout(state.limits.handshake, connect::read_hello(&mut agent)) => hello,
        () = state.drained() => return,
    };
    let mut record = state.audit.begin(&connection.client);
    record.asks(&Method::CONNECT, "", "");
    let hello = match hello.unwrap_or_else(|_| Err(connect::no_handshake_in_time())) {
        Ok(hello) => hello,
        Err(reject) => return reject.note(&mut record),
    };
    let agent = Prefixed::new(hello.bytes, agent);
    match admitted(state, hello.server_name.as_deref()) {
        Ok((origin, tls, is_observed)) => {
            record.asks(&Method::CONNECT, &origin, "");
            if is_observed {
                record.observed();
            }
            record.handed_over("steered", StatusCode::OK);
            drop(record);
            Box::pin(connect::tunnel(connection, agent, origin, tls)).await;
        }
        Err(reject) => {
            if let Some(origin) = reject.origin() {
                record.asks(&Method::CONNECT, origin, "");
            }
            reject.note(&mut record);
            drop(record);
            connect::decline(state, agent).await;
        }
    }
}

/// The origin that a server name stands for, where a CONNECT to it would be admitted, and whether by an observation alone.
fn admitted(state: &State, server_name: Option<&str>) -> Result<(Origin, Tls, bool), Reject> {
    let host = server_name
        .and_then(|name| Host::parse(name).ok())
        .filter(|host| host.as_name().is_some())
        .ok_or(Reject::new(Cause::NoServerName))?;
    let scheme = Scheme::Https;
    let origin = Origin {
        scheme,
        host,
        port: scheme.default_port(),
    };
    let policy = state.policy.load();
    let is_observed = policy.routes.is_observed(&origin);
    match policy.routes.admits(&origin) {
        Ok(tls) => Ok((origin, tls, is_observed)),
        Err(denial) => Err(connect::denied(&origin, &denial)),
    }
}

/// Serves plain requests, each of whose Host is its origin.
pub(super) async fn http(connection: &Arc<Connection>, agent: Socket) {
    if let Some((Takeover::WebSocket(socket), agent)) = Box::pin(serve_h1(connection, agent)).await
    {
        Box::pin(socket.run(&connection.state, agent)).await;
    }
}
