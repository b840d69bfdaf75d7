//! Paths: what servers read in different ways is refused where a route has path rules, and what is admitted goes out byte
//! for byte (threat model, rows 9 to 12).

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::attempts::Arena;
use crate::harness::cases::{self, Case};
use crate::harness::line::{Attempt, Line, Outcome, WAYS};
use crate::harness::rig::REAL;

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1/, /exact, /trees/a, {regex: '^/repos/[^/]+/pulls$'}, {regex: '/(get|list)'}], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, query_credentials: allow, connect_to: 'TLS'}
- {host: api.test, path_allowlist: [/v1/, /exact, /trees/a, {regex: '^/repos/[^/]+/pulls$'}, {regex: '/(get|list)'}], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, query_credentials: allow, scheme: http, insecure_inject: true, port: 80, connect_to: 'PLAIN'}
- {host: npm.test, path_allowlist: [/], encoded_slash: true, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, query_credentials: allow, connect_to: 'TLS'}
- {host: npm.test, path_allowlist: [/], encoded_slash: true, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, query_credentials: allow, scheme: http, insecure_inject: true, port: 80, connect_to: 'PLAIN'}
- {host: bare.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, query_credentials: allow, connect_to: 'TLS'}
- {host: bare.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, query_credentials: allow, scheme: http, insecure_inject: true, port: 80, connect_to: 'PLAIN'}
- {host: open.test, connect_to: 'TLS'}
- {host: open.test, scheme: http, port: 80, connect_to: 'PLAIN'}
";

#[tokio::test]
async fn row_09_a_path_that_can_be_read_in_two_ways_is_refused_before_anything_is_dialled() {
    let cases = cases::read("paths.txt", WAYS.len());
    assert!(cases.len() > 350, "{}", cases.len());
    judge(&Arena::new(ROUTES).await, &section(&cases, "api.test")).await;
}

#[tokio::test]
async fn row_10_an_encoded_slash_is_data_only_where_the_route_says_so() {
    let cases = cases::read("paths.txt", WAYS.len());
    judge(&Arena::new(ROUTES).await, &section(&cases, "npm.test")).await;
}

/// Against an upstream that speaks HTTP/1.1 alone; the others have one that prefers HTTP/2.
#[tokio::test]
async fn row_11_an_admitted_path_goes_out_byte_for_byte_and_its_neighbours_do_not() {
    let cases = cases::read("paths.txt", WAYS.len());
    let arena = Arena::speaking(&["http/1.1"], ROUTES).await;
    judge(&arena, &section(&cases, "api.test")).await;
}

/// Each of them below an admitted prefix, in its most literal spelling. What passes is on a list of its own.
#[tokio::test]
async fn row_09_the_published_traversals_lead_nowhere() {
    let mut paths = BTreeSet::new();
    for file in [
        "patt_deep_traversal.txt",
        "patt_directory_traversal.txt",
        "patt_traversals-8-deep-exotic-encoding.txt",
    ] {
        for line in cases::text(file).lines() {
            let line = line.replace("{FILE}", "etc/passwd");
            let slash = if line.starts_with(['/', '\\']) {
                ""
            } else {
                "/"
            };
            paths.insert(format!("/v1{slash}{line}"));
        }
    }
    assert!(paths.len() > 700, "{}", paths.len());
    let harmless: BTreeSet<String> = cases::read("patt_harmless.txt", 0)
        .iter()
        .map(|case| case.text().to_owned())
        .collect();
    assert!(harmless.is_subset(&paths), "{harmless:#?}");
    let arena = Arena::new(ROUTES).await;
    for way in WAYS {
        let attempts: Vec<Attempt> = paths
            .iter()
            .enumerate()
            .map(|(case, path)| attempt("api.test", path.as_bytes(), case))
            .collect();
        let outcomes = arena.try_all(way, &attempts).await;
        let mut expected = BTreeMap::new();
        for ((case, path), outcome) in paths.iter().enumerate().zip(outcomes) {
            if outcome == Outcome::Sent {
                expected.insert(case, ("api.test".to_owned(), path.clone()));
            }
        }
        let sent: BTreeSet<String> = expected.values().map(|(_, path)| path.clone()).collect();
        assert_eq!(sent, harmless, "{way:?}");
        arena.assert_reached(way, &expected);
    }
}

