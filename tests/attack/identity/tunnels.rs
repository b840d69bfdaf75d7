//! HTTP/1.1 in tunnels, and what is no tunnel: each request names its origin, in one way.

use tokio::io::AsyncWriteExt;

use crate::harness::agent::{exchange, read_until};
use crate::harness::attempts::Arena;
use crate::harness::line::{Attempt, Line, Outcome, Way};
use crate::harness::rig::{REAL, Rig};
use crate::harness::wire::answers;

use super::{ROUTES, assert_untouched};

#[tokio::test]
async fn row_06_host_names_are_compared_without_regard_to_case() {
    let rig = Rig::new(ROUTES).await;
    let mut tunnel = rig
        .agent
        .tunnel("API.Test:443", "aPI.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    let request = b"GET /a HTTP/1.1\r\nHost: Api.TEST:443\r\nConnection: close\r\n\r\n";
    let answer = exchange(&mut tunnel, request).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    assert_eq!(rig.upstream.only().host, "api.test");
    let answer = rig.agent.get("https://x.wild.test/b").await;
    answer.assert_served();
    assert_eq!(rig.upstream.at("/b")[0].host, "x.wild.test");
}

#[tokio::test]
async fn row_03_another_host_than_the_tunnels_is_misdirected_on_the_first_request() {
    let rig = Rig::new(ROUTES).await;
    for host in [
        "other.test",
        "evil.test",
        "api.test:8443",
        "api.test:80",
        "xapi.test",
        "api.test.evil",
        "127.0.0.1",
        "[::1]",
    ] {
        let refusal = rig
            .tunnelled(
                "api.test",
                format!("GET /marker HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            )
            .await;
        refusal.assert_refused(421, "misdirected_request");
        assert!(!refusal.text().contains(host), "{refusal:?}");
    }
    assert!(rig.upstream.seen().is_empty());
}

#[tokio::test]
async fn row_03_another_host_than_the_tunnels_ends_the_connection_on_a_later_request() {
    let rig = Rig::new(ROUTES).await;
    let good = "GET /good HTTP/1.1\r\nHost: api.test\r\n\r\n";
    let bad = "GET /bad HTTP/1.1\r\nHost: other.test\r\n\r\n";
    // One after the other, and all in one packet.
    let mut tunnel = rig
        .agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    for _ in 0..2 {
        tunnel
            .write_all(good.as_bytes())
            .await
            .expect("the sidecar reads");
        read_until(&mut tunnel, "fine").await;
    }
    let raw = exchange(&mut tunnel, format!("{bad}{good}").as_bytes()).await;
    let [refusal] = &answers(&raw)[..] else {
        panic!("{}", String::from_utf8_lossy(&raw))
    };
    refusal.assert_refused(421, "misdirected_request");

    let mut tunnel = rig
        .agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    let raw = exchange(&mut tunnel, format!("{good}{bad}{good}{good}").as_bytes()).await;
    let [served, refusal] = &answers(&raw)[..] else {
        panic!("{}", String::from_utf8_lossy(&raw))
    };
    served.assert_served();
    refusal.assert_refused(421, "misdirected_request");
    assert_eq!(rig.upstream.seen().len(), 3);
    assert!(
        rig.upstream
            .seen()
            .iter()
            .all(|seen| seen.path() == "/good" && seen.host == "api.test")
    );
}

/// There is no tunnel to hold a request to, so each one stands for itself; what one was given the next one does not have.
#[tokio::test]
async fn row_03_requests_for_other_hosts_on_one_proxy_connection_share_nothing() {
    let routes = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, scheme: http, port: 80, insecure_inject: true, connect_to: 'PLAIN'}
- {host: other.test, scheme: http, port: 80, connect_to: 'PLAIN'}
";
    let arena = Arena::new(routes).await;
    let mut line = Line::new(&arena.agent, Way::Absolute);
    let credential = format!("Bearer {REAL}");
    for (host, outcome) in [
        ("api.test", Outcome::Sent),
        ("other.test", Outcome::Sent),
        ("api.test", Outcome::Sent),
        ("evil.test", Outcome::Refused("host_not_allowed".into())),
        ("other.test", Outcome::Sent),
    ] {
        let before = arena.plain.seen().len();
        let attempt = Attempt {
            tunnel: String::new(),
            authority: host.into(),
            path: b"/".to_vec(),
            case: before,
        };
        assert_eq!(line.put(&attempt).await, outcome, "{host}");
        let fresh = arena.plain.seen().split_off(before);
        if outcome != Outcome::Sent {
            assert!(fresh.is_empty(), "{fresh:?}");
            continue;
        }
        let [seen] = &fresh[..] else {
            panic!("{fresh:?}")
        };
        assert_eq!(seen.host, host);
        let injected: &[&str] = if host == "api.test" {
            &[&credential]
        } else {
            &[]
        };
        assert_eq!(seen.all("authorization"), injected, "{seen:?}");
        assert!(seen.all("x-api-key").is_empty(), "{seen:?}");
    }
    // By a Host that says otherwise, none of them is led elsewhere.
    for (target, host) in [
        ("api.test", "other.test"),
        ("other.test", "api.test"),
        ("api.test", "evil.test"),
    ] {
        let before = arena.plain.seen().len();
        let head = format!("GET http://{target}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let outcome = line.put_bytes("", head.as_bytes()).await;
        assert_eq!(
            outcome,
            Outcome::Refused("bad_target".into()),
            "{target} {host}"
        );
        assert_eq!(arena.plain.seen().len(), before);
    }
}

#[tokio::test]
async fn row_04_a_request_in_a_tunnel_that_names_no_host_or_several_is_refused() {
    let rig = Rig::new(ROUTES).await;
    let get = |hosts: &str| format!("GET / HTTP/1.1\r\n{hosts}\r\n");
    let line = |line: &str| format!("{line} HTTP/1.1\r\nHost: api.test\r\n\r\n");
    for request in [
        get(""),
        get("Host:\r\n"),
        get("Host: api.test\r\nHost: api.test\r\n"),
        get("Host: api.test\r\nHost: evil.test\r\n"),
        get("Host: api.test\r\nhOST: api.test\r\n"),
        get("Host: u@api.test\r\n"),
        get("Host: api.test@evil.test\r\n"),
        get("Host: api.test, evil.test\r\n"),
        get("Host: api.test,evil.test\r\n"),
        get("Host: api.test evil.test\r\n"),
        get("Host: api.test/evil.test\r\n"),
        get("Host: api.test.\r\n"),
        get("Host: [api.test]\r\n"),
        get("Host: api.test:\r\n"),
        get("Host: api.test:0443\r\n"),
        get("Host: api.test:+443\r\n"),
        get("Host: https://api.test\r\n"),
        get("Host: ap\u{ed}.test\r\n"),
        line("GET https://api.test/"),
        line("GET https://evil.test/"),
        line("GET http://api.test/"),
        line("GET https://api.test"),
        line("GET //api.test/"),
        line("OPTIONS *"),
        line("GET *"),
        line("GET api.test:443"),
        line("GET api.test"),
        line("GET v1/models"),
        line("GET ?x=1"),
        line("CONNECT evil.test:443"),
        line("CONNECT api.test:443"),
        line("CONNECT /"),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
    ] {
        if request.starts_with("GET //") {
            // A path without rules: it goes out as it is, to this host and no other.
            continue;
        }
        let refusal = rig.tunnelled("api.test", &request).await;
        refusal.assert_refused(400, &code_of(&refusal));
        let expected = ["bad_target", "bad_target_byte", "bad_request_line"];
        assert!(
            expected.contains(&code_of(&refusal).as_str()),
            "{request:?}: {refusal:?}"
        );
    }
    assert!(rig.upstream.seen().is_empty());
}

#[tokio::test]
async fn row_08_bytes_that_are_no_tls_in_a_tunnel_are_closed_and_logged() {
    let rig = Rig::new(ROUTES).await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"\x05\x01\x00",
    ] {
        let mut tunnel = rig.agent.connect("api.test:443").await.expect("a tunnel");
        let answer = exchange(&mut tunnel, &[bytes, &[0; 64]].concat()).await;
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    }
    let logged = rig.sidecar.logged("agent_tls").await;
    assert!(logged.contains("api.test:443"), "{logged}");
    assert_untouched(&rig).await;
}

#[tokio::test]
async fn row_08_the_outer_port_takes_no_origin_form_and_no_absolute_https() {
    let rig = Rig::new(ROUTES).await;
    for target in [
        "/",
        "/v1/models",
        "https://api.test/",
        "https://api.test:443/x",
        "ftp://api.test/",
        "*",
    ] {
        let refusal = rig
            .outer(format!("GET {target} HTTP/1.1\r\nHost: api.test\r\n\r\n"))
            .await;
        refusal.assert_refused(400, "bad_target");
        assert!(
            refusal.text().contains("HTTPS_PROXY"),
            "a hint is due: {refusal:?}"
        );
    }
    // The scheme is part of what a route names.
    let refusal = rig
        .outer("GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n")
        .await;
    refusal.assert_refused(403, "port_not_allowed");
    let refusal = rig
        .outer(
            "GET http://api.test:443/ HTTP/1.1\r\nHost: api.test:443\r\nConnection: close\r\n\r\n",
        )
        .await;
    refusal.assert_refused(403, "port_not_allowed");
    assert_untouched(&rig).await;
}

fn code_of(refusal: &crate::harness::agent::Answer) -> String {
    refusal
        .error_code()
        .unwrap_or_else(|| panic!("not a refusal of ours: {refusal:?}"))
}
