//! From a permit to a connection: which addresses are dialled, whose certificates are believed, and what is said where
//! neither works. A credential is only ever sent over a connection that was found to be the upstream's.

use http::Request;

use crate::harness::agent::Agent;
use crate::harness::pki::Pki;
use crate::harness::refusing;
use crate::harness::scripted::{Scripted, request, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Body, Upstream, text, text_body};
use crate::harness::versions::{Client, Http, Whole};

const REAL: &str = "real-token-of-the-host-c3d8";
const ALPN: [&str; 2] = ["h2", "http/1.1"];

#[tokio::test]
async fn a_routes_own_ca_is_trusted_on_that_route_alone() {
    let (pki, private) = (Pki::new(), Pki::new());
    let upstream = Upstream::with_tls(private.server_config(&ALPN));
    let upstream = upstream.start(async |_call| text(200, "fine")).await;
    let file = private.ca_file();
    let (to, ca) = (upstream.addr(), file.path());
    let routes = format!(
        "routes:\n\
         \x20 - {{host: api.test, path_allowlist: [/own/], connect_to: '{to}', upstream_ca: '{}'}}\n\
         \x20 - {{host: api.test, path_allowlist: [/other/], connect_to: '{to}'}}\n",
        ca.display()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let mut client = Client::open(&Agent::of(&sidecar), Http::Two, "api.test").await;
    // Neither the first route's connection nor its TLS session helps the second.
    for _ in 0..2 {
        assert_eq!(client.send(request_for("/own/")).await.status(), 200);
        assert_eq!(
            client.send(request_for("/other/")).await.code(),
            Some("upstream_tls")
        );
    }
    assert!(upstream.at("/other/").is_empty());
}

#[tokio::test]
async fn bundled_roots_believe_no_one_else_and_take_the_operators_own() {
    let (pki, unknown) = (Pki::new(), Pki::new());
    let upstream = Upstream::tls(&pki)
        .start(async |_call| text(200, "fine"))
        .await;
    let stranger = Upstream::tls(&unknown)
        .start(async |_call| text(200, "never"))
        .await;
    let routes = format!(
        "routes:\n  - {{host: api.test, connect_to: '{}'}}\n  - {{host: b.test, connect_to: '{}'}}\n",
        upstream.addr(),
        stranger.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes)
        .arg("--roots=bundled")
        .start()
        .await;
    let agent = Agent::of(&sidecar);
    let mut client = Client::open(&agent, Http::Two, "b.test").await;
    assert_eq!(
        client.send(request_for("/")).await.code(),
        Some("upstream_tls")
    );
    assert_eq!(get(&sidecar, "/").await.status(), 200);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_or_speaks_no_http_is_a_502() {
    let pki = Pki::new();
    let (_bound, addr) = refusing();
    let down = sidecar(&pki, "api.test", &format!("connect_to: '{addr}'")).await;
    let refusal = get(&down, "/").await;
    assert_eq!(
        (refusal.status(), refusal.code()),
        (502, Some("upstream_unreachable"))
    );
    down.logged("refused").await;

    let plain = Scripted::start(None, |_, mut wire| async move {
        say(&mut wire, "HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let no_tls = sidecar(&pki, "api.test", &format!("connect_to: '{}'", plain.addr())).await;
    let refusal = get(&no_tls, "/").await;
    assert_eq!(
        (refusal.status(), refusal.code()),
        (502, Some("upstream_tls"))
    );

    let tls = pki.server_config(&["http/1.1"]);
    let garbage = Scripted::start(Some(tls), |_, mut wire| async move {
        request(&mut wire).await;
        say(&mut wire, "SSH-2.0-OpenSSH_9.2\r\n").await;
    })
    .await;
    let no_http = sidecar(
        &pki,
        "api.test",
        &format!("connect_to: '{}'", garbage.addr()),
    )
    .await;
    let refusal = get(&no_http, "/").await;
    assert_eq!(
        (refusal.status(), refusal.code()),
        (502, Some("upstream_protocol"))
    );
    // Not sent a second time: the upstream had the request.
    assert_eq!(garbage.connections(), 1);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_502() {
    let sidecar = sidecar(&Pki::new(), "api.test", "connect_to: 'nowhere.invalid:443'").await;
    let refusal = get(&sidecar, "/").await;
    assert_eq!(
        (refusal.status(), refusal.code()),
        (502, Some("upstream_unresolved"))
    );
}

/// Where `localhost` is ::1 too, the first attempt is refused and the second one is this upstream.
#[tokio::test]
async fn an_address_that_refuses_does_not_hide_the_one_that_answers() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .require("authorization", format!("Bearer {REAL}"))
        .start(async |_call| text(200, "fine"))
        .await;
    let keys = format!(
        "connect_to: 'localhost:{}', ssrf_ip_allowlist: [127.0.0.0/8, '::1/128']",
        upstream.addr().port()
    );
    let sidecar = sidecar(&pki, "api.test", &keys).await;
    assert_eq!(get(&sidecar, "/").await.status(), 200);
}

async fn sidecar(pki: &Pki, host: &str, keys: &str) -> Sidecar {
    let builder = Sidecar::with_routes(pki, routes(host, keys));
    builder.slot("EGRESS_TOKEN_0", REAL).start().await
}

fn routes(host: &str, keys: &str) -> String {
    format!("routes: [{{host: {host}, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, {keys}}}]\n")
}

/// A GET of `api.test` over HTTP/2, in a tunnel of its own.
async fn get(sidecar: &Sidecar, path: &str) -> Whole {
    let mut client = Client::open(&Agent::of(sidecar), Http::Two, "api.test").await;
    client.send(request_for(path)).await
}

fn request_for(path: &str) -> Request<Body> {
    Request::get(path).body(text_body("")).expect("a request")
}
