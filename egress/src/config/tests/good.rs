//! Files that say what they mean, and the rules that come of them.

use std::fmt::Write as _;
use std::path::Path;

use http::Method;
use http::header::{AUTHORIZATION, HeaderName};

use super::{faults, rules};
use crate::config::{load, parse};
use crate::route::host::Host;
use crate::route::passing::{Cookies, Extensions, QueryCredentials, Redact};
use crate::route::path::{EncodedSlash, PathPattern};
use crate::route::target::{Kind, Origin, Scheme, Target};
use crate::route::{AuthScheme, ConnectTo, Injection, Routes, Rule, Tls};

fn bare(host: &str) -> Rule {
    Rule {
        host: host.parse().unwrap(),
        scheme: Scheme::Https,
        port: 443,
        paths: None,
        methods: None,
        query: Vec::new(),
        injection: None,
        tls: Tls::Intercept,
        websocket: true,
        websocket_extensions: Extensions::Pass,
        encoded_slash: EncodedSlash::Refuse,
        ssrf_ip_allowlist: Vec::new(),
        connect_to: None,
        upstream_ca: Vec::new(),
        cookies: Cookies::All,
        query_credentials: QueryCredentials::Allow,
        redact: Redact::Pass,
        description: None,
    }
}

fn only(route: &str) -> Rule {
    let mut rules = rules(&format!("routes:\n  - {}\n", route.replace('\n', "\n    ")));
    assert_eq!(rules.len(), 1, "{route}");
    rules.remove(0).0
}

#[test]
fn a_bare_route_has_the_defaults() {
    assert_eq!(only("host: pypi.org"), bare("pypi.org"));
    assert_eq!(only("host: PyPI.org"), bare("pypi.org"));
    // YAML 1.2: these are words.
    assert_eq!(only("host: yes"), bare("yes"));
    assert_eq!(only("host: off"), bare("off"));
    assert_eq!(only("host: '*.example.com'"), bare("*.example.com"));
}

