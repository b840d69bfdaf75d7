//! The way of the bytes: both HTTP versions on both sides, and heads that must not pass.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::harness::agent::{Agent, exchange, read_until, send_http2};
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Upstream};

const REAL: &str = "real-token-of-the-host-d07c";

#[tokio::test]
async fn http2_is_spoken_on_both_sides() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .require("authorization", format!("Bearer {REAL}"))
        .start(async |call| upstream::text(200, call.seen.body))
        .await;
    let sidecar = sidecar(&pki, &upstream, "").await;
    let agent = Agent::of(&sidecar);
    let mut tunnel = agent.http2("api.test:443", "api.test").await;
    for _ in 0..3 {
        let request =
            Request::post("https://api.test/echo").header("authorization", "Bearer placeholder");
        let request = request
            .body(Bytes::from_static(b"body"))
            .expect("a valid request");
        let answer = send_http2(&mut tunnel, request).await;
        assert_eq!(
            (answer.status.as_u16(), answer.version),
            (200, Version::HTTP_2)
        );
        assert_eq!(answer.text(), "body");
    }
    assert!(
        upstream
            .seen()
            .iter()
            .all(|seen| seen.version == Version::HTTP_2)
    );
    let request = Request::get("https://api.test/")
        .body(Bytes::new())
        .expect("a valid request");
    assert_eq!(agent.send_h2(request).await.status, 200);
}

#[tokio::test]
async fn a_plain_upstream_is_reached_where_the_route_says_so() {
    let pki = Pki::new();
    let upstream = Upstream::plain()
        .start(async |call| upstream::text(200, call.seen.host))
        .await;
    let keys = "    scheme: http\n    port: 80\n    insecure_inject: true\n";
    let sidecar = sidecar(&pki, &upstream, keys).await;
    let mut proxy = Agent::of(&sidecar).raw().await;
    let request = "GET http://api.test/x HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    let answer = exchange(&mut proxy, request.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("api.test"), "{answer}");
    let seen = upstream
        .arrival("request", |seen| seen.target == "/x")
        .await;
    assert_eq!(seen.all("authorization"), [format!("Bearer {REAL}")]);
    assert_eq!((seen.version, seen.connection), (Version::HTTP_11, 1));
}

#[tokio::test]
async fn an_upload_reaches_the_upstream_before_it_has_ended() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .streaming()
        .start(async |call| {
            let mut body = call.request.into_body().expect("a streamed body");
            let first = body
                .frame()
                .await
                .expect("a frame")
                .expect("a readable frame");
            upstream::text(200, first.into_data().expect("data"))
        })
        .await;
    let sidecar = sidecar(&pki, &upstream, "").await;
    let agent = Agent::of(&sidecar);
    let mut tunnel = agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    // The body never ends, so an answer can only come from a proxy that does not wait for the end of it.
    let request =
        b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    tunnel.write_all(request).await.expect("the sidecar reads");
    let answer = read_until(&mut tunnel, "first").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

async fn sidecar(pki: &Pki, upstream: &Upstream, route_keys: &str) -> Sidecar {
    let routes = format!(
        "routes:\n  - host: api.test\n    auth_scheme: Bearer\n    token_env: EGRESS_TOKEN_0\n    connect_to: {}\n{route_keys}",
        upstream.addr()
    );
    Sidecar::with_routes(pki, routes)
        .slot("EGRESS_TOKEN_0", REAL)
        .start()
        .await
}
