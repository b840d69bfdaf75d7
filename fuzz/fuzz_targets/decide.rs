//! The decision, against a second reading of what docs/routes.md says.

#![no_main]

use std::cmp::Reverse;
use std::path::Path;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use egress::config::parse;
use egress::route::host::HostPattern;
use egress::route::path::{EncodedSlash, PathPattern};
use egress::route::target::{Kind, Origin, Scheme, Target};
use egress::route::denial::Reason;
use egress::route::{Routes, Rule, Tls};
use egress_fuzz::path::{covers, segments};
use http::Method;
use libfuzzer_sys::fuzz_target;
use regex::Regex;

const HOSTS: [&str; 9] = [
    "a.test",
    "b.test",
    "x.a.test",
    "y.x.a.test",
    "*.a.test",
    "*.x.a.test",
    "192.0.2.1",
    "[2001:db8::1]",
    "aa.test",
];
const PATHS: [&str; 12] = [
    "/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/a%20b", "/a%2fb", "/a:b", "/b", "/a/b/c", "/a%2f",
];
const EXPRESSIONS: [&str; 7] = [
    "/a/.*", "/a", "/(a|b)", "/a/[^/]+", "^/a/b$", ".*", "(?i)/A.*",
];
const METHODS: [Method; 6] = [
    Method::GET,
    Method::POST,
    Method::DELETE,
    Method::TRACE,
    Method::CONNECT,
    Method::OPTIONS,
];
const PIECES: [&str; 24] = [
    "/", "a", "b", "A", "%61", "%2f", "%2F", "%2e", ".", "..", "/a", "/a/b", "//", ";", "\\",
    "%5c", "%25", "%", "%00", "%c3%bc", "%20", "[", "c", "%3b",
];
const QUERIES: [&str; 10] = [
    "", "?", "?q=1", "?q=2", "?q=1&q=1", "?r=1&q=1", "?%71=1", "?q=%31", "?q=1;r=1", "?q=+",
];
const CONDITIONS: [(&str, &str); 4] = [("q", "1"), ("q", "2"), ("r", "1"), ("q", " ")];

/// What the rules have in common: the defaults of a file.
static BARE: LazyLock<Rule> = LazyLock::new(|| {
    let rules = parse(
        "routes.yaml",
        "routes: [{host: a.test}]",
        Path::new("/nonexistent"),
    );
    rules.expect("a route").remove(0).0
});

/// Each with an expression of ours that covers the same. Compiling them takes longer than all else.
static COMPILED: LazyLock<Vec<(PathPattern, Regex)>> = LazyLock::new(|| {
    let compile = |source: &&str| {
        let whole = Regex::new(&format!(r"\A(?:{source})\z")).expect("an expression");
        (PathPattern::regex(source).expect("an expression"), whole)
    };
    EXPRESSIONS.iter().map(compile).collect()
});

#[derive(Debug)]
struct Request {
    scheme: Scheme,
    host: &'static str,
    port: u16,
    method: Method,
    path: String,
    query: &'static str,
    kind: Kind,
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let count = input.int_in_range(1..=6).unwrap_or(1);
    let mut rules = Vec::new();
    for line in 1..=count {
        let Ok(rule) = rule(&mut input) else {
            return;
        };
        rules.push((rule, line));
    }
    let routes = match Routes::new(rules.clone(), None) {
        Ok(routes) => routes,
        Err(ties) => {
            assert!(!ties.is_empty());
            for tie in ties {
                assert!(1 <= tie.first && tie.first < tie.second && tie.second <= count);
                let host = |line| {
                    rules
                        .iter()
                        .find(|(_, at)| *at == line)
                        .map(|(rule, _)| &rule.host)
                };
                assert_eq!(host(tie.first), host(tie.second), "a tie between hosts");
            }
            return;
        }
    };
    assert_eq!(
        routes.iter().map(|route| &route.rule).collect::<Vec<_>>(),
        rules.iter().map(|(rule, _)| rule).collect::<Vec<_>>()
    );
    for _ in 0..4 {
        let Ok(request) = request(&mut input) else {
            return;
        };
        check(&routes, &rules, &request);
    }
});

