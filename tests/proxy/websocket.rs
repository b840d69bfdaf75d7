//! WebSockets: a verified handshake, then bytes that nobody touches, for as long as route and credential are upheld.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::harness::agent::{Agent, Tunnel, exchange, read_head};
use crate::harness::forward::Forward;
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Body, Call, Upstream, WebSocket, text};
use crate::harness::within;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const REAL: &str = "real-token-of-the-host-91aa";

#[tokio::test]
async fn a_route_without_websockets_refuses_at_once() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(echo).await;
    let sidecar = sidecar(&pki, upstream.addr(), "    websocket: false\n").await;
    let mut tunnel = tunnel(&Agent::of(&sidecar)).await;
    let pipelined = format!(
        "{}GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n",
        handshake("")
    );
    let answer = exchange(&mut tunnel, pipelined.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    assert!(
        answer.contains("x-egress-error: websocket_not_allowed\r\n"),
        "{answer}"
    );
    let heads = answer.lines().filter(|line| line.starts_with("HTTP/1.1 "));
    assert_eq!(heads.count(), 1, "{answer}");
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn the_handshake_passes_with_its_extensions_and_the_real_credential() {
    let pki = Pki::new();
    let offer = "permessage-deflate; client_max_window_bits, x-other; a=\"b\"";
    let taken = "permessage-deflate; server_no_context_takeover";
    let upstream = Upstream::tls(&pki)
        .require("authorization", format!("Bearer {REAL}"))
        .start(move |call: Call| async move {
            let mut answer = call.websocket(|_| async {});
            let headers = answer.headers_mut();
            headers.insert(
                "sec-websocket-extensions",
                http::HeaderValue::from_static(taken),
            );
            headers.insert(
                "sec-websocket-protocol",
                http::HeaderValue::from_static("v2"),
            );
            answer
        })
        .await;
    let keys = "    auth_scheme: Bearer\n    token_env: EGRESS_TOKEN_0\n";
    let sidecar = builder(&pki, upstream.addr(), keys)
        .slot("EGRESS_TOKEN_0", REAL)
        .start()
        .await;
    let mut tunnel = tunnel(&Agent::of(&sidecar)).await;
    let more = format!(
        "Sec-WebSocket-Extensions: {offer}\r\nSec-WebSocket-Protocol: v1, v2\r\nAuthorization: Bearer placeholder\r\n"
    );
    tunnel
        .write_all(handshake(&more).as_bytes())
        .await
        .expect("a reader");
    let head = String::from_utf8(within("a head", read_head(&mut tunnel)).await).expect("ASCII");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for line in [
        format!("sec-websocket-accept: {ACCEPT}\r\n"),
        format!("sec-websocket-extensions: {taken}\r\n"),
        "sec-websocket-protocol: v2\r\n".to_owned(),
        "upgrade: websocket\r\n".to_owned(),
    ] {
        assert!(
            head.to_ascii_lowercase()
                .contains(&line.to_ascii_lowercase()),
            "{line}: {head}"
        );
    }
    let seen = upstream.only();
    assert_eq!(seen.all("sec-websocket-extensions"), [offer]);
    assert_eq!(seen.all("sec-websocket-protocol"), ["v1, v2"]);
    assert_eq!(seen.all("sec-websocket-key"), [KEY]);
    assert_eq!(seen.all("authorization"), [format!("Bearer {REAL}")]);
}

#[tokio::test]
async fn a_credential_in_the_offer_of_protocols_goes_no_further() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(|call: Call| async move {
        let mut answer = call.websocket(|_| async {});
        let taken = http::HeaderValue::from_static("realtime");
        answer.headers_mut().insert("sec-websocket-protocol", taken);
        answer
    });
    let upstream = upstream.await;
    let keys = "    auth_scheme: Bearer\n    token_env: EGRESS_TOKEN_0\n";
    let sidecar = builder(&pki, upstream.addr(), keys)
        .slot("EGRESS_TOKEN_0", REAL)
        .start()
        .await;
    for (offer, status, left) in [
        (
            "realtime, openai-insecure-api-key.agents-own",
            101,
            &["realtime"][..],
        ),
        ("token, agents-own, realtime", 101, &["realtime"]),
        // Nothing is offered to the server, and so it may take nothing.
        ("openai-insecure-api-key.agents-own", 502, &[]),
        ("v1, realtime-2", 502, &["v1, realtime-2"]),
    ] {
        let mut tunnel = tunnel(&Agent::of(&sidecar)).await;
        let offer = format!("Sec-WebSocket-Protocol: {offer}\r\n");
        let asked = handshake(&offer);
        tunnel.write_all(asked.as_bytes()).await.expect("a reader");
        let head = within("a head", read_head(&mut tunnel)).await;
        let head = String::from_utf8(head).expect("ASCII");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let seen = upstream.seen().pop().expect("a handshake");
        assert_eq!(seen.all("sec-websocket-protocol"), left, "{offer}");
        assert_eq!(seen.all("authorization"), [format!("Bearer {REAL}")]);
    }
}

