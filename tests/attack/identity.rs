//! Which host a request is for: the CONNECT, the server name, and Host or `:authority` have to agree, on every request
//! (threat model, rows 1 to 8).

mod spellings;
mod streams;
mod tunnels;

use crate::harness::line::{Line, Outcome, WAYS};
use crate::harness::rig::Rig;
use crate::harness::wire;

use super::network::site::{Site, both, get, ip};

pub(super) const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: other.test, connect_to: 'UPSTREAM'}
- {host: '*.wild.test', connect_to: 'UPSTREAM'}
";

/// The rule that admits a tunnel comes before all that an agent could make the sidecar do for a name.
#[tokio::test]
async fn row_01_nothing_is_looked_up_dialled_or_minted_for_what_no_route_admits() {
    let routes = both("api.test", ", path_allowlist: [/v1/]") + &both("*.wild.test", "");
    let site = Site::new(&routes, |_, _| vec![ip("93.184.215.14")]).await;
    for (host, port, code) in [
        ("evil.test", 443, "host_not_allowed"),
        ("evilapi.test", 443, "host_not_allowed"),
        ("api.test.evil", 443, "host_not_allowed"),
        ("api-test", 443, "host_not_allowed"),
        ("sub.api.test", 443, "host_not_allowed"),
        ("test", 443, "host_not_allowed"),
        ("wild.test", 443, "host_not_allowed"),
        ("a.b.wild.test", 443, "host_not_allowed"),
        ("localhost", 443, "host_not_allowed"),
        ("127.0.0.1", 443, "host_not_allowed"),
        ("[::1]", 443, "host_not_allowed"),
        ("api.test", 8443, "port_not_allowed"),
        ("api.test", 80, "port_not_allowed"),
        ("x.wild.test", 444, "port_not_allowed"),
    ] {
        let target = format!("{host}:{port}");
        let refusal = site.agent.connect(&target).await.expect_err(&target);
        refusal.assert_refused(403, code);
        assert!(refusal.text().contains(&target), "{target}: {refusal:?}");
        // The same in plain text, where 80 is the one port that is not refused.
        let port = if port == 80 { 443 } else { port };
        let head = format!(
            "GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        );
        let refusal = wire::only(&mut site.agent.raw().await, head.as_bytes()).await;
        refusal.assert_refused(403, code);
    }
    assert!(site.network.queries().is_empty());
    assert_eq!(site.sidecar.status().await["leaves_minted"], 0);

    // Nor does an admitted tunnel make it look the name up, nor a request in it that is refused.
    site.agent.connect("api.test:443").await.expect("a tunnel");
    for way in WAYS {
        let mut line = Line::new(&site.agent, way);
        let outcome = line.put(&get("api.test", 1)).await;
        assert_eq!(outcome, Outcome::Refused("path_not_allowed".into()));
    }
    assert!(site.network.queries().is_empty());
    assert_eq!(site.sidecar.status().await["leaves_minted"], 1);
    assert!(site.reached().is_empty());
}

#[tokio::test]
async fn row_02_a_server_name_other_than_the_tunnels_host_fails_the_handshake() {
    let rig = Rig::new(ROUTES).await;
    for name in [
        "other.test",
        "evil.test",
        "x.wild.test",
        "sub.api.test",
        "xapi.test",
        "api.test.evil",
        "test",
        "127.0.0.1",
        "::1",
    ] {
        for alpn in [&["http/1.1"][..], &["h2"], &[]] {
            // An address as the name makes the client leave the extension out.
            let tunnel = rig.agent.tunnel("api.test:443", name, alpn).await;
            let error = tunnel.err().unwrap_or_else(|| panic!("{name} was served"));
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::InvalidData,
                "{name}: {error}"
            );
            assert!(error.to_string().contains("alert"), "{name}: {error}");
        }
    }
    let logged = rig.sidecar.logged("server_name_mismatch").await;
    assert!(logged.contains("api.test:443"), "{logged}");
    assert_untouched(&rig).await;
}

/// Nothing was dialled, and no leaf was minted.
async fn assert_untouched(rig: &Rig) {
    assert_eq!(rig.upstream.connections(), 0);
    assert_eq!(rig.sidecar.status().await["leaves_minted"], 0);
}
