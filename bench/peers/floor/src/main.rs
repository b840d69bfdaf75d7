//! A peer, and no proxy to use: the least work with which tokio and rustls can do the job for HTTP/1.1. CONNECT, a minted leaf,
//! TLS, one header put in, pooled TLS to the upstream; no policy, no stripping, no limits, and no answer to what is malformed. It
//! says how low the CPU time of a proxy that does more could get.
//!
//! usage: floor-peer PORT CA_CERT CA_KEY UPSTREAM_CA

use std::cell::RefCell;
use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use rcgen::{CertificateParams, Issuer, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const INJECTED: &[u8] = b"Authorization: Bearer sk-injected-0123456789abcdef\r\n";

/// rustls reads 4 KiB at a time; with so much beneath it, a large body takes half as many system calls.
const BUFFER: usize = 32 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = env::args().collect();
    let [_, port, certificate, key, upstream_ca] = words.as_slice() else {
        panic!("usage: floor-peer PORT CA_CERT CA_KEY UPSTREAM_CA");
    };
    let shared = Rc::new(Shared::new(certificate, key, upstream_ca));
    let address = ("127.0.0.1", port.parse().expect("a port"));
    let listener = TcpListener::bind(address).await.expect("a free port");
    let serving = async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            let shared = Rc::clone(&shared);
            spawn_local(async move { shared.serve(tcp).await });
        }
    };
    LocalSet::new().run_until(serving).await
}

type Buffered = BufReader<TcpStream>;
type Upstream = TlsStream<Buffered>;

struct Shared {
    provider: Arc<CryptoProvider>,
    issuer: Issuer<'static, KeyPair>,
    /// Of all leaves.
    key: KeyPair,
    leaves: RefCell<HashMap<String, Arc<ServerConfig>>>,
    connector: TlsConnector,
    pool: RefCell<HashMap<String, Vec<Upstream>>>,
}

impl Shared {
    fn new(certificate: &str, key: &str, upstream_ca: &str) -> Self {
        let read = |file| fs::read_to_string(file).expect("a PEM file");
        let root_key = KeyPair::from_pem(&read(key)).expect("a key");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(upstream_ca).expect("a PEM file") {
            roots.add(root.expect("a certificate")).expect("a root");
        }
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            provider,
            issuer: Issuer::from_ca_cert_pem(&read(certificate), root_key).expect("a root"),
            key: KeyPair::generate().expect("a key"),
            leaves: RefCell::default(),
            connector: TlsConnector::from(Arc::new(client)),
            pool: RefCell::default(),
        }
    }

    /// One tunnel, until its end or anything that is not as it should be.
    async fn serve(&self, tcp: TcpStream) -> io::Result<()> {
        let (mut tcp, mut buffer, mut have) = (buffered(tcp)?, vec![0; BUFFER], 0);
        let end = head(&mut tcp, &mut buffer, &mut have).await?;
        let line = String::from_utf8_lossy(&buffer[..end]);
        let authority = line
            .strip_prefix("CONNECT ")
            .and_then(|line| line.split(' ').next());
        let authority = authority.ok_or(ErrorKind::InvalidData)?.to_owned();
        let host = authority.split(':').next().unwrap_or_default();
        tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        let mut agent = TlsAcceptor::from(self.leaf(host)).accept(tcp).await?;
        loop {
            have = 0;
            let end = head(&mut agent, &mut buffer, &mut have).await?;
            let (request, mut upstream) = (
                length(&buffer[..end]),
                self.upstream(&authority, host).await?,
            );
            // The header goes before the empty line that ends the head.
            buffer.copy_within(end - 2..have, end - 2 + INJECTED.len());
            buffer[end - 2..end - 2 + INJECTED.len()].copy_from_slice(INJECTED);
            let (end, all) = (end + INJECTED.len(), have + INJECTED.len());
            upstream.write_all(&buffer[..all]).await?;
            buffer.copy_within(end..all, 0);
            body(&mut agent, &mut upstream, &mut buffer, all - end, request).await?;
            have = 0;
            let end = head(&mut upstream, &mut buffer, &mut have).await?;
            let answer = length(&buffer[..end]);
            agent.write_all(&buffer[..have]).await?;
            if answer.is_none() {
                agent.flush().await?;
            }
            buffer.copy_within(end..have, 0);
            body(&mut upstream, &mut agent, &mut buffer, have - end, answer).await?;
            self.pool
                .borrow_mut()
                .entry(authority.clone())
                .or_default()
                .push(upstream);
        }
    }

    fn leaf(&self, host: &str) -> Arc<ServerConfig> {
        if let Some(config) = self.leaves.borrow().get(host) {
            return Arc::clone(config);
        }
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.key, &self.issuer).expect("a leaf");
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], key.into())
            .expect("a key of the leaf's");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new().expect("randomness");
        config.send_tls13_tickets = 1;
        let config = Arc::new(config);
        self.leaves
            .borrow_mut()
            .insert(host.to_owned(), Arc::clone(&config));
        config
    }

    async fn upstream(&self, authority: &str, host: &str) -> io::Result<Upstream> {
        if let Some(upstream) = self.pool.borrow_mut().get_mut(authority).and_then(Vec::pop) {
            return Ok(upstream);
        }
        let tcp = TcpStream::connect(authority).await?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.connector.connect(name, buffered(tcp)?).await
    }
}

fn buffered(tcp: TcpStream) -> io::Result<Buffered> {
    tcp.set_nodelay(true)?;
    Ok(BufReader::with_capacity(BUFFER, tcp))
}

/// Reads until the end of a head, and returns its length.
async fn head(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    have: &mut usize,
) -> io::Result<usize> {
    // What is put in has to fit behind a body that came with the head.
    let room = buffer.len() - INJECTED.len();
    loop {
        if let Some(at) = buffer[..*have]
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
        {
            return Ok(at + 4);
        }
        match from.read(&mut buffer[*have..room]).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => *have += read,
        }
    }
}

/// The length of the body that follows this head; none if it comes in chunks.
fn length(head: &[u8]) -> Option<u64> {
    for line in head.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            return std::str::from_utf8(&value[1..]).ok()?.trim().parse().ok();
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return None;
        }
    }
    Some(0)
}

/// Passes a body on, of which the first `have` bytes of the buffer have gone already.
async fn body(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    buffer: &mut [u8],
    have: usize,
    length: Option<u64>,
) -> io::Result<()> {
    let mut left = length.unwrap_or(u64::MAX) - have as u64;
    // The last bytes, among which the chunk that ends a body without a length is looked for.
    let mut last = buffer[have.saturating_sub(5)..have].to_vec();
    while left > 0 && !(length.is_none() && last.ends_with(b"0\r\n\r\n")) {
        let read = from.read(buffer).await?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&buffer[..read]).await?;
        if length.is_none() {
            to.flush().await?;
            last.extend_from_slice(&buffer[read.saturating_sub(5)..read]);
            last.drain(..last.len().saturating_sub(5));
        }
        left -= read as u64;
    }
    to.flush().await
}