/// The library's buffers have a least size, below which it panics.
#[tokio::test]
async fn row_35_the_smallest_cap_of_heads_breaks_no_connection_over_http1() {
    let pki = Pki::new();
    let upstream = Upstream::with_tls(pki.server_config(&["http/1.1"])).start(echo);
    let upstream = upstream.await;
    let sidecar = builder(&pki, upstream.addr(), "").arg("--max-head=4KiB");
    let sidecar = sidecar.start().await;
    let agent = Agent::of(&sidecar);
    agent.get("https://api.test/").await.assert_served();
    let mut socket = open(tunnel(&agent).await).await;
    socket.send(Message::text("text")).await.expect("a reader");
    let echoed = within("the echo", socket.next()).await.expect("a message");
    assert_eq!(echoed.expect("a whole message"), Message::text("text"));
}

#[tokio::test]
async fn messages_of_every_kind_and_of_ten_megabytes_pass_both_ways() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(echo).await;
    let sidecar = sidecar(&pki, upstream.addr(), "").await;
    let mut socket = open(tunnel(&Agent::of(&sidecar)).await).await;
    let large: Bytes = (0..10 * 1024 * 1024)
        .map(|at: u32| at as u8)
        .collect::<Vec<u8>>()
        .into();
    for message in [
        Message::text("text"),
        Message::binary(Bytes::from_static(&[0, 159, 146, 150])),
        Message::binary(large),
        Message::text(""),
    ] {
        socket.send(message.clone()).await.expect("a reader");
        let echoed = within("the echo", socket.next()).await.expect("a message");
        assert!(echoed.expect("a whole message") == message);
    }
    // A ping is answered by the upstream's end, not by the sidecar, whose pong would not carry this.
    socket
        .send(Message::Ping("of the agent".into()))
        .await
        .expect("a reader");
    let pong = within("pong", socket.next()).await.expect("a message");
    assert_eq!(
        pong.expect("a whole message"),
        Message::Pong("of the agent".into())
    );
    socket.close(None).await.expect("a reader");
    let close = within("close of the upstream", socket.next()).await;
    assert!(matches!(close, Some(Ok(Message::Close(_)))), "{close:?}");
    drop(socket);
    let line = sidecar.logged("\"status\":101").await;
    assert!(line.contains("\"verdict\":\"allowed\""), "{line}");
}

