//! `/metrics` and `/readyz` of the admin socket: each number moves by what it counts and by nothing else, and an agent makes
//! no series.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::harness::agent::{Agent, exchange, read_head};
use crate::harness::clients;
use crate::harness::command;
use crate::harness::pki::{self, Pki};
use crate::harness::rig::{self, Rig};
use crate::harness::scrape::{Scrape, ask};
use crate::harness::scripted::{Scripted, request, rest, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Upstream, text};
use crate::harness::{refusing, within};

use super::refusals::jwt;

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1/], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: down.test, connect_to: '127.0.0.1:1'}
";

#[tokio::test]
async fn a_refused_an_allowed_and_a_failed_request_move_their_own_series() {
    let (_bound, down) = refusing();
    let routes = ROUTES.replace("127.0.0.1:1", &down.to_string());
    let rig = Rig::new(&routes).await;
    let start = Scrape::of(&rig.sidecar).await;
    assert_eq!(start.moved_since(&start), []);

    let refusal = rig.agent.connect("evil.test:443").await;
    refusal
        .expect_err("no route")
        .assert_refused(403, "host_not_allowed");
    rig.sidecar.logged("host_not_allowed").await;
    let denied = Scrape::of(&rig.sidecar).await;
    let moved = [
        ("egress_connections_total", 1.0),
        (
            r#"egress_request_duration_seconds_count{verdict="denied"}"#,
            1.0,
        ),
        (
            r#"egress_requests_total{route="",verdict="denied",code="host_not_allowed"}"#,
            1.0,
        ),
    ];
    assert_eq!(denied.moved_since(&start), moved);

    rig.agent.get("https://api.test/v1/x").await.assert_served();
    rig.sidecar.logged("\"code\":\"ok\"").await;
    let allowed = Scrape::of(&rig.sidecar).await;
    let moved = [
        ("egress_connections_total", 1.0),
        ("egress_leaf_certificates_minted_total", 1.0),
        (
            r#"egress_request_duration_seconds_count{verdict="allowed"}"#,
            1.0,
        ),
        (
            r#"egress_requests_total{route="",verdict="allowed",code="tunnel"}"#,
            1.0,
        ),
        (
            r#"egress_requests_total{route="api.test (line 2)",verdict="allowed",code="ok"}"#,
            1.0,
        ),
    ];
    assert_eq!(allowed.moved_since(&denied), moved);
    let held = [
        "egress_leaf_certificates_held",
        "egress_upstream_connections_shared",
    ];
    assert_eq!(held.map(|name| allowed.value(name)), [Some(1.0); 2]);

    let failure = rig.agent.get("https://down.test/").await;
    failure.assert_refused(502, "upstream_unreachable");
    rig.sidecar.logged("upstream_unreachable").await;
    let failed = Scrape::of(&rig.sidecar).await;
    let moved = [
        ("egress_connections_total", 1.0),
        ("egress_leaf_certificates_minted_total", 1.0),
        (
            r#"egress_request_duration_seconds_count{verdict="failed"}"#,
            1.0,
        ),
        (
            r#"egress_requests_total{route="",verdict="allowed",code="tunnel"}"#,
            1.0,
        ),
        (
            r#"egress_requests_total{route="down.test (line 3)",verdict="failed",code="upstream_unreachable"}"#,
            1.0,
        ),
        (r#"egress_upstream_errors_total{cause="connect"}"#, 1.0),
    ];
    assert_eq!(failed.moved_since(&allowed), moved);
    let counters = &rig.sidecar.status().await["counters"];
    let told = ["requests", "denied", "failed"].map(|name| counters[name].as_u64());
    assert_eq!(told, [Some(5), Some(1), Some(1)]);
}

#[tokio::test]
async fn a_thousand_hosts_paths_and_methods_make_no_series() {
    let upstream = Upstream::plain()
        .start(async |_call| text(200, "fine"))
        .await;
    let routes = "\
- {host: '*.wild.test', scheme: http, path_allowlist: [/v1/], connect_to: 'UPSTREAM'}
";
    let sidecar = Sidecar::with_routes(&Pki::new(), rig::file(routes, &upstream))
        .start()
        .await;
    let stream = TokioIo::new(Agent::of(&sidecar).raw().await);
    let (mut sender, connection) = http1::handshake(stream).await.expect("a connection");
    tokio::spawn(connection);
    let mut ask = async |method: &str, url: String| {
        let url: Uri = url.parse().expect("a URL");
        let host = url.host().expect("a host").to_owned();
        let request = Request::builder().method(method).header("host", host);
        let request = request.uri(url).body(Full::<Bytes>::default());
        let answer = sender.send_request(request.expect("a request")).await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        answer.into_body().collect().await.expect("a body");
        status
    };
    let mut few = None;
    for n in 0..1000 {
        assert_eq!(
            ask("GET", format!("http://h{n}.wild.test/v1/{n}")).await,
            200
        );
        assert_eq!(ask("GET", format!("http://h{n}.evil.test/{n}")).await, 403);
        assert_eq!(ask("GET", format!("http://h{n}.wild.test/{n}")).await, 403);
        let method = format!("METHOD{n}");
        assert_eq!(ask(&method, "http://a.wild.test/v1/".into()).await, 405);
        if n == 0 {
            few = Some(Scrape::of(&sidecar).await);
        }
    }
    let (few, many) = (few.expect("the first"), Scrape::of(&sidecar).await);
    assert_eq!(few.len(), many.len());
    let series =
        r#"egress_requests_total{route="*.wild.test (line 2)",verdict="allowed",code="ok"}"#;
    assert_eq!(many.value(series), Some(1000.0));
}

#[tokio::test]
async fn the_faults_of_upstreams_are_told_apart() {
    let pki = Pki::new();
    let named = |host: &str| CertificateParams::new(vec![host.to_owned()]).expect("a name");
    let mut expired = named("expired.test");
    expired.not_after = date_time_ymd(2020, 1, 1);
    let showing = async |config| {
        let upstream = Upstream::with_tls(config);
        upstream.start(async |_call| text(200, "never")).await
    };
    let expired = showing(pki.server_config_with(&expired, &["http/1.1"])).await;
    let misnamed = showing(pki.server_config_with(&named("other.test"), &["http/1.1"])).await;
    let foreign = Upstream::tls(&Pki::new()).start(async |_call| text(200, "never"));
    let foreign = foreign.await;
    let key = KeyPair::generate().expect("a key pair");
    let own = named("own.test").self_signed(&key).expect("a certificate");
    let own = showing(pki::showing(vec![own.der().clone()], &key)).await;
    let plain = Scripted::start(None, async |_, mut wire| {
        say(&mut wire, "HTTP/1.1 400 no\r\n\r\n").await;
    });
    let plain = plain.await;
    let mute = Scripted::start(
        Some(pki.server_config(&["http/1.1"])),
        async |_, mut wire| {
            request(&mut wire).await;
        },
    );
    let mute = mute.await;
    let broken = Scripted::start(
        Some(pki.server_config(&["http/1.1"])),
        async |_, mut wire| {
            request(&mut wire).await;
            let half = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
            say(&mut wire, half).await;
        },
    );
    let broken = broken.await;
    let challenge = Upstream::tls(&pki).start(async |_call| {
        let mut answer = text(403, "Just a moment...");
        let value = http::HeaderValue::from_static("challenge");
        answer.headers_mut().insert("cf-mitigated", value);
        answer
    });
    let challenge = challenge.await;
    let (_bound, refusing) = refusing();
    let cases = [
        (
            "expired.test",
            expired.addr().to_string(),
            "certificate_expired",
        ),
        (
            "misnamed.test",
            misnamed.addr().to_string(),
            "certificate_name",
        ),
        (
            "foreign.test",
            foreign.addr().to_string(),
            "certificate_issuer",
        ),
        ("own.test", own.addr().to_string(), "certificate_issuer"),
        ("plain.test", plain.addr().to_string(), "tls"),
        ("mute.test", mute.addr().to_string(), "protocol"),
        ("broken.test", broken.addr().to_string(), "broke_off"),
        (
            "challenge.test",
            challenge.addr().to_string(),
            "cf_mitigated",
        ),
        ("refusing.test", refusing.to_string(), "connect"),
        ("nowhere.test", "no.such.name.invalid:443".to_owned(), "dns"),
    ];
    let routes = cases
        .iter()
        .map(|(host, to, _)| format!("- {{host: {host}, connect_to: '{to}'}}\n"));
    let routes: String = routes.collect();
    let sidecar = Sidecar::with_routes(&pki, format!("routes:\n{routes}"))
        .start()
        .await;
    let agent = Agent::of(&sidecar);
    for (host, _, cause) in &cases {
        let before = Scrape::of(&sidecar).await;
        let mut tunnel = agent
            .tunnel(&format!("{host}:443"), host, &["http/1.1"])
            .await
            .expect("a tunnel");
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        exchange(&mut tunnel, head.as_bytes()).await;
        sidecar
            .logged(&format!("\"host\":\"{host}:443\",\"path\":\"/\""))
            .await;
        let after = Scrape::of(&sidecar).await;
        let moved = after.moved_since(&before);
        let faults: Vec<_> = moved
            .iter()
            .filter(|(name, _)| name.contains("cause="))
            .collect();
        let series = format!("egress_upstream_errors_total{{cause=\"{cause}\"}}");
        assert_eq!(
            faults,
            [&(series.as_str(), 1.0)],
            "{host}: {}",
            sidecar.log()
        );
    }
}

#[tokio::test]
async fn an_upstream_that_is_too_slow_is_told_by_what_it_was_waited_for() {
    let pki = Pki::new();
    let tls = Some(pki.server_config(&["http/1.1"]));
    let silent = Scripted::start(tls.clone(), async |_, mut wire| {
        rest(&mut wire).await;
    });
    let silent = silent.await;
    let stalled = Scripted::start(tls, async |_, mut wire| {
        request(&mut wire).await;
        let half = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
        say(&mut wire, half).await;
        rest(&mut wire).await;
    });
    let stalled = stalled.await;
    let unhelpful = Scripted::start(None, async |_, mut wire| {
        rest(&mut wire).await;
    });
    let unhelpful = unhelpful.await;
    let cases = [
        ("silent.test", silent.addr(), "answer_timeout"),
        ("stalled.test", stalled.addr(), "body_timeout"),
        ("unhelpful.test", unhelpful.addr(), "tls_timeout"),
    ];
    let routes = cases
        .iter()
        .map(|(host, to, _)| format!("- {{host: {host}, connect_to: '{to}'}}\n"));
    let routes: String = routes.collect();
    let sidecar = Sidecar::with_routes(&pki, format!("routes:\n{routes}"))
        .arg("--answer-timeout=1s")
        .arg("--body-timeout=1s")
        .arg("--handshake-timeout=1s")
        .start()
        .await;
    let agent = Agent::of(&sidecar);
    for (host, _, cause) in cases {
        let mut tunnel = agent
            .tunnel(&format!("{host}:443"), host, &["http/1.1"])
            .await
            .expect("a tunnel");
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        exchange(&mut tunnel, head.as_bytes()).await;
        sidecar
            .logged(&format!("\"host\":\"{host}:443\",\"path\":\"/\""))
            .await;
        let series = format!("egress_upstream_errors_total{{cause=\"{cause}\"}}");
        let now = Scrape::of(&sidecar).await;
        assert_eq!(now.value(&series), Some(1.0), "{}", sidecar.log());
    }
}

#[tokio::test]
async fn a_slot_that_expires_is_told_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    let seconds = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("a clock").as_secs()
    };
    fs::write(&file, jwt(seconds() + 3600)).expect("a file");
    let routes = "\
- {host: api.test, auth_scheme: Bearer, token_env: SHORT, connect_to: 'UPSTREAM'}
- {host: lasting.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
";
    let path = file.display().to_string();
    let rig = Rig::with(routes, |builder| builder.env("SHORT_FILE", path)).await;
    let before = Scrape::of(&rig.sidecar).await;
    let left = r#"egress_slot_expiry_seconds{slot="SHORT"}"#;
    let usable = r#"egress_slot_usable{slot="SHORT"}"#;
    let told = before.value(left).expect("an expiry");
    assert!(told > 3000.0 && told <= 3600.0, "{told}");
    assert_eq!(before.value(usable), Some(1.0));
    let (head, body) = ask(&rig.sidecar, "/readyz").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, "ready\n");

    // The sidecar is up: however slow the machine is, only the look at the file may miss the short life.
    fs::write(dir.path().join("next"), jwt(seconds() + 2)).expect("a file");
    fs::rename(dir.path().join("next"), &file).expect("a rename");
    let (head, body) = within("the end of a credential", async {
        loop {
            let (head, body) = ask(&rig.sidecar, "/readyz").await;
            if !head.starts_with("HTTP/1.1 200 ") {
                return (head, body);
            }
        }
    })
    .await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(body.starts_with("SHORT has expired ("), "{body}");
    assert_eq!(body.lines().count(), 1, "{body}");
    let after = Scrape::of(&rig.sidecar).await;
    assert!(after.value(left).expect("an expiry") < 0.0);
    assert_eq!(after.value(usable), Some(0.0));
    let lasting = r#"egress_slot_usable{slot="EGRESS_TOKEN_0"}"#;
    assert_eq!(after.value(lasting), Some(1.0));
    let none = r#"egress_slot_expiry_seconds{slot="EGRESS_TOKEN_0"}"#;
    assert_eq!(after.value(none), None);
}

