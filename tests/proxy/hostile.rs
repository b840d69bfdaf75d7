//! What a hostile agent tried from inside the sandbox, and must not get.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;

use crate::harness::agent::Agent;
use crate::harness::pki::Pki;
use crate::harness::scripted::{Scripted, rest};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Call, text, text_body};
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