fn check(routes: &Routes, rules: &[(Rule, u32)], request: &Request) {
    let text = if request.port == request.scheme.default_port() {
        request.host.to_owned()
    } else {
        format!("{}:{}", request.host, request.port)
    };
    let origin = Origin::parse(request.scheme, &text).expect("an origin");
    let sent = format!("{}{}", request.path, request.query);
    let Ok(target) = Target::new(origin.clone(), request.method.clone(), &sent, request.kind)
    else {
        return;
    };
    // A `?` within the path ends it.
    if target.path() != request.path {
        return;
    }

    let mut admitting: Vec<(Reverse<(bool, usize, usize)>, u32)> = rules
        .iter()
        .filter_map(|(rule, line)| Some((Reverse(rank(rule, request)?), *line)))
        .collect();
    admitting.sort_unstable();
    let decided = routes.decide(target);
    match (&admitting[..], &decided) {
        ([], Err(denial)) => {
            let named = rules
                .iter()
                .any(|(rule, _)| covers_host(&rule.host, request.host));
            assert_eq!(denial.reason == Reason::Host, !named, "{denial:?}");
            assert_eq!(denial.route.is_some(), named);
        }
        ([], Ok(permit)) => panic!("admitted by none: {request:?} {permit:?}"),
        ([(best, line), rest @ ..], Ok(permit)) => {
            assert_eq!(permit.route().line, *line, "{request:?} {rules:#?}");
            assert!(
                rest.iter().all(|(other, _)| other > best),
                "a tie that was not told: {request:?} {rules:#?}"
            );
            assert_eq!(permit.target().path_and_query().as_str(), sent);
            assert_eq!(permit.target().origin(), &origin);
        }
        (_, Err(denial)) => panic!("denied though admitted: {request:?} {denial:?} {rules:#?}"),
    }

    // Tunnels: by host and port alone, and a passthrough needs its own permit.
    let mut open = rules
        .iter()
        .filter(|(rule, _)| covers_host(&rule.host, request.host))
        .filter(|(rule, _)| rule.scheme == request.scheme && rule.port == request.port);
    let admitted = routes.admits(&origin);
    assert_eq!(admitted.is_ok(), open.clone().next().is_some());
    match (admitted, routes.admit_passthrough(&origin)) {
        (Ok(Tls::Passthrough), Ok(permit)) => {
            assert_eq!(permit.route().rule.tls, Tls::Passthrough);
            assert_eq!(permit.target().origin(), &origin);
        }
        (Ok(Tls::Passthrough), Err(denial)) => panic!("{denial:?}"),
        (_, Ok(permit)) => panic!("passed through unasked: {permit:?}"),
        (_, Err(_)) => {}
    }
    if open.all(|(rule, _)| rule.tls == Tls::Passthrough) {
        assert!(decided.is_err(), "a request is admitted where none is seen");
    }
}

/// Whether a rule admits a request, and before which others: an exact host before a wildcard, then the longer path, then
/// more conditions.
fn rank(rule: &Rule, request: &Request) -> Option<(bool, usize, usize)> {
    if !covers_host(&rule.host, request.host)
        || rule.scheme != request.scheme
        || rule.port != request.port
    {
        return None;
    }
    if rule.tls == Tls::Passthrough || (request.kind == Kind::WebSocket && !rule.websocket) {
        return None;
    }
    let path = match &rule.paths {
        None => 0,
        Some(patterns) => {
            if !is_unambiguous(&request.path, rule.encoded_slash) {
                return None;
            }
            let lengths = patterns
                .iter()
                .filter(|pattern| covers_path(pattern, &request.path));
            1 + lengths.map(|pattern| pattern.literal().len()).max()?
        }
    };
    let method = match &rule.methods {
        Some(methods) => methods.contains(&request.method),
        None => request.method != Method::TRACE && request.method != Method::CONNECT,
    };
    let conditions = rule
        .query
        .iter()
        .all(|(name, value)| holds(name, value, request.query));
    let exact = !rule.host.to_string().starts_with("*.");
    let count = usize::from(rule.methods.is_some()) + rule.query.len();
    (method && conditions).then_some((exact, path, count))
}

