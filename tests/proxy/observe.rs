//! `--observe-for`: from an agent about which nothing is known to the routes that it needs.

use std::net::IpAddr;
use std::path::Path;

use bytes::Bytes;
use http::Request;

use crate::attack::network::site::{Site, ip};
use crate::harness::command;
use crate::harness::pki::Pki;
use crate::harness::scrape::Scrape;
use crate::harness::sidecar::{Builder, Sidecar};
use crate::harness::wire;

const ROUTES: &str = "- {host: api.test, path_allowlist: [/v1/], methods: [GET], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}\n";

#[tokio::test]
async fn what_was_observed_becomes_the_routes_that_enforce_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db").display().to_string();
    let observing = Site::with(ROUTES, everywhere, |builder| {
        observe(builder, dir.path(), "--observe-for=1h")
    })
    .await;
    observing.sidecar.logged("OBSERVING").await;
    asked(&observing, 200, "").await;
    let told = "\"code\":\"observed\"";
    observing.sidecar.logged_times(told, 4).await;

    // A reload does not end it.
    observing.sidecar.sighup();
    observing.sidecar.logged("reloaded").await;
    let status = observing.sidecar.status().await;
    let left = status["observe_seconds_left"].as_u64().expect("a number");
    assert!(left > 0 && left <= 3600, "{left}");
    let admin = format!("unix:{}", observing.sidecar.admin_socket().display());
    let told = command::egress(["status", "--admin", &admin]).await;
    assert_eq!(told.code, Some(0), "it is healthy: {told:?}");
    assert!(told.stdout.starts_with("OBSERVING, "), "{told:?}");

    // The agent makes no series of its own.
    let scrape = Scrape::of(&observing.sidecar).await;
    let observed = "egress_requests_total{route=\"\",verdict=\"allowed\",code=\"observed\"}";
    // Three requests, and the tunnel to a host that no route names.
    assert_eq!(scrape.value(observed), Some(4.0));
    let (status, log) = observing.sidecar.terminate().await;
    assert!(status.success(), "{log}");

    let suggested = command::egress(["suggest", "--audit", &audit]).await;
    assert_eq!(suggested.code, Some(0), "{suggested:?}");
    let items = suggested.stdout.split_once("routes:\n").expect("a list").1;
    let routes = format!("{}{ROUTES}", unindented(items));
    let enforcing = Site::new(&routes, everywhere).await;
    asked(&enforcing, 200, "").await;
    asked(&enforcing, 403, "/other").await;
    let refused = enforcing.agent.connect("other.test:443").await;
    let refused = refused.expect_err("nobody asked for it");
    refused.assert_refused(403, "host_not_allowed");

    // With the routes in force, what would go out with their credential is told and not done.
    let file = dir.path().join("routes.yaml");
    std::fs::write(&file, format!("routes:\n{ROUTES}")).expect("a file");
    let file = file.display().to_string();
    let suggested = command::egress(["suggest", "-r", &file, "--audit", &audit]).await;
    let warning = "WARNING: the route for api.test in line 2 injects EGRESS_TOKEN_0";
    assert!(suggested.stdout.contains(warning), "{suggested:?}");
}

#[tokio::test]
async fn a_start_that_could_not_keep_its_promises_is_refused() {
    let pki = Pki::new();
    let dir = tempfile::tempdir().expect("a directory");
    let audit = format!("--audit={}", dir.path().join("audit.db").display());
    let start = async |arguments: &[&str]| {
        let builder = Sidecar::with_routes(&pki, "routes: []\n");
        let builder = arguments
            .iter()
            .fold(builder, |builder, argument| builder.arg(*argument));
        match builder.try_start().await {
            Ok(_) => panic!("{arguments:?}: it runs"),
            Err(failure) => {
                assert_eq!(failure.status.code(), Some(2), "{failure:?}");
                failure.log
            }
        }
    };
    let free = "--no-name-constraints";
    for (arguments, said) in [
        (&["--observe-for=1h", free][..], "--audit"),
        (&["--observe", free], "--audit"),
        (&["--observe-for=1h", &audit], "without name constraints"),
        (&["--observe-for=25h", &audit, free], "24h at the most"),
        (&["--observe-for=0s", &audit, free], "24h at the most"),
        (
            &["--observe", "--observe-for=1h", &audit, free],
            "cannot be used with",
        ),
        (
            &[
                "--observe",
                &audit,
                free,
                "--upstream-proxy=http://127.0.0.1:1",
            ],
            "--upstream-proxy",
        ),
    ] {
        let log = start(arguments).await;
        assert!(log.contains(said), "{arguments:?}: {log}");
    }
}

/// A CA that is there already is not replaced.
#[tokio::test]
async fn a_ca_that_stands_for_named_hosts_keeps_an_observation_from_starting() {
    let pki = Pki::new();
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca");
    let routes = "routes: [{host: api.test}]\n";
    let made = Sidecar::with_routes(&pki, routes).ca_dir(&ca).start().await;
    let before = std::fs::read(made.ca_cert()).expect("a certificate");
    made.terminate().await;
    let builder = Sidecar::with_routes(&pki, routes).ca_dir(&ca);
    let failure = match observe(builder, dir.path(), "--observe").try_start().await {
        Ok(_) => panic!("it runs"),
        Err(failure) => failure,
    };
    assert_eq!(failure.status.code(), Some(2), "{failure:?}");
    assert!(failure.log.contains("hint: "), "{failure:?}");
    let after = std::fs::read(ca.join("ca-cert.pem")).expect("a certificate");
    assert_eq!(before, after);
    // One in memory is for this process alone, and stands for every host.
    let builder = Sidecar::with_routes(&pki, routes).arg("--ca-ephemeral");
    let mut running = observe(builder, dir.path(), "--observe").start().await;
    assert!(running.is_up());
}

fn observe(builder: Builder, dir: &Path, option: &str) -> Builder {
    let audit = dir.join("audit.db").display().to_string();
    let free = "--no-name-constraints";
    builder.arg(free).arg("--audit").arg(audit).arg(option)
}

fn everywhere(_: &str, _: usize) -> Vec<IpAddr> {
    vec![ip("93.184.215.14")]
}

/// Sends what the agent needs, with something behind each path.
async fn asked(site: &Site, status: u16, behind: &str) {
    let api = site.agent.get("https://api.test/v1/models").await;
    api.assert_served();
    for (method, url) in [
        ("POST", "https://api.test/v2/upload"),
        ("GET", "https://files.test/a/b.txt"),
    ] {
        let url = format!("{url}{behind}");
        let request = Request::builder().method(method).uri(&url);
        let answer = site
            .agent
            .send(request.body(Bytes::new()).expect("a request"))
            .await;
        assert_eq!(answer.status, status, "{url}: {answer:?}");
    }
    let request = format!(
        "GET http://plain.test/x{behind} HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n"
    );
    let answer = wire::only(&mut site.agent.raw().await, request.as_bytes()).await;
    assert_eq!(answer.status, status, "{answer:?}");
}

/// The items of a list as the other routes stand.
fn unindented(items: &str) -> String {
    let lines = items
        .lines()
        .map(|line| line.strip_prefix("  ").unwrap_or(line));
    lines.map(|line| format!("{line}\n")).collect()
}
