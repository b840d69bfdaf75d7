//! One client connection: HTTP/1.1 behind the gate, or HTTP/2, for as long as the policy upholds it.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use super::body::Download;
use super::gate::{self, Gate};
use super::reject::{Cause, Reject};
use super::socket::{Prefixed, Socket};
use super::{State, handle};
use crate::audit::Client;
use crate::route::Tls;
use crate::route::target::Via;

/// The stream inside a tunnel whose TLS ends here.
pub type Inner = TlsStream<Prefixed<Socket>>;

/// What every request on a connection shares.
#[derive(Debug)]
pub struct Connection {
    /// The sidecar.
    pub state: Arc<State>,
    /// How requests reach us on it.
    pub via: Via,
    /// Who sends them.
    pub client: Client,
    hangup: Notify,
    forfeited: AtomicBool,
}

impl Connection {
    /// A connection of `client`.
    pub fn new(state: Arc<State>, via: Via, client: Client) -> Arc<Self> {
        Arc::new(Self {
            state,
            via,
            client,
            hangup: Notify::new(),
            forfeited: AtomicBool::new(false),
        })
    }

    /// Takes no further request on this connection. Those under way finish.
    pub fn hang_up(&self) {
        self.forfeited.store(true, Ordering::Relaxed);
        self.hangup.notify_one();
    }

    /// Whether the client forfeited the connection. HTTP/2 takes streams until the client has seen the GOAWAY.
    pub fn is_forfeited(&self) -> bool {
        self.forfeited.load(Ordering::Relaxed)
    }

    /// Resolves once no further request is taken: the sidecar stops, the tunnel's route is gone, or the client forfeited
    /// the connection.
    async fn closing(&self) {
        let mut epoch = self.state.epoch.subscribe();
        loop {
            if epoch.borrow_and_update().stopping || !self.is_upheld() {
                return;
            }
            tokio::select! {
                changed = epoch.changed() => if changed.is_err() { return },
                () = self.hangup.notified() => return,
            }
        }
    }

    fn is_upheld(&self) -> bool {
        match &self.via {
            Via::Proxy => true,
            Via::Tunnel(origin) => self
                .state
                .policy
                .load()
                .routes
                .admits(origin)
                .is_ok_and(|tls| tls == Tls::Intercept),
        }
    }
}

/// Serves HTTP/1.1. Bytes that are no unambiguous request are answered with a 400, logged, and end the connection.
pub async fn serve_h1<T>(connection: Arc<Connection>, io: T)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = connection.state.limits.gate();
    let gate = TokioIo::new(Gate::new(io, limits));
    let mut http = gate::server(&limits)
        .serve_connection(gate, service(&connection))
        .with_upgrades();
    let ended = {
        let mut closing = pin!(connection.closing());
        let mut http = Pin::new(&mut http);
        tokio::select! {
            ended = http.as_mut() => ended,
            () = &mut closing => {
                http.as_mut().graceful_shutdown();
                http.await
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, client = %connection.client, "a client connection broke off");
    }
    // None where the connection became a tunnel.
    let Some(parts) = http.into_parts() else {
        return;
    };
    let gate = parts.io.into_inner();
    if let Some(fault) = gate.refusal() {
        let reject = Reject::new(Cause::Framing(fault));
        let mut record = connection.state.audit.begin(&connection.client);
        if let Via::Tunnel(origin) = &connection.via {
            record.asks_host(origin);
        }
        reject.note(&mut record);
        _ = gate.answer_and_close(&reject.into_bytes()).await;
    }
}

/// Serves HTTP/2.
pub async fn serve_h2<T>(connection: Arc<Connection>, io: T)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &connection.state.limits;
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let mut http = pin!(builder.serve_connection(TokioIo::new(io), service(&connection)));
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = connection.closing() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, client = %connection.client, "a client connection broke off");
    }
}

/// Flow-control windows towards agents, in bytes: what one upload, and all of a connection's, may have under way.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

fn service(
    connection: &Arc<Connection>,
) -> impl hyper::service::HttpService<
    Incoming,
    ResBody = Download,
    Error = Infallible,
    Future: Future<Output = Result<Response<Download>, Infallible>> + Send + 'static,
> + use<> {
    let connection = connection.clone();
    service_fn(move |request: Request<Incoming>| handle(connection.clone(), request))
}

/// A stream that was taken over from HTTP/1.1, with what the client sent ahead.
pub trait Taken: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Taken for T {}

/// Gets the stream of an upgraded connection back from hyper and out of the gate.
pub fn reclaim(upgraded: Upgraded) -> Option<Box<dyn Taken>> {
    match reclaim_socket(upgraded) {
        Ok(socket) => Some(Box::new(socket)),
        Err(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<Gate<Inner>>>().ok()?;
            let (io, held) = parts.io.into_inner().into_inner();
            Some(Box::new(Prefixed::new(joined(parts.read_buf, held), io)))
        }
    }
}

/// The same for a connection of which it is known that it is the client's own.
pub fn reclaim_socket(upgraded: Upgraded) -> Result<Prefixed<Socket>, Upgraded> {
    let parts = upgraded.downcast::<TokioIo<Gate<Socket>>>()?;
    let (io, held) = parts.io.into_inner().into_inner();
    Ok(Prefixed::new(joined(parts.read_buf, held), io))
}

/// hyper's read buffer comes before what the gate still held.
fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        second
    } else {
        [first, second].concat().into()
    }
}