fn covers_host(pattern: &HostPattern, host: &str) -> bool {
    let pattern = pattern.to_string();
    match pattern.strip_prefix("*.") {
        Some(suffix) => host
            .split_once('.')
            .is_some_and(|(_, parent)| parent == suffix),
        None => pattern == host,
    }
}

fn covers_path(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Prefix(prefix) => covers(prefix, path),
        PathPattern::Regex(_) => COMPILED
            .iter()
            .any(|(known, whole)| known == pattern && whole.is_match(path)),
    }
}

/// No piece of the alphabet above is refused for another reason.
fn is_unambiguous(path: &str, encoded_slash: EncodedSlash) -> bool {
    segments(path, encoded_slash).is_some()
}

/// The parameter is there once, with this value once decoded, and no `;` makes it doubtful.
fn holds(name: &str, value: &str, query: &str) -> bool {
    let decoded = |text: &str| {
        text.replace("%71", "q")
            .replace("%31", "1")
            .replace('+', " ")
    };
    let query = query.strip_prefix('?').unwrap_or_default();
    let pairs: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    let values: Vec<&str> = pairs
        .iter()
        .filter(|(found, _)| found == name)
        .map(|(_, value)| value.as_str())
        .collect();
    !query.contains(';') && values == [value]
}

fn rule(input: &mut Unstructured<'_>) -> arbitrary::Result<Rule> {
    let scheme = if bool::arbitrary(input)? {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let mut paths = Vec::new();
    for _ in 0..input.int_in_range(0..=2)? {
        paths.push(if input.ratio(1, 4)? {
            input.choose(&COMPILED)?.0.clone()
        } else {
            PathPattern::prefix(input.choose(&PATHS)?).expect("a prefix")
        });
    }
    let methods: Vec<Method> = (0..input.int_in_range(0..=2)?)
        .map(|_| input.choose(&METHODS).cloned())
        .collect::<Result<_, _>>()?;
    let mut query = Vec::new();
    if input.ratio(1, 3)? {
        let (name, value) = input.choose(&CONDITIONS)?;
        query.push(((*name).to_owned(), (*value).to_owned()));
    }
    Ok(Rule {
        host: input.choose(&HOSTS)?.parse().expect("a host"),
        scheme,
        port: *input.choose(&[scheme.default_port(), 8443])?,
        paths: (!paths.is_empty()).then_some(paths),
        methods: (!methods.is_empty()).then_some(methods),
        query,
        tls: if input.ratio(1, 8)? {
            Tls::Passthrough
        } else {
            Tls::Intercept
        },
        websocket: !input.ratio(1, 4)?,
        encoded_slash: if input.ratio(1, 4)? {
            EncodedSlash::Accept
        } else {
            EncodedSlash::Refuse
        },
        ..BARE.clone()
    })
}

fn request(input: &mut Unstructured<'_>) -> arbitrary::Result<Request> {
    let scheme = if bool::arbitrary(input)? {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let hosts = HOSTS
        .iter()
        .filter(|host| !host.starts_with('*'))
        .copied()
        .collect::<Vec<_>>();
    let mut path = "/".to_owned();
    for _ in 0..input.int_in_range(0..=5)? {
        path.push_str(input.choose(&PIECES)?);
    }
    Ok(Request {
        scheme,
        host: input.choose(&hosts)?,
        port: *input.choose(&[scheme.default_port(), 8443])?,
        method: input.choose(&METHODS)?.clone(),
        path,
        query: input.choose(&QUERIES)?,
        kind: if input.ratio(1, 4)? {
            Kind::WebSocket
        } else {
            Kind::Exchange
        },
    })
}
