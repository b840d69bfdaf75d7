//! Which host a request is for: the CONNECT, the server name, and Host or `:authority` have to agree, on every request
//! (threat model, rows 1 to 8).

use tokio::io::AsyncWriteExt;

use crate::harness::agent::{exchange, read_until};
use crate::harness::rig::Rig;
use crate::harness::wire::answers;

pub(super) const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: other.test, connect_to: 'UPSTREAM'}
- {host: '*.wild.test', connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn a_connect_to_an_unnamed_host_or_port_dials_nothing_and_mints_nothing() {
    let rig = Rig::new(ROUTES).await;
    for (target, code) in [
        ("evil.test:443", "host_not_allowed"),
        ("evilapi.test:443", "host_not_allowed"),
        ("api.test.evil:443", "host_not_allowed"),
        ("api-test:443", "host_not_allowed"),
        ("sub.api.test:443", "host_not_allowed"),
        ("test:443", "host_not_allowed"),
        ("wild.test:443", "host_not_allowed"),
        ("a.b.wild.test:443", "host_not_allowed"),
        ("127.0.0.1:443", "host_not_allowed"),
        ("[::1]:443", "host_not_allowed"),
        ("api.test:8443", "port_not_allowed"),
        ("api.test:80", "port_not_allowed"),
        ("x.wild.test:444", "port_not_allowed"),
    ] {
        let refusal = rig.agent.connect(target).await.expect_err(target);
        refusal.assert_refused(403, code);
        assert!(refusal.text().contains(target), "{target}: {refusal:?}");
    }
    assert_untouched(&rig).await;
}

#[tokio::test]
async fn a_connect_target_in_a_doubtful_spelling_is_refused() {
    let rig = Rig::new(ROUTES).await;
    for target in [
        "api.test.:443",
        "api..test:443",
        ".api.test:443",
        "[api.test]:443",
        "*.wild.test:443",
        "-a.wild.test:443",
        "api.test",
        "api.test:",
        "api.test:0",
        "api.test:65536",
        "api.test:99999",
        "api.test:+443",
        "api.test:-443",
        "api.test:0443",
        "api.test:0x1bb",
        "api.test:443:443",
        "api.test:443/",
        "api.test:443/v1?x",
        "/",
        "*",
        "https://api.test:443",
        "https://api.test:443/",
        "u@api.test:443",
        "u:p@api.test:443",
        "api.test@evil.test:443",
        "api.test,evil.test:443",
        "api.test;evil.test:443",
        "api%2etest:443",
        "api.test%00:443",
        "2130706433:443",
        "0x7f000001:443",
        "0x7f.1:443",
        "127.1:443",
        "0177.0.0.1:443",
        "127.0.0.01:443",
        "127.0.0.1.:443",
        "256.0.0.1:443",
        "::1:443",
        "[::1:443",
        "[0:0:0:0:0:0:0:1]:443",
        "[::FFFF:127.0.0.1]:443",
        "[::ffff:7f00:1]:443",
        "[fe80::1%25lo]:443",
        "[fe80::1%lo]:443",
        "[127.0.0.1]:443",
    ] {
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: api.test:443\r\n\r\n");
        let refusal = rig.outer(head).await;
        refusal.assert_refused(400, &code_of(&refusal));
        rig.sidecar
            .logged(&format!("\"{}\"", code_of(&refusal)))
            .await;
    }
    for target in [
        "ap\u{ed}.test:443",
        "api.test\u{ff0e}:443",
        "\u{430}pi.test:443",
    ] {
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: api.test:443\r\n\r\n");
        rig.outer(head).await.assert_refused(400, "bad_target_byte");
    }
    // Host decides nothing here, in neither direction: Node's own client writes the proxy's address into it.
    let head = "CONNECT evil.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n".to_owned();
    rig.outer(head)
        .await
        .assert_refused(403, "host_not_allowed");
    assert_untouched(&rig).await;
}

#[tokio::test]
async fn a_server_name_other_than_the_tunnels_host_fails_the_handshake() {
    let rig = Rig::new(ROUTES).await;
    for name in [
        "other.test",
        "evil.test",
        "x.wild.test",
        "sub.api.test",
        "127.0.0.1",
        "::1",
    ] {
        // An address as the name makes the client leave the extension out.
        let tunnel = rig.agent.tunnel("api.test:443", name, &["http/1.1"]).await;
        let error = tunnel.err().unwrap_or_else(|| panic!("{name} was served"));
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::InvalidData,
            "{name}: {error}"
        );
        assert!(error.to_string().contains("alert"), "{name}: {error}");
    }
    let logged = rig.sidecar.logged("server_name_mismatch").await;
    assert!(logged.contains("api.test:443"), "{logged}");
    assert_untouched(&rig).await;
}

#[tokio::test]
async fn host_names_are_compared_without_regard_to_case() {
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
async fn a_host_other_than_the_tunnels_is_misdirected_on_the_first_request() {
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
async fn a_host_other_than_the_tunnels_ends_the_connection_on_a_later_request() {
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

#[tokio::test]
async fn a_request_in_a_tunnel_that_names_no_host_or_several_is_refused() {
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
async fn bytes_that_are_no_tls_in_a_tunnel_are_closed_and_logged() {
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
async fn the_outer_port_takes_no_origin_form_and_no_absolute_https() {
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

/// Nothing was dialled, and no leaf was minted.
async fn assert_untouched(rig: &Rig) {
    assert_eq!(rig.upstream.connections(), 0);
    assert_eq!(rig.sidecar.status().await["leaves_minted"], 0);
}
