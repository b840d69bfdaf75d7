//! One client connection: HTTP/1.1 behind the gate, or HTTP/2, for as long as the policy upholds it.

use std::convert::Infallible;
use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_util::either::Either;

use super::body::Download;
use super::clients::{Share, Turn};
use super::gate::fault::Fault;
use super::gate::http2::Http2Gate;
use super::gate::{self, Gate};
use super::reject::{Cause, Reject};
use super::socket::Prefixed;
use super::upgrade::WebSocket;
use super::{State, handle, turn_away};
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
    /// How much the client has under way.
    pub share: Arc<Share>,
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
    pub fn new(state: Arc<State>, via: Via, client: Client, share: Arc<Share>) -> Arc<Self> {
        Arc::new(Self {
            state,
            via,
            client,
            share,
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

    /// Admits a request to be looked at.
    fn let_in<B>(&self, request: &Request<B>) -> Result<Arc<Turn>, Cause> {
        if request.headers().len() > self.state.limits.header_count {
            return Err(Cause::Framing(Fault::TooManyFields));
        }
        self.share.request().ok_or(Cause::Busy)
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

    /// Leaves a record of a client whose bytes no service has seen.
    fn cut_off(&self, fault: Fault) -> Reject {
        let reject = Reject::new(Cause::Framing(fault));
        let mut record = self.state.audit.begin(&self.client);
        if let Via::Tunnel(origin) = &self.via {
            record.asks_host(origin);
        }
        reject.note(&mut record);
        reject
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
/// Where an answer handed the connection over, the stream is returned with what it is for. While no request comes, of all
/// this only the gate is kept: most tunnels are idle most of the time, and hyper's buffers alone are 16 KiB.
pub async fn serve_h1<T>(connection: &Arc<Connection>, io: T) -> Option<(Takeover, Prefixed<T>)>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut gate = Box::new(Gate::new(io, connection.state.limits.gate()));
    loop {
        gate = match Box::pin(serve_requests(connection, gate)).await {
            Served::Resting(gate) => gate,
            Served::Ended(gate) => return end(connection, gate).await,
        };
        tokio::select! {
            () = gate.wake() => {}
            () = connection.closing() => {}
        }
    }
}

/// What became of a connection.
enum Served<T> {
    /// Nothing is under way on it, and nothing has come for a while.
    Resting(Box<Gate<T>>),
    Ended(Box<Gate<T>>),
}

/// Serves requests until none has come for a while.
async fn serve_requests<T>(connection: &Arc<Connection>, mut gate: Box<Gate<T>>) -> Served<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let rests = gate.rests();
    let limits = connection.state.limits.gate();
    let mut http = gate::server(&limits).serve_connection(TokioIo::new(gate), service(connection));
    let resting = std::future::poll_fn(|cx| match Pin::new(&mut http).poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending if rests.now() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    let ended = tokio::select! {
        ended = resting => ended,
        () = connection.closing() => {
            Pin::new(&mut http).graceful_shutdown();
            Some((&mut http).await)
        }
    };
    let parts = http.into_parts();
    let gate = parts.io.into_inner();
    if let Some(Err(error)) = &ended {
        connection.broke_off(error);
    }
    match ended {
        // The gate lets nothing through that is not taken: there is nothing in the buffer.
        None if parts.read_buf.is_empty() => Served::Resting(gate),
        None | Some(_) => Served::Ended(gate),
    }
}

/// Says why, where the gate ended it, or hands it over.
async fn end<T>(connection: &Arc<Connection>, gate: Box<Gate<T>>) -> Option<(Takeover, Prefixed<T>)>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if let Some(fault) = gate.refusal() {
        let reject = connection.cut_off(fault);
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
    let gate = Http2Gate::new(io, limits.http2_patience());
    let fault = gate.fault();
    let server = limits.http2_server();
    let mut http = pin!(server.serve_connection(TokioIo::new(gate), service(connection)));
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = connection.closing() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    match (fault.get(), ended) {
        (Some(fault), _) => _ = connection.cut_off(*fault),
        (None, Err(error)) => connection.broke_off(&error),
        (None, Ok(())) => {}
    }
}

fn service(
    connection: &Arc<Connection>,
) -> impl hyper::service::HttpService<
    Incoming,
    ResBody = Download,
    Error = Infallible,
    Future: Future<Output = Result<Response<Download>, Infallible>> + Send + 'static,
> + use<> {
    let connection = connection.clone();
    service_fn(move |mut request: Request<Incoming>| {
        // At once, and not when the answer's task is first run: what was not let in must not be kept meanwhile.
        match connection.let_in(&request) {
            Ok(turn) => Either::Left(Box::pin(handle(connection.clone(), request, turn))),
            Err(cause) => {
                let version = request.version();
                request.headers_mut().clear();
                Either::Right(ready(Ok(turn_away(&connection, version, cause))))
            }
        }
    })
}
