//! `egress test`: routes held to what is expected of them.

use super::{Bottle, Said};

const ROUTES: &str = "\
routes:
  - host: api.test
    path_allowlist: [/v1/]
    methods: [GET]
    auth_scheme: Bearer
    token_env: ONE
  - host: '*.files.test'
  - {host: passed.test, tls: passthrough}
";

const GOOD: &str = "\
cases:
  - {name: 'reads & <more>', url: 'https://api.test/v1/x?a=b', verdict: allow, route: api.test, slot: ONE}
  - {url: 'https://api.test/v1/x', verdict: allow, route: 2}
  - {url: 'wss://api.test/v1/x', verdict: allow}
  - {url: 'https://a.files.test/', kind: websocket, verdict: allow, route: '*.files.test', slot: none}
  - {url: 'https://passed.test/', verdict: allow, slot: none}
  - {method: POST, url: 'https://api.test/v1/x', verdict: deny, code: method_not_allowed}
  - {url: 'https://api.test/v1/../x', verdict: deny, code: path_ambiguous}
  - {url: 'https://files.test/', verdict: deny}
";

fn bottle(cases: &str) -> Bottle {
    let bottle = Bottle::new(ROUTES);
    std::fs::write(bottle.path("cases.yaml"), cases).expect("a file of cases");
    bottle
}

fn tested(bottle: &Bottle, more: &[&str]) -> Said {
    let arguments = [&["test", "-r", "routes.yaml", "cases.yaml"], more].concat();
    bottle.egress(&arguments)
}

#[test]
fn the_faults_of_the_cases_are_told_all_at_once_with_their_places() {
    let said = tested(
        &bottle(
            "\
cases:
  - {url: 'https://api.test/', verdict: alow}
  - {url: 'api.test/', verdict: deny}
  - {url: 'https://api.test/', verdict: deny, slot: ONE}
  - {url: 'https://api.test/', verdict: allow, code: path_not_allowed}
  - {url: 'https://api.test/', verdict: deny, code: path_not_alowed}
  - {verdict: deny}
  - {url: 'https://api.test/', route: 0}
  - {url: 'https://api.test/', verdict: allow, expects: 1}
  - {url: 'https://api.test/', method: POST, kind: websocket, verdict: deny}
",
        ),
        &[],
    );
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
    for part in [
        "cases.yaml:2:",
        "did you mean `allow`",
        "a URL begins with",
        "`slot` says nothing with `verdict: deny`",
        "`code` says nothing with `verdict: allow`",
        "did you mean `path_not_allowed`",
        "the case has no `url`",
        "the case has no `verdict`",
        "`0` is not a line",
        "unknown key `expects`",
        "a WebSocket handshake is a GET",
    ] {
        assert!(said.stderr.contains(part), "no {part} in {}", said.stderr);
    }
    for nothing in ["cases: []\n", "", "routes: []\n"] {
        let said = tested(&bottle(nothing), &[]);
        assert_eq!(said.code, Some(2), "{nothing:?}: {said:?}");
    }
}

