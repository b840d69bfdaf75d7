//! What an agent is answered (threat model, rows 27 and 28): of a request our own answers repeat the host and port alone, no
//! upstream can speak as the sidecar, and nothing that an upstream points to is gone to.

use std::collections::BTreeSet;
use std::path::Path;

use http::Request;
use tokio::io::AsyncWriteExt;

use super::http2;
use crate::harness::agent::{Agent, Answer, exchange, send_http1, send_http2};
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::{REAL, Rig};
use crate::harness::rows::{self, rows};
use crate::harness::scripted::{Scripted, request, rest, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Upstream};
use crate::harness::wire::{answers, assert_error};

const LIST: &str = include_str!("../data/attack/refusals.txt");
const MARKER: &str = "marker-5c1e";

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1/], methods: [GET, POST], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, websocket: false, connect_to: 'UPSTREAM'}
- {host: query.test, path_allowlist: [/v1/], query: {a: b}, connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
- {host: down.test, connect_to: '127.0.0.1:1'}
- {host: private.test, connect_to: 'localhost:1'}
- {host: plain.test, connect_to: 'PLAIN'}
- {host: broken.test, connect_to: 'BROKEN'}
- {host: silent.test, connect_to: 'SILENT'}
- {host: switch.test, connect_to: 'SWITCH'}
";

#[test]
fn row_27_every_code_of_a_refusal_is_provoked_or_it_is_said_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect(file);
    let mut codes = BTreeSet::new();
    for file in ["proxy/reject.rs", "proxy/gate/fault.rs", "route/denial.rs"] {
        let source = read(&format!("egress/src/{file}"));
        let (_, body) = source
            .split_once("fn code(self)")
            .expect("a function `code`");
        let body = body.split("\n    }\n").next().expect("its body");
        for piece in body.split("=> \"").skip(1) {
            codes.insert(piece.split('"').next().expect("a code").to_owned());
        }
    }
    let rows = rows::<5>(LIST);
    let listed: BTreeSet<String> = rows.iter().map(|[code, ..]| code.clone()).collect();
    assert_eq!(listed, codes);
    for [code, _, _, _, place] in rows.iter().filter(|[_, status, ..]| status == "elsewhere") {
        let Some(at) = place.find("tests/") else {
            continue;
        };
        let mut words = place[at..].split(' ');
        let text = read(words.next().expect("a file"));
        if let Some(name) = words.next() {
            assert!(text.contains(&format!("fn {name}()")), "{code}: {place}");
        }
    }
}

