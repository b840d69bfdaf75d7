//! Names whose addresses change from one look-up to the next.

use crate::harness::agent::exchange;
use crate::harness::line::{Line, Outcome, WAYS};

use super::site::{Site, both, get, ip};

/// What a name has the first time, the second time, and so on. Every other one is private, and none comes twice.
const TURNS: [&str; 8] = [
    "93.184.215.14",
    "10.0.0.1",
    "1.1.1.1",
    "169.254.169.254",
    "2606:4700::1111",
    "::1",
    "8.8.8.8",
    "::ffff:127.0.0.1",
];

fn turn(name: &str, time: usize) -> Vec<std::net::IpAddr> {
    let first = usize::from(name.contains("private"));
    let turn = TURNS.get(first + time);
    turn.map(|text| ip(text)).into_iter().collect()
}

/// A second look-up behind the check, by the sidecar or by a library, would give the next address.
#[tokio::test]
async fn row_31_the_address_that_was_judged_is_the_one_that_is_dialled() {
    let site = Site::new(&both("*.flip.test", ""), turn).await;
    for (way, name) in WAYS.into_iter().zip(["one", "two", "absolute"]) {
        for (host, first) in [
            (format!("{name}.flip.test"), 0),
            (format!("{name}-private.flip.test"), 1),
        ] {
            let mut line = Line::new(&site.agent, way);
            for (time, address) in TURNS[first..].iter().enumerate() {
                let before = site.reached();
                let outcome = line.put(&get(&host, time)).await;
                let after = site.reached();
                if (first + time).is_multiple_of(2) {
                    assert_eq!(outcome, Outcome::Sent, "{host} {time}");
                    assert_eq!(after.len(), before.len() + 1, "{host} {time}");
                    let same =
                        |list: &[_]| list.iter().filter(|seen| **seen == ip(address)).count();
                    assert_eq!(same(&after), same(&before) + 1, "{host} {time}: {after:?}");
                } else {
                    let refused = Outcome::Refused("address_not_allowed".into());
                    assert_eq!(outcome, refused, "{host} {time}");
                    assert_eq!(after, before, "{host} {time}");
                }
                assert_eq!(site.network.asked(&host), (time + 1, time + 1), "{host}");
            }
        }
    }
}

/// WebSockets and tunnels that are passed through have ways of their own to the upstream.
#[tokio::test]
async fn row_31_websockets_and_passthrough_are_dialled_as_they_were_judged() {
    let routes = both("ws.test", "") + "- {host: pass.test, tls: passthrough}\n";
    let site = Site::new(&routes, turn).await;
    for (time, address) in TURNS.iter().enumerate() {
        let before = site.tls.reached();
        let tunnel = site
            .agent
            .tunnel("ws.test:443", "ws.test", &["http/1.1"])
            .await;
        let handshake =
            b"GET / HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let answer = exchange(&mut tunnel.expect("a tunnel"), handshake).await;
        let answer = String::from_utf8_lossy(&answer);
        // The agent does not trust the certificate that it meets behind a tunnel that is passed through.
        let tunnel = site
            .agent
            .tunnel("pass.test:443", "pass.test", &["http/1.1"])
            .await;
        assert!(tunnel.is_err());
        let after = site.tls.reached();
        let refused = answer.contains("x-egress-error: address_not_allowed\r\n");
        if time.is_multiple_of(2) {
            assert!(!refused, "{answer}");
            assert_eq!(after[before.len()..], [ip(address); 2]);
        } else {
            assert!(refused, "{answer}");
            assert_eq!(after, before);
            let logged = format!("pass.test resolves to {}, which is", ip(address));
            site.sidecar.logged(&logged).await;
        }
        for host in ["ws.test", "pass.test"] {
            assert_eq!(site.network.asked(host), (time + 1, time + 1), "{host}");
        }
    }
}
