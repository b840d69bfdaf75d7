//! A real HTTP server to stand in for the internet: it records what reached it and answers through a closure.
//! What it recorded is the evidence of every test, so it records before it answers, also what it refuses.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Version, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{HandshakeKind, ServerConfig};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::pki::Pki;
use super::within;

pub(crate) type Body = BoxBody<Bytes, Infallible>;
pub(crate) type WebSocket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// A running upstream. It stops when it is dropped.
pub(crate) struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Upstream {
    /// TLS with any host's certificate of `pki`, offering h2 and HTTP/1.1, open to everyone.
    pub(crate) fn tls(pki: &Pki) -> Builder {
        Self::with_tls(pki.server_config(&["h2", "http/1.1"]))
    }

    /// TLS with exactly this configuration: another ALPN, or a certificate that is wrong on purpose.
    pub(crate) fn with_tls(config: Arc<ServerConfig>) -> Builder {
        Builder {
            tls: Some(config),
            required: None,
            streaming: false,
        }
    }

    /// Plain HTTP/1.1.
    pub(crate) fn plain() -> Builder {
        Builder {
            tls: None,
            required: None,
            streaming: false,
        }
    }

    /// What a route writes after `connect_to:`.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request so far, in the order in which they arrived.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no holder panicked").clone()
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        let [only] = seen.as_slice() else {
            panic!("one request was expected, not {}: {seen:#?}", seen.len());
        };
        only.clone()
    }

    /// The requests whose path, without the query, is `path`.
    pub(crate) fn at(&self, path: &str) -> Vec<Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.path() == path)
            .collect()
    }

    /// TCP connections accepted so far, whether or not a request followed.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The address that each connection was made to, in the order in which they were accepted.
    pub(crate) fn reached(&self) -> Vec<IpAddr> {
        let reached = self.shared.reached.lock();
        reached.expect("no holder panicked").clone()
    }

    /// How the TLS handshakes of its connections went, in the order in which they ended.
    pub(crate) fn handshakes(&self) -> Vec<HandshakeKind> {
        let handshakes = self.shared.handshakes.lock();
        handshakes.expect("no holder panicked").clone()
    }

    /// Waits until the TCP connection with this ordinal has ended. One that was upgraded ends with its upgrade.
    pub(crate) async fn end_of(&self, connection: u64) {
        let mut changed = self.shared.changed.subscribe();
        within(&format!("end of upstream connection {connection}"), async {
            loop {
                changed.borrow_and_update();
                if self.shared.has_ended(connection) {
                    return;
                }
                changed.changed().await.expect("the upstream runs");
            }
        })
        .await;
    }

    /// Whether the TCP connection with this ordinal is still open.
    pub(crate) fn is_open(&self, connection: u64) -> bool {
        connection <= self.connections() && !self.shared.has_ended(connection)
    }

    /// Waits until a request satisfies `wanted`, and returns it.
    pub(crate) async fn arrival(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let mut changed = self.shared.changed.subscribe();
        within(what, async {
            loop {
                changed.borrow_and_update();
                if let Some(seen) = self.seen().into_iter().find(&wanted) {
                    return seen;
                }
                changed.changed().await.expect("the upstream runs");
            }
        })
        .await
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An upstream about to start.
pub(crate) struct Builder {
    tls: Option<Arc<ServerConfig>>,
    required: Option<(HeaderName, String)>,
    streaming: bool,
}

impl Builder {
    /// Answers 401 to every request that does not carry `name` exactly once with exactly `value`.
    pub(crate) fn require(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.required = Some((HeaderName::from_static(name), value.into()));
        self
    }

    /// Hands the body to the handler as it comes; otherwise it is read whole and recorded first.
    pub(crate) fn streaming(mut self) -> Self {
        self.streaming = true;
        self
    }

    /// Binds a free loopback port and serves until the `Upstream` is dropped.
    pub(crate) async fn start<F, R>(self, handler: F) -> Upstream
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
        self.start_on(listener, handler).await
    }

    /// Serves a listener that the test made, in another network for one.
    pub(crate) async fn start_on<F, R>(
        self,
        listener: std::net::TcpListener,
        handler: F,
    ) -> Upstream
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        listener
            .set_nonblocking(true)
            .expect("a socket of this process");
        let listener = TcpListener::from_std(listener).expect("a runtime");
        let addr = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            required: self.required,
            streaming: self.streaming,
            handler: Box::new(move |call| Box::pin(handler(call))),
            seen: Mutex::default(),
            changed: watch::Sender::new(()),
            connections: AtomicU64::new(0),
            reached: Mutex::default(),
            ended: Mutex::default(),
            handshakes: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(
            listener,
            self.tls.map(TlsAcceptor::from),
            shared.clone(),
        ));
        Upstream {
            addr,
            shared,
            accepting,
        }
    }
}

/// One request as the upstream got it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The ordinal of the TCP connection that it came over, from 1.
    pub(crate) connection: u64,
    pub(crate) version: Version,
    pub(crate) method: Method,
    /// `:authority`, or the Host header.
    pub(crate) host: String,
    /// Path and query, as they stood on the wire.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    /// Empty where the body was streamed to the handler.
    pub(crate) body: Bytes,
    /// False where it was answered 401 for want of the required header.
    pub(crate) authorised: bool,
}

impl Seen {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Every value of a header, so that a test can insist on exactly one.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values
            .map(|value| value.to_str().expect("a text header"))
            .collect()
    }
}

/// One request to be answered.
pub(crate) struct Call {
    pub(crate) seen: Seen,
    /// The request itself. Its body is there only where the upstream streams.
    pub(crate) request: Request<Option<Incoming>>,
}

