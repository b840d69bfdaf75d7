//! What a hostile agent tried from inside the sandbox, and must not get.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use tokio::io::AsyncWriteExt as _;

use crate::harness::agent::{Agent, read_until};
use crate::harness::pki::Pki;
use crate::harness::rig::Rig;
use crate::harness::scripted::{Scripted, rest};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Call, Upstream, text, text_body};
use crate::harness::versions::{Http, Versions};
use crate::harness::within;

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

/// It would keep its place, and the upstream would work for nobody.
#[tokio::test]
async fn a_client_that_leaves_ends_its_request_also_where_it_was_read_ahead() {
    let pki = Pki::new();
    let upstream = Upstream::plain()
        .start(async |call: Call| match call.seen.path() {
            "/stuck" => std::future::pending().await,
            _ => text(200, "fine"),
        })
        .await;
    let routes = "- {host: api.test, scheme: http, connect_to: 'UPSTREAM'}\n";
    let rig = Rig::around(&pki, upstream, routes, |builder| builder).await;
    let get = |path: &str| format!("GET http://api.test{path} HTTP/1.1\r\nHost: api.test\r\n\r\n");
    // In one piece, so that the second is there before anybody wants it.
    let mut client = rig.agent.raw().await;
    let both = format!("{}{}", get("/first"), get("/stuck"));
    client.write_all(both.as_bytes()).await.expect("a reader");
    let stuck = rig
        .upstream
        .arrival("the second request", |seen| seen.path() == "/stuck")
        .await;
    assert!(read_until(&mut client, "fine").await.contains("fine"));
    drop(client);
    rig.upstream.end_of(stuck.connection).await;
}
