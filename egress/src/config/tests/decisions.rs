//! The decision, against a second reading of what docs/routes.md says.

use std::cmp::Reverse;

use http::Method;
use proptest::prelude::{
    ProptestConfig, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use super::rules;
use crate::route::path::{EncodedSlash, PathPattern, hazard_of};
use crate::route::target::{Kind, Origin, Scheme, Target};
use crate::route::{Routes, Rule, Tls};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn the_decision_is_that_of_the_one_route_which_ranks_highest(
        rules in prop::collection::vec(rule(), 1..6),
        requests in prop::collection::vec(request(), 4),
    ) {
        let rules: Vec<(Rule, u32)> = rules.into_iter().zip(1..).collect();
        if let Ok(routes) = Routes::new(rules.clone(), None) {
            for asked in requests {
                decided_alike(&routes, &rules, &asked)?;
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Asked {
    host: &'static str,
    port: u16,
    method: Method,
    path: String,
    query: &'static str,
    kind: Kind,
}

fn decided_alike(
    routes: &Routes,
    rules: &[(Rule, u32)],
    asked: &Asked,
) -> Result<(), TestCaseError> {
    let origin = Origin::parse(Scheme::Https, &format!("{}:{}", asked.host, asked.port)).unwrap();
    let sent = format!("{}{}", asked.path, asked.query);
    let Ok(target) = Target::new(origin, asked.method.clone(), &sent, asked.kind) else {
        return Ok(());
    };
    let ranked = rules
        .iter()
        .filter_map(|(rule, line)| Some((Reverse(rank(rule, asked)?), *line)));
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_unstable();
    let decided = routes.decide(target).ok();
    let line = decided.as_ref().map(|permit| permit.route().line);
    prop_assert_eq!(
        line,
        ranked.first().map(|(_, line)| *line),
        "{:?} {:#?}",
        asked,
        rules
    );
    if let [(first, _), (second, _), ..] = &ranked[..] {
        prop_assert!(
            first < second,
            "a tie that was not told: {:?} {:#?}",
            asked,
            rules
        );
    }
    if let Some(permit) = decided {
        prop_assert_eq!(permit.target().path_and_query().as_str(), sent);
    }
    Ok(())
}

/// Whether a rule admits a request, and how it ranks: an exact host, the length of the path, the number of conditions.
fn rank(rule: &Rule, asked: &Asked) -> Option<(bool, usize, usize)> {
    let host = rule.host.to_string();
    let covered = match host.strip_prefix("*.") {
        Some(suffix) => asked.host.split_once('.')?.1 == suffix,
        None => host == asked.host,
    };
    let seen = rule.tls == Tls::Intercept && (asked.kind == Kind::Exchange || rule.websocket);
    let path = match &rule.paths {
        None => Some(0),
        Some(_) if hazard_of(&asked.path, rule.encoded_slash).is_some() => None,
        Some(patterns) => {
            let covering = patterns
                .iter()
                .filter(|pattern| pattern.matches(&asked.path));
            covering.map(|pattern| 1 + pattern.literal().len()).max()
        }
    };
    let method = match &rule.methods {
        Some(methods) => methods.contains(&asked.method),
        None => asked.method != Method::TRACE,
    };
    // The alphabet has no encodings, and no parameter twice but in the last one.
    let holds = |(name, value): &(String, String)| {
        let pair = format!("{name}={value}");
        let mut pairs = asked
            .query
            .trim_start_matches('?')
            .split('&')
            .filter(|found| found.split('=').next() == Some(name));
        pairs.next() == Some(&pair) && pairs.next().is_none()
    };
    let admitted =
        covered && rule.port == asked.port && seen && method && rule.query.iter().all(holds);
    let conditions = usize::from(rule.methods.is_some()) + rule.query.len();
    path.filter(|_| admitted)
        .map(|path| (!host.starts_with("*."), path, conditions))
}

fn rule() -> impl Strategy<Value = Rule> {
    let pattern = prop_oneof![
        3 => select(vec!["/", "/a", "/a/", "/a/b", "/ab"]).prop_map(|text| PathPattern::prefix(text).unwrap()),
        1 => select(vec!["/a/.*", "/a", "/(a|b)"]).prop_map(|text| PathPattern::regex(text).unwrap()),
    ];
    let query = select(vec![("q", "1"), ("q", "2"), ("r", "1")])
        .prop_map(|(name, value)| (name.to_owned(), value.to_owned()));
    let bare = rules("routes: [{host: a.test}]").remove(0).0;
    (
        select(vec!["a.test", "x.a.test", "*.a.test", "b.test"]),
        select(vec![443, 443, 8443]),
        prop::collection::vec(pattern, 0..3),
        prop::collection::vec(select(vec![Method::GET, Method::POST, Method::TRACE]), 0..3),
        prop::collection::vec(query, 0..2),
        prop::array::uniform3(prop::bool::weighted(0.2)),
    )
        .prop_map(
            move |(host, port, paths, methods, query, [passed, silent, slash])| Rule {
                host: host.parse().unwrap(),
                port,
                paths: (!paths.is_empty()).then_some(paths),
                methods: (!methods.is_empty()).then_some(methods),
                query,
                tls: if passed {
                    Tls::Passthrough
                } else {
                    Tls::Intercept
                },
                websocket: !silent,
                encoded_slash: if slash {
                    EncodedSlash::Accept
                } else {
                    EncodedSlash::Refuse
                },
                ..bare.clone()
            },
        )
}

fn request() -> impl Strategy<Value = Asked> {
    let pieces = ["/a", "/b", "/", "b", "%61", "%2f", "..", ";", "%25"];
    let path_text = prop::collection::vec(select(pieces.to_vec()), 0..4)
        .prop_map(|pieces| format!("/{}", pieces.concat()));
    let path = prop_oneof![
        path_text,
        select(vec!["/", "/a", "/a/", "/a/b", "/ab", "/b"]).prop_map(str::to_owned)
    ];
    (
        select(vec!["a.test", "x.a.test", "y.x.a.test", "b.test", "c.test"]),
        select(vec![443, 443, 8443]),
        select(vec![Method::GET, Method::POST, Method::TRACE]),
        path,
        select(vec!["", "?q=1", "?q=2", "?q=1&r=1", "?q=1&q=1"]),
        select(vec![Kind::Exchange, Kind::Exchange, Kind::WebSocket]),
    )
        .prop_map(|(host, port, method, path, query, kind)| Asked {
            host,
            port,
            method,
            path,
            query,
            kind,
        })
}
