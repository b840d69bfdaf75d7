//! Clients that know of no proxy and are steered to the sidecar: the name that they say first is their origin, and nothing
//! else is weaker than in a tunnel.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::agent::{Answer, Tunnel, exchange, send_http1, send_http2};
use crate::harness::command;
use crate::harness::pki::{self, Pki};
use crate::harness::rig::{REAL, Rig};
use crate::harness::sidecar::Builder;
use crate::harness::upstream::{Upstream, text};
use crate::harness::wire;
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1/], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: other.test, connect_to: 'UPSTREAM'}
- {host: elsewhere.test, port: 8443, connect_to: 'UPSTREAM'}
- {host: plain.test, scheme: http, port: 80, connect_to: 'UPSTREAM'}
";
const PLAIN: &str = "\
- {host: plain.test, scheme: http, port: 80, path_allowlist: [/v1/], connect_to: 'UPSTREAM'}
- {host: second.test, scheme: http, port: 80, connect_to: 'UPSTREAM'}
- {host: tls.test, connect_to: 'UPSTREAM'}
- {host: port.test, scheme: http, port: 8080, connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn another_server_name_is_refused_before_anything_is_minted_or_dialled() {
    let rig = Rig::with(ROUTES, steered).await;
    for (name, code) in [
        ("evil.test", "host_not_allowed"),
        ("x.api.test", "host_not_allowed"),
        ("evilapi.test", "host_not_allowed"),
        ("api.test.evil", "host_not_allowed"),
        // A route for another port, and one for plain requests, are none for this.
        ("elsewhere.test", "port_not_allowed"),
        ("plain.test", "port_not_allowed"),
    ] {
        let refused = handshake(&rig, name, &["http/1.1"]).await;
        let error = refused.expect_err(name).to_string();
        assert!(error.contains("alert"), "{name}: {error}");
        let line = rig
            .sidecar
            .logged(&format!("\"host\":\"{name}:443\""))
            .await;
        assert!(line.contains(code), "{line}");
        assert!(line.contains("\"verdict\":\"denied\""), "{line}");
    }
    // An address goes without a server name.
    for name in ["127.0.0.1", "::1"] {
        assert!(
            handshake(&rig, name, &["http/1.1"]).await.is_err(),
            "{name}"
        );
    }
    rig.sidecar
        .logged_times("\"code\":\"no_server_name\"", 2)
        .await;
    assert_eq!(rig.upstream.connections(), 0);
    let status = rig.sidecar.status().await;
    assert_eq!(status["leaves_minted"], 0);
    assert_eq!(status["counters"]["denied"], 8);
}

#[tokio::test]
async fn what_is_no_tls_is_closed_and_recorded() {
    let rig = Rig::with(ROUTES, steered).await;
    let cases: [&[u8]; 5] = [
        b"GET /v1/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[22, 3, 1, 0, 4, 99, 0, 0, 0],
    ];
    for bytes in cases {
        let answer = exchange(&mut connect(&rig, "STEER_TLS").await, bytes).await;
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    }
    let mut cut = connect(&rig, "STEER_TLS").await;
    cut.write_all(&[22, 3, 1, 1, 0, 1]).await.expect("a reader");
    cut.shutdown().await.expect("an open socket");
    assert!(exchange(&mut cut, b"").await.is_empty());
    rig.sidecar.logged_times("\"code\":\"agent_tls\"", 6).await;
    assert_eq!(rig.upstream.connections(), 0);
}

#[tokio::test]
async fn a_client_that_says_nothing_does_not_stay() {
    let rig = Rig::with(ROUTES, |builder| {
        steered(builder)
            .arg("--handshake-timeout=1")
            .arg("--head-timeout=1")
    })
    .await;
    for listener in ["STEER_TLS", "STEER_HTTP"] {
        let mut silent = connect(&rig, listener).await;
        let mut rest = Vec::new();
        _ = within("the end", silent.read_to_end(&mut rest)).await;
    }
    rig.sidecar.logged("no TLS handshake in time").await;
}

#[tokio::test]
async fn a_request_inside_is_held_to_the_server_name() {
    let rig = Rig::with(ROUTES, steered).await;
    for (request, status, code) in [
        (
            "GET /v1/ HTTP/1.1\r\nHost: other.test\r\n\r\n",
            421,
            "misdirected_request",
        ),
        (
            "GET /v1/ HTTP/1.1\r\nHost: api.test:8443\r\n\r\n",
            421,
            "misdirected_request",
        ),
        (
            "GET https://other.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n",
            400,
            "bad_target",
        ),
        ("GET /v1/ HTTP/1.1\r\n\r\n", 400, "bad_target"),
        (
            "CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n",
            400,
            "bad_target",
        ),
    ] {
        let mut stream = handshake(&rig, "api.test", &["http/1.1"])
            .await
            .expect("TLS");
        wire::only(&mut stream, request.as_bytes())
            .await
            .assert_refused(status, code);
    }
    let request = "GET /v2/ HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    let mut stream = handshake(&rig, "api.test", &["http/1.1"])
        .await
        .expect("TLS");
    wire::only(&mut stream, request.as_bytes())
        .await
        .assert_refused(403, "path_not_allowed");
    let mut sender = http2(&rig, "api.test").await;
    let request = Request::get("https://other.test/v1/")
        .body(Bytes::new())
        .expect("a request");
    send_http2(&mut sender, request)
        .await
        .assert_refused(421, "misdirected_request");
    assert_eq!(rig.upstream.connections(), 0);
}

#[tokio::test]
async fn requests_are_served_as_in_a_tunnel() {
    let rig = Rig::with(ROUTES, steered).await;
    let request = |path: &str| {
        Request::get(format!("https://api.test/v1/{path}"))
            .header("authorization", "Bearer own")
            .header("x-api-key", "own")
            .body(Bytes::new())
            .expect("a request")
    };
    let stream = handshake(&rig, "API.test", &["http/1.1"])
        .await
        .expect("TLS");
    let (mut sender, http) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(http);
    send_http1(&mut sender, request("one"))
        .await
        .assert_served();
    send_http1(&mut sender, request("two"))
        .await
        .assert_served();
    send_http2(&mut http2(&rig, "api.test").await, request("three"))
        .await
        .assert_served();
    let seen = rig.upstream.seen();
    let paths: Vec<_> = seen.iter().map(|seen| seen.path()).collect();
    assert_eq!(paths, ["/v1/one", "/v1/two", "/v1/three"]);
    for seen in &seen {
        assert_eq!(seen.all("authorization"), [format!("Bearer {REAL}")]);
        assert!(seen.all("x-api-key").is_empty());
    }
    rig.sidecar.logged("\"code\":\"steered\"").await;
}

#[tokio::test]
async fn a_websocket_passes() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |call| {
            call.websocket(|mut socket| async move {
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            })
        })
        .await;
    let rig = Rig::around(&pki, upstream, ROUTES, steered).await;
    let stream = handshake(&rig, "api.test", &["http/1.1"])
        .await
        .expect("TLS");
    let opened = tokio_tungstenite::client_async("wss://api.test/v1/socket", stream).await;
    let (mut socket, _) = opened.expect("a WebSocket");
    socket
        .send(Message::text("hello"))
        .await
        .expect("an open socket");
    let echo = within("an echo", socket.next())
        .await
        .expect("a message")
        .expect("a message");
    assert_eq!(echo, Message::text("hello"));
    assert_eq!(
        rig.upstream.only().all("authorization"),
        [format!("Bearer {REAL}")]
    );
    // It ends with its route.
    rig.sidecar.write_routes("routes: []\n");
    rig.sidecar.sighup();
    let end = within("the end", async {
        while let Some(Ok(_)) = socket.next().await {}
    });
    end.await;
    rig.upstream.end_of(1).await;
}