#[test]
fn a_case_that_is_not_so_fails_with_what_came_in_its_place() {
    let wrong = "\
cases:
  - {name: \"one\\ntwo # TODO\", url: 'https://api.test/v1/x', verdict: deny}
  - {url: 'https://api.test/v1/x', verdict: allow, slot: TWO}
  - {url: 'https://api.test/v1/x', verdict: allow, slot: none}
  - {url: 'https://api.test/v1/x', verdict: allow, route: 7}
  - {url: 'https://api.test/v1/x', verdict: allow, route: '*.files.test'}
  - {url: 'https://api.test/v2', verdict: allow}
  - {url: 'https://api.test/v2', verdict: deny, code: host_not_allowed}
";
    let bottle = bottle(wrong);
    let said = tested(&bottle, &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(said.stdout.matches("FAIL  ").count(), 7, "{}", said.stdout);
    for part in [
        "FAIL  GET https://api.test/v2 (cases.yaml:7)",
        "expected  allow, TWO injected\n",
        "got       allow, by the route for api.test in line 2, ONE injected\n",
        "got       deny, path_not_allowed: ",
        "0 passed, 7 failed\n",
    ] {
        assert!(said.stdout.contains(part), "no {part} in {}", said.stdout);
    }
    let tap = tested(&bottle, &["--format", "tap"]).stdout;
    assert!(
        tap.starts_with("TAP version 14\n1..7\nnot ok 1 - one\\ntwo \\# TODO\n  ---\n"),
        "{tap}"
    );
    let xml = tested(&bottle, &["--format", "junit"]).stdout;
    assert!(xml.contains("tests=\"7\" failures=\"7\""), "{xml}");
    assert_eq!(xml.matches("<failure message=").count(), 7, "{xml}");
}

#[test]
fn what_is_so_passes_in_each_format() {
    let bottle = bottle(GOOD);
    let text = tested(&bottle, &[]).data();
    assert!(
        text.starts_with("ok    reads & <more>\nok    GET https://api.test/v1/x\n"),
        "{text}"
    );
    assert!(text.ends_with("8 passed, 0 failed\n"), "{text}");
    let tap = tested(&bottle, &["--format", "tap"]).data();
    assert_eq!(
        tap.lines().filter(|line| line.starts_with("ok ")).count(),
        8,
        "{tap}"
    );
    let xml = tested(&bottle, &["--format", "junit"]).data();
    assert!(
        xml.contains("<testcase name=\"reads &amp; &lt;more&gt;\" classname=\"cases.yaml\""),
        "{xml}"
    );
}

#[test]
fn cases_from_recorded_requests_pass_by_the_routes_that_decided() {
    let audit = r#"{"time":"2026-11-29T10:00:00Z","method":"CONNECT","host":"api.test:443","scheme":"https","path":"","verdict":"allowed","code":"tunnel"}
{"time":"2026-11-29T10:00:00Z","method":"GET","host":"api.test:443","scheme":"https","path":"/v1/x","verdict":"denied","code":"host_not_allowed"}
{"time":"2026-11-29T10:00:01Z","method":"GET","host":"api.test:443","scheme":"https","path":"/v1/x","verdict":"allowed","code":"ok","route":2,"slot":"ONE"}
{"time":"2026-11-29T10:00:01Z","method":"PUT","host":"api.test:443","scheme":"https","path":"/v1/x","verdict":"denied","code":"method_not_allowed"}
{"time":"2026-11-29T10:00:01Z","method":"GET","host":"a.files.test:443","scheme":"https","path":"/","verdict":"failed","code":"upstream_tls","route":7}
{"time":"2026-11-29T10:00:01Z","method":"CONNECT","host":"evil.test:8443","scheme":"https","path":"","verdict":"denied","code":"host_not_allowed"}
{"time":"2026-11-29T10:00:01Z","method":"-","host":"","path":"","verdict":"denied","code":"bad_request_line"}
"#;
    let bottle = bottle("");
    std::fs::write(bottle.path("audit.jsonl"), audit).expect("a file of records");
    let cases = bottle
        .egress(&["test", "--from-audit", "audit.jsonl"])
        .data();
    assert!(cases.contains("2 of them left out"), "{cases}");
    assert!(
        cases.contains(
            "url: 'https://evil.test:8443/'\n    verdict: deny\n    code: host_not_allowed\n"
        ),
        "{cases}"
    );
    std::fs::write(bottle.path("cases.yaml"), &cases).expect("a file of cases");
    let text = tested(&bottle, &[]).data();
    assert!(text.ends_with("4 passed, 0 failed\n"), "{cases}{text}");
    std::fs::write(bottle.path("routes.yaml"), "routes: []\n").expect("routes");
    assert_eq!(tested(&bottle, &[]).code, Some(1));
}
