//! The demo's agent: a client that knows the sidecar's address and the bottle's certificate, and nothing else. It reads
//! no variable of the environment, and keeps all that it receives.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::io::InspectReader;

use super::{Unlike, within};
use crate::cli::Failure;

/// The agent, and what it received.
pub(super) struct Agent {
    proxy: SocketAddr,
    tls: TlsConnector,
    received: Shared,
}

type Shared = Arc<Mutex<Received>>;

/// All that came to the agent.
#[derive(Debug, Default)]
pub(super) struct Received {
    answers: usize,
    /// The bytes inside the tunnels, before anything was made of them.
    plain: Vec<u8>,
    /// Heads and bodies of all answers as the agent understood them, without the framing, which could split a token.
    decoded: Vec<u8>,
}

impl Received {
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    /// How often `text` is in it.
    pub(super) fn occurrences(&self, text: &str) -> usize {
        let finder = memmem::Finder::new(text);
        let count = |bytes| finder.find_iter(bytes).count();
        count(&self.plain).max(count(&self.decoded))
    }

    fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.answers += 1;
        self.decoded.extend_from_slice(status.as_str().as_bytes());
        for (name, value) in headers {
            for part in [b"\n", name.as_str().as_bytes(), b": ", value.as_bytes()] {
                self.decoded.extend_from_slice(part);
            }
        }
        self.decoded.push(b'\n');
    }
}

impl Agent {
    /// An agent that trusts the certificates of a PEM file and no others.
    pub(super) fn new(proxy: SocketAddr, ca_cert: &Path) -> Result<Self, Failure> {
        let tls = connector(ca_cert)
            .with_context(|| format!("{}", ca_cert.display()))
            .map_err(Failure::runtime)?;
        Ok(Self {
            proxy,
            tls,
            received: Arc::default(),
        })
    }

    pub(super) fn received(&self) -> MutexGuard<'_, Received> {
        lock(&self.received)
    }

    /// A CONNECT, and TLS in the tunnel; or the answer that refuses it.
    pub(super) async fn connect(&self, host: &str) -> Result<Result<Tunnel, Answer>, Unlike> {
        let response = within("answer to CONNECT", self.ask_for_tunnel(host)).await?;
        let response = response.map_err(|error| Unlike(format!("CONNECT {host}: {error}")))?;
        let answering = Answering::new(response, &self.received);
        if answering.status != StatusCode::OK {
            return within("end of the refusal", answering.whole())
                .await?
                .map(Err);
        }
        let tunnel = within("TLS handshake", self.handshake(host, answering)).await?;
        let tunnel = tunnel.map_err(|error| Unlike(format!("the tunnel to {host}: {error:#}")))?;
        Ok(Ok(tunnel))
    }

    async fn ask_for_tunnel(&self, host: &str) -> anyhow::Result<Response<Incoming>> {
        let stream = TcpStream::connect(self.proxy).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        let authority = format!("{host}:443");
        let mut request = Request::new(Full::<Bytes>::default());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::try_from(authority.as_str())?;
        let host = HeaderValue::try_from(authority)?;
        request.headers_mut().insert(HOST, host);
        Ok(sender.send_request(request).await?)
    }

    async fn handshake(&self, host: &str, opened: Answering) -> anyhow::Result<Tunnel> {
        let tunnel = hyper::upgrade::on(opened.response).await?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream = self.tls.connect(name, TokioIo::new(tunnel)).await?;
        let received = self.received.clone();
        let stream = InspectReader::new(stream, move |bytes: &[u8]| {
            lock(&received).plain.extend_from_slice(bytes);
        });
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Tunnel {
            sender,
            received: self.received.clone(),
        })
    }
}

/// HTTP/1.1 in a tunnel, one request after the other.
pub(super) struct Tunnel {
    sender: SendRequest<Full<Bytes>>,
    received: Shared,
}

impl Tunnel {
    /// Sends a request, and waits for the head of its answer.
    pub(super) async fn begin(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answering, Unlike> {
        let path = request.uri().to_string();
        let failed = |error| Unlike(format!("{path}: {error}"));
        within("connection that can be used again", self.sender.ready())
            .await?
            .map_err(failed)?;
        let response = within("answer", self.sender.send_request(request)).await?;
        Ok(Answering::new(response.map_err(failed)?, &self.received))
    }
}

/// An answer whose head has come.
pub(super) struct Answering {
    status: StatusCode,
    response: Response<Incoming>,
    received: Shared,
}

impl Answering {
    fn new(response: Response<Incoming>, received: &Shared) -> Self {
        lock(received).head(response.status(), response.headers());
        Self {
            status: response.status(),
            response,
            received: received.clone(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Reads it to its end.
    pub(super) async fn whole(mut self) -> Result<Answer, Unlike> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        Ok(Answer {
            status: self.status,
            body,
        })
    }

    /// Reads up to the end of an event, or of the answer: then what is left, and it may be nothing.
    pub(super) async fn event(&mut self) -> Result<String, Unlike> {
        let mut event = Vec::new();
        while !event.ends_with(b"\n\n") {
            let Some(piece) = self.piece().await? else {
                break;
            };
            event.extend_from_slice(&piece);
        }
        Ok(String::from_utf8_lossy(&event).into_owned())
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Unlike> {
        while let Some(frame) = self.response.body_mut().frame().await {
            let frame = frame.map_err(|error| Unlike(format!("the answer broke off: {error}")))?;
            if let Ok(data) = frame.into_data() {
                lock(&self.received).decoded.extend_from_slice(&data);
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// A whole answer.
pub(super) struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of a refusal of the sidecar's.
    pub(super) fn code(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        Some(body.get("error")?.get("code")?.as_str()?.to_owned())
    }

    /// The status, and what is told of a refusal.
    pub(super) fn refusal(&self) -> String {
        match self.code() {
            Some(code) => format!("{} {code}", self.status.as_u16()),
            None => format!("{}: {}", self.status, self.text().trim_end()),
        }
    }
}

fn connector(ca_cert: &Path) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_cert)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

fn lock(received: &Shared) -> MutexGuard<'_, Received> {
    received.lock().unwrap_or_else(PoisonError::into_inner)
}