#[tokio::test]
async fn a_reload_closes_what_its_route_admitted() {
    let rig = Rig::with(ROUTES, steered).await;
    let mut stream = handshake(&rig, "api.test", &["http/1.1"])
        .await
        .expect("TLS");
    let request = b"GET /v1/ HTTP/1.1\r\nHost: api.test\r\n\r\n";
    stream.write_all(request).await.expect("a reader");
    crate::harness::agent::read_until(&mut stream, "fine").await;
    rig.sidecar.write_routes("routes: []\n");
    rig.sidecar.sighup();
    let mut rest = Vec::new();
    _ = within("the end", stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    assert!(handshake(&rig, "api.test", &["http/1.1"]).await.is_err());
}

#[tokio::test]
async fn passthrough_is_end_to_end_and_only_for_its_name() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| text(200, "fine"))
        .await;
    let routes = "- {host: api.test, tls: passthrough, connect_to: 'UPSTREAM'}\n- {host: other.test, connect_to: 'UPSTREAM'}\n";
    let rig = Rig::around(&pki, upstream, routes, steered).await;
    let through = async |name: &str| {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider's protocol versions")
            .with_root_certificates(pki::trust_only(&pki.ca_file().path()))
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let tcp = connect(&rig, "STEER_TLS").await;
        within(
            "TLS",
            TlsConnector::from(Arc::new(config)).connect(name, tcp),
        )
        .await
    };
    assert!(through("evil.test").await.is_err());
    assert!(through("x.api.test").await.is_err());
    // This one is intercepted, under a certificate that this client does not trust.
    assert!(through("other.test").await.is_err());
    assert_eq!(rig.upstream.connections(), 0);
    let mut stream = through("api.test").await.expect("TLS with the upstream");
    let request = b"GET / HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer own\r\nConnection: close\r\n\r\n";
    assert!(
        exchange(&mut stream, request)
            .await
            .starts_with(b"HTTP/1.1 200 ")
    );
    assert_eq!(rig.upstream.only().all("authorization"), ["Bearer own"]);
}

