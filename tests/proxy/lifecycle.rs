//! Start, reload and stop.

use std::os::unix::fs::FileTypeExt;

use crate::harness::agent::Agent;
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Upstream};
use crate::harness::within;

const REAL: &str = "real-token-of-the-host-2f6b";

#[tokio::test]
async fn a_file_without_routes_denies_everything() {
    let sidecar = Sidecar::with_routes(&Pki::new(), "routes: []\n")
        .start()
        .await;
    let Err(refusal) = Agent::of(&sidecar).connect("api.test:443").await else {
        panic!("the tunnel opened");
    };
    assert_eq!(refusal.status, 403);
    assert!(
        refusal.headers.contains_key("x-egress-error"),
        "{refusal:?}"
    );
    assert!(refusal.error_code().is_some(), "{refusal:?}");
}

#[tokio::test]
async fn a_reload_with_a_fault_keeps_the_old_policy_and_tells_the_fault() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| upstream::text(200, "fine"))
        .await;
    let routes = route("api.test", &upstream);
    let mut sidecar = Sidecar::with_routes(&pki, &routes)
        .slot("EGRESS_TOKEN_0", REAL)
        .start()
        .await;
    sidecar.write_routes(&format!("{routes}    no_such_key: 1\n"));
    sidecar.sighup();
    sidecar.logged("no_such_key").await;
    assert!(sidecar.is_up());
    assert_eq!(
        Agent::of(&sidecar).get("https://api.test/").await.status,
        200
    );
    assert!(sidecar.routes_file().exists());
}

#[tokio::test]
async fn a_reload_admits_the_new_host_and_no_longer_the_old() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| upstream::text(200, "fine"))
        .await;
    let sidecar = Sidecar::with_routes(&pki, route("old.test", &upstream))
        .slot("EGRESS_TOKEN_0", REAL)
        // The root's name constraints would not cover a host that a reload adds.
        .arg("--no-name-constraints")
        .start()
        .await;
    let agent = Agent::of(&sidecar);
    assert!(agent.connect("new.test:443").await.is_err());
    sidecar.write_routes(&route("new.test", &upstream));
    sidecar.sighup();
    within("the new policy", async {
        while agent.connect("new.test:443").await.is_err() {}
    })
    .await;
    assert_eq!(agent.get("https://new.test/").await.status, 200);
    assert!(agent.connect("old.test:443").await.is_err());
}

#[tokio::test]
async fn it_stops_on_sigterm_and_never_printed_the_token() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| upstream::text(200, "fine"))
        .await;
    let routes = route("api.test", &upstream);
    let sidecar = Sidecar::with_routes(&pki, routes)
        .slot("EGRESS_TOKEN_0", REAL)
        .start()
        .await;
    let admin = std::fs::metadata(sidecar.admin_socket()).expect("the admin socket is there");
    assert!(admin.file_type().is_socket());
    assert_eq!(
        Agent::of(&sidecar).get("https://api.test/").await.status,
        200
    );
    let (status, log) = sidecar.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains(REAL));
}

fn route(host: &str, upstream: &Upstream) -> String {
    format!(
        "routes:\n  - host: {host}\n    auth_scheme: Bearer\n    token_env: EGRESS_TOKEN_0\n    connect_to: {}\n",
        upstream.addr()
    )
}
