//! Rows 33, 35 and 36: each deadline and each cap, set small and seen to act on one client while another is served.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};

use crate::harness::agent::{exchange, read_until};
use crate::harness::command;
use crate::harness::pki::Pki;
use crate::harness::raw_http2::{END_HEADERS, END_STREAM, HEADERS, RawHttp2, block, frame};
use crate::harness::rig::Rig;
use crate::harness::upstream::{Body, Call, Upstream, text};
use crate::harness::versions::{Http, PAIRS, Versions};
use crate::harness::within;

const ROUTES: &str = "  - {host: api.test, connect_to: UPSTREAM}
  - {host: other.test, connect_to: UPSTREAM}
  - {host: raw.test, tls: passthrough, connect_to: UPSTREAM}
";

async fn rig(arguments: &[&str]) -> Rig {
    Rig::with(ROUTES, |builder| {
        arguments
            .iter()
            .fold(builder, |builder, argument| builder.arg(*argument))
    })
    .await
}

/// Reads to the end, however it comes.
async fn ended(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    _ = within("end of the connection", stream.read_to_end(&mut rest)).await;
    rest
}

/// A connection from another address of this machine.
async fn from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = format!("{address}:0").parse().expect("an address");
    socket.bind(from).expect("an address of loopback");
    socket.connect(to).await.expect("the sidecar listens")
}

/// Has the sidecar listen on a Unix socket too: who comes by it is another client than who comes by loopback.
fn also_local(dir: &TempDir) -> String {
    format!("--listen=unix:{}", dir.path().join("egress.sock").display())
}

async fn local(dir: &TempDir) -> UnixStream {
    let path = dir.path().join("egress.sock");
    UnixStream::connect(path)
        .await
        .expect("the sidecar listens")
}

async fn counter(rig: &Rig, name: &str) -> u64 {
    let status = rig.sidecar.status().await;
    status["counters"][name].as_u64().expect("a counter")
}

/// Waits until a counter stands at a number.
async fn counted(rig: &Rig, name: &str, wanted: u64) {
    within(name, async { while counter(rig, name).await != wanted {} }).await;
}

#[tokio::test]
async fn row_33_a_silent_tls_client_is_cut_off() {
    let rig = rig(&["--handshake-timeout=300ms"]).await;
    let mut intercepted = rig.agent.connect("api.test:443").await.expect("a tunnel");
    let mut passed = rig.agent.connect("raw.test:443").await.expect("a tunnel");
    // A record's head that announces more than comes.
    passed.write_all(&[22, 3, 1, 2, 0]).await.expect("a reader");
    rig.agent.get("https://api.test/").await.assert_served();
    assert!(ended(&mut intercepted).await.is_empty());
    assert!(ended(&mut passed).await.is_empty());
    let lines = rig
        .sidecar
        .logged_times("no TLS handshake in time", 2)
        .await;
    assert!(lines.iter().all(|line| line.contains("agent_tls")));
    assert_eq!(rig.upstream.connections(), 1);
}

#[tokio::test]
async fn row_33_half_a_head_is_cut_off() {
    let rig = rig(&["--head-timeout=300ms"]).await;
    let mut outer = rig.agent.raw().await;
    outer.write_all(b"CONNECT api.te").await.expect("a reader");
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    let id = http.id();
    let half = frame(HEADERS, END_STREAM, id, &block(&[(":method", b"GET")]));
    http.send(&half).await;
    let mut cut = RawHttp2::open(&rig.agent, "api.test").await;
    let whole = frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        &block(&[(":method", b"GET")]),
    );
    cut.send(&whole[..whole.len() - 1]).await;
    rig.agent.get("https://api.test/").await.assert_served();
    let answer = String::from_utf8_lossy(&ended(&mut outer).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    http.closed_on_silence().await;
    cut.closed_on_silence().await;
    rig.sidecar
        .logged_times("\"code\":\"head_timeout\"", 3)
        .await;
    assert_eq!(rig.upstream.seen().len(), 1);
}