#[tokio::test]
async fn a_route_keeps_its_counts_over_a_reload_and_takes_them_along_to_its_new_line() {
    let rig = Rig::new("- {host: api.test, connect_to: 'UPSTREAM'}\n").await;
    rig.agent.get("https://api.test/").await.assert_served();
    rig.sidecar.logged("\"code\":\"ok\"").await;
    let before = Scrape::of(&rig.sidecar).await;
    let series = |line: u8| {
        format!(
            "egress_requests_total{{route=\"api.test (line {line})\",verdict=\"allowed\",code=\"ok\"}}"
        )
    };
    assert_eq!(before.value(&series(2)), Some(1.0));
    let routes = fs::read_to_string(rig.sidecar.routes_file()).expect("the routes");
    rig.sidecar.write_routes(&format!("\n{routes}"));
    rig.sidecar.sighup();
    rig.sidecar.logged("\"reloaded\"").await;
    let reloaded = Scrape::of(&rig.sidecar).await;
    assert_eq!(reloaded.value(&series(2)), None);
    assert_eq!(reloaded.value(&series(3)), Some(1.0));
    assert_eq!(reloaded.value("egress_reloads_total"), Some(1.0));
    assert_eq!(reloaded.value("egress_last_reload_successful"), Some(1.0));
    let at = "egress_last_reload_success_timestamp_seconds";
    assert_eq!(before.value(at), before.value("egress_start_time_seconds"));
    assert!(reloaded.value(at) >= before.value(at));

    rig.sidecar.write_routes("routes: 7\n");
    rig.sidecar.sighup();
    rig.sidecar.logged("not reloaded").await;
    let refused = Scrape::of(&rig.sidecar).await;
    assert_eq!(
        refused.moved_since(&reloaded),
        [("egress_reload_failures_total", 1.0)]
    );
    assert_eq!(refused.value("egress_last_reload_successful"), Some(0.0));
    assert_eq!(refused.value(at), reloaded.value(at));
}