/// The operator asked for no reading of the path, so none takes place: not even the host can be changed by it.
#[tokio::test]
async fn row_09_a_route_without_path_rules_lets_every_path_through_unchanged() {
    let arena = Arena::new(ROUTES).await;
    let odd = [
        "/..",
        "/a/../b",
        "/./a",
        "//x",
        "//evil.test/x",
        "/a;b",
        "/a%2fb",
        "/%2e%2e/",
        "/%00",
        "/%zz",
        "/%",
        "/a\\b",
        "/%c0%af",
    ];
    for way in WAYS {
        let attempts: Vec<Attempt> = odd
            .iter()
            .enumerate()
            .map(|(case, path)| attempt("bare.test", path.as_bytes(), case))
            .collect();
        for (outcome, path) in arena.try_all(way, &attempts).await.iter().zip(odd) {
            assert_eq!(*outcome, Outcome::Sent, "{way:?} {path}");
        }
        let expected = odd
            .iter()
            .map(|path| ("bare.test".to_owned(), (*path).to_owned()));
        arena.assert_reached(way, &expected.enumerate().collect());
    }
}

#[tokio::test]
async fn row_12_headers_that_override_the_host_path_method_or_peer_are_dropped() {
    let arena = Arena::new(ROUTES).await;
    let overrides = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-prefix",
        "x-forwarded-anything",
        "x-original-url",
        "x-original-host",
        "x-rewrite-url",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
    ];
    let kept = [
        ("x-forward", "1"),
        ("user-agent", "me"),
        ("x-two", "1"),
        ("x-two", "2"),
    ];
    let headers: Vec<(&str, &str)> = overrides
        .iter()
        .flat_map(|name| [(*name, "/admin"), (*name, "evil.test")])
        .chain(kept)
        .collect();
    // The second host injects nothing, and drops the same.
    for host in ["api.test", "open.test"] {
        for way in WAYS {
            let mut line = Line::new(&arena.agent, way);
            let attempt = attempt(host, b"/v1/x", 0);
            assert_eq!(line.put_with(&attempt, &headers).await, Outcome::Sent);
            let upstream = arena.upstream(way);
            let seen = upstream.seen().pop().expect("a request");
            assert_eq!((seen.host.as_str(), seen.target.as_str()), (host, "/v1/x"));
            let mut rest: Vec<(&str, &str)> = seen
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().expect("a text")))
                .filter(|(name, _)| !matches!(*name, "host" | "x-case" | "authorization"))
                .collect();
            rest.sort_unstable();
            // Nothing of ours is added either, neither Via nor the peer's address.
            let mut expected = kept;
            expected.sort_unstable();
            assert_eq!(rest, expected, "{way:?} {host}");
            let credential = format!("Bearer {REAL}");
            let injected: &[&str] = if host == "api.test" {
                &[&credential]
            } else {
                &[]
            };
            assert_eq!(seen.all("authorization"), injected, "{way:?}");
        }
    }
}

/// Tries every case by every way: first what has to be refused, and nothing may be dialled for it; then the rest.
async fn judge(arena: &Arena, cases: &[&Case]) {
    let mut wrong = Vec::new();
    let goes_out = |word: &str| matches!(word, "sent" | "cut");
    for admitted in [false, true] {
        for (column, way) in WAYS.into_iter().enumerate() {
            let tried: Vec<&Case> = cases
                .iter()
                .copied()
                .filter(|case| goes_out(&case.expected[column]) == admitted)
                .filter(|case| case.expected[column] != "-")
                .collect();
            let attempts: Vec<Attempt> = tried
                .iter()
                .map(|case| attempt(&case.section, &case.input, case.line))
                .collect();
            let outcomes = arena.try_all(way, &attempts).await;
            let mut expected = BTreeMap::new();
            for (case, outcome) in tried.into_iter().zip(outcomes) {
                let word = case.expected[column].as_str();
                let right = match word {
                    "cut" => outcome == Outcome::Sent,
                    word => outcome.to_string() == word,
                };
                if !right {
                    wrong.push(format!(
                        "{} {way:?} {outcome} not {word}: {}",
                        case.line, case.written
                    ));
                }
                if goes_out(word) {
                    expected.insert(case.line, (case.section.clone(), target(case, word)));
                }
            }
            if wrong.is_empty() && admitted {
                arena.assert_reached(way, &expected);
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        if !admitted {
            assert_eq!(arena.connections(), 0);
        }
    }
}

/// What has to reach the upstream.
fn target(case: &Case, word: &str) -> String {
    let path = case.text();
    match word {
        "cut" => path.split('#').next().unwrap_or_default().to_owned(),
        _ => path.to_owned(),
    }
}

fn section<'a>(cases: &'a [Case], name: &str) -> Vec<&'a Case> {
    cases.iter().filter(|case| case.section == name).collect()
}

fn attempt(host: &str, path: &[u8], case: usize) -> Attempt {
    Attempt {
        tunnel: host.to_owned(),
        authority: host.as_bytes().to_vec(),
        path: path.to_vec(),
        case,
    }
}
