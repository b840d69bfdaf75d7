//! `egress suggest`: the routes that would have spared recorded refusals.

use tokio::process::Command;

use super::Bottle;
use crate::harness::command;
use crate::harness::rig::Rig;
use crate::harness::sidecar::EGRESS;

const AUDIT: &str = r#"{"time":"2026-11-29T10:00:00Z","method":"GET","host":"a.test:443","scheme":"https","path":"/v1/x","verdict":"denied","code":"path_not_allowed","route":null,"slot":null,"status":403}
{"time":"2026-11-29T11:00:00Z","method":"GET","host":"a.test:443","scheme":"https","path":"/v1/x","verdict":"denied","code":"path_not_allowed"}
{"time":"2026-11-29T10:00:00Z","method":"GET","host":"p.test:80","scheme":"http","path":"/","verdict":"denied","code":"host_not_allowed"}

{"time":"2026-11-29T10:00:00Z","method":"GET","host":"a.test:443","scheme":"https","path":"/v1","verdict":"allowed","code":"ok","route":2,"slot":"ONE","status":200}
"#;

#[test]
fn a_source_has_to_be_named_and_to_hold_records() {
    let bottle = Bottle::new("routes: []\n");
    assert_eq!(bottle.egress(&["suggest"]).code, Some(2));
    let nobody = bottle.egress(&["suggest", "--admin", "unix:none.sock"]);
    nobody.refused(3, "none.sock");
    bottle
        .egress(&["suggest", "--audit", "none"])
        .refused(2, "cannot read none");
    for (line, problem) in [
        ("no", "not one JSON object"),
        ("{}", "no text `time`"),
        (r#"{"time":"today"}"#, "RFC 3339"),
    ] {
        std::fs::write(bottle.path("audit.jsonl"), format!("\n{line}\n")).expect("a file");
        let said = bottle.egress(&["suggest", "--audit", "audit.jsonl"]);
        said.refused(2, "audit.jsonl:2: this line is no record");
        assert!(said.stderr.contains(problem), "{said:?}");
    }
}

#[test]
fn nothing_to_suggest_is_told_by_the_exit_code() {
    let bottle = Bottle::new("routes:\n  - host: a.test\n  - {host: p.test, scheme: http}\n");
    std::fs::write(bottle.path("audit.jsonl"), AUDIT).expect("a file");
    let said = bottle.egress(&["suggest", "-r", "routes.yaml", "--audit", "audit.jsonl"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("3 of the requests"), "{said:?}");
}

#[test]
fn check_takes_what_is_suggested() {
    let bottle = Bottle::new("");
    std::fs::write(bottle.path("audit.jsonl"), AUDIT).expect("a file");
    let routes = bottle.egress(&["suggest", "--audit", "audit.jsonl"]).data();
    assert_eq!(
        routes,
        "# An agent asked for this, and no route admitted it. Keep what it should have.
routes:
  # asked for twice, last at 2026-11-29T11:00:00Z
  - host: a.test
    path_allowlist: [{regex: /v1/x}]
    methods: [GET]
    websocket: false
  # asked for once, at 2026-11-29T10:00:00Z
  - host: p.test
    path_allowlist: [{regex: /}]
    methods: [GET]
    scheme: http
    websocket: false
"
    );
    std::fs::write(bottle.path("routes.yaml"), &routes).expect("a file");
    bottle.egress(&["check", "routes.yaml"]).data();
    let again = bottle.egress(&["suggest", "-r", "routes.yaml", "--audit", "audit.jsonl"]);
    assert_eq!(again.code, Some(1), "{again:?}");
}

#[tokio::test]
async fn what_a_running_sidecar_refused_is_suggested() {
    let rig =
        Rig::new("- {host: api.test, path_allowlist: [/v1/], connect_to: 'UPSTREAM'}\n").await;
    rig.tunnelled(
        "api.test",
        "POST /v2?key=1 HTTP/1.1\r\nHost: api.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .await;
    rig.sidecar.logged_times("path_not_allowed", 1).await;
    let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
    let said = command::egress(["suggest", "--admin", &admin]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let route = "  - host: api.test\n    path_allowlist: [{regex: /v2}]\n    methods: [POST]\n";
    assert!(said.stdout.contains(route), "{said:?}");
    // A route without `connect_to` would look the name up, which nobody wants here.
    let routes = rig.sidecar.routes_file();
    let routes = routes.to_str().expect("a name");
    let said = command::egress(["suggest", "-r", routes, "--admin", &admin]).await;
    assert!(said.stdout.contains("could be extended"), "{said:?}");

    let mut suggest = Command::new(EGRESS);
    let said = command::finish(suggest.arg("suggest").env("EGRESS_ADMIN", &admin)).await;
    assert!(said.stdout.contains(route), "{said:?}");
}