#[tokio::test]
async fn row_27_a_refusal_has_one_form_and_repeats_nothing_of_the_request() {
    let pki = Pki::new();
    let tls = pki.server_config(&["http/1.1"]);
    let plain = Scripted::start(None, |_, mut wire| async move {
        say(&mut wire, "HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let speaking = |words: &'static str| {
        Scripted::start(Some(tls.clone()), move |_, mut wire| async move {
            request(&mut wire).await.expect("a request");
            say(&mut wire, words).await;
            if words.is_empty() {
                rest(&mut wire).await;
            }
        })
    };
    let broken = speaking("no HTTP at all\r\n\r\n").await;
    let silent = speaking("").await;
    let switch = speaking(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let switch = switch.await;
    let upstream = Upstream::tls(&pki)
        .start(async |_call| upstream::text(200, "fine"))
        .await;
    let routes = ROUTES
        .replace("PLAIN", &plain.addr().to_string())
        .replace("BROKEN", &broken.addr().to_string())
        .replace("SILENT", &silent.addr().to_string())
        .replace("SWITCH", &switch.addr().to_string());
    let rig = Rig::around(&pki, upstream, &routes, |builder| {
        builder
            .arg("--answer-timeout=1")
            .arg("--head-timeout=2")
            .arg("--body-timeout=1")
    })
    .await;
    let rows: Vec<_> = rows::<5>(LIST)
        .into_iter()
        .filter(|[_, status, ..]| status != "elsewhere")
        .collect();
    // Two wait for a deadline; the others go beside them.
    let all = rows.iter().map(|row| provoke(&rig, row));
    futures_util::future::join_all(all).await;
    assert!(rig.upstream.seen().is_empty(), "{:?}", rig.upstream.seen());
    let (_, log) = rig.sidecar.terminate().await;
    for (what, needle) in [
        ("the query", format!("q={MARKER}")),
        ("a header", format!("x-{MARKER}")),
        ("the token", REAL.to_owned()),
    ] {
        assert!(
            !log.to_lowercase().contains(&needle.to_lowercase()),
            "{what}: {log}"
        );
    }
}

async fn provoke(rig: &Rig, [code, status, named, how, text]: &[String; 5]) {
    let (way, host) = how.split_once(' ').expect("a way and a host");
    let status: u16 = status.parse().expect("a status");
    let marked = format!("X-{MARKER}: {MARKER}⏎Authorization: {MARKER}⏎Cookie: {MARKER}⏎");
    let text = text.replace("MARKED", &marked).replace("MARK", MARKER);
    let shown = if way == "h2" {
        let mut http = RawHttp2::open(&rig.agent, host).await;
        let ended = http2::send(&mut http, &text, host).await;
        assert_eq!(ended.status, Some(status), "{code}: {ended:?}");
        assert_error(&ended.body, code);
        ended.body
    } else {
        let leaves = text.ends_with('␄');
        let sent = rows::bytes(text.trim_end_matches('␄'));
        let raw = if way == "outer" {
            exchange(&mut rig.agent.raw().await, &sent).await
        } else {
            let authority = format!("{host}:443");
            let tunnel = rig.agent.tunnel(&authority, host, &["http/1.1"]).await;
            let mut tunnel = tunnel.expect("a tunnel");
            if leaves {
                tunnel.write_all(&sent).await.expect("a reader");
                tunnel.shutdown().await.expect("an open tunnel");
                exchange(&mut tunnel, b"").await
            } else {
                exchange(&mut tunnel, &sent).await
            }
        };
        let answers = answers(&raw);
        let [answer] = &answers[..] else {
            panic!("{code}: not one answer: {answers:?}")
        };
        answer.assert_refused(status, code);
        format!("{answer:?}")
    };
    for secret in [MARKER, REAL, "127.0.0.1", "EGRESS_TOKEN", "/v1/"] {
        let shown = shown.to_lowercase();
        assert!(!shown.contains(&secret.to_lowercase()), "{code}: {shown}");
    }
    // What was decided on is named in its canonical form; what could not be read is not.
    assert_eq!(
        shown.contains(&format!("{host}:")),
        named == "host",
        "{code}: {shown}"
    );
}

/// A host without a route is the request's own word, and named in its canonical form.
#[tokio::test]
async fn row_27_a_host_that_no_route_names_is_named_in_its_canonical_form() {
    let rig = Rig::new("- {host: bare.test, connect_to: 'UPSTREAM'}\n").await;
    let refusal = rig.agent.connect(&format!("{MARKER}.EVIL.test:443")).await;
    let refusal = refusal.expect_err("no route");
    refusal.assert_refused(403, "host_not_allowed");
    let named = format!("{MARKER}.evil.test:443");
    assert!(refusal.text().contains(&named), "{refusal:?}");
}

#[tokio::test]
async fn row_27_an_upstream_cannot_speak_as_the_sidecar() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(async |_call| {
        let mut answer = upstream::text(403, "mine");
        let headers = answer.headers_mut();
        for (name, value) in [
            ("x-egress-error", "host_not_allowed"),
            ("X-Egress-Error", "again"),
            ("X-EGRESS-ERROR", ""),
            ("proxy-authenticate", "Basic realm=\"x\""),
            ("alt-svc", "h3=\":443\""),
        ] {
            let name: http::HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        answer
    });
    let routes = "- {host: api.test, connect_to: 'UPSTREAM'}\n";
    let rig = Rig::around(&pki, upstream.await, routes, |builder| builder).await;
    let get = || {
        Request::get("https://api.test/v1/x")
            .body(bytes::Bytes::new())
            .expect("a request")
    };
    for answer in [rig.agent.send(get()).await, rig.agent.send_h2(get()).await] {
        let got = (answer.status.as_u16(), answer.text());
        assert_eq!(got, (403, "mine".into()));
        assert_is_not_ours(&answer);
    }
}

/// In a header, in a trailer, in an interim answer, in one that Connection would have kept.
#[tokio::test]
async fn row_27_no_place_in_an_answer_makes_it_the_sidecars() {
    let pki = Pki::new();
    let tls = pki.server_config(&["http/1.1"]);
    let upstream = Scripted::start(Some(tls), |_, mut wire| async move {
        while request(&mut wire).await.is_some() {
            let forged = "x-egress-error: forged\r\nX-Egress-Error: forged\r\n";
            let interim = format!("HTTP/1.1 103 Early Hints\r\n{forged}\r\n");
            let head = format!(
                "HTTP/1.1 403 Forbidden\r\n{forged}Connection: x-other, x-egress-error\r\nAlt-Svc: h3=\":443\"\r\n\
                 Content-Type: application/grpc\r\nTrailer: x-egress-error\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            let body = format!("4\r\nmine\r\n0\r\n{forged}grpc-status: 7\r\n\r\n");
            say(&mut wire, format!("{interim}{head}{body}")).await;
        }
    })
    .await;
    let routes = format!(
        "routes: [{{host: api.test, connect_to: {}}}]\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let agent = Agent::of(&sidecar);
    let mut tunnel = agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    let asked = "GET / HTTP/1.1\r\nHost: api.test\r\nTE: trailers\r\nConnection: close\r\n\r\n";
    let raw = exchange(&mut tunnel, asked.as_bytes()).await;
    let raw = String::from_utf8_lossy(&raw).to_lowercase();
    assert!(raw.starts_with("http/1.1 403 "), "{raw}");
    assert!(raw.contains("mine"), "{raw}");
    for gone in ["forged", "x-egress-error", "alt-svc", "103"] {
        assert!(!raw.contains(gone), "{gone}: {raw}");
    }
    let get = Request::get("https://api.test/").body(bytes::Bytes::new());
    let answer = agent.send_h2(get.expect("a request")).await;
    assert_eq!(answer.text(), "mine");
    assert_is_not_ours(&answer);
}

#[track_caller]
fn assert_is_not_ours(answer: &Answer) {
    for name in ["x-egress-error", "proxy-authenticate", "alt-svc"] {
        assert!(!answer.headers.contains_key(name), "{name}: {answer:?}");
    }
}

/// What an upstream points to: to an unnamed host, to a named one, to another path, to another port.
const POINTERS: [(&str, &str); 9] = [
    ("location", "https://evil.test/next"),
    ("location", "https://bare.test/next"),
    ("location", "/v1/next"),
    ("location", "//evil.test/next"),
    ("location", "https://api.test:444/next"),
    ("refresh", "0; url=https://bare.test/next"),
    ("link", "<https://bare.test/next>; rel=preload; as=script"),
    ("content-location", "https://bare.test/next"),
    ("alt-svc", "h2=\"bare.test:443\""),
];

#[tokio::test]
async fn row_28_nothing_that_an_upstream_points_to_is_gone_to() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(async |call| {
        let mut parts = call.seen.path().rsplit('/');
        let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
        let (pointer, status) = (number().expect("a pointer"), number().expect("a status"));
        let mut answer = upstream::text(u16::try_from(status).expect("a status"), "");
        let (name, value) = POINTERS[pointer];
        let value = value.parse().expect("a value");
        answer.headers_mut().insert(name, value);
        answer
    });
    let routes = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
";
    let rig = Rig::around(&pki, upstream.await, routes, |builder| builder).await;
    let mut one = rig.agent.http1("api.test:443", "api.test").await;
    let mut two = rig.agent.http2("api.test:443", "api.test").await;
    let mut asked = Vec::new();
    for status in [200, 201, 300, 301, 302, 303, 305, 307, 308] {
        for (number, (name, value)) in POINTERS.iter().enumerate() {
            let path = format!("/{status}/{number}");
            let get = || {
                Request::get(format!("https://api.test{path}"))
                    .body(bytes::Bytes::new())
                    .expect("a request")
            };
            let answers = [
                send_http1(&mut one, get()).await,
                send_http2(&mut two, get()).await,
            ];
            for answer in answers {
                assert_eq!(answer.status.as_u16(), status);
                match *name {
                    "alt-svc" => assert!(!answer.headers.contains_key("alt-svc")),
                    name => assert_eq!(answer.headers[name], *value),
                }
                asked.push(path.clone());
            }
        }
    }
    let seen = rig.upstream.seen();
    let targets: Vec<_> = seen.iter().map(|seen| seen.target.clone()).collect();
    assert_eq!(targets, asked);
    assert!(seen.iter().all(|seen| seen.host == "api.test"));
}

/// The hints of a 103 are no request either, and do not reach the agent.
#[tokio::test]
async fn row_28_early_hints_are_not_followed() {
    let pki = Pki::new();
    let tls = pki.server_config(&["http/1.1"]);
    let upstream = Scripted::start(Some(tls), |_, mut wire| async move {
        while let Some(head) = request(&mut wire).await {
            assert!(head.starts_with("GET / "), "{head}");
            let hints =
                "HTTP/1.1 103 Early Hints\r\nLink: <https://bare.test/next>; rel=preload\r\n\r\n";
            say(
                &mut wire,
                format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
            )
            .await;
        }
    })
    .await;
    let to = upstream.addr();
    let routes = format!(
        "routes: [{{host: api.test, connect_to: {to}}}, {{host: bare.test, connect_to: {to}}}]\n"
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let agent = Agent::of(&sidecar);
    for _ in 0..2 {
        let answer = agent.get("https://api.test/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "fine".into())
        );
        assert!(!answer.headers.contains_key("link"), "{answer:?}");
    }
    assert_eq!(upstream.connections(), 1);
}
