//! Which requests share a connection to an upstream, and when a connection is closed.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use rustls::HandshakeKind;
use tokio::sync::{mpsc, watch};

use crate::harness::agent::Agent;
use crate::harness::pki::Pki;
use crate::harness::scripted::{Scripted, request, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Body, Upstream, text, text_body};
use crate::harness::versions::{Client, Http};
use crate::harness::within;

const VERSIONS: [Http; 2] = [Http::One, Http::Two];

#[tokio::test]
async fn routes_to_one_host_never_share_a_connection() {
    for http in VERSIONS {
        let pki = Pki::new();
        let upstream = Upstream::with_tls(pki.server_config(&[http.alpn()]));
        let upstream = upstream.start(async |_call| text(200, "fine")).await;
        let to = upstream.addr();
        let routes = format!(
            "routes:\n\
             \x20 - {{host: api.test, path_allowlist: [/a/], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: {to}}}\n\
             \x20 - {{host: api.test, path_allowlist: [/b/], auth_scheme: Bearer, token_env: EGRESS_TOKEN_1, connect_to: {to}}}\n\
             \x20 - {{host: api.test, path_allowlist: [/c/], connect_to: {to}}}\n\
             \x20 - {{host: other.test, path_allowlist: [/c/], connect_to: {to}}}\n"
        );
        let sidecar = Sidecar::with_routes(&pki, routes)
            .slot("EGRESS_TOKEN_0", "token-of-a")
            .slot("EGRESS_TOKEN_1", "token-of-b")
            .start()
            .await;
        let agent = Agent::of(&sidecar);
        let mut client = Client::open(&agent, Http::One, "api.test").await;
        let mut other = Client::open(&agent, Http::One, "other.test").await;
        for _ in 0..3 {
            for path in ["/a/", "/b/", "/c/"] {
                assert_eq!(client.send(get(path)).await.status(), 200);
            }
            assert_eq!(other.send(get("/c/")).await.status(), 200);
        }
        assert_eq!(upstream.connections(), 4, "{http:?}");
        for seen in upstream.seen() {
            let expected = match (seen.host.as_str(), seen.path()) {
                ("api.test", "/a/") => (1, vec!["Bearer token-of-a"]),
                ("api.test", "/b/") => (2, vec!["Bearer token-of-b"]),
                ("api.test", _) => (3, vec![]),
                _ => (4, vec![]),
            };
            assert_eq!((seen.connection, seen.all("authorization")), expected);
        }
    }
}

#[tokio::test]
async fn a_rotated_credential_never_travels_on_the_old_ones_connection() {
    for http in VERSIONS {
        let pki = Pki::new();
        let upstream = Upstream::with_tls(pki.server_config(&[http.alpn()]));
        let upstream = upstream.start(async |_call| text(200, "fine")).await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let slot = dir.path().join("token");
        std::fs::write(&slot, "the-old-one").expect("a file");
        let routes = format!(
            "routes: [{{host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: {}}}]\n",
            upstream.addr()
        );
        let sidecar = Sidecar::with_routes(&pki, routes)
            .env("EGRESS_TOKEN_0_FILE", slot.to_str().expect("UTF-8"))
            .start()
            .await;
        let agent = Agent::of(&sidecar);
        let mut client = Client::open(&agent, Http::Two, "api.test").await;
        assert_eq!(client.send(get("/")).await.status(), 200);
        std::fs::write(&slot, "the-new-one").expect("a file");
        sidecar.sighup();
        // The old connection goes at once, before anything asks for a new one.
        upstream.end_of(1).await;
        assert_eq!(client.send(get("/")).await.status(), 200);
        let seen: Vec<_> = upstream.seen();
        let seen: Vec<_> = seen
            .iter()
            .map(|seen| (seen.connection, seen.all("authorization")))
            .collect();
        let expected = [
            (1, vec!["Bearer the-old-one"]),
            (2, vec!["Bearer the-new-one"]),
        ];
        assert_eq!(seen, expected, "{http:?}");
    }
}

#[tokio::test]
async fn a_reload_closes_the_idle_connections_of_a_removed_route_and_no_others() {
    for http in VERSIONS {
        let pki = Pki::new();
        let upstream = Upstream::with_tls(pki.server_config(&[http.alpn()]));
        let upstream = upstream.start(async |_call| text(200, "fine")).await;
        let kept = format!(
            "routes:\n  - {{host: kept.test, connect_to: {}}}\n",
            upstream.addr()
        );
        let gone = format!("  - {{host: gone.test, connect_to: {}}}\n", upstream.addr());
        let sidecar = Sidecar::with_routes(&pki, format!("{kept}{gone}"))
            .start()
            .await;
        let agent = Agent::of(&sidecar);
        let mut client = Client::open(&agent, Http::One, "kept.test").await;
        assert_eq!(client.send(get("/")).await.status(), 200);
        let mut other = Client::open(&agent, Http::One, "gone.test").await;
        assert_eq!(other.send(get("/")).await.status(), 200);
        sidecar.write_routes(&kept);
        sidecar.sighup();
        upstream.end_of(2).await;
        assert!(upstream.is_open(1), "{http:?}");
        assert_eq!(client.send(get("/")).await.status(), 200);
        assert_eq!(upstream.connections(), 2, "{http:?}");
    }
}