#[tokio::test]
async fn a_reload_closes_the_websockets_of_a_removed_route_and_no_others() {
    let pki = Pki::new();
    let (notice, mut left) = mpsc::unbounded_channel();
    let upstream = Upstream::tls(&pki)
        .start(move |call: Call| {
            let (notice, host) = (notice.clone(), call.seen.host.clone());
            async move {
                call.websocket(|socket| async move {
                    talk(socket).await;
                    _ = notice.send(host);
                })
            }
        })
        .await;
    let to = upstream.addr();
    let kept = format!("routes:\n  - {{host: api.test, connect_to: {to}}}\n");
    let gone = format!("  - {{host: gone.test, connect_to: {to}}}\n");
    let sidecar = Sidecar::with_routes(&pki, format!("{kept}{gone}"))
        .start()
        .await;
    let agent = Agent::of(&sidecar);
    let mut kept_socket = open(tunnel(&agent).await).await;
    let gone_tunnel = agent
        .tunnel("gone.test:443", "gone.test", &["http/1.1"])
        .await;
    let mut gone_tunnel = gone_tunnel.expect("a TLS tunnel");
    let request = handshake("").replace("api.test", "gone.test");
    gone_tunnel
        .write_all(request.as_bytes())
        .await
        .expect("a reader");
    within("a head", read_head(&mut gone_tunnel)).await;
    sidecar.write_routes(&kept);
    sidecar.sighup();
    let mut rest = Vec::new();
    // An end or a reset: both are one.
    let _ = within("end of the WebSocket", gone_tunnel.read_to_end(&mut rest)).await;
    assert_eq!(
        within("end upstream", left.recv()).await.as_deref(),
        Some("gone.test")
    );
    sidecar.logged("\"code\":\"revoked\"").await;
    kept_socket
        .send(Message::text("still here"))
        .await
        .expect("a reader");
    let echoed = within("the echo", kept_socket.next())
        .await
        .expect("a message");
    assert_eq!(
        echoed.expect("a whole message"),
        Message::text("still here")
    );
}

#[tokio::test]
async fn a_reload_closes_the_websockets_that_another_route_decides_now() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(echo).await;
    let to = upstream.addr();
    let wide = format!("routes:\n  - {{host: '*.in.test', connect_to: {to}}}\n");
    let sidecar = Sidecar::with_routes(&pki, &*wide).start().await;
    let tunnel = Agent::of(&sidecar)
        .tunnel("api.in.test:443", "api.in.test", &["http/1.1"])
        .await;
    let mut tunnel = tunnel.expect("a TLS tunnel");
    let request = handshake("").replace("api.test", "api.in.test");
    tunnel
        .write_all(request.as_bytes())
        .await
        .expect("a reader");
    within("a head", read_head(&mut tunnel)).await;
    // The wildcard stays as it is, and an exact route goes before it.
    let exact = format!("  - {{host: api.in.test, connect_to: {to}}}\n");
    sidecar.write_routes(&format!("{wide}{exact}"));
    sidecar.sighup();
    let mut rest = Vec::new();
    let _ = within("end of the WebSocket", tunnel.read_to_end(&mut rest)).await;
    sidecar.logged("\"code\":\"revoked\"").await;
}

#[tokio::test]
async fn a_rotated_slot_closes_its_websockets() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(echo).await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let slot = dir.path().join("token");
    std::fs::write(&slot, REAL).expect("a file");
    let keys = "    auth_scheme: Bearer\n    token_env: EGRESS_TOKEN_0\n";
    let sidecar = builder(&pki, upstream.addr(), keys)
        .env("EGRESS_TOKEN_0_FILE", slot.to_str().expect("UTF-8"))
        .start()
        .await;
    let mut socket = open(tunnel(&Agent::of(&sidecar)).await).await;
    // A reload that changes nothing about it leaves it alone.
    sidecar.sighup();
    sidecar.logged("reload").await;
    socket
        .send(Message::text("still here"))
        .await
        .expect("a reader");
    let echoed = within("the echo", socket.next()).await.expect("a message");
    assert_eq!(
        echoed.expect("a whole message"),
        Message::text("still here")
    );
    std::fs::write(&slot, "another-token").expect("a file");
    sidecar.sighup();
    let ended = within("end of the WebSocket", socket.next()).await;
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    sidecar.logged("\"code\":\"revoked\"").await;
}

