//! The upstream: HTTP/1.1 or HTTP/2 over TLS. It answers 401 where no credential came, so that a proxy which puts none in shows
//! as errors instead of as a fast one.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use clap::Args as ClapArgs;
use futures_util::SinkExt as _;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    UPGRADE,
};
use http::{Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::tls;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The port of loopback to listen on
    #[arg(long, value_name = "PORT", default_value_t = 18443)]
    port: u16,
    /// The directory that `certs` wrote
    #[arg(long, value_name = "DIR")]
    certs: PathBuf,
}

pub(crate) async fn serve(args: Args) -> anyhow::Result<()> {
    let mut config = tls::server(&args.certs.join("up"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], args.port).into())?;
    let listener = socket.listen(4096)?;
    loop {
        let (tcp, _) = listener.accept().await?;
        // A connection that fails is the other side's to tell of.
        tokio::spawn(connection(acceptor.clone(), tcp));
    }
}

/// CLOCK_MONOTONIC, which all processes of a machine share.
pub(crate) fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
    .as_nanos() as u64
}

async fn connection(acceptor: TlsAcceptor, tcp: TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let tls = acceptor.accept(tcp).await?;
    let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let tls = TokioIo::new(tls);
    if !is_http2 {
        let connection = http1::Builder::new().serve_connection(tls, service_fn(answer));
        return connection.with_upgrades().await.map_err(io::Error::other);
    }
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20);
    builder
        .max_concurrent_streams(1000)
        .timer(TokioTimer::new());
    builder
        .serve_connection(tls, service_fn(answer))
        .await
        .map_err(io::Error::other)
}

/// `/N` is N bytes, as `/1k` and `/64k` are; `/sink` takes a body; `/sse?ms=N` and `/ws?ms=N` are the time, each N milliseconds.
async fn answer(request: Request<Incoming>) -> Result<Response<Reply>, Infallible> {
    if !request.headers().contains_key(AUTHORIZATION) {
        return Ok(bytes(StatusCode::UNAUTHORIZED, 0));
    }
    Ok(match request.uri().path() {
        "/1k" => bytes(StatusCode::OK, 1 << 10),
        "/64k" => bytes(StatusCode::OK, 64 << 10),
        "/sink" => sink(request.into_body()).await,
        "/sse" => events(request.uri()),
        "/ws" => websocket(request),
        path => match path.trim_start_matches('/').parse() {
            Ok(size) => bytes(StatusCode::OK, size),
            Err(_) => bytes(StatusCode::NOT_FOUND, 0),
        },
    })
}

fn bytes(status: StatusCode, size: u64) -> Response<Reply> {
    let mut response = Response::new(Reply::Bytes(size));
    *response.status_mut() = status;
    response
}

async fn sink(mut body: Incoming) -> Response<Reply> {
    while let Some(Ok(_)) = body.frame().await {}
    bytes(StatusCode::OK, 2)
}

fn events(uri: &Uri) -> Response<Reply> {
    let mut response = Response::new(Reply::Events(ticks(uri)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn websocket(mut request: Request<Incoming>) -> Response<Reply> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return bytes(StatusCode::BAD_REQUEST, 0);
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
    let Ok(accept) = accept else {
        return bytes(StatusCode::BAD_REQUEST, 0);
    };
    let mut ticks = ticks(request.uri());
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else {
            return;
        };
        let mut socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        loop {
            ticks.tick().await;
            if socket
                .send(Message::text(nanoseconds().to_string()))
                .await
                .is_err()
            {
                return;
            }
        }
    });
    let mut response = bytes(StatusCode::SWITCHING_PROTOCOLS, 0);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn ticks(uri: &Uri) -> Interval {
    let every = uri
        .query()
        .and_then(|query| query.strip_prefix("ms=")?.parse().ok());
    let mut ticks = interval(Duration::from_millis(every.unwrap_or(5)));
    // What comes late is not followed by a burst, which no real stream is.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// A body.
enum Reply {
    /// So many bytes that are left.
    Bytes(u64),
    /// Server-sent events without end.
    Events(Interval),
}

static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Reply::Bytes(0) => return Poll::Ready(None),
            Reply::Bytes(left) => {
                let piece = usize::try_from(*left)
                    .ok()
                    .and_then(|left| PIECE.get(..left))
                    .unwrap_or(&PIECE);
                *left -= piece.len() as u64;
                Bytes::from_static(piece)
            }
            Reply::Events(ticks) => {
                ready!(ticks.poll_tick(context));
                Bytes::from(format!("data: {}\n\n", nanoseconds()))
            }
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Reply::Bytes(0))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Bytes(size) => SizeHint::with_exact(*size),
            Reply::Events(_) => SizeHint::default(),
        }
    }
}
