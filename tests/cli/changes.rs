//! `egress diff` and `egress replay`: what a change of routes does.

use serde_json::Value;

use super::{Bottle, Said};

const OLD: &str = "\
routes:
  - {host: api.test, path_allowlist: [/v1/], methods: [GET], auth_scheme: Bearer, token_env: ONE}
  - {host: git.test, path_allowlist: [/r/], query: {service: fetch}, auth_scheme: Bearer, token_env: TWO}
  - {host: gone.test}
";

const NEW: &str = "\
routes:
  # Another order, another line, and one more method.
  - {host: git.test, path_allowlist: [/r/], query: {service: fetch}, auth_scheme: Bearer, token_env: TWO}
  - {host: api.test, path_allowlist: [/v1/], methods: [POST, GET], auth_scheme: Bearer, token_env: ONE}
  - {host: new.test}
";

fn bottle() -> Bottle {
    let bottle = Bottle::new(OLD);
    std::fs::write(bottle.path("new.yaml"), NEW).expect("a routes file");
    bottle
}

fn replayed(bottle: &Bottle, audit: &str, more: &[&str]) -> Said {
    std::fs::write(bottle.path("audit.jsonl"), audit).expect("a file of records");
    let arguments = [&["replay", "--audit", "audit.jsonl"], more].concat();
    bottle.egress(&arguments)
}

/// A record of a request to `host:443`.
fn record(method: &str, host: &str, path: &str, rest: &str) -> String {
    format!(
        r#"{{"time":"2026-11-29T10:00:00Z","method":"{method}","host":"{host}:443","scheme":"https","path":"{path}",{rest}}}"#
    ) + "\n"
}

fn denied(code: &str) -> String {
    format!(r#""verdict":"denied","code":"{code}""#)
}

fn allowed(slot: &str) -> String {
    format!(r#""verdict":"allowed","code":"ok","route":2,"slot":{slot}"#)
}

#[test]
fn a_file_with_faults_has_no_difference_to_tell() {
    let bottle = bottle();
    std::fs::write(bottle.path("bad.yaml"), "routes: [{hst: a}]\n").expect("a file");
    for arguments in [
        &["diff", "routes.yaml", "bad.yaml"][..],
        &["diff", "none.yaml", "routes.yaml"],
        &["diff", "-", "-"],
        &["replay", "--audit", "none.jsonl", "--routes", "routes.yaml"],
        &["replay", "--audit", "-", "--routes", "-"],
    ] {
        bottle.egress(arguments).refused(2, "");
    }
}

#[test]
fn a_difference_is_told_with_the_credentials_first() {
    let bottle = bottle();
    let said = bottle.egress(&["diff", "routes.yaml", "new.yaml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(
        said.stdout,
        "NEWLY REACHED WITH A CREDENTIAL:
  POST https://api.test: below /v1/
    was denied
    now allowed with authorization: Bearer <ONE>

opened:
  any method https://new.test: every path
    was denied
    now allowed, nothing injected

closed:
  any method https://gone.test: every path
    was allowed, nothing injected
    now denied
"
    );
    let json = bottle.egress(&["diff", "routes.yaml", "new.yaml", "--format", "json"]);
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["changes"][0]["change"], "credential");
    assert_eq!(json["changes"][0]["methods"], serde_json::json!(["POST"]));
    let same = bottle
        .egress(&["diff", "routes.yaml", "routes.yaml"])
        .data();
    assert_eq!(same, "no difference in effect\n");
}

#[test]
fn recorded_requests_that_change_are_told_with_the_credentials_first() {
    let audit = [
        record("GET", "api.test", "/v1/x", &allowed("\"ONE\"")),
        record("POST", "api.test", "/v1/x", &denied("method_not_allowed")),
        record("GET", "gone.test", "/", &allowed("null")),
        record(
            "CONNECT",
            "gone.test",
            "",
            r#""verdict":"allowed","code":"tunnel""#,
        ),
        record("GET", "new.test", "/", &denied("host_not_allowed")),
        record("GET", "api.test", "//", &denied("bad_target")),
    ]
    .concat();
    let bottle = bottle();
    let said = replayed(&bottle, &audit, &["--routes", "new.yaml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let seen = "(once, at 2026-11-29T10:00:00Z)";
    let expected = format!(
        "NEWLY REACHED WITH A CREDENTIAL:
  POST https://api.test:443/v1/x {seen}
    was denied, method_not_allowed
    now allowed with ONE

opened:
  GET https://new.test:443/ {seen}
    was denied, host_not_allowed
    now allowed, nothing injected

closed:
  GET https://gone.test:443/ {seen}
    was allowed, nothing injected
    now denied, host_not_allowed
  CONNECT https://gone.test:443 {seen}
    was allowed, nothing injected
    now denied, host_not_allowed

4 changed, 1 as they were, 1 not for routes to decide
"
    );
    assert_eq!(said.stdout, expected);
    let json = replayed(
        &bottle,
        &audit,
        &["--routes", "new.yaml", "--format", "json"],
    );
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(
        (&json["changes"][0]["change"], &json["unchanged"]),
        (&"credential".into(), &1.into())
    );
}

#[test]
fn a_query_that_was_not_recorded_is_neither_guessed_nor_passed_over() {
    let bottle = bottle();
    let same = [
        record("GET", "git.test", "/r/a", &allowed("\"TWO\"")),
        record("GET", "git.test", "/r/a", &denied("query_not_allowed")),
    ]
    .concat();
    let said = replayed(&bottle, &same, &["--routes", "routes.yaml"]).data();
    assert_eq!(
        said,
        "0 changed, 2 as they were, 0 not for routes to decide\n"
    );
    let may = record("GET", "git.test", "/r/a", &denied("host_not_allowed"));
    let said = replayed(&bottle, &may, &["--routes", "routes.yaml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let told = "now denied, query_not_allowed, or with another query allowed with TWO\n";
    assert!(
        said.stdout.starts_with("cannot be told:\n") && said.stdout.contains(told),
        "{said:?}"
    );
    // Without the condition it goes out with the credential, whatever its query was.
    let wider = OLD.replace("query: {service: fetch}, ", "");
    std::fs::write(bottle.path("wider.yaml"), wider).expect("a routes file");
    let said = replayed(&bottle, &same, &["--routes", "wider.yaml"]);
    assert!(said.stdout.starts_with("NEWLY REACHED"), "{said:?}");
}
