//! `tls: passthrough`: the agent's TLS goes to the upstream untouched, once its server name was found to be the tunnel's.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::agent::{Agent, exchange, read_until};
use crate::harness::forward::Forward;
use crate::harness::pki::{self, Pki};
use crate::harness::scripted::{Scripted, Wire};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Upstream, text};
use crate::harness::{refusing, within};

#[tokio::test]
async fn another_server_name_or_none_is_closed_logged_and_not_dialled() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| text(200, "never"))
        .await;
    let to = upstream.addr();
    let routes = format!(
        "routes:\n  - {{host: api.test, tls: passthrough, connect_to: {to}}}\n  - {{host: other.test, tls: passthrough, connect_to: {to}}}\n"
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let agent = Agent::of(&sidecar);
    // An address goes without a server name.
    for name in ["other.test", "unknown.test", "a.api.test", "127.0.0.1"] {
        let stream = agent.connect("api.test:443").await.expect("a tunnel");
        let refused = handshake(&pki, name, stream).await;
        assert!(refused.is_err(), "{name}");
    }
    sidecar.logged_times("server_name_mismatch", 4).await;
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn what_is_no_tls_is_closed_logged_and_not_dialled() {
    let pki = Pki::new();
    let upstream = Upstream::plain()
        .start(async |_call| text(200, "never"))
        .await;
    let sidecar = sidecar(&pki, &upstream).await;
    let agent = Agent::of(&sidecar);
    let cases: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        // A record that claims to be a handshake and is none.
        &[22, 3, 1, 0, 4, 99, 0, 0, 0],
    ];
    for bytes in cases {
        let mut stream = agent.connect("api.test:443").await.expect("a tunnel");
        let answer = exchange(&mut stream, bytes).await;
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    }
    // An end in the middle of the hello.
    let mut stream = agent.connect("api.test:443").await.expect("a tunnel");
    stream
        .write_all(&[22, 3, 1, 1, 0, 1])
        .await
        .expect("a reader");
    stream.shutdown().await.expect("an open socket");
    assert!(exchange(&mut stream, b"").await.is_empty());
    sidecar.logged_times("\"code\":\"agent_tls\"", 5).await;
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_logged_and_the_tunnel_closed() {
    let pki = Pki::new();
    let (_bound, to) = refusing();
    let routes = format!("routes: [{{host: api.test, tls: passthrough, connect_to: '{to}'}}]\n");
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let stream = Agent::of(&sidecar)
        .connect("api.test:443")
        .await
        .expect("a tunnel");
    assert!(handshake(&pki, "api.test", stream).await.is_err());
    sidecar.logged("\"code\":\"upstream_unreachable\"").await;
}

#[tokio::test]
async fn a_reload_closes_the_tunnel_whose_route_went() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| text(200, "fine"))
        .await;
    let sidecar = sidecar(&pki, &upstream).await;
    let agent = Agent::of(&sidecar);
    let stream = agent.connect("api.test:443").await.expect("a tunnel");
    let mut stream = handshake(&pki, "api.test", stream)
        .await
        .expect("a session");
    stream.write_all(REQUEST).await.expect("a reader");
    read_until(&mut stream, "fine").await;
    // One that changes nothing about the route leaves the tunnel open.
    sidecar.sighup();
    sidecar.logged("reload").await;
    stream.write_all(REQUEST).await.expect("a reader");
    read_until(&mut stream, "fine").await;
    sidecar.write_routes("routes: []\n");
    sidecar.sighup();
    let mut rest = Vec::new();
    let _ = within("end of the tunnel", stream.read_to_end(&mut rest)).await;
    upstream.end_of(1).await;
    sidecar.logged("\"code\":\"revoked\"").await;
}