#[tokio::test]
async fn row_33_an_idle_tunnel_is_closed() {
    let rig = rig(&["--idle-timeout=400ms"]).await;
    let mut kept = rig.agent.http1("other.test:443", "other.test").await;
    // The upstream's TLS, untouched: it is not the bottle's, so the handshake ends after the upstream's part of it.
    let mut tunnel = rig.agent.connect("raw.test:443").await.expect("a tunnel");
    let hello = client_hello("raw.test");
    tunnel.write_all(&hello).await.expect("a reader");
    assert_eq!(tunnel.read_u8().await.expect("the upstream's hello"), 22);
    let mut idle = rig.agent.connect("api.test:443").await.expect("a tunnel");
    ended(&mut tunnel).await;
    rig.upstream.end_of(1).await;
    assert!(ended(&mut idle).await.is_empty());
    within("end of the kept connection", async {
        while kept.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    rig.agent.get("https://api.test/").await.assert_served();
    let line = rig.sidecar.logged("connection_lost").await;
    assert!(line.contains("nothing moved for too long"), "{line}");
}

fn client_hello(name: &str) -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().expect("a server name");
    let mut client = rustls::ClientConnection::new(config.into(), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a vector");
    hello
}

#[tokio::test]
async fn row_33_a_stalled_upload_is_the_agents_fault_over_either_version() {
    let world = Versions::start_with(
        |mut call: Call| async move {
            let body = call.request.body_mut().take().expect("a streamed body");
            match body.collect().await {
                Ok(_) => text(200, "whole"),
                Err(_) => text(400, "it broke off"),
            }
        },
        |builder| builder.arg("--body-timeout=300ms"),
    )
    .await;
    for (agent, upstream) in PAIRS {
        let (mut sender, body) = Channel::<Bytes, std::convert::Infallible>::new(1);
        sender
            .send_data(Bytes::from_static(b"some"))
            .await
            .expect("room");
        let mut client = world.client(agent, upstream).await;
        let stalled = Request::post("/").body(body.boxed()).expect("a request");
        let answer = client.send(stalled).await;
        assert_eq!(answer.status(), 408, "{agent:?} {upstream:?}");
        assert_eq!(answer.code(), Some("body_timeout"));
        drop(sender);
        let whole: Body = http_body_util::Full::new(Bytes::from_static(b"all")).boxed();
        let mut other = match agent {
            // The other streams of the connection are nobody's fault.
            Http::Two => client,
            Http::One => world.client(agent, upstream).await,
        };
        let answer = other
            .send(Request::post("/").body(whole).expect("a request"))
            .await;
        assert_eq!(answer.status(), 200, "{agent:?} {upstream:?}");
    }
    let code = "\"code\":\"body_timeout\"";
    let lines = world.sidecar.logged_times(code, PAIRS.len()).await;
    assert!(
        lines
            .iter()
            .all(|line| line.contains("\"verdict\":\"failed\""))
    );
}

#[tokio::test]
async fn row_33_a_proxy_that_says_nothing_is_a_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = format!("http://{}", silent.local_addr().expect("bound"));
    let rig = rig(&["--connect-timeout=300ms", "--upstream-proxy", &proxy]).await;
    let accepting = tokio::spawn(async move { silent.accept().await });
    let answer = rig.agent.get("https://api.test/").await;
    answer.assert_refused(504, "upstream_timeout");
    accepting.await.expect("no panic").expect("it was dialled");
}

#[tokio::test]
async fn row_33_an_upstream_connection_that_nobody_needs_is_closed() {
    let rig = rig(&["--pool-timeout=200ms"]).await;
    rig.agent.get("https://api.test/").await.assert_served();
    rig.upstream.end_of(1).await;
    rig.agent.get("https://api.test/").await.assert_served();
    assert_eq!(rig.upstream.connections(), 2);
}

#[tokio::test]
async fn row_35_values_without_sense_are_usage_errors_that_say_what_makes_some() {
    for (argument, said) in [
        ("--head-timeout=0", "between 100ms and 7d"),
        ("--idle-timeout=8d", "between 100ms and 7d"),
        ("--body-timeout=soon", "as in 10s or 15m"),
        ("--max-head=1", "between 4KiB and 1MiB"),
        ("--max-head=64K", "as in 64KiB"),
        ("--max-decoding=19MiB", "at least 20MiB"),
        ("--max-connections=0", "1..="),
        ("--max-streams=10001", "1..=10000"),
        ("--max-requests=many", "invalid digit"),
    ] {
        for command in [&["serve"][..], &["check", "routes.yaml"][..]] {
            let mut arguments = command.to_vec();
            arguments.push(argument);
            let done = command::egress(arguments).await;
            assert_eq!(done.code, Some(2), "{argument}: {done:?}");
            assert!(done.stderr.contains(said), "{argument}: {done:?}");
            let flag = argument.split('=').next().expect("a flag");
            assert!(done.stderr.contains(flag), "{done:?}");
        }
    }
}

#[tokio::test]
async fn row_35_at_the_cap_of_connections_clients_wait() {
    let rig = rig(&["--max-connections=2"]).await;
    let held = [rig.agent.raw().await, rig.agent.raw().await];
    counted(&rig, "open_connections", 2).await;
    let mut waiting = rig.agent.raw().await;
    waiting
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("the kernel takes it");
    assert_eq!(counter(&rig, "connections").await, 2);
    drop(held);
    let answer = String::from_utf8_lossy(&ended(&mut waiting).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    rig.agent.get("https://api.test/").await.assert_served();
}

#[tokio::test]
async fn row_35_a_client_at_its_cap_is_closed_at_once_and_another_is_served() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let rig = rig(&["--max-per-client=2", &also_local(&dir)]).await;
    let held = [rig.agent.raw().await, rig.agent.raw().await];
    counted(&rig, "open_connections", 2).await;
    for _ in 0..60 {
        assert!(ended(&mut rig.agent.raw().await).await.is_empty());
    }
    // Whoever is on this machine has all of its addresses.
    let mut same = from("127.0.0.2", rig.sidecar.addr()).await;
    assert!(ended(&mut same).await.is_empty());
    assert_eq!(counter(&rig, "turned_away").await, 61);
    let lines = rig.sidecar.logged_times("--max-per-client", 20).await;
    assert!(
        lines[0].contains("\"client\":\"127.0.0.1\""),
        "{}",
        lines[0]
    );
    // 20 at once, and one for each second that the test took.
    assert!(lines.len() < 50, "{}", lines.len());
    let mut other = local(&dir).await;
    let request = b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n";
    other.write_all(request).await.expect("a reader");
    let answer = read_until(&mut other, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(held);
    counted(&rig, "open_connections", 1).await;
    rig.agent.get("https://api.test/").await.assert_served();
}

/// A world whose upstream answers `/wait` when it is told to.
async fn waiting_world(arguments: &[&str]) -> (Rig, tokio::sync::watch::Sender<bool>) {
    let pki = Pki::new();
    let (go, gone) = tokio::sync::watch::channel(false);
    let upstream = Upstream::tls(&pki)
        .start(move |call: Call| {
            let mut gone = gone.clone();
            async move {
                if call.seen.path() == "/wait" {
                    _ = gone.wait_for(|go| *go).await;
                }
                text(200, "fine")
            }
        })
        .await;
    let configure = |builder| {
        arguments.iter().fold(
            builder,
            |builder: crate::harness::sidecar::Builder, argument| builder.arg(*argument),
        )
    };
    (Rig::around(&pki, upstream, ROUTES, configure).await, go)
}

fn get(path: &'static str) -> Vec<(&'static str, &'static [u8])> {
    vec![
        (":method", b"GET"),
        (":scheme", b"https"),
        (":authority", b"api.test"),
        (":path", path.as_bytes()),
    ]
}

#[tokio::test]
async fn row_35_requests_of_a_client_beyond_its_cap_are_answered_503_and_another_is_served() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let arguments = ["--max-per-client=3", "--max-requests=4", &also_local(&dir)];
    let (rig, go) = waiting_world(&arguments).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    let mut under_way = Vec::new();
    for _ in 0..3 {
        under_way.push(http.begin(&get("/wait")).await);
        let count = under_way.len();
        let arrived = || rig.upstream.at("/wait").len() == count;
        rig.upstream.arrival("the request", |_| arrived()).await;
    }
    let refused = http.request(&get("/more")).await;
    assert_eq!(refused.status, Some(503), "{refused:?}");
    assert!(
        refused.body.contains("\"too_many_requests\""),
        "{refused:?}"
    );
    rig.sidecar.logged("\"code\":\"too_many_requests\"").await;
    let mut other = local(&dir).await;
    let request = b"GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    let answer = exchange(&mut other, request).await;
    let answer = String::from_utf8_lossy(&answer);
    // It was looked at, and there is no route for it.
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    go.send_replace(true);
    for id in under_way {
        assert_eq!(http.end(id).await.status, Some(200));
    }
    let served = http.request(&get("/more")).await;
    assert_eq!(served.status, Some(200), "{served:?}");
    assert_eq!(rig.upstream.at("/more").len(), 1);
}

#[tokio::test]
async fn row_35_requests_of_all_clients_beyond_the_cap_are_answered_503() {
    let (rig, go) = waiting_world(&["--max-requests=1"]).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    let waiting = http.begin(&get("/wait")).await;
    rig.upstream
        .arrival("the request", |seen| seen.path() == "/wait")
        .await;
    let mut other = from("127.0.0.2", rig.sidecar.addr()).await;
    let request = b"GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    let answer = exchange(&mut other, request).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    go.send_replace(true);
    assert_eq!(http.end(waiting).await.status, Some(200));
    // The agent has all of the answer a moment before the sidecar has done with it.
    within("a turn for another request", async {
        while http.request(&get("/")).await.status != Some(200) {}
    })
    .await;
}

#[tokio::test]
async fn row_35_the_size_of_a_head_is_capped() {
    let rig = rig(&["--max-head=4KiB", "--max-fields=10"]).await;
    let fields = |count: usize| "X-A: b\r\n".repeat(count);
    for (head, code) in [
        (fields(10), Some("too_many_fields")),
        (fields(7), None),
        (
            format!("X-A: {}\r\n", "a".repeat(5000)),
            Some("head_too_large"),
        ),
        (format!("X-A: {}\r\n", "a".repeat(3000)), None),
    ] {
        let request =
            format!("GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n{head}\r\n");
        let answer = rig.tunnelled("api.test", request).await;
        match code {
            Some(code) => {
                answer.assert_refused(431, code);
                // What is said of it is about the limit, and not about the form of HTTP.
                let option = match code {
                    "head_too_large" => "--max-head",
                    _ => "--max-fields",
                };
                assert!(answer.text().contains(option), "{answer:?}");
            }
            None => answer.assert_served(),
        }
    }
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    let mut many = get("/many");
    many.extend(vec![("x-a", &b"b"[..]); 11]);
    assert_eq!(http.request(&many).await.status, Some(431));
    assert!(rig.upstream.at("/many").is_empty());
    assert_eq!(rig.upstream.seen().len(), 2);
}

#[tokio::test]
async fn row_35_streams_beyond_the_cap_are_refused() {
    let (rig, go) = waiting_world(&["--max-streams=2"]).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    let first = http.begin(&get("/wait")).await;
    let second = http.begin(&get("/wait")).await;
    let third = http.request(&get("/third")).await;
    assert!(third.status.is_none() && third.broken, "{third:?}");
    rig.agent.get("https://api.test/").await.assert_served();
    go.send_replace(true);
    assert_eq!(http.end(first).await.status, Some(200));
    assert_eq!(http.end(second).await.status, Some(200));
    assert!(rig.upstream.at("/third").is_empty());
}

#[tokio::test]
async fn row_35_beyond_the_cap_of_http2_connections_http1_is_spoken() {
    let rig = rig(&["--max-http2=1"]).await;
    let mut first = RawHttp2::open(&rig.agent, "api.test").await;
    let second = rig
        .agent
        .tunnel("api.test:443", "api.test", &["h2", "http/1.1"]);
    let second = second.await.expect("a tunnel");
    assert_eq!(second.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(first.request(&get("/")).await.status, Some(200));
    rig.agent.get("https://api.test/").await.assert_served();
    drop(first);
    // Its place is free as soon as the sidecar has seen its end.
    within("a place for HTTP/2", async {
        loop {
            let third = rig
                .agent
                .tunnel("api.test:443", "api.test", &["h2", "http/1.1"]);
            let third = third.await.expect("a tunnel");
            if third.get_ref().1.alpn_protocol() == Some(b"h2") {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn row_35_no_more_upstream_connections_are_kept_than_the_cap() {
    let world = Versions::start_with(
        async |_call| text(200, "fine"),
        |builder| builder.arg("--max-pooled=1"),
    )
    .await;
    let get = || {
        let nothing: Body = http_body_util::Full::new(Bytes::new()).boxed();
        Request::get("/").body(nothing).expect("a request")
    };
    let mut client = world.client(Http::Two, Http::One).await;
    assert_eq!(client.send(get()).await.status(), 200);
    // The one place is taken, by a connection to another upstream.
    let mut other = world.client(Http::One, Http::Two).await;
    assert_eq!(other.send(get()).await.status(), 200);
    world.upstream(Http::Two).end_of(1).await;
    assert!(world.upstream(Http::One).is_open(1));
    assert_eq!(client.send(get()).await.status(), 200);
    assert_eq!(world.upstream(Http::One).connections(), 1);
}

#[tokio::test]
async fn row_36_no_more_leaves_are_kept_than_the_cap() {
    for (cap, minted) in [("--max-leaves=1", 4), ("--max-leaves=2", 2)] {
        let rig = rig(&[cap]).await;
        for _ in 0..2 {
            rig.agent.get("https://api.test/").await.assert_served();
            rig.agent.get("https://other.test/").await.assert_served();
        }
        let status = rig.sidecar.status().await;
        assert_eq!(status["leaves_minted"], minted, "{cap}");
    }
}
