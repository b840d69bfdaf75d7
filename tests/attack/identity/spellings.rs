//! One canonical form of a host and port, or a refusal, wherever an agent can name one.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::Value;

use crate::harness::attempts::{Arena, assert_canonical};
use crate::harness::cases::{self, Case};
use crate::harness::line::{Attempt, Line, Outcome, WAYS, Way};

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'TLS'}
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, scheme: http, port: 80, insecure_inject: true, connect_to: 'PLAIN'}
- {host: other.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'TLS'}
- {host: other.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, scheme: http, port: 80, insecure_inject: true, connect_to: 'PLAIN'}
- {host: '*.wild.test', auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'TLS'}
- {host: '*.wild.test', auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, scheme: http, port: 80, insecure_inject: true, connect_to: 'PLAIN'}
";

#[tokio::test]
async fn row_06_a_host_has_one_spelling_wherever_it_is_named() {
    let cases = cases::read("authorities.txt", 4);
    assert!(cases.len() > 250, "{}", cases.len());
    judge(&section(&cases, "spellings")).await;
}

#[tokio::test]
async fn row_07_whole_labels_are_compared() {
    let cases = cases::read("authorities.txt", 4);
    judge(&section(&cases, "labels")).await;
}

#[tokio::test]
async fn row_08_a_port_is_the_routes_own() {
    let cases = cases::read("authorities.txt", 4);
    judge(&section(&cases, "ports")).await;
}

/// Tries every case in all four places. What is refused comes first, and may have left no trace.
async fn judge(cases: &[&Case]) {
    assert!(cases.len() > 20, "{}", cases.len());
    let arena = Arena::new(ROUTES).await;
    let mut wrong = Vec::new();
    let check =
        |wrong: &mut Vec<String>, case: &Case, place: &str, outcome: &str, expected: &str| {
            if outcome != expected {
                let written = &case.written;
                wrong.push(format!(
                    "{} {place} {outcome} not {expected}: {written}",
                    case.line
                ));
            }
        };
    for case in cases {
        let head = [
            b"CONNECT ",
            case.input.as_slice(),
            b" HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
        ]
        .concat();
        let outcome = Line::new(&arena.agent, Way::Absolute)
            .put_bytes("", &head)
            .await;
        check(
            &mut wrong,
            case,
            "Connect",
            &outcome.to_string(),
            &case.expected[0],
        );
    }
    // Each refusal has its line in the log.
    let refused = cases.iter().map(|case| &case.expected[0]);
    for code in refused
        .filter(|word| *word != "open")
        .collect::<BTreeSet<_>>()
    {
        let times = cases.iter().filter(|case| case.expected[0] == *code);
        let needle = format!("\"code\":\"{code}\"");
        arena.sidecar.logged_times(&needle, times.count()).await;
    }
    assert_eq!(arena.sidecar.status().await["leaves_minted"], 0);
    for admitted in [false, true] {
        for (column, way) in WAYS.into_iter().enumerate() {
            let word = |case: &Case| case.expected[column + 1].clone();
            let tried: Vec<&Case> = cases
                .iter()
                .copied()
                .filter(|case| (word(case) == "sent") == admitted)
                .collect();
            let attempts: Vec<Attempt> = tried
                .iter()
                .map(|case| attempt(&case.input, case.line))
                .collect();
            let outcomes = arena.try_all(way, &attempts).await;
            for (case, outcome) in tried.iter().zip(outcomes) {
                check(
                    &mut wrong,
                    case,
                    &format!("{way:?}"),
                    &outcome.to_string(),
                    &word(case),
                );
            }
            if admitted {
                let reached = tried.iter().map(|case| {
                    let host = case.text().trim().to_ascii_lowercase();
                    let host = host.trim_end_matches(":443").trim_end_matches(":80");
                    (case.line, (host.to_owned(), "/".to_owned()))
                });
                arena.assert_reached(way, &reached.collect());
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        if !admitted {
            assert_eq!(arena.connections(), 0);
        }
    }
}

fn section<'a>(cases: &'a [Case], name: &str) -> Vec<&'a Case> {
    cases.iter().filter(|case| case.section == name).collect()
}

/// A GET of `/` at an authority, in a tunnel to api.test where there is a tunnel.
fn attempt(authority: &[u8], case: usize) -> Attempt {
    Attempt {
        tunnel: "api.test".into(),
        authority: authority.to_vec(),
        path: b"/".to_vec(),
        case,
    }
}

