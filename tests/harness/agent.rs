//! A minimal agent: CONNECT, TLS with the bottle's CA, HTTP/1.1 or HTTP/2. It also speaks raw bytes, for what no proper
//! client would send. It never corrects what a test tells it to send.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::sidecar::Sidecar;
use super::{pki, within};

pub(crate) type Tunnel = TlsStream<TcpStream>;

/// An agent that knows the proxy's address and the bottle's certificate, and nothing else.
pub(crate) struct Agent {
    proxy: SocketAddr,
    roots: Arc<rustls::RootCertStore>,
}

impl Agent {
    pub(crate) fn of(sidecar: &Sidecar) -> Self {
        Self {
            proxy: sidecar.addr(),
            roots: Arc::new(pki::trust_only(&sidecar.ca_cert())),
        }
    }

    /// The same agent, before another of the sidecar's listeners.
    pub(crate) fn at(sidecar: &Sidecar, proxy: SocketAddr) -> Self {
        Self {
            proxy,
            ..Self::of(sidecar)
        }
    }

    /// An agent that was given the certificate in another way than by its file.
    pub(crate) fn trusting(sidecar: &Sidecar, root: CertificateDer<'static>) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root).expect("a root certificate");
        Self {
            proxy: sidecar.addr(),
            roots: Arc::new(roots),
        }
    }

    /// A GET over HTTP/1.1 in a tunnel of its own. `url` is `https://host[:port]/path`.
    pub(crate) async fn get(&self, url: &str) -> Answer {
        self.send(Request::get(url).body(Bytes::new()).expect("a valid URL"))
            .await
    }

    /// One request over HTTP/1.1 in a tunnel of its own. Host is derived from the URL where it is not given.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Answer {
        let (authority, host) = names(&request);
        let mut tunnel = self.http1(&authority, &host).await;
        send_http1(&mut tunnel, request).await
    }

    /// One request over HTTP/2 in a tunnel of its own.
    pub(crate) async fn send_h2(&self, request: Request<Bytes>) -> Answer {
        let (authority, host) = names(&request);
        let mut tunnel = self.http2(&authority, &host).await;
        send_http2(&mut tunnel, request).await
    }

    /// HTTP/1.1 in a tunnel to `authority`, for several requests or for ones that the URL does not tell.
    pub(crate) async fn http1(
        &self,
        authority: &str,
        sni: &str,
    ) -> http1::SendRequest<Full<Bytes>> {
        let stream = self
            .tunnel(authority, sni, &["http/1.1"])
            .await
            .expect("a TLS tunnel");
        let handshake = http1::Builder::new().handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.expect("an HTTP/1.1 connection");
        tokio::spawn(connection.with_upgrades());
        sender
    }

    /// HTTP/2 in a tunnel to `authority`.
    pub(crate) async fn http2(
        &self,
        authority: &str,
        sni: &str,
    ) -> http2::SendRequest<Full<Bytes>> {
        let stream = self
            .tunnel(authority, sni, &["h2"])
            .await
            .expect("a TLS tunnel");
        assert_eq!(
            stream.get_ref().1.alpn_protocol(),
            Some(&b"h2"[..]),
            "h2 is offered"
        );
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.expect("an HTTP/2 connection");
        tokio::spawn(connection);
        sender
    }

    /// CONNECT to `authority`, then a TLS handshake for `sni`. Panics where the CONNECT itself is refused.
    pub(crate) async fn tunnel(
        &self,
        authority: &str,
        sni: &str,
        alpn: &[&str],
    ) -> std::io::Result<Tunnel> {
        let stream = match self.connect(authority).await {
            Ok(stream) => stream,
            Err(refusal) => panic!("CONNECT {authority} was refused: {refusal:?}"),
        };
        let name = ServerName::try_from(sni.to_owned()).expect("a server name");
        within("TLS handshake", self.connector(alpn).connect(name, stream)).await
    }

    /// TLS as this agent does it, for a stream that a test made by itself.
    pub(crate) fn connector(&self, alpn: &[&str]) -> TlsConnector {
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider's protocol versions")
                .with_root_certificates(self.roots.clone())
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// A CONNECT: the open tunnel, or the refusal.
    pub(crate) async fn connect(&self, authority: &str) -> Result<TcpStream, Answer> {
        let mut stream = self.raw().await;
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        stream
            .write_all(head.as_bytes())
            .await
            .expect("the sidecar reads");
        let head = within("answer to CONNECT", read_head(&mut stream)).await;
        if head.starts_with(b"HTTP/1.1 200 ") {
            return Ok(stream);
        }
        let mut rest = Vec::new();
        within("end of the refusal", stream.read_to_end(&mut rest))
            .await
            .expect("a readable refusal");
        Err(parse(&head, rest))
    }

    /// A bare TCP connection to the proxy.
    pub(crate) async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.proxy)
            .await
            .expect("the sidecar listens")
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `error.code` of the sidecar's own answers.
    pub(crate) fn error_code(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(body.get("error")?.get("code")?.as_str()?.to_owned())
    }
}

pub(crate) async fn send_http1(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Bytes>,
) -> Answer {
    let (mut parts, body) = request.into_parts();
    // In a tunnel the target is in origin form. A test that wants another form writes it raw.
    if let Some(authority) = parts.uri.authority().cloned() {
        let host =
            http::HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII");
        parts.headers.entry(http::header::HOST).or_insert(host);
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        parts.uri = target.parse().expect("the target of a valid URL");
    }
    let request = Request::from_parts(parts, Full::new(body));
    let response = within("answer", sender.send_request(request)).await;
    collect(response.expect("an answer")).await
}

pub(crate) async fn send_http2(
    sender: &mut http2::SendRequest<Full<Bytes>>,
    request: Request<Bytes>,
) -> Answer {
    let response = within("answer", sender.send_request(request.map(Full::new))).await;
    collect(response.expect("an answer")).await
}

/// Sends `bytes` as they are, and returns all that comes back until the other side closes.
pub(crate) async fn exchange<S>(stream: &mut S, bytes: &[u8]) -> Vec<u8>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A sidecar that has seen enough may close before it has read all of it; what it said is still there to be read.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let _ = within("end of the answer", stream.read_to_end(&mut answer)).await;
    answer
}

/// Reads until `needle` has come, or the other side closes, and returns all of it.
pub(crate) async fn read_until<S: AsyncRead + Unpin>(stream: &mut S, needle: &str) -> String {
    let mut answer = Vec::new();
    within(needle, async {
        while !String::from_utf8_lossy(&answer).contains(needle) {
            match stream.read_buf(&mut answer).await {
                Ok(1..) => {}
                _ => break,
            }
        }
    })
    .await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads up to and including the blank line that ends a head.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    head
}

async fn collect(response: Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = within("end of the answer", body.collect()).await;
    Answer {
        status: parts.status,
        version: parts.version,
        headers: parts.headers,
        body: body.expect("a whole body").to_bytes(),
    }
}

fn parse(head: &[u8], body: Vec<u8>) -> Answer {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a header line");
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        headers.append(name, value.trim().parse().expect("a header value"));
    }
    Answer {
        status: status.unwrap_or_else(|| panic!("no status line in {head:?}")),
        version: Version::HTTP_11,
        headers,
        body: body.into(),
    }
}

/// The authority to CONNECT to, and the server name, of a request's URL.
fn names(request: &Request<Bytes>) -> (String, String) {
    let host = request.uri().host().expect("an absolute URL");
    let port = request.uri().port_u16().unwrap_or(443);
    (format!("{host}:{port}"), host.to_owned())
}
