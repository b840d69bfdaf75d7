//! `--upstream-proxy`: every way out leads through the operator's own proxy, and no variable of the environment adds one.

use http::Request;

use crate::harness::agent::Agent;
use crate::harness::forward::Forward;
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Body, Upstream, text, text_body};
use crate::harness::versions::{Client, Http};

const REAL: &str = "real-token-of-the-host-5e1d";

#[tokio::test]
async fn a_proxy_that_refuses_is_a_502_of_its_own() {
    for answer in [
        "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!",
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "",
    ] {
        let pki = Pki::new();
        let forward = Forward::refusing(answer).await;
        let sidecar = sidecar(&pki, &format!("http://user:p%40ss@{}", forward.addr())).await;
        let mut client = Client::open(&Agent::of(&sidecar), Http::Two, "api.test").await;
        let refusal = client.send(get("/")).await;
        assert_eq!(
            (refusal.status(), refusal.code()),
            (502, Some("upstream_proxy")),
            "{answer}"
        );
        let line = sidecar.logged("\"code\":\"upstream_proxy\"").await;
        assert!(line.contains("\"detail\":"), "{line}");
        for secret in ["p%40ss", "dXNlcjpw"] {
            assert!(!sidecar.log().contains(secret), "{line}");
        }
    }
}

#[tokio::test]
async fn a_proxy_that_is_down_is_a_502() {
    let pki = Pki::new();
    let forward = Forward::refusing("").await;
    let addr = forward.addr();
    drop(forward);
    let sidecar = sidecar(&pki, &format!("http://{addr}")).await;
    let mut client = Client::open(&Agent::of(&sidecar), Http::Two, "api.test").await;
    let refusal = client.send(get("/")).await;
    assert_eq!(refusal.status(), 502);
    assert!(matches!(
        refusal.code(),
        Some("upstream_proxy" | "upstream_unreachable")
    ));
}

/// The proxy's own end of the tunnel is not the upstream: what it says first must not be read as the upstream's word.
#[tokio::test]
async fn bytes_that_the_proxy_adds_to_its_answer_are_not_the_upstreams() {
    let pki = Pki::new();
    let forward =
        Forward::refusing("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await;
    let routes = "routes: [{host: api.test, scheme: http, port: 80}]\n";
    let sidecar = Sidecar::with_routes(&pki, routes)
        .arg(format!("--upstream-proxy=http://{}", forward.addr()))
        .start()
        .await;
    let mut proxy = Agent::of(&sidecar).raw().await;
    let request = b"GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    let answer = crate::harness::agent::exchange(&mut proxy, request).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 502 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn requests_go_through_it_with_connect_and_its_password() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .require("authorization", format!("Bearer {REAL}"))
        .start(async |_call| text(200, "fine"))
        .await;
    let forward = Forward::to(upstream.addr()).await;
    let sidecar = sidecar(&pki, &format!("http://user:p%40ss@{}/", forward.addr())).await;
    let agent = Agent::of(&sidecar);
    for http in [Http::One, Http::Two] {
        let mut client = Client::open(&agent, http, "api.test").await;
        assert_eq!(client.send(get("/")).await.status(), 200);
    }
    let heads = forward.heads();
    assert_eq!(heads.len(), 1, "the tunnel is pooled: {heads:?}");
    let head = heads[0].to_ascii_lowercase();
    assert!(
        head.starts_with("connect api.test:443 http/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nhost: api.test:443\r\n"), "{head}");
    // The real token is for the upstream alone.
    assert!(
        !head.contains(REAL) && !head.contains("\r\nauthorization:"),
        "{head}"
    );
    let password = heads[0].lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization")
            .then_some(value)
    });
    // user:p@ss: a URL spells the @ as %40, and Basic does not.
    assert_eq!(password, Some("Basic dXNlcjpwQHNz"));
}

async fn sidecar(pki: &Pki, proxy: &str) -> Sidecar {
    let routes = "routes: [{host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}]\n";
    Sidecar::with_routes(pki, routes)
        .slot("EGRESS_TOKEN_0", REAL)
        .arg(format!("--upstream-proxy={proxy}"))
        .start()
        .await
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(text_body("")).expect("a request")
}
