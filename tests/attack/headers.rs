//! What an agent's headers do (threat model, rows 12 to 15, 17, 18 and 23): each form in a list, in both versions of HTTP
//! on both sides, to routes of every kind. The upstream receives the route's credential once, and none of the agent's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::agent::{Tunnel, read_until};
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::{REAL, Rig};
use crate::harness::rows::{bytes, rows};
use crate::harness::upstream::{self, Seen, Upstream};
use crate::harness::{wire, within};

const LIST: &str = include_str!("../data/attack/headers.txt");

const ROUTES: &str = "\
- {host: bearer.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: token.test, auth_scheme: token, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: basic.test, auth_scheme: Basic, auth_user: x-access-token, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: key.test, auth_scheme: raw, auth_header: x-api-key, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: goog.test, auth_scheme: raw, auth_header: x-goog-api-key, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: private.test, auth_scheme: raw, auth_header: private-token, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: own.test, auth_scheme: raw, auth_header: x-our-own, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn row_12_headers_that_replace_the_target_are_dropped() {
    run("12 ").await;
}

#[tokio::test]
async fn row_13_exactly_the_routes_credential_reaches_the_upstream() {
    run("13 ").await;
}

#[tokio::test]
async fn row_14_what_connection_nominates_goes_before_the_credential_comes() {
    run("14 ").await;
}

#[tokio::test]
async fn row_15_a_header_name_with_an_underscore_is_refused() {
    run("15 ").await;
}

#[tokio::test]
async fn row_17_announcements_of_trailers_go_no_further() {
    run("17 ").await;
}

#[tokio::test]
async fn row_18_only_the_one_known_expectation_passes() {
    run("18 ").await;
}

#[tokio::test]
async fn row_23_an_upgrade_other_than_websocket_is_stripped() {
    run("23 ").await;
}

#[tokio::test]
async fn row_18_the_known_expectation_is_met_and_not_passed_on() {
    let rig = Rig::new(ROUTES).await;
    let tunnel = rig
        .agent
        .tunnel("bare.test:443", "bare.test", &["http/1.1"]);
    let mut tunnel = tunnel.await.expect("a tunnel");
    let head =
        b"POST / HTTP/1.1\r\nHost: bare.test\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n";
    tunnel.write_all(head).await.expect("the sidecar reads");
    let interim = read_until(&mut tunnel, "\r\n\r\n").await;
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    tunnel.write_all(b"body").await.expect("the sidecar reads");
    let answer = read_until(&mut tunnel, "fine").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = rig.upstream.only();
    assert_eq!(
        (&seen.body[..], seen.all("expect").len()),
        (&b"body"[..], 0)
    );
}

/// Host, header and value of what has to arrive.
fn expected() -> [(&'static str, Option<(&'static str, String)>); 8] {
    let basic = BASE64_STANDARD.encode(format!("x-access-token:{REAL}"));
    let authorization = |value| Some(("authorization", value));
    [
        ("bearer.test", authorization(format!("Bearer {REAL}"))),
        ("token.test", authorization(format!("token {REAL}"))),
        ("basic.test", authorization(format!("Basic {basic}"))),
        ("key.test", Some(("x-api-key", REAL.into()))),
        ("goog.test", Some(("x-goog-api-key", REAL.into()))),
        ("private.test", Some(("private-token", REAL.into()))),
        ("own.test", Some(("x-our-own", REAL.into()))),
        ("bare.test", None),
    ]
}

const CREDENTIALS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "private-token",
    "x-our-own",
];

/// Headers for the next hop alone, and those that the sidecar answers to itself.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "x-mine",
];

type Arrived = Arc<Mutex<HashMap<String, Vec<Seen>>>>;

/// Runs the rows of one row of the threat model against all routes.
async fn run(row: &str) {
    let rows: Vec<_> = rows::<4>(LIST)
        .into_iter()
        .filter(|[name, ..]| name.starts_with(row))
        .collect();
    assert!(rows.len() >= 4, "{}", rows.len());
    let pki = Pki::new();
    for alpn in ["http/1.1", "h2"] {
        let arrived = Arrived::default();
        let record = arrived.clone();
        let upstream = Upstream::with_tls(pki.server_config(&[alpn])).start(move |call| {
            let mut all = record.lock().expect("no holder panicked");
            let at = all.entry(call.seen.target.clone()).or_default();
            at.push(call.seen);
            async { upstream::text(200, "fine") }
        });
        let rig = Rig::around(&pki, upstream.await, ROUTES, |builder| builder).await;
        let (rig, rows, arrived) = (&rig, &rows, &arrived);
        let hosts = expected().map(|(host, wanted)| async move {
            let route = Route { host, wanted };
            futures_util::future::join(
                route.over_http1(rig, rows, arrived),
                route.over_http2(rig, rows, arrived),
            )
            .await;
        });
        futures_util::future::join_all(hosts).await;
    }
}

struct Route {
    host: &'static str,
    wanted: Option<(&'static str, String)>,
}

impl Route {
    async fn over_http1(&self, rig: &Rig, rows: &[[String; 4]], arrived: &Arrived) {
        let host = self.host;
        let mut tunnel = None;
        for (at, [name, outcome, _, lines]) in rows.iter().enumerate() {
            let target = format!("/one/{host}/{at}");
            let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Kept: kept\r\n");
            let head = [head.as_bytes(), &bytes(lines), b"\r\n\r\n"].concat();
            let mut open: Tunnel = match tunnel.take() {
                Some(open) => open,
                None => {
                    let authority = format!("{host}:443");
                    let opened = rig.agent.tunnel(&authority, host, &["http/1.1"]);
                    opened.await.expect("a tunnel")
                }
            };
            open.write_all(&head).await.expect("the sidecar reads");
            open.flush().await.expect("the sidecar reads");
            let mut raw = Vec::new();
            within(name, async {
                while wire::whole(&raw) == 0 && matches!(open.read_buf(&mut raw).await, Ok(1..)) {}
            })
            .await;
            let answers = wire::answers(&raw);
            let [answer] = &answers[..] else {
                panic!("{host} {name}: {answers:?}")
            };
            if answer.headers.get("connection").is_none() {
                tunnel = Some(open);
            }
            let got = (answer.status.as_u16(), answer.error_code());
            self.assert_outcome(name, outcome, got, take(arrived, &target));
        }
    }

