//! The demo's upstream: HTTPS with a CA of its own, on loopback. It records every request before it answers, and takes
//! the real token only.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{Unlike, within};
use crate::cli::Failure;

/// The path that is answered with a stream of events.
pub(super) const STREAM: &str = "/v1/responses";
/// What every other path is answered with.
pub(super) const MODELS: &str = "{\"models\": [\"demo-1\"]}\n";

/// The running upstream. It stops when it is dropped.
pub(super) struct Upstream {
    address: SocketAddr,
    ca_pem: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    streams: mpsc::UnboundedReceiver<Stream>,
    _accepting: JoinSet<()>,
}

impl Upstream {
    /// Serves as `host` on a free port, for requests that carry `token`.
    pub(super) async fn start(host: &str, token: &str) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener
            .context("the demo's upstream cannot listen on 127.0.0.1")
            .map_err(|error| {
                Failure::runtime(error).hint("the demo needs a free port on loopback")
            })?;
        let address = listener.local_addr().map_err(Failure::runtime)?;
        // A listener comes up on a loopback that is down, too; only a connection shows it.
        let reached = TcpStream::connect(address).await;
        reached
            .with_context(|| format!("cannot connect to {address}"))
            .map_err(|error| {
                Failure::runtime(error).hint("bring loopback up with `ip link set lo up`")
            })?;
        let (ca_pem, tls) = tls(host)
            .context("the demo's upstream has no certificate")
            .map_err(Failure::runtime)?;
        let (sender, streams) = mpsc::unbounded_channel();
        let service = Arc::new(Service {
            expected: format!("Bearer {token}"),
            seen: Arc::default(),
            streams: sender,
        });
        let seen = service.seen.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, tls, service));
        Ok(Self {
            address,
            ca_pem,
            seen,
            streams,
            _accepting: accepting,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that the sidecar has to trust.
    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Every request so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The next stream that the upstream answers with.
    pub(super) async fn stream(&mut self) -> Result<Stream, Unlike> {
        let stream = within("stream of the upstream's", self.streams.recv()).await?;
        stream.ok_or_else(|| Unlike("the upstream stopped".into()))
    }
}

/// One request as the upstream got it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    method: Method,
    authority: String,
    target: String,
    version: Version,
    headers: HeaderMap,
}

impl Seen {
    fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let host = || {
            request
                .headers()
                .get(HOST)
                .map(HeaderValue::as_bytes)
                .unwrap_or_default()
        };
        Self {
            method: request.method().clone(),
            authority: match uri.authority() {
                Some(authority) => authority.to_string(),
                None => String::from_utf8_lossy(host()).into_owned(),
            },
            target: uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            version: request.version(),
            headers: request.headers().clone(),
        }
    }

    /// What it asks for, in one line.
    pub(super) fn line(&self) -> String {
        let Self {
            method,
            authority,
            target,
            version,
            ..
        } = self;
        format!("{method} https://{authority}{target} ({version:?})")
    }

    /// Every value of a header.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap_or("(no text)"))
            .collect()
    }
}

/// An answer that goes on for as long as this is kept.
pub(super) struct Stream(Sender<Bytes, Infallible>);

impl Stream {
    /// Sends a piece at once.
    pub(super) async fn send(&mut self, piece: &str) -> Result<(), Unlike> {
        let sent = self
            .0
            .send_data(Bytes::copy_from_slice(piece.as_bytes()))
            .await;
        sent.map_err(|_| Unlike("the upstream's stream was broken off".into()))
    }
}

struct Service {
    expected: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    streams: mpsc::UnboundedSender<Stream>,
}

type Body = Either<Full<Bytes>, Channel<Bytes, Infallible>>;

impl Service {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let seen = Seen::of(request);
        let authorised = seen.all("authorization") == [self.expected.as_str()];
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(seen);
        let (kind, body) = if !authorised {
            ("text/plain", Either::Left("who are you?\n".into()))
        } else if request.uri().path() == STREAM {
            let (sender, body) = Channel::new(1);
            // Without the demo there is nobody to stream for; the body ends at once.
            _ = self.streams.send(Stream(sender));
            ("text/event-stream", Either::Right(body))
        } else {
            ("application/json", Either::Left(MODELS.into()))
        };
        let mut response = Response::new(body);
        if !authorised {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// A new CA's certificate, and TLS with a leaf of it for `host`.
fn tls(host: &str) -> anyhow::Result<(String, TlsAcceptor)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new([host.to_owned()])?.signed_by(&key, &root)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((root.pem(), Arc::new(config).into()))
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, service: Arc<Service>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, tls.clone(), service.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// How a connection ends is seen by the sidecar, whose answers are what the demo looks at.
async fn serve(stream: TcpStream, tls: TlsAcceptor, service: Arc<Service>) {
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let answer = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.answer(&request)) }
    });
    let io = TokioIo::new(stream);
    if is_h2 {
        _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, answer)
            .await;
    } else {
        _ = http1::Builder::new().serve_connection(io, answer).await;
    }
}