impl Call {
    pub(crate) fn is_websocket(&self) -> bool {
        let upgrade = self.seen.headers.get(header::UPGRADE);
        upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
    }

    /// Answers 101, declining every extension, and runs `talk` on the WebSocket.
    pub(crate) fn websocket<F, R>(mut self, talk: F) -> Response<Body>
    where
        F: FnOnce(WebSocket) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let key = self
            .seen
            .headers
            .get("sec-websocket-key")
            .expect("a WebSocket key");
        let accept = derive_accept_key(key.as_bytes());
        let upgraded = hyper::upgrade::on(&mut self.request);
        tokio::spawn(async move {
            let Ok(upgraded) = upgraded.await else { return };
            talk(
                WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await,
            )
            .await;
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket")
            .header("sec-websocket-accept", accept)
            .body(text_body(""))
            .expect("a valid response")
    }
}

pub(crate) fn text(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    typed(status, "text/plain", body)
}

pub(crate) fn json(status: u16, body: &Value) -> Response<Body> {
    typed(status, "application/json", body.to_string())
}

pub(crate) fn typed(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .body(text_body(body))
        .expect("a valid response")
}

/// A server-sent event stream whose events the test sends, one by one, through the sender. It ends when that is dropped.
pub(crate) fn event_stream() -> (
    http_body_util::channel::Sender<Bytes, Infallible>,
    Response<Body>,
) {
    let (sender, body) = http_body_util::channel::Channel::new(16);
    let response = Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .body(body.boxed())
        .expect("a valid response");
    (sender, response)
}

pub(crate) fn text_body(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

type Handler = dyn Fn(Call) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync;

struct Shared {
    required: Option<(HeaderName, String)>,
    streaming: bool,
    handler: Box<Handler>,
    seen: Mutex<Vec<Seen>>,
    changed: watch::Sender<()>,
    connections: AtomicU64,
    reached: Mutex<Vec<IpAddr>>,
    ended: Mutex<BTreeSet<u64>>,
    handshakes: Mutex<Vec<HandshakeKind>>,
}

impl Shared {
    fn has_ended(&self, connection: u64) -> bool {
        let ended = self.ended.lock().expect("no holder panicked");
        ended.contains(&connection)
    }

    async fn serve(self: Arc<Self>, tcp: TcpStream, tls: Option<TlsAcceptor>, connection: u64) {
        let Some(tls) = tls else {
            return serve_http1(tcp, connection, self).await;
        };
        let Ok(stream) = tls.accept(tcp).await else {
            return;
        };
        let session = stream.get_ref().1;
        let kind = session.handshake_kind().expect("the handshake is over");
        let is_h2 = session.alpn_protocol() == Some(b"h2");
        self.handshakes
            .lock()
            .expect("no holder panicked")
            .push(kind);
        if is_h2 {
            serve_http2(stream, connection, self).await;
        } else {
            serve_http1(stream, connection, self).await;
        }
    }

    async fn answer(&self, connection: u64, request: Request<Incoming>) -> Response<Body> {
        let (parts, incoming) = request.into_parts();
        let (body, incoming) = if self.streaming {
            (Bytes::new(), Some(incoming))
        } else {
            match incoming.collect().await {
                Ok(body) => (body.to_bytes(), None),
                // An aborted upload is no request; the connection is gone, so nobody reads this answer.
                Err(_) => return text(400, "the body broke off"),
            }
        };
        let host = parts
            .uri
            .authority()
            .map(|authority| authority.as_str().to_owned());
        let host_header = || Some(parts.headers.get(header::HOST)?.to_str().ok()?.to_owned());
        let seen = Seen {
            connection,
            version: parts.version,
            method: parts.method.clone(),
            host: host.or_else(host_header).unwrap_or_default(),
            target: parts
                .uri
                .path_and_query()
                .map(|target| target.as_str().to_owned())
                .unwrap_or_default(),
            authorised: self.authorises(&parts.headers),
            headers: parts.headers.clone(),
            body,
        };
        self.seen
            .lock()
            .expect("no holder panicked")
            .push(seen.clone());
        self.changed.send_replace(());
        if !seen.authorised {
            let mut refusal = json(
                401,
                &serde_json::json!({"error": {"message": "not the real credential"}}),
            );
            let challenge = http::HeaderValue::from_static("Basic realm=\"upstream\"");
            refusal
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
            return refusal;
        }
        let request = Request::from_parts(parts, incoming);
        (self.handler)(Call { seen, request }).await
    }

    fn authorises(&self, headers: &HeaderMap) -> bool {
        let Some((name, value)) = &self.required else {
            return true;
        };
        let values: Vec<_> = headers.get_all(name).iter().collect();
        matches!(values.as_slice(), [only] if only.as_bytes() == value.as_bytes())
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Connections end with the listener, so that a dropped upstream is gone and not merely deaf.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let reached = stream.local_addr().expect("a connected socket").ip();
        shared
            .reached
            .lock()
            .expect("no holder panicked")
            .push(reached.to_canonical());
        let connection = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let (shared, tls) = (shared.clone(), tls.clone());
        connections.spawn(async move {
            shared.clone().serve(stream, tls, connection).await;
            shared
                .ended
                .lock()
                .expect("no holder panicked")
                .insert(connection);
            shared.changed.send_replace(());
        });
        while connections.try_join_next().is_some() {}
    }
}

// How a connection ended is seen by its client, which is what the tests look at.
async fn serve_http1<S>(stream: S, connection: u64, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.answer(connection, request).await) }
    });
    let serving =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = serving.with_upgrades().await;
}

async fn serve_http2<S>(stream: S, connection: u64, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.answer(connection, request).await) }
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