#[tokio::test]
async fn plain_requests_go_where_host_says_and_a_route_admits() {
    let pki = Pki::new();
    let upstream = Upstream::plain()
        .start(async |_call| text(200, "fine"))
        .await;
    let rig = Rig::around(&pki, upstream, PLAIN, steered).await;
    for (request, status, code) in [
        (
            "GET /v1/ HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n",
            403,
            "host_not_allowed",
        ),
        (
            "GET /v1/ HTTP/1.1\r\nHost: tls.test\r\nConnection: close\r\n\r\n",
            403,
            "port_not_allowed",
        ),
        (
            "GET /v1/ HTTP/1.1\r\nHost: port.test\r\nConnection: close\r\n\r\n",
            403,
            "port_not_allowed",
        ),
        (
            "GET /v1/ HTTP/1.1\r\nHost: port.test:8080\r\n\r\n",
            421,
            "misdirected_request",
        ),
        (
            "GET /v1/ HTTP/1.1\r\nHost: tls.test:443\r\n\r\n",
            421,
            "misdirected_request",
        ),
        (
            "GET /v2/ HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n",
            403,
            "path_not_allowed",
        ),
        ("GET /v1/ HTTP/1.1\r\n\r\n", 400, "bad_target"),
        ("GET /v1/ HTTP/1.0\r\n\r\n", 400, "bad_target"),
        (
            "GET http://second.test/v1/ HTTP/1.1\r\nHost: plain.test\r\n\r\n",
            400,
            "bad_target",
        ),
        (
            "GET https://tls.test/v1/ HTTP/1.1\r\nHost: tls.test\r\n\r\n",
            400,
            "bad_target",
        ),
        (
            "CONNECT tls.test:443 HTTP/1.1\r\nHost: tls.test:443\r\n\r\n",
            400,
            "bad_target",
        ),
        (
            "CONNECT plain.test:80 HTTP/1.1\r\nHost: plain.test\r\n\r\n",
            400,
            "bad_target",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: plain.test\r\n\r\n",
            400,
            "bad_target",
        ),
    ] {
        let mut stream = connect(&rig, "STEER_HTTP").await;
        let answer = wire::only(&mut stream, request.as_bytes()).await;
        assert_eq!(answer.error_code().as_deref(), Some(code), "{request:?}");
        answer.assert_refused(status, code);
    }
    assert_eq!(rig.upstream.connections(), 0);
    let bytes = b"GET /v1/a?b HTTP/1.1\r\nHost: plain.test\r\nAuthorization: Bearer own\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n\
        GET http://Plain.test/v1/c HTTP/1.1\r\nHost: plain.test:80\r\n\r\n\
        GET /d HTTP/1.1\r\nHost: second.test\r\nConnection: close\r\n\r\n";
    let answers = exchange(&mut connect(&rig, "STEER_HTTP").await, bytes).await;
    let answers: Vec<Answer> = wire::answers(&answers);
    assert_eq!(answers.len(), 3);
    answers.iter().for_each(Answer::assert_served);
    let seen: Vec<_> = rig
        .upstream
        .seen()
        .iter()
        .map(|seen| {
            (
                seen.target.clone(),
                seen.all("host").join(","),
                seen.all("authorization").len(),
            )
        })
        .collect();
    let expected = [
        ("/v1/a?b", "plain.test"),
        ("/v1/c", "plain.test"),
        ("/d", "second.test"),
    ];
    assert_eq!(
        seen,
        expected.map(|(target, host)| (target.into(), host.into(), 0))
    );
}

