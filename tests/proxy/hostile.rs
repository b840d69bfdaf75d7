//! What a hostile agent tried from inside the sandbox, and must not get.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::harness::agent::{Agent, exchange};
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::scripted::{Scripted, request, rest, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Call, Upstream, text, text_body};
use crate::harness::versions::{Http, Versions};
use crate::harness::within;

/// A handshake whose key never reaches the upstream proves nothing when it is answered.
#[tokio::test]
async fn a_handshake_cannot_nominate_its_own_key_away() {
    let pki = Pki::new();
    let (sender, mut got) = mpsc::unbounded_channel();
    let tls = pki.server_config(&["http/1.1"]);
    let upstream = Scripted::start(Some(tls), move |_, mut wire| {
        let sender = sender.clone();
        async move {
            if request(&mut wire).await.is_none() {
                return;
            }
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            say(&mut wire, head).await;
            _ = sender.send(rest(&mut wire).await);
        }
    })
    .await;
    let routes = format!(
        "routes: [{{host: api.test, websocket: true, connect_to: {}}}]\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let agent = Agent::of(&sidecar);
    for nominated in ["sec-websocket-key", "Sec-WebSocket-Version"] {
        let tunnel = agent
            .tunnel("api.test:443", "api.test", &["http/1.1"])
            .await;
        let mut tunnel = tunnel.expect("a TLS tunnel");
        let ahead = format!(
            "GET / HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade, {nominated}\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nagent bytes"
        );
        tunnel.write_all(ahead.as_bytes()).await.expect("a reader");
        tunnel.shutdown().await.expect("an open tunnel");
        let answer = exchange(&mut tunnel, b"").await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{nominated}: {answer}");
        assert_eq!(upstream.connections(), 0, "{nominated}");
    }
    assert!(got.try_recv().is_err());
}

/// Whoever takes an answer and does not read it has its own stream stand still, and nobody else's.
#[tokio::test]
async fn answers_that_nobody_reads_hold_up_no_other_request() {
    let world = Versions::start(async |call: Call| {
        if call.seen.path() != "/large" {
            return text(200, "small");
        }
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        tokio::spawn(async move {
            let piece = Bytes::from(vec![b'x'; 64 * 1024]);
            while sender.send_data(piece.clone()).await.is_ok() {}
        });
        Response::new(body.boxed())
    })
    .await;
    let get = |path: &str| Request::get(path).body(text_body("")).expect("a request");
    let mut unread = Vec::new();
    for _ in 0..3 {
        let mut client = world.client(Http::One, Http::Two).await;
        let answer = client.start(get("/large")).await.expect("a head");
        unread.push((client, answer));
    }
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let mut other = world.client(Http::One, Http::Two).await;
    let answer = within("an answer beside them", other.send(get("/small"))).await;
    assert_eq!(answer.body, "small");
    drop(unread);
}

/// The gate refuses a repeated length in HTTP/1.1; through HTTP/2 it must not reach an HTTP/1.1 upstream either.
#[tokio::test]
async fn a_length_reaches_the_upstream_once_and_in_plain_form() {
    let pki = Pki::new();
    let upstream = Upstream::with_tls(pki.server_config(&["http/1.1"]))
        .start(async |_call| text(200, "fine"))
        .await;
    let routes = format!(
        "routes: [{{host: api.test, connect_to: {}}}]\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let agent = Agent::of(&sidecar);
    for lengths in [&["0", "0"][..], &["0", "00"], &["000"], &[""]] {
        let mut h2 = RawHttp2::open(&agent, "api.test").await;
        let mut fields: Vec<(&str, &[u8])> = vec![
            (":method", b"POST"),
            (":scheme", b"https"),
            (":authority", b"api.test"),
            (":path", b"/"),
        ];
        fields.extend(
            lengths
                .iter()
                .map(|length| ("content-length", length.as_bytes())),
        );
        let ended = h2.request(&fields).await;
        println!("{lengths:?}: {:?} {}", ended.status, ended.body);
    }
    for seen in upstream.seen() {
        assert!(
            matches!(seen.all("content-length")[..], [] | ["0"]),
            "{:?}",
            seen.headers
        );
    }
}

/// A host that a reload takes out of a wildcard's `passthrough` is no longer passed through, on a tunnel that is
/// already open either.
#[tokio::test]
async fn a_reload_that_intercepts_a_host_ends_its_passthrough() {
    let pki = Pki::new();
    let upstream = Scripted::start(None, |_, mut wire| async move {
        _ = rest(&mut wire).await;
    })
    .await;
    let wild = format!(
        "  - {{host: \"*.x.test\", tls: passthrough, connect_to: {}}}\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(
        &pki,
        format!("routes:\n{wild}  - {{host: a.x.test, port: 444}}\n"),
    )
    .start()
    .await;
    let agent = Agent::of(&sidecar);
    let tunnel = agent.connect("a.x.test:443").await.expect("a tunnel");
    let connecting = agent.connector(&["http/1.1"]);
    let name = rustls::pki_types::ServerName::try_from("a.x.test").expect("a name");
    let mut session = tokio::spawn(async move { connecting.connect(name, tunnel).await.err() });
    within("the tunnel upstream", async {
        while upstream.connections() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    sidecar.write_routes(&format!("routes:\n{wild}  - {{host: a.x.test, path_allowlist: [/v1/]}}\n  - {{host: a.x.test, port: 444}}\n"));
    sidecar.sighup();
    sidecar.logged("reload").await;
    let ended = within("the end of the tunnel", &mut session).await;
    assert!(ended.expect("no panic").is_some());
}
