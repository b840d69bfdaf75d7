//! What is said on the wire: a tunnel through the proxy, the certificates shown in it, and the head of one answer.
//!
//! Nothing is trusted here and nothing is judged; the certificates are what the examination is about.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{DATE, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::proxy::reject::X_EGRESS_ERROR;
use crate::proxy::upstream::ProxyUrl;

/// How long a step of the examination may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The head of an answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The code of a sidecar's refusal.
    pub(super) code: Option<String>,
    /// The time at the other end, and here when it came.
    pub(super) date: Option<(SystemTime, SystemTime)>,
}

/// What was met at a host.
#[derive(Clone, Debug)]
pub(super) enum Visit {
    /// The proxy opens no tunnel to it.
    Refused(Answer),
    /// TLS; its certificates, the host's own first.
    Shown {
        certificates: Vec<CertificateDer<'static>>,
        answer: Option<Answer>,
    },
}

/// Why there was no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Problem {
    /// Nobody is there.
    #[error("no connection: {0}")]
    Connect(String),
    /// Somebody is, and says something else.
    #[error("{0}")]
    Protocol(String),
}

/// Asks the proxy for a tunnel to a name that does not exist, so that every sidecar refuses it.
pub(super) async fn ask(proxy: &ProxyUrl) -> Result<Answer, Problem> {
    const NOWHERE: &str = "egress-doctor.invalid:443";
    let response = within(tunnel(proxy, NOWHERE)).await?;
    Ok(Answer::of(&response))
}

/// Asks a host for `/`, through the proxy or, where connections are steered, as if there was none.
pub(super) async fn visit(proxy: Option<&ProxyUrl>, host: &str) -> Result<Visit, Problem> {
    let authority = format!("{host}:443");
    let Some(proxy) = proxy else {
        let stream = within(connect(&authority)).await?;
        return within(look(stream, host)).await;
    };
    let response = within(tunnel(proxy, &authority)).await?;
    if response.status() != StatusCode::OK {
        return Ok(Visit::Refused(Answer::of(&response)));
    }
    let stream = within(async { hyper::upgrade::on(response).await.map_err(protocol) }).await?;
    within(look(TokioIo::new(stream), host)).await
}

async fn within<T>(step: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    match tokio::time::timeout(PATIENCE, step).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Problem::Protocol(format!(
            "no answer within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

async fn connect(place: &str) -> Result<TcpStream, Problem> {
    TcpStream::connect(place)
        .await
        .map_err(|error| Problem::Connect(error.to_string()))
}

async fn tunnel(proxy: &ProxyUrl, authority: &str) -> Result<Response<Incoming>, Problem> {
    let stream = connect(&proxy.origin().to_string()).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(protocol)?;
    tokio::spawn(connection.with_upgrades());
    let request = proxy.connect_request(authority).map_err(protocol)?;
    sender.send_request(request).await.map_err(protocol)
}

async fn look<S>(stream: S, host: &str) -> Result<Visit, Problem>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let name = ServerName::try_from(host.to_owned()).map_err(protocol)?;
    let connector = TlsConnector::from(client_config().map_err(protocol)?);
    let stream = connector.connect(name, stream).await.map_err(protocol)?;
    let (_, session) = stream.get_ref();
    let certificates = session.peer_certificates().unwrap_or_default();
    let certificates = certificates.iter().map(|one| one.clone().into_owned());
    Ok(Visit::Shown {
        certificates: certificates.collect(),
        // The certificates are there already; what becomes of the request is no part of them.
        answer: request(stream, host).await.ok(),
    })
}

async fn request<S>(stream: S, host: &str) -> Result<Answer, Problem>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(protocol)?;
    tokio::spawn(connection);
    let request = Request::get("/").header(HOST, host);
    let request = request.body(Empty::<Bytes>::new()).map_err(protocol)?;
    let response = sender.send_request(request).await.map_err(protocol)?;
    Ok(Answer::of(&response))
}

impl Answer {
    fn of<B>(response: &Response<B>) -> Self {
        let text = |name| response.headers().get(name)?.to_str().ok();
        let date = text(DATE).and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
        Self {
            status: response.status(),
            code: text(X_EGRESS_ERROR).map(str::to_owned),
            date: date.map(|date| (date.into(), SystemTime::now())),
        }
    }
}

/// The whole chain of causes: the outermost alone says too little of why TLS failed.
fn protocol(error: impl StdError) -> Problem {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    Problem::Protocol(text)
}

pub(super) fn client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Witness(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Takes every certificate: each bundle is held against it afterwards. What is sent holds no secret.
#[derive(Debug)]
struct Witness(Arc<CryptoProvider>);

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
