//! What is suggested admits what was refused, and nothing beside it.

use std::collections::BTreeSet;
use std::path::Path;

use http::Method;
use proptest::prelude::*;
use time::OffsetDateTime;

use super::Suggestion;
use crate::advice::decision::Decision;
use crate::advice::recorded::{Kind, Recorded, Request, Seen};
use crate::config::parse;
use crate::outcome::Verdict;
use crate::route::Routes;
use crate::route::target::{self, Origin, Scheme, Target};

fn refused(method: &str, host: &str, path: &str, code: &str) -> Recorded {
    let now = OffsetDateTime::UNIX_EPOCH;
    Recorded {
        request: Request {
            method: method.into(),
            scheme: Scheme::Https,
            host: host.into(),
            path: path.into(),
            kind: match method {
                "CONNECT" => Kind::Connect,
                _ => Kind::Http,
            },
            verdict: Verdict::Denied,
            code: code.into(),
            route: None,
            slot: None,
        },
        seen: Seen {
            count: 1,
            first: now,
            last: now,
        },
    }
}

fn routes(text: &str) -> Routes {
    let rules =
        parse("-", text, Path::new("/")).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    Routes::new(rules, None).unwrap_or_else(|ties| panic!("{ties:?}\n{text}"))
}

fn suggested(recorded: &[Recorded], prefix: Option<usize>) -> (String, Routes) {
    let text = Suggestion::of(recorded, None, prefix).to_text();
    let routes = routes(&text);
    (text, routes)
}

fn admits(routes: &Routes, method: &str, host: &str, path: &str) -> bool {
    let origin = Origin::parse(Scheme::Https, host).unwrap();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let target = Target::new(origin, method, path, target::Kind::Exchange).unwrap();
    Decision::of(routes, target).route().is_some()
}

#[test]
fn what_was_observed_is_suggested_as_what_was_refused() {
    let observed = |method: &str, host: &str, path: &str, kind| {
        let mut recorded = refused(method, host, path, "observed");
        recorded.request.verdict = Verdict::Allowed;
        recorded.request.kind = kind;
        recorded
    };
    let mut ordinary = observed("GET", "c.test:443", "/", Kind::Http);
    ordinary.request.code = "ok".into();
    let recorded = [
        observed("CONNECT", "a.test:443", "", Kind::Connect),
        observed("GET", "a.test:443", "/x", Kind::Http),
        refused("POST", "a.test:443", "/x", "method_not_allowed"),
        observed("GET", "a.test:443", "/chat", Kind::WebSocket),
        ordinary,
        // What was wanted in this one is known, and was refused; in the other nothing is known.
        observed("CONNECT", "inside.test:443", "", Kind::Connect),
        refused("GET", "inside.test:443", "/", "address_not_allowed"),
        observed("CONNECT", "pinned.test:443", "", Kind::Connect),
    ];
    let (text, routes) = suggested(&recorded, None);
    assert_eq!(routes.iter().len(), 3, "{text}");
    assert!(admits(&routes, "GET", "pinned.test:443", "/"), "{text}");
    assert!(!admits(&routes, "GET", "inside.test:443", "/"), "{text}");
    assert!(admits(&routes, "GET", "a.test:443", "/x"), "{text}");
    assert!(admits(&routes, "POST", "a.test:443", "/x"), "{text}");
    assert!(admits(&routes, "GET", "a.test:443", "/chat"), "{text}");
    assert!(!admits(&routes, "GET", "a.test:443", "/y"), "{text}");
    assert!(!admits(&routes, "GET", "c.test:443", "/"), "{text}");
    assert!(text.contains("with WebSocket handshakes"), "{text}");
}