#[tokio::test]
async fn a_websocket_reaches_a_plain_upstream_in_absolute_form() {
    let pki = Pki::new();
    let upstream = Upstream::plain().start(echo).await;
    let keys = "    scheme: http\n    port: 80\n";
    let sidecar = sidecar(&pki, upstream.addr(), keys).await;
    let mut proxy = Agent::of(&sidecar).raw().await;
    let request = handshake("").replace("GET /", "GET http://api.test/");
    proxy.write_all(request.as_bytes()).await.expect("a reader");
    let head = within("a head", read_head(&mut proxy)).await;
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let mut socket = WebSocketStream::from_raw_socket(proxy, Role::Client, None).await;
    socket.send(Message::text("plain")).await.expect("a reader");
    let echoed = within("the echo", socket.next()).await.expect("a message");
    assert_eq!(echoed.expect("a whole message"), Message::text("plain"));
}

#[tokio::test]
async fn a_websocket_goes_through_the_upstream_proxy() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(echo).await;
    let forward = Forward::to(upstream.addr()).await;
    let sidecar = Sidecar::with_routes(&pki, "routes: [{host: api.test}]\n")
        .arg(format!("--upstream-proxy=http://{}", forward.addr()))
        .start()
        .await;
    let mut socket = open(tunnel(&Agent::of(&sidecar)).await).await;
    socket
        .send(Message::text("around"))
        .await
        .expect("a reader");
    let echoed = within("the echo", socket.next()).await.expect("a message");
    assert_eq!(echoed.expect("a whole message"), Message::text("around"));
    let heads = forward.heads();
    assert!(
        heads[0].starts_with("CONNECT api.test:443 HTTP/1.1\r\n"),
        "{heads:?}"
    );
}

/// Whoever goes away takes the other side along.
#[tokio::test]
async fn either_end_that_leaves_ends_the_other() {
    let pki = Pki::new();
    let (notice, mut left) = mpsc::unbounded_channel();
    let upstream = Upstream::tls(&pki)
        .start(move |call: Call| {
            let notice = notice.clone();
            async move {
                let leaves = call.seen.path() == "/leaves";
                call.websocket(move |socket| async move {
                    if !leaves {
                        talk(socket).await;
                        _ = notice.send(());
                    }
                })
            }
        })
        .await;
    let sidecar = sidecar(&pki, upstream.addr(), "").await;
    let agent = Agent::of(&sidecar);
    let socket = open(tunnel(&agent).await).await;
    drop(socket);
    within("end upstream", left.recv()).await;
    let mut tunnel = tunnel(&agent).await;
    let request = handshake("").replace("GET /", "GET /leaves");
    let answer = exchange(&mut tunnel, request.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
}

async fn echo(call: Call) -> Response<Body> {
    if call.is_websocket() {
        call.websocket(talk)
    } else {
        text(200, "no handshake")
    }
}

/// Sends back what comes, until it ends.
async fn talk(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn tunnel(agent: &Agent) -> Tunnel {
    let tunnel = agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await;
    tunnel.expect("a TLS tunnel")
}

async fn open(mut tunnel: Tunnel) -> WebSocketStream<Tunnel> {
    tunnel
        .write_all(handshake("").as_bytes())
        .await
        .expect("a reader");
    let head = within("a head", read_head(&mut tunnel)).await;
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    let config = WebSocketConfig::default()
        .max_frame_size(None)
        .max_message_size(None);
    WebSocketStream::from_raw_socket(tunnel, Role::Client, Some(config)).await
}

fn handshake(more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

fn builder(
    pki: &Pki,
    upstream: std::net::SocketAddr,
    keys: &str,
) -> crate::harness::sidecar::Builder {
    let routes = format!("routes:\n  - host: api.test\n    connect_to: {upstream}\n{keys}");
    Sidecar::with_routes(pki, routes)
}

async fn sidecar(pki: &Pki, upstream: std::net::SocketAddr, keys: &str) -> Sidecar {
    builder(pki, upstream, keys).start().await
}
