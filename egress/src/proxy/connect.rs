//! CONNECT: a tunnel is opened to an admitted origin, and what comes through it is either decided request by request
//! (`intercept`) or, where the route says so, passed through after the server name was checked (`pass_through`).
//!
//! Nothing is looked up, dialled or minted for an origin that no route admits, and there is no fallback to a blind tunnel.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use super::State;
use super::body::Download;
use super::connection::{Connection, Takeover, serve_h1, serve_h2};
use super::reject::{Cause, Reject};
use super::socket::{Idle, Prefixed, Socket};
use super::upgrade::splice;
use crate::audit::{Record, UpstreamFault};
use crate::route::Tls;
use crate::route::denial::Denial;
use crate::route::target::{InvalidTarget, Origin, Scheme, Via};

/// Answers a CONNECT. The [`tunnel`] begins when the answer is written.
pub fn open(
    connection: &Arc<Connection>,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<Download>, Reject> {
    if let Via::Tunnel(_) | Via::Steered = connection.via {
        return Err(InvalidTarget::Form.into());
    }
    let origin = authority(&request)?;
    record.asks(&Method::CONNECT, &origin, "");
    if connection.state.audit.refuses() {
        return Err(Reject::new(Cause::Audit).at(&origin));
    }
    let policy = connection.state.policy.load();
    let tls = policy
        .routes
        .admits(&origin)
        .map_err(|denial| denied(&origin, &denial))?;
    if policy.routes.is_observed(&origin) {
        record.observed();
    }
    record.handed_over("tunnel", StatusCode::OK);
    connection.take_over(Takeover::Tunnel(origin, tls));
    Ok(Response::new(Download::empty()))
}

/// The refusal of an origin or a request that no route admits.
pub fn denied(origin: &Origin, denial: &Denial) -> Reject {
    Reject::new(Cause::Denied(denial.reason)).at(origin)
}

/// The origin that a CONNECT names (RFC 9110, section 9.3.6: host and port, both mandatory).
fn authority<B>(request: &Request<B>) -> Result<Origin, InvalidTarget> {
    let uri = request.uri();
    let authority = uri.authority().ok_or(InvalidTarget::Form)?.as_str();
    if uri.scheme().is_some()
        || uri
            .path_and_query()
            .is_some_and(|path| path != "/" && path != "")
    {
        return Err(InvalidTarget::Form);
    }
    if authority.contains('@') {
        return Err(InvalidTarget::UserInfo);
    }
    if authority.ends_with(']') || !authority.contains(':') {
        return Err(InvalidTarget::Port);
    }
    let origin = Origin::parse(Scheme::Https, authority)?;
    // Host takes no part: nothing is decided by it, and clients that write the request by hand put the proxy there.
    Ok(origin)
}

/// The life of a tunnel after its 200. A tunnel that fails before its first request leaves a line of its own in the log.
pub async fn tunnel(
    connection: &Arc<Connection>,
    agent: Prefixed<Socket>,
    origin: Origin,
    tls: Tls,
) {
    let _open = connection
        .state
        .audit
        .open(|counters| &counters.open_tunnels);
    let failed = match tls {
        Tls::Intercept => Box::pin(intercept(connection, agent, &origin)).await.err(),
        Tls::Passthrough => Box::pin(pass_through(connection, agent, &origin))
            .await
            .err(),
    };
    if let Some(reject) = failed {
        let mut record = connection.state.audit.begin(&connection.client);
        record.asks(&Method::CONNECT, &origin, "");
        reject.note(&mut record);
    }
}

/// Ends the agent's TLS under a leaf for the origin, and serves the requests inside.
async fn intercept(
    connection: &Arc<Connection>,
    agent: Prefixed<Socket>,
    origin: &Origin,
) -> Result<(), Reject> {
    let state = &connection.state;
    let issue = |error: egress_ca::Error| Reject::new(Cause::Issue).at(origin).because(error);
    let handshake = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), agent)
            .await
            .map_err(agent_tls)?;
        if !names(hello.client_hello().server_name(), origin) {
            // The library says goodbye with a TLS alert: no certificate fits this name.
            _ = hello.into_stream(state.nothing.clone()).await;
            return Err(Reject::new(Cause::ServerName));
        }
        let name = origin
            .host
            .as_name()
            .ok_or_else(|| Reject::new(Cause::ServerName))?;
        let config = state
            .issuer
            .server_config(name, SystemTime::now())
            .map_err(issue)?;
        // Not before the client has asked for it, or silence would take the places.
        let offered = hello.client_hello().alpn();
        let wants_h2 = offered.is_some_and(|mut offered| offered.any(|name| name == b"h2"));
        let turn = wants_h2.then(|| connection.share.http2()).flatten();
        let config = match turn {
            Some(_) => config,
            None => http1_alone(&config),
        };
        let stream = hello.into_stream(config).await.map_err(agent_tls)?;
        // Boxed: what follows hands it on and on, and has room for each of the places.
        Ok((Box::new(stream), turn))
    };
    let handshake = Box::pin(state.unless_withdrawn(origin, handshake));
    let (stream, turn) = match timeout(state.limits.handshake, handshake).await {
        Ok(stream) => stream.map_err(|reject| reject.at(origin))?,
        Err(_) => return Err(no_handshake_in_time().at(origin)),
    };
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let inner = Connection::new(
        state.clone(),
        Via::Tunnel(origin.clone()),
        connection.client.clone(),
        connection.share.clone(),
    );
    if h2 {
        Box::pin(serve_h2(&inner, stream)).await;
        return Ok(());
    }
    drop(turn);
    if let Some((Takeover::WebSocket(socket), agent)) = Box::pin(serve_h1(&inner, stream)).await {
        Box::pin(socket.run(state, agent)).await;
    }
    Ok(())
}

