//! Observation: what it gives a hostile agent is a way out, and nothing else (threat model, row 65).

use std::net::IpAddr;
use std::path::Path;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{HeaderValue, SET_COOKIE};
use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::network::site::{Site, ip};
use crate::harness::agent::{read_head, send_http1};
use crate::harness::rig::REAL;
use crate::harness::scrape::Scrape;
use crate::harness::sidecar::Builder;
use crate::harness::upstream::{Body, Call, WebSocket, text};
use crate::harness::{command, wire, within};

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1/], methods: [GET], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}
- {host: near.test, path_allowlist: [/a], connect_to: '93.184.215.15:443'}
- {host: odd.test, path_allowlist: [/a], auth_header: x-our-own, auth_scheme: raw, token_env: EGRESS_TOKEN_0}
";

#[tokio::test]
async fn row_65_nothing_but_hosts_paths_and_methods_is_widened() {
    let dir = tempfile::tempdir().expect("a directory");
    let site = Site::with(ROUTES, addresses, observing(dir.path(), "1h")).await;
    for host in ["inside.test", "meta.test", "loop.test", "mixed.test"] {
        let answer = site.agent.get(&format!("https://{host}/")).await;
        answer.assert_refused(403, "address_not_allowed");
        let answer = plain(&site, &format!("GET http://{host}/")).await;
        answer.assert_refused(403, "address_not_allowed");
    }
    for (authority, code) in [
        ("new.test:8443", "host_not_allowed"),
        ("new.test:80", "host_not_allowed"),
        ("api.test:22", "port_not_allowed"),
        ("93.184.215.14:443", "host_not_allowed"),
        ("[2606:4700::1111]:443", "host_not_allowed"),
    ] {
        let refused = site.agent.connect(authority).await.expect_err(authority);
        refused.assert_refused(403, code);
    }
    for (request, status, code) in [
        ("GET http://new.test:8080/", 403, "host_not_allowed"),
        ("GET http://93.184.215.14/", 403, "host_not_allowed"),
        ("GET http://new.test/a/../b", 400, "path_ambiguous"),
        ("GET http://new.test/a//b", 400, "path_ambiguous"),
        ("TRACE http://new.test/", 405, "method_not_allowed"),
        (
            "GET http://new.test/?access_token=x",
            400,
            "query_credential",
        ),
    ] {
        plain(&site, request).await.assert_refused(status, code);
    }
    for (method, url, status, code) in [
        ("GET", "https://api.test/v1/%2e%2e/x", 400, "path_ambiguous"),
        ("POST", "https://api.test/v1%2fx", 400, "path_ambiguous"),
        (
            "GET",
            "https://api.test/v2?access_token=x",
            400,
            "query_credential",
        ),
        ("GET", "https://near.test/b", 403, "path_not_allowed"),
        ("GET", "https://odd.test/b", 403, "path_not_allowed"),
    ] {
        let request = Request::builder().method(method).uri(url);
        let answer = site
            .agent
            .send(request.body(Bytes::new()).expect(url))
            .await;
        answer.assert_refused(status, code);
    }
    let misdirected = Request::get("https://new.test/")
        .header("host", "other.test")
        .body(Bytes::new());
    let answer = site.agent.send(misdirected.expect("a request")).await;
    answer.assert_refused(421, "misdirected_request");
    assert_eq!(site.reached(), [] as [IpAddr; 0]);
}

#[tokio::test]
async fn row_65_no_credential_goes_with_what_is_observed_and_none_comes_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let setting = async |_call| {
        let mut answer = text(200, "fine");
        let cookie = HeaderValue::from_static("session=1");
        answer.headers_mut().insert(SET_COOKIE, cookie);
        answer
    };
    let observing = observing(dir.path(), "1h");
    let site = Site::answering(ROUTES, addresses, setting, observing).await;
    // In one tunnel: what the route admits has the credential, and lends it to nothing else.
    let mut tunnel = site.agent.http1("api.test:443", "api.test").await;
    for (method, path) in [
        ("GET", "/v1/a"),
        ("GET", "/v2"),
        ("POST", "/v1/a"),
        ("GET", "/v1/b"),
    ] {
        let url = format!("https://api.test{path}");
        let answer = send_http1(&mut tunnel, with_credentials(method, &url)).await;
        answer.assert_served();
        assert!(!answer.headers.contains_key(SET_COOKIE), "{path}");
    }
    let h2 = site
        .agent
        .send_h2(with_credentials("GET", "https://new.test/x"));
    h2.await.assert_served();
    let seen = site.tls.seen();
    let sent: Vec<_> = seen
        .iter()
        .map(|seen| {
            (
                seen.method.as_str(),
                seen.target.as_str(),
                seen.all("authorization"),
            )
        })
        .collect();
    let real = format!("Bearer {REAL}");
    assert_eq!(
        sent,
        [
            ("GET", "/v1/a", vec![real.as_str()]),
            ("GET", "/v2", vec![]),
            ("POST", "/v1/a", vec![]),
            ("GET", "/v1/b", vec![real.as_str()]),
            ("GET", "/x", vec![]),
        ]
    );
    for seen in &seen {
        for name in ["x-api-key", "proxy-authorization", "cookie"] {
            assert_eq!(seen.all(name), [] as [&str; 0], "{seen:?}");
        }
    }
    // No connection that the credential travelled on is used without it.
    let connection = |at: usize| seen[at].connection;
    assert_eq!(connection(0), connection(3), "it is kept for its own");
    assert_ne!(connection(0), connection(1));
    assert_ne!(connection(0), connection(2));
}