#[test]
fn every_key_is_read() {
    let rule = only(
        "host: '*.example.com'
path_allowlist: [/v1, {regex: '^/repos/[^/]+/pulls$'}]
auth_scheme: Basic
auth_user: x-access-token
auth_header: X-Api-Key
token_env: EGRESS_TOKEN_0
methods: [GET, PROPFIND]
query: {service: git-upload-pack, page: 1, draft: true, 'empty': ''}
port: 8443
tls: intercept
websocket: false
encoded_slash: true
scheme: http
insecure_inject: true
ssrf_ip_allowlist: [10.0.0.0/8, fd00::/8, 192.168.1.7]
connect_to: '[::1]:8080'
websocket_extensions: drop
cookies: [__cf_bm, __Host-a]
query_credentials: allow
redact: false
description: |
  two
  lines",
    );
    let expected = Rule {
        scheme: Scheme::Http,
        port: 8443,
        paths: Some(vec![
            PathPattern::prefix("/v1").unwrap(),
            PathPattern::regex("^/repos/[^/]+/pulls$").unwrap(),
        ]),
        methods: Some(vec![Method::GET, Method::from_bytes(b"PROPFIND").unwrap()]),
        query: [
            ("service", "git-upload-pack"),
            ("page", "1"),
            ("draft", "true"),
            ("empty", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        injection: Some(Injection {
            header: HeaderName::from_static("x-api-key"),
            scheme: AuthScheme::Basic {
                user: "x-access-token".into(),
            },
            slot: "EGRESS_TOKEN_0".parse().unwrap(),
        }),
        websocket: false,
        websocket_extensions: Extensions::Drop,
        cookies: Cookies::Named(
            ["__cf_bm", "__Host-a"]
                .map(|name| name.parse().unwrap())
                .into(),
        ),
        query_credentials: QueryCredentials::Allow,
        redact: Redact::Pass,
        encoded_slash: EncodedSlash::Accept,
        ssrf_ip_allowlist: ["10.0.0.0/8", "fd00::/8", "192.168.1.7/32"]
            .map(|network| network.parse().unwrap())
            .into(),
        connect_to: Some(ConnectTo::Address("[::1]:8080".parse().unwrap())),
        description: Some("two\nlines\n".into()),
        ..bare("*.example.com")
    };
    assert_eq!(rule, expected);
}

#[test]
fn the_port_follows_the_scheme() {
    assert_eq!(only("host: a.test\nscheme: http").port, 80);
    assert_eq!(only("host: a.test\nscheme: https").port, 443);
    assert_eq!(only("host: a.test\nscheme: http\nport: 443").port, 443);
}

#[test]
fn a_credential_turns_the_defaults_about() {
    let of = |rule: Rule| (rule.cookies, rule.query_credentials, rule.redact);
    let none = Cookies::Named(Vec::new());
    let injects = "host: a.test\nauth_scheme: raw\ntoken_env: A";
    let strict = (none.clone(), QueryCredentials::Deny, Redact::Mask);
    assert_eq!(of(only(injects)), strict);
    assert_eq!(
        of(only(
            "host: a.test\ncookies: []\nquery_credentials: deny\nredact: true"
        )),
        strict
    );
    let rule = only(&format!("{injects}\nredact: false"));
    assert_eq!(of(rule), (none, QueryCredentials::Deny, Redact::Pass));
}

#[test]
fn each_scheme_of_a_credential_is_read() {
    for (name, scheme) in [
        ("Bearer", AuthScheme::Bearer),
        ("token", AuthScheme::Token),
        ("raw", AuthScheme::Raw),
    ] {
        let rule = only(&format!("host: a.test\nauth_scheme: {name}\ntoken_env: A"));
        let injection = rule.injection.unwrap();
        assert_eq!(
            (injection.header, injection.scheme),
            (AUTHORIZATION, scheme)
        );
    }
}

#[test]
fn an_address_may_be_a_host_over_http_and_a_target_to_dial() {
    let rule = only("host: 10.0.0.1\nscheme: http\nssrf_ip_allowlist: [10.0.0.1]");
    assert_eq!(rule.host.to_string(), "10.0.0.1");
    let rule = only("host: a.test\nconnect_to: 10.0.0.1:8443");
    let address = "10.0.0.1:8443".parse().unwrap();
    assert_eq!(rule.connect_to, Some(ConnectTo::Address(address)));
    let rule = only("host: a.test\nconnect_to: B.test:8443");
    let name = Host::parse("b.test").unwrap();
    assert_eq!(rule.connect_to, Some(ConnectTo::Name(name, 8443)));
}

#[test]
fn a_passthrough_route_is_read() {
    let rule = only("host: a.test\ntls: passthrough\nwebsocket: true\nencoded_slash: false");
    assert_eq!(rule.tls, Tls::Passthrough);
}

#[test]
fn the_line_of_a_route_is_that_of_its_first_key() {
    let rules = rules(
        "# c\nroutes:\n  - host: a.test\n    port: 1\n\n  - {host: b.test}\n  -\n    host: c.test\r\n  - host: d.test\r\n",
    );
    let lines: Vec<u32> = rules.iter().map(|(_, line)| *line).collect();
    assert_eq!(lines, [3, 6, 8, 9]);
}

#[test]
fn json_is_yaml() {
    let json = r#"
{
    "routes": [
        {"host": "a.test", "port": 8443, "websocket": false, "query": {"a": "b"}},
        {"host": "b.test", "path_allowlist": ["\/v1", {"regex": "^/a\\.b$"}]}
    ]
}"#;
    let rules = rules(json);
    let [(first, 4), (second, 5)] = rules.as_slice() else {
        panic!("{rules:?}");
    };
    assert_eq!((first.port, first.websocket), (8443, false));
    assert_eq!(
        second.paths,
        Some(vec![
            PathPattern::prefix("/v1").unwrap(),
            PathPattern::regex(r"^/a\.b$").unwrap()
        ])
    );
}

/// The line of the route that admits a request.
fn winner(text: &str, method: Method, url: &str) -> Option<u32> {
    let routes = Routes::new(rules(text), None).unwrap();
    let (host, path) = url.split_once('/').unwrap();
    let origin = Origin::parse(Scheme::Https, host).unwrap();
    let target = Target::new(origin, method, &format!("/{path}"), Kind::Exchange).unwrap();
    routes.decide(target).ok().map(|permit| permit.route().line)
}

#[test]
fn an_exact_host_then_the_longer_path_then_more_conditions_win() {
    let text = "routes:
  - host: '*.b.test'
    path_allowlist: [/a/b/c/d]
  - host: a.b.test
  - host: a.b.test
    path_allowlist: [/a]
  - host: a.b.test
    path_allowlist: [{regex: '/a/b.*'}]
  - host: a.b.test
    path_allowlist: [/a]
    methods: [GET]
  - host: a.b.test
    path_allowlist: [/a]
    methods: [GET]
    query: {q: '1'}
";
    for (method, url, line) in [
        (Method::GET, "a.b.test/x", 4),
        (Method::GET, "a.b.test/a/b/c/d", 7),
        (Method::GET, "x.b.test/a/b/c/d", 2),
        (Method::GET, "a.b.test/a", 9),
        (Method::POST, "a.b.test/a", 5),
        (Method::GET, "a.b.test/a?q=1", 12),
        (Method::GET, "a.b.test/a?q=2", 9),
    ] {
        assert_eq!(
            winner(text, method.clone(), url),
            Some(line),
            "{method} {url}"
        );
    }
    assert_eq!(winner(text, Method::GET, "x.b.test/"), None);
}

#[test]
fn routes_of_equal_rank_tie_only_where_they_overlap() {
    let pair = |first: &str, second: &str| {
        format!("routes:\n  - host: a.test\n    {first}\n  - host: a.test\n    {second}\n")
    };
    for (first, second) in [
        ("path_allowlist: [/a]", "path_allowlist: [/b, /a]"),
        ("methods: [GET, POST]", "methods: [POST, PUT]"),
        ("query: {a: '1'}", "query: {b: '1'}"),
        ("port: 443", "description: x"),
        (
            "path_allowlist: [/a/]",
            "path_allowlist: [{regex: '/a/.+'}]",
        ),
    ] {
        let found = faults(&pair(first, second));
        assert_eq!(found.len(), 1, "{first} {second} {found:?}");
        assert!(found[0].problem.contains("equal rank"), "{found:?}");
    }
    for (first, second) in [
        ("path_allowlist: [/a]", "path_allowlist: [/b]"),
        ("methods: [GET]", "methods: [POST]"),
        ("query: {a: '1'}", "query: {a: '2'}"),
        ("port: 443", "port: 444"),
        ("scheme: http\n    port: 443", "scheme: https"),
        ("path_allowlist: [/a]", "path_allowlist: [/a/b]"),
        ("methods: [GET]", "description: x"),
    ] {
        assert!(faults(&pair(first, second)).is_empty(), "{first} {second}");
    }
}

#[test]
fn one_host_and_port_has_one_mode_of_tls() {
    let text =
        "routes:\n  - host: a.test\n    methods: [GET]\n  - host: a.test\n    tls: passthrough\n";
    let found = faults(text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].problem.contains("differ in `tls`"), "{found:?}");
    assert_eq!((found[0].line(), found[0].related[0].line), (Some(5), 2));
    let other_port = text.replace("methods: [GET]", "port: 8443");
    assert!(faults(&other_port).is_empty());
    // Of equal rank besides: the same mistake, told once.
    let tied = text.replace("methods: [GET]", "port: 443");
    assert_eq!(faults(&tied).len(), 1);
}

#[test]
fn the_example_is_right() {
    let text = include_str!("../../../../routes.example.yaml");
    let rules = parse("routes.example.yaml", text, Path::new(".")).unwrap();
    assert_eq!(rules.len(), 8);
    let routes = Routes::new(rules, None).unwrap();
    for (method, url, admitted) in [
        ("GET", "chatgpt.com/backend-api/codex/responses", true),
        ("POST", "chatgpt.com/backend-api/codex/responses", true),
        ("GET", "chatgpt.com/backend-api/wham/accounts/check", true),
        ("GET", "chatgpt.com/backend-api/conversations", false),
        (
            "GET",
            "github.com/example-org/r.git/info/refs?service=git-upload-pack",
            true,
        ),
        ("POST", "github.com/example-org/r.git/git-upload-pack", true),
        (
            "GET",
            "github.com/example-org/r.git/info/refs?service=git-receive-pack",
            false,
        ),
        ("GET", "github.com/example-org/r.git/info/refs", false),
        (
            "POST",
            "github.com/example-org/r.git/git-receive-pack",
            false,
        ),
        (
            "GET",
            "github.com/other/r.git/info/refs?service=git-upload-pack",
            false,
        ),
        ("GET", "registry.npmjs.org/@scope%2fname", true),
        ("PUT", "registry.npmjs.org/name", false),
        ("GET", "pypi.org/simple/x/", true),
    ] {
        let (host, path) = url.split_once('/').unwrap();
        let origin = Origin::parse(Scheme::Https, host).unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let path = format!("/{path}");
        let target = Target::new(origin, method, &path, Kind::Exchange).unwrap();
        assert_eq!(routes.decide(target).is_ok(), admitted, "{url}");
    }
}

#[test]
fn certificates_are_read_beside_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routes.yaml");
    let text = "routes:\n  - host: a.test\n    upstream_ca: ca.pem\n";
    std::fs::write(&path, text).unwrap();
    let ca = directory.path().join("ca.pem");
    let problem = || {
        load(&path)
            .unwrap_err()
            .iter()
            .next()
            .unwrap()
            .problem
            .clone()
    };
    let pem = |base64: &str| {
        let text = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
        std::fs::write(&ca, text).unwrap();
    };
    assert_eq!(
        problem(),
        "`ca.pem` cannot be read: no such file or directory"
    );
    std::fs::write(&ca, "nothing").unwrap();
    assert_eq!(problem(), "`ca.pem` holds no certificate");
    pem("AAAA");
    assert_eq!(
        problem(),
        "`ca.pem` holds a certificate that cannot be parsed (number 1)"
    );
    pem("!");
    assert!(problem().starts_with("`ca.pem` is not valid PEM"));
    std::fs::remove_file(&ca).unwrap();
    std::fs::create_dir(&ca).unwrap();
    assert_eq!(problem(), "`ca.pem` cannot be read: is a directory");
    std::fs::remove_dir(&ca).unwrap();
    let certified = rcgen::generate_simple_self_signed(["a.test".into()]).unwrap();
    std::fs::write(&ca, certified.cert.pem().repeat(2)).unwrap();
    let file = load(&path).unwrap();
    let certificate = certified.cert.der().clone();
    assert_eq!(
        file.rules[0].0.upstream_ca,
        [certificate.clone(), certificate]
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routes.yaml");
    let problem = || {
        load(&path)
            .unwrap_err()
            .iter()
            .next()
            .unwrap()
            .problem
            .clone()
    };
    assert_eq!(problem(), "the routes file does not exist");
    std::fs::write(&path, b"routes: []\n# \xff").unwrap();
    assert_eq!(problem(), "the routes file is not UTF-8, in line 2");
    std::fs::write(&path, vec![b'#'; 16 * 1024 * 1024 + 1]).unwrap();
    assert_eq!(problem(), "the routes file is larger than 16777216 bytes");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(problem(), "the routes file cannot be read: is a directory");
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "\u{feff}routes: []\r\n").unwrap();
    assert!(load(&path).unwrap().rules.is_empty());
}

#[test]
fn a_hundred_thousand_routes_are_read() {
    let mut text = String::from("routes:\n");
    for n in 0..100_000 {
        let _ = writeln!(
            text,
            "  - host: h{n}.test\n    path_allowlist: [/v1/]\n    methods: [GET]"
        );
    }
    let started = std::time::Instant::now();
    assert_eq!(rules(&text).len(), 100_000);
    // Far more than it takes: this is about growth, which must not be quadratic.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn thousands_of_equal_routes_are_told_and_do_not_hang() {
    let found = faults(&format!("routes:\n{}", "  - host: a.test\n".repeat(3_000)));
    // Each but the first has at least one.
    let lines: std::collections::BTreeSet<_> = found.iter().map(|fault| fault.line()).collect();
    assert_eq!(lines.len(), 2_999);
    assert!(found.len() < 30_000, "{}", found.len());
}