/// The same without HTTP/2, which a client falls back from by itself.
fn http1_alone(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols.retain(|protocol| protocol != b"h2");
    Arc::new(config)
}

/// Copies bytes between the agent and the upstream, once the agent's client hello named the origin.
async fn pass_through(
    connection: &Arc<Connection>,
    agent: Prefixed<Socket>,
    origin: &Origin,
) -> Result<(), Reject> {
    let state = &connection.state;
    let mut agent = agent;
    let hello = state.unless_withdrawn(origin, client_hello(&mut agent, origin));
    let hello = match timeout(state.limits.handshake, hello).await {
        Ok(hello) => hello?,
        Err(_) => return Err(no_handshake_in_time().at(origin)),
    };
    let permit = state
        .policy
        .load()
        .routes
        .admit_passthrough(origin)
        .map_err(|denial| denied(origin, &denial))?;
    let mut record = state.audit.begin(&connection.client);
    record.asks(&Method::CONNECT, origin, "");
    record.permitted(&permit);
    let mut upstream = match state.upstream.open_raw(&permit).await {
        Ok(upstream) => upstream,
        Err(reject) => {
            reject.note(&mut record);
            return Ok(());
        }
    };
    record.spoke_to(upstream.peer_addr().ok());
    record.handed_over("passthrough", StatusCode::OK);
    if let Err(error) = upstream.write_all(&hello).await {
        record.broke_off(UpstreamFault::BrokeOff, error);
        return Ok(());
    }
    record.add_received(hello.len() as u64);
    // Once the agent has ended its side, only this one is waited for.
    let mut upstream = Idle::new(upstream, state.limits.tunnel_idle);
    splice(
        state,
        &mut agent,
        &mut upstream,
        state.diverted(origin, permit.route().id),
        Some(record),
    )
    .await;
    Ok(())
}

/// Reads the agent's client hello, checks the name in it, and returns its bytes.
async fn client_hello(agent: &mut Prefixed<Socket>, origin: &Origin) -> Result<Bytes, Reject> {
    let hello = read_hello(agent)
        .await
        .map_err(|reject| reject.at(origin))?;
    if !names(hello.server_name.as_deref(), origin) {
        return Err(Reject::new(Cause::ServerName).at(origin));
    }
    Ok(hello.bytes)
}

/// A client hello as it came.
#[derive(Debug)]
pub struct Hello {
    /// All that was read.
    pub bytes: Bytes,
    /// The name in it; `None` also for an address.
    pub server_name: Option<String>,
}

/// Reads the agent's client hello. What is none is answered with a TLS alert.
pub async fn read_hello<T>(agent: &mut T) -> Result<Hello, Reject>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut seen = BytesMut::with_capacity(2048);
    loop {
        let fed = seen.len();
        // The buffer doubles as it grows, and would take in twice the bound before the bound is looked at.
        let room = MAX_CLIENT_HELLO.saturating_sub(fed);
        let mut within = (&mut seen).limit(room);
        let read = agent.read_buf(&mut within).await.map_err(agent_tls)?;
        if read == 0 {
            return Err(Reject::new(Cause::AgentTls).because("no whole client hello"));
        }
        let mut fresh = seen.get(fed..).unwrap_or_default();
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh).map_err(agent_tls)?;
            // Asked each time: the acceptor takes a few records in at the most, until it has joined them.
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    return Ok(Hello {
                        server_name: accepted.client_hello().server_name().map(str::to_owned),
                        bytes: seen.freeze(),
                    });
                }
                Err((error, mut alert)) => {
                    let mut farewell = Vec::new();
                    if alert.write_all(&mut farewell).is_ok() {
                        _ = agent.write_all(&farewell).await;
                    }
                    return Err(Reject::new(Cause::AgentTls).because(error));
                }
            }
        }
    }
}

/// A client hello with a post-quantum key share and a session ticket has under 4 KiB; RFC 8446 would allow 64.
const MAX_CLIENT_HELLO: usize = 64 * 1024;

/// Whether the server name is the origin's host. A missing one, which is also what an address becomes, is another name.
fn names(server_name: Option<&str>, origin: &Origin) -> bool {
    match (server_name, origin.host.as_name()) {
        (Some(given), Some(name)) => given.eq_ignore_ascii_case(name),
        _ => false,
    }
}

/// Says goodbye with a TLS alert: there is no certificate for the name that the client hello asks for.
pub(super) async fn decline(state: &State, agent: Prefixed<Socket>) {
    let farewell = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), agent).await?;
        hello.into_stream(state.nothing.clone()).await
    };
    _ = timeout(state.limits.handshake, farewell).await;
}

/// The agent took too long.
pub(super) fn no_handshake_in_time() -> Reject {
    Reject::new(Cause::AgentTls).because("no TLS handshake in time")
}

fn agent_tls(error: io::Error) -> Reject {
    Reject::new(Cause::AgentTls).because(error)
}

#[cfg(test)]
mod tests;