#[tokio::test]
async fn row_65_at_its_end_what_rests_on_it_is_closed_and_the_routes_decide() {
    let dir = tempfile::tempdir().expect("a directory");
    // Long enough to open what is to be closed, and shorter than what the tests wait for.
    let observing = observing(dir.path(), "12s");
    let site = Site::answering(ROUTES, addresses, echo, observing).await;
    let mut idle = site
        .agent
        .tunnel("new.test:443", "new.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    let mut talking = websocket(&site, "api.test").await;
    let mut named = site.agent.http1("api.test:443", "api.test").await;
    let get = |path: &str| {
        let request = Request::get(format!("https://api.test{path}"));
        request.body(Bytes::new()).expect("a request")
    };
    send_http1(&mut named, get("/v2")).await.assert_served();
    let mut sending = site
        .agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    let upload =
        "POST /v2/x HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n";
    let sent = sending.write_all(upload.as_bytes()).await;
    sent.expect("a reader");
    let scrape = Scrape::of(&site.sidecar).await;
    let left = scrape.value("egress_observe_seconds_left");
    assert!(
        left.is_some_and(|left| left > 0.0 && left <= 12.0),
        "{left:?}"
    );

    let ended = within("end of the WebSocket", talking.next()).await;
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    let mut rest = Vec::new();
    _ = within("end of the tunnel", idle.read_to_end(&mut rest)).await;
    site.sidecar.logged("the observation is over").await;
    // The route for its host is there as before, and does not admit its path.
    let mut rest = Vec::new();
    _ = within("end of the upload", sending.read_to_end(&mut rest)).await;
    site.sidecar
        .logged("no route admits the rest of the upload")
        .await;
    let scrape = Scrape::of(&site.sidecar).await;
    assert_eq!(scrape.value("egress_observe_seconds_left"), Some(0.0));
    assert!(site.sidecar.status().await["observe_seconds_left"].is_null());

    let refused = site.agent.connect("new.test:443").await;
    refused
        .expect_err("it is over")
        .assert_refused(403, "host_not_allowed");
    send_http1(&mut named, get("/v1/a")).await.assert_served();
    let refused = send_http1(&mut named, get("/v2")).await;
    refused.assert_refused(403, "path_not_allowed");
    // It was observed, and is known as such although it was cut off.
    let audit = dir.path().join("audit.db");
    site.sidecar.terminate().await;
    let rows = command::egress(["audit", &audit.display().to_string(), "--csv"]).await;
    let row = rows.stdout.lines().find(|row| row.contains("/chat"));
    assert!(row.is_some_and(|row| row.contains("observed")), "{rows:?}");
}

/// What every test's sidecar is started with.
fn observing(dir: &Path, time: &str) -> impl FnOnce(Builder) -> Builder {
    let audit = dir.join("audit.db").display().to_string();
    let time = format!("--observe-for={time}");
    move |builder| {
        builder
            .arg("--no-name-constraints")
            .arg("--audit")
            .arg(audit)
            .arg(time)
    }
}

fn addresses(name: &str, _: usize) -> Vec<IpAddr> {
    let public = "93.184.215.14";
    let addresses: &[&str] = match name {
        "inside.test" => &["10.0.0.7"],
        "meta.test" => &["169.254.169.254"],
        "loop.test" => &["127.0.0.1"],
        "mixed.test" => &[public, "10.0.0.7"],
        _ => &[public],
    };
    addresses.iter().map(|address| ip(address)).collect()
}

/// A plain request of this method and URL.
async fn plain(site: &Site, request: &str) -> wire::Only {
    let request = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
    let host = request.split('/').nth(2).expect("a host");
    let request = format!("{request}Host: {host}\r\n\r\n");
    wire::only(&mut site.agent.raw().await, request.as_bytes()).await
}

fn with_credentials(method: &str, url: &str) -> Request<Bytes> {
    let request = Request::builder().method(method).uri(url);
    let request = request
        .header("authorization", "Bearer agents-own")
        .header("proxy-authorization", "Basic agents-own")
        .header("x-api-key", "agents-own")
        .header("cookie", "session=agents-own");
    request.body(Bytes::new()).expect("a request")
}

/// A WebSocket that a route for its host does not admit.
async fn websocket(site: &Site, host: &str) -> WebSocketStream<crate::harness::agent::Tunnel> {
    let tunnel = site
        .agent
        .tunnel(&format!("{host}:443"), host, &["http/1.1"])
        .await;
    let mut tunnel = tunnel.expect("a tunnel");
    let request = format!(
        "GET /chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    tunnel
        .write_all(request.as_bytes())
        .await
        .expect("a reader");
    let head = within("a head", read_head(&mut tunnel)).await;
    let head = String::from_utf8_lossy(&head);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut socket = WebSocketStream::from_raw_socket(tunnel, Role::Client, None).await;
    socket.send(Message::text("hello")).await.expect("a reader");
    let echoed = within("the echo", socket.next()).await.expect("a message");
    assert_eq!(echoed.expect("a whole message"), Message::text("hello"));
    socket
}

async fn echo(call: Call) -> Response<Body> {
    match call.is_websocket() {
        true => call.websocket(talk),
        false => text(200, "fine"),
    }
}

async fn talk(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() && socket.send(message).await.is_err() {
            return;
        }
    }
}
