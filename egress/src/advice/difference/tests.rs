//! Differences in effect are told, and differences in writing are none.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{between, to_text};
use crate::advice::decision::Decision;
use crate::config::parse;
use crate::route::Routes;
use crate::route::target::{Kind, Origin, Scheme, Target};

fn routes(text: &str) -> Option<Routes> {
    let rules = parse("-", text, Path::new("/")).ok()?;
    Routes::new(rules, None).ok()
}

fn told(old: &str, new: &str) -> String {
    let file = |items: &str| routes(&format!("routes: [{items}]")).expect("routes");
    to_text(&between(&file(old), &file(new)))
}

const KEY: &str = "auth_scheme: Bearer, token_env: ONE";

#[test]
fn what_a_credential_newly_reaches_comes_first() {
    let old = format!(
        "{{host: a.test, path_allowlist: [/v1/], methods: [GET], {KEY}}}, {{host: b.test}}"
    );
    let new = format!(
        "{{host: a.test, path_allowlist: [/v1/], methods: [GET, POST], {KEY}}}, {{host: b.test, {KEY}}}, {{host: c.test, port: 8443}}"
    );
    assert_eq!(
        told(&old, &new),
        "NEWLY REACHED WITH A CREDENTIAL:
  POST https://a.test: below /v1/
    was denied
    now allowed with authorization: Bearer <ONE>
  any method https://b.test: every path
    was allowed, nothing injected
    now allowed with authorization: Bearer <ONE>

opened:
  any method https://c.test:8443: every path
    was denied
    now allowed, nothing injected
"
    );
    let back = told(&new, &old);
    for part in [
        "no longer with a credential:\n  any method https://b.test",
        "closed:\n  POST https://a.test",
    ] {
        assert!(back.contains(part), "no {part} in {back}");
    }
}

#[test]
fn each_key_that_does_something_is_a_difference() {
    for (old, new, part) in [
        (
            "",
            ", websocket: false",
            "WebSocket https://a.test: below /p/",
        ),
        ("", ", websocket_extensions: drop", "otherwise changed"),
        ("", ", encoded_slash: true", "encoded slashes below /p/"),
        ("", ", query: {a: '1 2'}", "closed"),
        ("", ", methods: [PURGE]", "PURGE https://a.test"),
        ("", ", port: 8443", "https://a.test:8443"),
        ("", ", scheme: http", "http://a.test"),
        ("", ", cookies: []", "cookies"),
        ("", ", connect_to: '192.0.2.1:443'", "connect_to"),
        ("", ", ssrf_ip_allowlist: [10.0.0.0/8]", "ssrf_ip_allowlist"),
        (
            ", auth_scheme: raw, token_env: ONE",
            ", auth_scheme: raw, token_env: TWO",
            "REACHED",
        ),
        (
            ", auth_scheme: raw, token_env: ONE",
            ", auth_scheme: raw, token_env: ONE, redact: false",
            "redact",
        ),
    ] {
        let of = |keys: &str| format!("{{host: a.test, path_allowlist: [/p/]{keys}}}");
        let text = told(&of(old), &of(new));
        assert!(text.contains(part), "{new}: no {part} in {text}");
    }
}

#[test]
fn another_way_to_write_the_same_is_no_difference() {
    for (old, new) in [
        (
            "{host: a.test}, {host: b.test}",
            "{host: b.test, description: x}, {host: a.test}",
        ),
        (
            "{host: a.test, path_allowlist: [/a, /b], methods: [GET, PUT]}",
            "{host: a.test, path_allowlist: [/b], methods: [PUT, GET]}, {host: a.test, path_allowlist: [/a], methods: [PUT, GET]}",
        ),
        (
            "{host: a.test, path_allowlist: [/a]}",
            "{host: a.test, path_allowlist: [/a, /a/b]}",
        ),
        (
            "{host: a.test}",
            "{host: a.test}, {host: a.test, path_allowlist: [/x]}",
        ),
    ] {
        assert_eq!(told(old, new), "no difference in effect\n", "{old} {new}");
    }
}

#[test]
fn expressions_that_differ_are_never_taken_for_equal() {
    let of = |regex: &str| format!("{{host: a.test, path_allowlist: [{{regex: '{regex}'}}]}}");
    let text = told(&of("/a{0,8}"), &of("/a{0,9}"));
    assert!(text.contains("no request was found"), "{text}");
    let text = told(&of("(?:.|/){900}"), &of("(?:.|/){901}"));
    assert!(text.contains("no request was found"), "{text}");
    let text = told(&of(".*"), &of(".*x"));
    assert!(text.contains("closed:\n"), "{text}");
    let text = told(&of("/(a|b)/x"), &of("/(a|c)/x"));
    assert!(
        text.contains("opened:\n") && text.contains("/c/x alone"),
        "{text}"
    );
}

/// Small files of which many are alike.
fn file() -> impl Strategy<Value = String> {
    let host = select(vec!["a.test", "*.a.test", "b.a.test"]);
    let paths = subsequence(vec!["/", "/a", "/a/", "/a/b", "/b/"], 0..3);
    let keys = subsequence(
        vec![
            "methods: [GET]",
            "websocket: false",
            "query: {q: '1'}",
            "encoded_slash: true",
            KEY,
        ],
        0..3,
    );
    let route = (host, paths, keys).prop_map(|(host, paths, keys)| {
        let paths = match paths.is_empty() {
            true => Vec::new(),
            false => vec![format!("path_allowlist: [{}]", paths.join(", "))],
        };
        let keys = keys.into_iter().map(str::to_owned);
        let all: Vec<String> = [format!("host: '{host}'")]
            .into_iter()
            .chain(paths)
            .chain(keys)
            .collect();
        format!("  - {{{}}}\n", all.join(", "))
    });
    prop::collection::vec(route, 1..4).prop_map(|routes| format!("routes:\n{}", routes.concat()))
}

fn target() -> impl Strategy<Value = Target> {
    let host = select(vec!["a.test", "b.a.test", "c.a.test"]);
    let path = select(vec![
        "/", "/a", "/a/", "/a/b", "/a/b/c", "/a/x", "/ab", "/b", "/b/x", "/a/x%2fy", "/a//b",
        "/z?q=1", "/a/b?q=1",
    ]);
    let method = select(vec![http::Method::GET, http::Method::PUT]);
    (host, path, method, any::<bool>()).prop_map(|(host, path, method, websocket)| {
        let kind = match websocket && method == http::Method::GET {
            true => Kind::WebSocket,
            false => Kind::Exchange,
        };
        let origin = Origin::parse(Scheme::Https, host).unwrap();
        Target::new(origin, method, path, kind).unwrap()
    })
}

proptest! {
    #[test]
    fn files_without_a_difference_decide_each_request_alike(old in file(), new in file(), targets in prop::collection::vec(target(), 16)) {
        let (Some(a), Some(b)) = (routes(&old), routes(&new)) else {
            return Ok(());
        };
        if !between(&a, &b).is_empty() {
            return Ok(());
        }
        for target in targets {
            let by = |routes| {
                let decision = Decision::of(routes, target.clone());
                decision.route().map(|route| route.rule.injection.clone())
            };
            prop_assert_eq!(by(&a), by(&b), "{:?}\n{}{}", target, old, new);
        }
    }
}