#[tokio::test]
async fn networks_guard_steered_listeners() {
    let rig = Rig::with(ROUTES, |builder| {
        builder
            .arg("--steer-tls=0.0.0.0:0")
            .arg("--steer-http=[::]:0")
            .arg("--allow-client=192.0.2.0/24")
    })
    .await;
    for listener in ["STEER_TLS", "STEER_HTTP"] {
        let port = rig.sidecar.told_address(listener).port();
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("a listener");
        assert!(
            exchange(&mut stream, b"GET / HTTP/1.1\r\n\r\n")
                .await
                .is_empty()
        );
    }
    rig.sidecar.logged_times("outside --allow-client", 2).await;
    for flag in ["--steer-tls=0.0.0.0:0", "--steer-http=192.0.2.1:80"] {
        let done = command::egress(["serve", "--routes", "none.yaml", flag]).await;
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.stderr.contains("not loopback"), "{done:?}");
        assert!(!done.stderr.contains("client-auth-file"), "{done:?}");
    }
}

#[tokio::test]
async fn a_password_cannot_be_passed_by() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("clients");
    fs::write(&file, "agent:pass-word-one\n").expect("a file");
    let passwords = format!("--client-auth-file={}", file.display());
    for (flag, network) in [
        ("--steer-tls=127.0.0.1:0", None),
        ("--steer-http=127.0.0.1:0", None),
        ("--steer-tls=0.0.0.0:0", None),
        (
            "--steer-http=unix:/run/none.sock",
            Some("--allow-client=192.0.2.0/24"),
        ),
    ] {
        let all = ["serve", "--routes", "none.yaml", flag, &passwords];
        let done = command::egress(all.into_iter().chain(network)).await;
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(
            done.stderr.contains("cannot be asked for a password"),
            "{done:?}"
        );
        assert!(done.stderr.contains("--allow-client"), "{done:?}");
    }
    // With both, a loopback client too has to be of a named network.
    for (network, is_served) in [("192.0.2.0/24", false), ("127.0.0.0/8", true)] {
        let rig = Rig::with(ROUTES, |builder| {
            steered(builder)
                .arg(&passwords)
                .arg(format!("--allow-client={network}"))
        })
        .await;
        let steered = handshake(&rig, "api.test", &["http/1.1"]).await;
        assert_eq!(steered.is_ok(), is_served, "{network}");
    }
}

#[tokio::test]
async fn a_unix_socket_can_be_steered_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("https.sock");
    let rig = Rig::with(ROUTES, |builder| {
        builder.arg(format!("--steer-tls=unix:{}", path.display()))
    })
    .await;
    let name = ServerName::try_from("api.test").expect("a name");
    let stream = UnixStream::connect(&path).await.expect("a listener");
    let mut stream = within(
        "TLS",
        rig.agent.connector(&["http/1.1"]).connect(name, stream),
    )
    .await
    .expect("TLS");
    let request = b"GET /v1/ HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    wire::only(&mut stream, request).await.assert_served();
}

fn steered(builder: Builder) -> Builder {
    builder
        .arg("--steer-tls=127.0.0.1:0")
        .arg("--steer-http=127.0.0.1:0")
}

async fn connect(rig: &Rig, listener: &str) -> TcpStream {
    let address: SocketAddr = rig.sidecar.told_address(listener);
    TcpStream::connect(address).await.expect("a listener")
}

async fn handshake(rig: &Rig, name: &str, alpn: &[&str]) -> std::io::Result<Tunnel> {
    let stream = connect(rig, "STEER_TLS").await;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    within("TLS", rig.agent.connector(alpn).connect(name, stream)).await
}

async fn http2(rig: &Rig, name: &str) -> http2::SendRequest<Full<Bytes>> {
    let stream = handshake(rig, name, &["h2"]).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = made.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}