    async fn over_http2(&self, rig: &Rig, rows: &[[String; 4]], arrived: &Arrived) {
        let host = self.host;
        let mut http = RawHttp2::open(&rig.agent, host).await;
        for (at, [name, _, outcome, lines]) in rows.iter().enumerate() {
            if outcome == "-" {
                continue;
            }
            let target = format!("/two/{host}/{at}");
            let sent = bytes(lines);
            let mut fields: Vec<(String, &[u8])> = vec![
                (":method".into(), b"GET"),
                (":scheme".into(), b"https"),
                (":authority".into(), host.as_bytes()),
                (":path".into(), target.as_bytes()),
                ("x-kept".into(), b"kept"),
            ];
            fields.extend(cut(&sent));
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| (name.as_str(), *value))
                .collect();
            let ended = http.request(&fields).await;
            if http.goaway || ended.broken {
                http = RawHttp2::open(&rig.agent, host).await;
            }
            if outcome == "reset" {
                assert!(
                    ended.broken && ended.status.is_none(),
                    "{host} {name}: {ended:?}"
                );
                assert!(take(arrived, &target).is_empty(), "{host} {name}");
                continue;
            }
            let status = ended
                .status
                .unwrap_or_else(|| panic!("{host} {name}: {ended:?}"));
            let code = error_code(&ended.body);
            self.assert_outcome(name, outcome, (status, code), take(arrived, &target));
        }
    }

    fn assert_outcome(
        &self,
        name: &str,
        outcome: &str,
        (status, code): (u16, Option<String>),
        arrived: Vec<Seen>,
    ) {
        let name = format!("{} {name}", self.host);
        let kept = outcome.strip_prefix("kept ");
        if outcome != "one" && kept.is_none() {
            assert_eq!(code.as_deref(), Some(outcome), "{name}: {status}");
            assert!(status >= 400, "{name}: {status}");
            assert!(arrived.is_empty(), "{name}: {arrived:?}");
            return;
        }
        assert_eq!((status, code), (200, None), "{name}");
        let [seen] = &arrived[..] else {
            panic!("{name}: not one request: {arrived:?}")
        };
        self.assert_one_credential(&name, seen, kept);
        assert_eq!(seen.host, self.host, "{name}");
        assert_eq!(seen.all("x-kept"), ["kept"], "{name}");
        for gone in HOP_BY_HOP.iter().filter(|gone| kept != Some(**gone)) {
            assert!(!seen.headers.contains_key(*gone), "{name}: {seen:?}");
        }
        // And nothing of ours is added.
        for added in ["via", "x-real-ip", "x-forwarded-for", "content-length"] {
            assert!(!seen.headers.contains_key(added), "{name}: {seen:?}");
        }
    }

    fn assert_one_credential(&self, what: &str, seen: &Seen, kept: Option<&str>) {
        let wanted = self.wanted.as_ref();
        let is_wanted = |name: &str| wanted.is_some_and(|(header, _)| *header == name);
        for name in CREDENTIALS {
            let values = seen.headers.get_all(name).iter();
            let values: Vec<&[u8]> = values.map(|value| value.as_bytes()).collect();
            match wanted {
                Some((header, value)) if *header == name => {
                    assert_eq!(values, [value.as_bytes()], "{what} {name}");
                }
                // A header that only another route injects is none of this one's.
                _ if kept == Some(name) => {}
                _ => assert!(values.is_empty(), "{what} {name}: {seen:?}"),
            }
        }
        if let Some(kept) = kept.filter(|kept| !is_wanted(kept)) {
            assert!(seen.headers.contains_key(kept), "{what}: {seen:?}");
        }
        for (name, value) in &seen.headers {
            let value = value.as_bytes();
            let agents = value.windows(10).any(|part| part == b"agents-own");
            assert!(
                !agents || (kept == Some(name.as_str()) && !is_wanted(name.as_str())),
                "{what} {name}: {seen:?}"
            );
        }
    }
}

fn take(arrived: &Arrived, target: &str) -> Vec<Seen> {
    let mut all = arrived.lock().expect("no holder panicked");
    all.remove(target).unwrap_or_default()
}

/// The lines of a head as the fields of HTTP/2.
fn cut(lines: &[u8]) -> Vec<(String, &[u8])> {
    let mut fields = Vec::new();
    let mut rest = lines;
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n");
        let line = &rest[..end.unwrap_or(rest.len())];
        let colon = line.iter().position(|byte| *byte == b':');
        let colon = colon.expect("a colon");
        let name: String = line[..colon]
            .to_ascii_lowercase()
            .iter()
            .map(|byte| char::from(*byte))
            .collect();
        let value = line[colon + 1..].strip_prefix(b" ");
        fields.push((name, value.unwrap_or(&line[colon + 1..])));
        let Some(end) = end else {
            return fields;
        };
        rest = &rest[end + 2..];
    }
}

fn error_code(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(body.get("error")?.get("code")?.as_str()?.to_owned())
}