#[tokio::test]
async fn prometheus_has_no_objection_to_the_metrics_and_the_alerts() {
    let rig = Rig::new(ROUTES).await;
    rig.agent.get("https://api.test/v1/x").await.assert_served();
    let dir = tempfile::tempdir().expect("a directory");
    let metrics = dir.path().join("metrics");
    let (_, exposed) = ask(&rig.sidecar, "/metrics").await;
    fs::write(&metrics, exposed).expect("a file");
    let promtool = clients::system("promtool", "prometheus");
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.args(["-c", "exec \"$0\" check metrics <\"$1\""]);
    let checked = command::finish(shell.arg(&promtool).arg(&metrics)).await;
    // What it finds inelegant, it says and exits with 3.
    assert_eq!(
        (checked.code, &*checked.stderr),
        (Some(0), ""),
        "{checked:?}"
    );
    let alerts = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/alerts.yaml");
    let mut promtool = tokio::process::Command::new(promtool);
    let checked = command::finish(promtool.args(["check", "rules", alerts])).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[tokio::test]
async fn tunnels_and_websockets_are_open_for_as_long_as_they_are_and_no_duration_is_theirs() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(async |call| {
        call.websocket(async |mut socket| while socket.next().await.is_some() {})
    });
    let upstream = upstream.await;
    let routes = rig::file("- {host: api.test, connect_to: 'UPSTREAM'}\n", &upstream);
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let mut tunnel = Agent::of(&sidecar)
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    let handshake = "GET / HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    tunnel
        .write_all(handshake.as_bytes())
        .await
        .expect("a reader");
    let head = within("a head", read_head(&mut tunnel)).await;
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let open = [
        "egress_connections_open",
        "egress_tunnels_open",
        "egress_websockets_open",
    ];
    let reach = async |wanted: f64| {
        within("the gauges", async {
            loop {
                let now = Scrape::of(&sidecar).await;
                if open.iter().all(|name| now.value(name) == Some(wanted)) {
                    return now;
                }
            }
        })
        .await
    };
    reach(1.0).await;
    let mut socket = WebSocketStream::from_raw_socket(tunnel, Role::Client, None).await;
    socket.send(Message::Close(None)).await.expect("a reader");
    drop(socket);
    let end = reach(0.0).await;
    let timed = r#"egress_request_duration_seconds_count{verdict="allowed"}"#;
    assert_eq!(end.value(timed), Some(0.0));
    // The tunnel, and the WebSocket in it.
    let requests = &sidecar.status().await["counters"]["requests"];
    assert_eq!(requests.as_u64(), Some(2));
}
