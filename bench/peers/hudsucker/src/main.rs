//! A peer: hudsucker with its own leaf authority, and a handler that puts one header in.
//!
//! usage: hudsucker-peer PORT CA_CERT CA_KEY UPSTREAM_CA [nodelay]
//!
//! With `nodelay`, TCP_NODELAY is set on all sockets. The crate itself sets it on none, which costs it 40 ms whenever a delayed
//! acknowledgement is waited for, so that most figures without it are those of a timer.

use std::env;
use std::fs;

use hudsucker::certificate_authority::RcgenAuthority;
use hudsucker::hyper::Request;
use hudsucker::hyper::header::AUTHORIZATION;
use hudsucker::hyper::http::HeaderValue;
use hudsucker::rcgen::{Issuer, KeyPair};
use hudsucker::rustls::crypto::aws_lc_rs;
use hudsucker::rustls::{ClientConfig, RootCertStore};
use hudsucker::{Body, HttpContext, HttpHandler, Proxy, RequestOrResponse};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpSocket;

#[tokio::main]
async fn main() {
    let words: Vec<String> = env::args().collect();
    let [_, port, certificate, key, upstream_ca, switches @ ..] = words.as_slice() else {
        panic!("usage: hudsucker-peer PORT CA_CERT CA_KEY UPSTREAM_CA [nodelay]");
    };
    let no_delay = switches.iter().any(|switch| switch == "nodelay");
    let read = |file| fs::read_to_string(file).expect("a PEM file");
    let key = KeyPair::from_pem(&read(key)).expect("a key");
    let issuer = Issuer::from_ca_cert_pem(&read(certificate), key).expect("a root");

    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(no_delay);
    let upstream = HttpsConnectorBuilder::new()
        .with_tls_config(trusting(upstream_ca))
        .https_or_http();
    let upstream = upstream.enable_http1().enable_http2().wrap_connector(http);

    // On Linux an accepted socket has what its listener has.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("SO_REUSEADDR");
    socket.set_nodelay(no_delay).expect("TCP_NODELAY");
    socket
        .bind(([127, 0, 0, 1], port.parse().expect("a port")).into())
        .expect("a free port");
    Proxy::builder()
        .with_listener(socket.listen(4096).expect("a listener"))
        .with_ca(RcgenAuthority::new(
            issuer,
            1_000,
            aws_lc_rs::default_provider(),
        ))
        .with_http_connector(upstream)
        .with_http_handler(Inject)
        .build()
        .expect("a proxy")
        .start()
        .await
        .expect("an end that was asked for");
}

fn trusting(file: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).expect("a PEM file") {
        roots
            .add(certificate.expect("a certificate"))
            .expect("a root");
    }
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[derive(Clone)]
struct Inject;

impl HttpHandler for Inject {
    async fn handle_request(
        &mut self,
        _: &HttpContext,
        mut request: Request<Body>,
    ) -> RequestOrResponse {
        let credential = HeaderValue::from_static("Bearer sk-injected-0123456789abcdef");
        request.headers_mut().insert(AUTHORIZATION, credential);
        request.into()
    }
}