#[test]
fn what_no_route_can_do_is_told_and_not_suggested() {
    let refusals = [
        refused("GET", "a.test:443", "/a//b", "host_not_allowed"),
        refused("GET", "a.test:443", "/a/%2e%2e", "path_not_allowed"),
        refused("TRACE", "a.test:443", "/", "method_not_allowed"),
        refused("get", "a.test:443", "/", "method_not_allowed"),
        refused(
            "GET",
            "a.test:443",
            &format!("/{}", "a".repeat(511)),
            "path_not_allowed",
        ),
        refused("GET", "a.test:443", "/x", "query_credential"),
        refused("GET", "a.test:443", "/x", "address_not_allowed"),
        refused("CONNECT", "192.0.2.1:443", "", "host_not_allowed"),
        refused("-", "", "", "bad_request_line"),
        refused(
            "GET",
            "a.test:443",
            "/\u{1b}[2J\nroutes",
            "path_not_allowed",
        ),
    ];
    let suggestion = Suggestion::of(&refusals, None, None);
    assert!(suggestion.is_empty(), "{suggestion:?}");
    let text = suggestion.to_text();
    assert_eq!(routes(&text).iter().len(), 0);
    for part in [
        "path_ambiguous",
        "path_cut",
        "query_credential",
        "address_over_https",
        "no host: bad_request_line",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(
        text.bytes()
            .all(|byte| byte == b'\n' || matches!(byte, b' '..=b'~'))
    );
}

#[test]
fn an_address_that_the_guard_refuses_gets_no_route() {
    let asked = |host: &str| {
        let mut recorded = refused("GET", host, "/", "host_not_allowed");
        recorded.request.scheme = Scheme::Http;
        recorded
    };
    for host in [
        "127.0.0.1:3128",
        "169.254.169.254:80",
        "[::1]:80",
        "[::ffff:10.0.0.1]:80",
    ] {
        let suggestion = Suggestion::of(&[asked(host)], None, None);
        assert!(suggestion.is_empty(), "{suggestion:?}");
        let text = suggestion.to_text();
        assert!(text.contains("address_not_allowed"), "{text}");
    }
    let public = asked("1.1.1.1:80");
    assert!(Suggestion::of(&[public], None, None).has_routes());
    let policy = routes(
        "routes: [{host: 10.0.0.1, scheme: http, port: 80, path_allowlist: [/a], ssrf_ip_allowlist: [10.0.0.0/8]}]",
    );
    let text = Suggestion::of(&[asked("10.0.0.1:80")], Some(&policy), None).to_text();
    assert!(text.contains("could be extended"), "{text}");
}

#[test]
fn a_route_with_a_credential_is_extended_and_gets_no_second_one_beside_it() {
    let policy = routes(
        "routes:\n  - {host: a.test, path_allowlist: [/v1/], methods: [GET], auth_scheme: Bearer, token_env: ONE}\n  - host: b.test\n    path_allowlist: [/v1/]\n",
    );
    let refusals = [
        refused("GET", "a.test:443", "/v2", "path_not_allowed"),
        refused("POST", "a.test:443", "/v1/x", "method_not_allowed"),
        refused("GET", "b.test:443", "/v2", "path_not_allowed"),
        refused("GET", "b.test:443", "/v1/x", "path_not_allowed"),
    ];
    let text = Suggestion::of(&refusals, Some(&policy), None).to_text();
    let new = routes(&text);
    assert_eq!(new.iter().len(), 1, "{text}");
    assert!(admits(&new, "GET", "b.test:443", "/v2"));
    for part in [
        "WARNING: the route for a.test in line 2 injects ONE",
        "GET a.test/v2, asked for once, at 1970-01-01T00:00:00Z: add [{regex: /v2}] to `path_allowlist`",
        "POST a.test/v1/x, asked for once, at 1970-01-01T00:00:00Z: add POST to `methods`",
        "admit by now what they did not before: 1 of",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn what_would_tie_with_a_route_extends_it() {
    let policy = routes(
        "routes:\n  - {host: a.test, path_allowlist: [{regex: '/v1(x|y)'}], methods: [GET, PUT]}\n",
    );
    let refusals = [refused("GET", "a.test:443", "/v1", "path_not_allowed")];
    let text = Suggestion::of(&refusals, Some(&policy), None).to_text();
    assert_eq!(routes(&text).iter().len(), 0, "{text}");
    assert!(
        text.contains("The route for a.test in line 2 could be extended"),
        "{text}"
    );
}

#[test]
fn a_tunnel_alone_opens_for_the_least_that_can_be_said() {
    let refusals = [refused("CONNECT", "a.test:8443", "", "host_not_allowed")];
    let (text, routes) = suggested(&refusals, None);
    let origin = Origin::parse(Scheme::Https, "a.test:8443").unwrap();
    assert!(routes.admits(&origin).is_ok(), "{text}");
    assert!(!admits(&routes, "GET", "a.test:8443", "/x"), "{text}");
    let more = [
        refusals[0].clone(),
        refused("PUT", "a.test:8443", "/x", "host_not_allowed"),
    ];
    let (text, routes) = suggested(&more, None);
    assert!(!admits(&routes, "GET", "a.test:8443", "/"), "{text}");
}

#[test]
fn many_paths_give_way_to_the_longest_prefix_that_enough_of_them_share() {
    let paths = ["/a/b/1", "/a/b/2", "/a/b/3", "/a/c", "/x", "/y", "/z"];
    let refusals: Vec<_> = paths
        .iter()
        .map(|path| refused("GET", "a.test:443", path, "path_not_allowed"))
        .collect();
    let (text, routes) = suggested(&refusals, Some(3));
    assert!(admits(&routes, "GET", "a.test:443", "/a/b/4"), "{text}");
    for path in ["/a/b", "/a/d", "/a/c/d", "/w", "/x/y"] {
        assert!(
            !admits(&routes, "GET", "a.test:443", path),
            "{path} by {text}"
        );
    }
    assert!(
        paths
            .iter()
            .all(|path| admits(&routes, "GET", "a.test:443", path)),
        "{text}"
    );
}

/// Requests of few hosts, methods and segments, so that many are neighbours.
fn requests() -> impl Strategy<Value = BTreeSet<(&'static str, &'static str, String)>> {
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "PROPFIND"]);
    let host = prop::sample::select(vec![
        "a.test:443",
        "b.a.test:443",
        "a.test:8443",
        "aa.test:443",
    ]);
    let segment = prop::sample::select(vec![
        "a", "b.c", "a-b", "x+y", "(z", "@s%2fp", "%20", "no", "~1", "$", "^", "[i]", "*",
    ]);
    let path = prop::collection::vec(segment, 0..4).prop_flat_map(|segments| {
        prop::bool::ANY.prop_map(move |slash| {
            let path = format!("/{}", segments.join("/"));
            if slash && path.len() > 1 {
                path + "/"
            } else {
                path
            }
        })
    });
    prop::collection::btree_set((method, host, path), 1..24)
}

/// What is close to a request and is another one.
fn neighbours(method: &str, host: &str, path: &str) -> Vec<(String, String, String)> {
    let (name, port) = host.split_once(':').unwrap();
    let near = |method: &str, host: String, path: String| (method.to_owned(), host, path);
    let mut all: Vec<_> = [
        "GET", "POST", "PUT", "DELETE", "PROPFIND", "HEAD", "OPTIONS", "TRACE",
    ]
    .map(|method| near(method, host.into(), path.into()))
    .into();
    let longest = format!("{}/y", path.trim_end_matches('/'));
    let parent = path
        .trim_end_matches('/')
        .rsplit_once('/')
        .map_or("/", |(parent, _)| parent);
    let paths = [
        format!("{path}x"),
        format!("{path}.json"),
        longest,
        format!("{parent}/sibling"),
        format!("{parent}/"),
        "/".into(),
        format!("/x{path}"),
        path.to_ascii_uppercase(),
    ];
    all.extend(paths.map(|path| near(method, host.into(), path)));
    let hosts = [
        format!("x.{host}"),
        format!("x{host}"),
        format!("{name}x:{port}"),
        format!("{name}:9"),
        format!("test:{port}"),
    ];
    all.extend(hosts.map(|host| near(method, host, path.into())));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_routes_admit_what_was_refused_and_none_of_its_neighbours(requests in requests()) {
        let refusals: Vec<_> = requests
            .iter()
            .map(|(method, host, path)| refused(method, host, path, "path_not_allowed"))
            .collect();
        let (text, routes) = suggested(&refusals, None);
        for (method, host, path) in &requests {
            prop_assert!(admits(&routes, method, host, path), "{method} {host}{path} not by {text}");
            for (method, host, path) in neighbours(method, host, path) {
                let asked = requests.iter().any(|(m, h, p)| (*m, *h, p) == (&*method, &*host, &path));
                prop_assert_eq!(admits(&routes, &method, &host, &path), asked, "{} {}{} by {}", method, host, path, text);
            }
        }
    }
}