/// Browsers' own cases, with a route for the host that most of them name. What is served has to be what the standard says
/// that the URL means; most is refused.
#[tokio::test]
async fn row_06_no_case_of_the_url_standard_leads_to_another_host_or_path() {
    let routes = "\
- {host: example.com, path_allowlist: [/], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'TLS'}
- {host: example.com, path_allowlist: [/], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, scheme: http, port: 80, insecure_inject: true, connect_to: 'PLAIN'}
";
    let arena = Arena::new(routes).await;
    let all: Vec<Value> = serde_json::from_str(&cases::text("urltestdata.json")).expect("JSON");
    let cases: Vec<(usize, &str, &Value)> = all
        .iter()
        .enumerate()
        .filter_map(|(number, case)| Some((number, case.get("input")?.as_str()?, case)))
        .collect();
    assert!(cases.len() > 800, "{}", cases.len());

    let shares = cases.chunks(cases.len().div_ceil(4)).map(async |share| {
        let mut line = Line::new(&arena.agent, Way::Absolute);
        for (number, input, _) in share {
            let head = format!(
                "GET {input} HTTP/1.1\r\nHost: example.com\r\nX-Case: Absolute-{number}\r\n\r\n"
            );
            line.put_bytes("", head.as_bytes()).await;
            let head = format!("CONNECT {input} HTTP/1.1\r\nHost: example.com\r\n\r\n");
            let opened = line.put_bytes("", head.as_bytes()).await == Outcome::Opened;
            assert_eq!(
                opened,
                input.eq_ignore_ascii_case("example.com:443"),
                "{input:?}"
            );
        }
    });
    join_all(shares).await;
    let by_number: BTreeMap<usize, &Value> = cases
        .iter()
        .map(|(number, _, case)| (*number, *case))
        .collect();
    let served = arena.plain.seen();
    assert!(served.len() > 5, "{}", served.len());
    for seen in served {
        let (_, number) = seen.all("x-case")[0].split_once('-').expect("two parts");
        let case = by_number[&number.parse().expect("a number")];
        let part = |name: &str| case[name].as_str().unwrap_or_default();
        assert_canonical(&seen);
        assert_eq!(seen.host, "example.com", "{case:#}");
        assert_eq!(
            (part("protocol"), part("host")),
            ("http:", "example.com"),
            "{case:#}"
        );
        assert_eq!((part("username"), part("password")), ("", ""), "{case:#}");
        let query = if seen.target.ends_with('?') {
            "?"
        } else {
            part("search")
        };
        assert_eq!(
            seen.target,
            format!("{}{query}", part("pathname")),
            "{case:#}"
        );
    }

    // The same authorities inside of a tunnel: only its own one is served.
    let authorities: BTreeSet<&str> = cases.iter().map(|(_, input, _)| authority(input)).collect();
    assert!(authorities.len() > 250, "{}", authorities.len());
    let mut line = Line::new(&arena.agent, Way::Absolute);
    for authority in &authorities {
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: example.com\r\n\r\n");
        let opened = line.put_bytes("", head.as_bytes()).await == Outcome::Opened;
        let own = authority.eq_ignore_ascii_case("example.com:443");
        assert_eq!(opened, own, "{authority:?}");
    }
    for way in [Way::One, Way::Two] {
        let attempts: Vec<Attempt> = authorities
            .iter()
            .enumerate()
            .map(|(number, authority)| Attempt {
                tunnel: "example.com".into(),
                ..attempt(authority.as_bytes(), number)
            })
            .collect();
        let outcomes = arena.try_all(way, &attempts).await;
        let mut expected = BTreeMap::new();
        for ((number, authority), outcome) in authorities.iter().enumerate().zip(outcomes) {
            let canonical = authority.to_ascii_lowercase();
            let own = matches!(canonical.as_str(), "example.com" | "example.com:443");
            assert_eq!(
                outcome == Outcome::Sent,
                own,
                "{way:?} {authority:?}: {outcome}"
            );
            if own {
                expected.insert(number, ("example.com".into(), "/".into()));
            }
        }
        assert!(!expected.is_empty());
        arena.assert_reached(way, &expected);
    }
}

/// What stands between `//` and the next delimiter, as the bytes come.
fn authority(url: &str) -> &str {
    let rest = url.split_once("//").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#', '\r', '\n'])
        .next()
        .unwrap_or_default()
}