#[tokio::test]
async fn tls_is_end_to_end() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| text(200, "fine"))
        .await;
    let sidecar = sidecar(&pki, &upstream).await;
    let agent = Agent::of(&sidecar);
    // The bottle's CA is nothing to this certificate, and the upstreams' is all of it.
    let failed = agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await;
    assert!(failed.is_err(), "the bottle's CA vouched for it");
    let stream = agent.connect("api.test:443").await.expect("a tunnel");
    let mut stream = handshake(&pki, "api.test", stream)
        .await
        .expect("a session");
    // What the agent says goes up as it is: there is nobody to take anything off it.
    let request = b"GET / HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer own\r\nConnection: close\r\n\r\n";
    let answer = exchange(&mut stream, request).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    assert_eq!(upstream.only().all("authorization"), ["Bearer own"]);
    sidecar.logged("\"code\":\"passthrough\"").await;
}

#[tokio::test]
async fn large_transfers_pass_both_ways_and_each_side_may_end_first() {
    const SIZE: usize = 32 * 1024 * 1024;
    let pki = Pki::new();
    let upstream = Scripted::start(
        Some(pki.server_config(&[])),
        |_, mut wire: Wire| async move {
            let mut all = Vec::new();
            wire.read_to_end(&mut all).await.expect("a clean end");
            wire.write_all(&all).await.expect("a reader");
            wire.shutdown().await.expect("a clean end");
        },
    )
    .await;
    let routes = format!(
        "routes: [{{host: api.test, tls: passthrough, connect_to: {}}}]\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let stream = Agent::of(&sidecar)
        .connect("api.test:443")
        .await
        .expect("a tunnel");
    let mut stream = handshake(&pki, "api.test", stream)
        .await
        .expect("a session");
    let sent: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    // The upstream answers after the agent has closed its side, so half of the tunnel outlives the other.
    within("the upload", stream.write_all(&sent))
        .await
        .expect("a reader");
    stream.shutdown().await.expect("an open stream");
    let mut echoed = Vec::with_capacity(SIZE);
    within("the download", stream.read_to_end(&mut echoed))
        .await
        .expect("a clean end");
    assert!(echoed == sent);
    let line = sidecar.logged("\"code\":\"passthrough\"").await;
    let bytes = |key: &str| -> usize {
        let value = line.split(key).nth(1).expect("the key").split(',').next();
        value.expect("a value").parse().expect("a number")
    };
    assert!(
        bytes("\"bytes_up\":") > SIZE && bytes("\"bytes_down\":") > SIZE,
        "{line}"
    );
}

#[tokio::test]
async fn it_goes_through_the_upstream_proxy() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| text(200, "fine"))
        .await;
    let forward = Forward::to(upstream.addr()).await;
    let sidecar = Sidecar::with_routes(&pki, "routes: [{host: api.test, tls: passthrough}]\n")
        .arg(format!("--upstream-proxy=http://{}", forward.addr()))
        .start()
        .await;
    let stream = Agent::of(&sidecar)
        .connect("api.test:443")
        .await
        .expect("a tunnel");
    let mut stream = handshake(&pki, "api.test", stream)
        .await
        .expect("a session");
    stream.write_all(REQUEST).await.expect("a reader");
    read_until(&mut stream, "fine").await;
    assert!(forward.heads()[0].starts_with("CONNECT api.test:443 HTTP/1.1\r\n"));
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n";

/// The agent's own TLS with the upstream, whose CA it trusts and not the bottle's.
async fn handshake(pki: &Pki, name: &str, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider's protocol versions")
        .with_root_certificates(pki::trust_only(&pki.ca_file().path()))
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a server name");
    within(
        "TLS handshake",
        TlsConnector::from(Arc::new(config)).connect(name, tcp),
    )
    .await
}

async fn sidecar(pki: &Pki, upstream: &Upstream) -> Sidecar {
    let routes = format!(
        "routes:\n  - host: api.test\n    tls: passthrough\n    connect_to: {}\n",
        upstream.addr()
    );
    Sidecar::with_routes(pki, routes).start().await
}
