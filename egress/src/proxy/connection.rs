//! One client connection: HTTP/1.1 behind the gate, or HTTP/2, for as long as the policy upholds it.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::body::Download;
use super::gate::{self, Gate};
use super::reject::{Cause, Reject};
use super::socket::Prefixed;
use super::upgrade::WebSocket;
use super::{State, handle};
use crate::audit::Client;
use crate::route::Tls;
use crate::route::target::{InvalidTarget, Origin, Via};

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
    takeover: Mutex<Option<Takeover>>,
}

/// What becomes of an HTTP/1.1 connection after the answer that hands it over.
#[derive(Debug)]
pub enum Takeover {
    /// A CONNECT was answered with 200.
    Tunnel(Origin, Tls),
    /// A WebSocket handshake was answered with 101.
    WebSocket(Box<WebSocket>),
}

impl Connection {
    /// A connection of `client`.
    pub fn new(state: Arc<State>, via: Via, client: Client) -> Arc<Self> {
        Arc::new(Self {
            state,
            via,
            client,
            hangup: Notify::new(),
            takeover: Mutex::default(),
            forfeited: AtomicBool::new(false),
        })
    }

    /// Takes no further request on this connection. Those under way finish.
    pub fn hang_up(&self) {
        self.forfeited.store(true, Ordering::Relaxed);
        self.hangup.notify_one();
    }

    /// Says what the connection is for after the answer that is about to be given.
    pub fn take_over(&self, takeover: Takeover) {
        *self.takeover.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
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

    /// Notes why hyper gave a connection up. What it could not parse it has answered with a bare 400 of its own.
    fn broke_off(&self, error: &hyper::Error) {
        if error.is_parse() {
            let mut record = self.state.audit.begin(&self.client);
            if let Via::Tunnel(origin) = &self.via {
                record.asks_host(origin);
            }
            Reject::from(InvalidTarget::Form).note(&mut record);
            record.detail(error);
        } else {
            tracing::debug!(%error, client = %self.client, "a client connection broke off");
        }
    }

    fn is_upheld(&self) -> bool {
        match &self.via {
            Via::Proxy | Via::Steered => true,
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
///
/// Where an answer handed the connection over, the stream is returned with what it is for.
pub async fn serve_h1<T>(connection: &Arc<Connection>, io: T) -> Option<(Takeover, Prefixed<T>)>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = connection.state.limits.gate();
    let gate = TokioIo::new(Gate::new(io, limits));
    let mut http = gate::server(&limits).serve_connection(gate, service(connection));
    let ended = tokio::select! {
        ended = &mut http => ended,
        () = connection.closing() => {
            Pin::new(&mut http).graceful_shutdown();
            (&mut http).await
        }
    };
    if let Err(error) = ended {
        connection.broke_off(&error);
    }
    let gate = http.into_parts().io.into_inner();
    if let Some(fault) = gate.refusal() {
        let reject = Reject::new(Cause::Framing(fault));
        let mut record = connection.state.audit.begin(&connection.client);
        if let Via::Tunnel(origin) = &connection.via {
            record.asks_host(origin);
        }
        reject.note(&mut record);
        _ = gate.answer_and_close(&reject.into_bytes()).await;
        return None;
    }
    let takeover = connection
        .takeover
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()?;
    let (io, ahead) = gate.into_inner();
    Some((takeover, Prefixed::new(ahead, io)))
}

/// Serves HTTP/2.
pub async fn serve_h2<T>(connection: &Arc<Connection>, io: T)
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
    let mut http = pin!(builder.serve_connection(TokioIo::new(io), service(connection)));
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = connection.closing() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = ended {
        connection.broke_off(&error);
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