/// The answer is under way when its route goes: it finishes, and its connection does not wait for a next request.
#[tokio::test]
async fn a_connection_whose_route_went_while_it_was_in_use_is_not_kept() {
    for http in VERSIONS {
        let pki = Pki::new();
        let (release, gate) = watch::channel(false);
        let upstream = Upstream::with_tls(pki.server_config(&[http.alpn()]));
        let upstream = upstream
            .start(move |_call| {
                let mut gate = gate.clone();
                async move {
                    _ = gate.wait_for(|open| *open).await;
                    text(200, "fine")
                }
            })
            .await;
        let routes = format!(
            "routes: [{{host: api.test, connect_to: {}}}]\n",
            upstream.addr()
        );
        let sidecar = Sidecar::with_routes(&pki, routes).start().await;
        let agent = Agent::of(&sidecar);
        let mut client = Client::open(&agent, Http::One, "api.test").await;
        let asking = tokio::spawn(async move { client.send(get("/")).await.status() });
        upstream.arrival("the request", |_| true).await;
        sidecar.write_routes("routes: []\n");
        sidecar.sighup();
        within("the new policy", async {
            while agent.connect("api.test:443").await.is_ok() {}
        })
        .await;
        release.send_replace(true);
        assert_eq!(asking.await.expect("no panic"), 200, "{http:?}");
        upstream.end_of(1).await;
    }
}

/// The upstream closes after each answer and does not say so before. Its close races with the next request, again and
/// again: a request that has not gone out goes over a fresh connection.
#[tokio::test]
async fn a_connection_that_the_upstream_closed_while_it_was_idle_costs_no_request() {
    let pki = Pki::new();
    let (closed, mut closing) = mpsc::unbounded_channel();
    let tls = pki.server_config(&["http/1.1"]);
    let upstream = Scripted::start(Some(tls), move |_, mut wire| {
        let closed = closed.clone();
        async move {
            if request(&mut wire).await.is_some() {
                say(
                    &mut wire,
                    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
                )
                .await;
            }
            drop(wire);
            _ = closed.send(());
        }
    })
    .await;
    let routes = format!(
        "routes: [{{host: api.test, connect_to: {}}}]\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let mut client = Client::open(&Agent::of(&sidecar), Http::One, "api.test").await;
    for turn in 0..30 {
        let answer = client.send(get("/")).await;
        assert_eq!(answer.status(), 200, "turn {turn}: {:?}", answer.code());
        within("close of the connection", closing.recv()).await;
    }
}

#[tokio::test]
async fn sequential_requests_use_one_connection() {
    for http in VERSIONS {
        let pki = Pki::new();
        let upstream = Upstream::with_tls(pki.server_config(&[http.alpn()]));
        let upstream = upstream.start(async |call| text(200, call.seen.body)).await;
        let routes = format!(
            "routes: [{{host: api.test, connect_to: {}}}]\n",
            upstream.addr()
        );
        let sidecar = Sidecar::with_routes(&pki, routes).start().await;
        let agent = Agent::of(&sidecar);
        for agent_http in VERSIONS {
            // A tunnel of its own each: the pool is the sidecar's, not the tunnel's.
            for _ in 0..3 {
                let mut client = Client::open(&agent, agent_http, "api.test").await;
                assert_eq!(client.send(get("/")).await.status(), 200);
                let post = Request::post("/")
                    .body(text_body("sized"))
                    .expect("a request");
                assert_eq!(client.send(post).await.body, "sized");
                for length in [None, Some(5)] {
                    // The end of this body comes in a piece of its own.
                    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
                    let mut post = Request::post("/");
                    if let Some(length) = length {
                        post = post.header(header::CONTENT_LENGTH, length);
                    }
                    let post = post.body(body.boxed()).expect("a request");
                    let uploading = async {
                        sender.send_data("piece".into()).await.expect("a reader");
                        drop(sender);
                    };
                    let (answer, ()) = tokio::join!(client.send(post), uploading);
                    assert_eq!(answer.body, "piece");
                }
            }
        }
        assert_eq!(upstream.connections(), 1, "{http:?}");
    }
}

#[tokio::test]
async fn the_next_connection_resumes_the_tls_session_of_the_last() {
    let pki = Pki::new();
    // Each answer ends its connection.
    let upstream = Upstream::with_tls(pki.server_config(&["http/1.1"]));
    let upstream = upstream
        .start(async |_call| {
            let mut answer = text(200, "fine");
            let close = http::HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
            answer
        })
        .await;
    let routes = format!(
        "routes: [{{host: api.test, connect_to: {}}}]\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let mut client = Client::open(&Agent::of(&sidecar), Http::Two, "api.test").await;
    for _ in 0..3 {
        assert_eq!(client.send(get("/")).await.status(), 200);
    }
    let handshakes = upstream.handshakes();
    assert_eq!(
        handshakes[1..],
        [HandshakeKind::Resumed; 2],
        "{handshakes:?}"
    );
    assert_ne!(handshakes[0], HandshakeKind::Resumed);
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(text_body("")).expect("a request")
}
