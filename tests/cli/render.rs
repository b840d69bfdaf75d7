//! `egress render-routes`, and `egress check` on manifests.

use serde_json::{Value, json};

use super::{Bottle, mode_of};

/// A directory with a manifest in it, too.
fn with(manifest: &str) -> Bottle {
    let bottle = Bottle::new("routes: []\n");
    std::fs::write(bottle.path("bottle.yaml"), manifest).expect("a manifest");
    bottle
}

const RENDER: [&str; 3] = ["render-routes", "-m", "bottle.yaml"];

fn render<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&RENDER, more].concat()
}

const TWO: &str = "\
bottles:
  dev:
    agent_provider: {template: codex, forward_host_credentials: true}
    egress:
      routes:
        - {host: chatgpt.com, path_allowlist: [/backend-api/]}
        - {host: api.github.com, auth: {scheme: Bearer, token_ref: GH_PAT}}
  ops:
    egress: {routes: [{host: pypi.org}]}
agents:
  demo: {bottle: ops, skills: [], prompt: ''}
";

const DEV: &str = "\
# Rendered from the bottle `dev` of `bottle.yaml` by `egress render-routes`. Changes belong there.
routes:
  - host: chatgpt.com
    path_allowlist: [/backend-api/]
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
    cookies: ['__cf_bm', '_cfuvid', cf_clearance]
  - host: api.github.com
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_1
  - host: api.openai.com
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
    cookies: ['__cf_bm', '_cfuvid', cf_clearance]
";

#[test]
fn a_faulty_manifest_is_refused_with_all_its_faults_and_nothing_is_written() {
    let bottle = with(
        &TWO.replace(
            "path_allowlist: [/backend-api/]",
            "auth: {scheme: Bearer, token_ref: OTHER}",
        )
        .replace("pypi.org", "pypi.org:1"),
    );
    let said = bottle.egress(&render(&["-b", "dev", "-o", "out.yaml"]));
    said.refused(2, "chatgpt.com");
    said.refused(2, "remove the `auth` block of the route for chatgpt.com, or set `forward_host_credentials: false`");
    said.refused(2, "bottle.yaml:9:");
    assert!(!bottle.path("out.yaml").exists());
}

#[test]
fn a_bottle_has_to_be_named_where_there_are_several() {
    let bottle = with(TWO);
    bottle
        .egress(&render(&[]))
        .refused(2, "name one of them with --bottle: dev, ops, demo");
    bottle
        .egress(&render(&["-b", "dve"]))
        .refused(2, "did you mean `dev`?");
    let said = bottle.egress(&["render-routes", "-m", "missing.yaml"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert!(
        said.stderr.contains("the manifest does not exist"),
        "{said:#?}"
    );
}

#[test]
fn a_manifest_is_never_written_over() {
    let bottle = with(TWO);
    bottle
        .egress(&render(&["-b", "dev", "-o", "./bottle.yaml"]))
        .refused(2, "the manifest itself");
    assert_eq!(bottle.read("bottle.yaml"), TWO);
    bottle
        .egress(&render(&["-b", "dev", "-o", "-", "--slots"]))
        .refused(2, "cannot both go to stdout");
    bottle
        .egress(&render(&["-b", "dev", "-o", "missing/routes.yaml"]))
        .refused(3, "missing/routes.yaml");
}

#[test]
fn serve_and_explain_take_what_is_rendered_and_say_what_a_manifest_is() {
    let bottle = with(TWO);
    for command in [
        vec!["serve", "-r", "bottle.yaml"],
        vec!["explain", "-r", "bottle.yaml", "GET", "https://a.test/"],
    ] {
        bottle.egress(&command).refused(
            2,
            "this is a manifest; `egress render-routes` makes a routes file of it",
        );
    }
    bottle
        .egress(&render(&["-b", "dev", "-o", "routes.yaml"]))
        .data();
    let explained = bottle
        .egress(&[
            "explain",
            "-r",
            "routes.yaml",
            "GET",
            "https://chatgpt.com/backend-api/x",
        ])
        .data();
    assert!(explained.contains("Bearer <EGRESS_TOKEN_0>"), "{explained}");
    bottle.egress(&["check", "routes.yaml"]).data();
}

#[test]
fn the_routes_go_to_stdout_or_in_one_step_into_a_file() {
    let bottle = with(TWO);
    assert_eq!(bottle.egress(&render(&["-b", "dev"])).data(), DEV);
    assert_eq!(
        bottle.egress(&render(&["-b", "dev", "-o", "-"])).data(),
        DEV
    );
    let slots = bottle
        .egress(&render(&["-b", "dev", "-o", "out.yaml", "--slots"]))
        .data();
    assert_eq!(bottle.read("out.yaml"), DEV);
    assert_eq!(mode_of(&bottle.path("out.yaml")), 0o644);
    let expected =
        json!({"EGRESS_TOKEN_0": "BOT_BOTTLE_CODEX_HOST_ACCESS_TOKEN", "EGRESS_TOKEN_1": "GH_PAT"});
    assert_eq!(
        serde_json::from_str::<Value>(&slots).expect("JSON"),
        expected
    );
    assert_eq!(
        bottle.egress(&render(&["-b", "dev", "--slots"])).data(),
        slots
    );
    // Over an old file, and nothing is left beside it.
    bottle
        .egress(&render(&["-b", "demo", "-o", "out.yaml"]))
        .data();
    assert!(
        bottle
            .read("out.yaml")
            .ends_with("routes:\n  - host: pypi.org\n")
    );
    let names = std::fs::read_dir(bottle.path("."))
        .expect("a directory")
        .count();
    assert_eq!(names, 4);
}

#[test]
fn no_credential_is_read() {
    let bottle = with(
        "bottles: {dev: {egress: {routes: [{host: a.test, auth: {scheme: raw, token_ref: 'cmd:touch ran'}}, {host: b.test, auth: {scheme: raw, token_ref: GH_PAT}}]}}}",
    );
    for more in [&[][..], &["--slots"]] {
        let said = bottle.egress_with(&render(more), &[("GH_PAT", "the-real-one")]);
        assert!(!said.data().contains("the-real-one"));
    }
    assert!(!bottle.path("ran").exists());
}

#[test]
fn json_and_front_matter_are_manifests() {
    let bottle = with("");
    let json = json!({"bottles": {"dev": {"egress": {"routes": [{"preset": "npm"}]}}}}).to_string();
    let yaml =
        "---\nbottles:\n  dev: {egress: {routes: [{preset: npm}]}}\n---\n\n# A bottle\n\n---\n";
    for (name, text) in [("bottle.json", json.as_str()), ("bottle.md", yaml)] {
        std::fs::write(bottle.path(name), text).expect("a manifest");
        let routes = bottle.egress(&["render-routes", "-m", name]).data();
        assert!(routes.contains("host: registry.npmjs.org"), "{routes}");
        let checked = bottle.egress(&["check", name]).data();
        assert!(
            checked.starts_with(&format!("{name}: ok, a manifest with 1 bottle\n")),
            "{checked}"
        );
    }
}

#[test]
fn check_tells_all_faults_of_all_bottles() {
    let bottle = with(
        &TWO.replace("template: codex", "template: claude")
            .replace("pypi.org", "pypi.org:1"),
    );
    let said = bottle.egress(&["check", "bottle.yaml"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""));
    assert!(
        said.stderr.contains("this is claude") && said.stderr.contains("is not a host"),
        "{said:#?}"
    );
    assert!(
        said.stderr.ends_with("bottle.yaml: 2 errors\n"),
        "{said:#?}"
    );
    let said = bottle.egress(&["check", "--format", "json", "bottle.yaml"]);
    assert_eq!(said.code, Some(1));
    let report: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(report["faults"].as_array().expect("a list").len(), 2);
    with(TWO)
        .egress(&["check", "--slots", "bottle.yaml"])
        .refused(2, "leave --slots out");
}

#[test]
fn check_says_what_each_bottle_renders_to() {
    let bottle = with(TWO);
    assert_eq!(
        bottle.egress(&["check", "bottle.yaml"]).data(),
        "\
bottle.yaml: ok, a manifest with 2 bottles
dev (codex, lent the host's login)
  routes  3
  hosts   3
            api.github.com
            api.openai.com
            chatgpt.com
  slots   2
            EGRESS_TOKEN_0
            EGRESS_TOKEN_1
ops (claude)
  agents  demo
  routes  1
  hosts   1
            pypi.org
  slots   0
"
    );
    let report = bottle
        .egress(&["check", "--format", "json", "bottle.yaml"])
        .data();
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(
        (&report["kind"], &report["ok"]),
        (&json!("manifest"), &json!(true))
    );
    assert_eq!(report["bottles"][0]["slots"]["EGRESS_TOKEN_1"], "GH_PAT");
    assert_eq!(report["bottles"][1]["agents"], json!(["demo"]));
}

#[test]
fn the_manual_shows_what_the_commands_print() {
    let manual = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/manifests.md");
    let manual = std::fs::read_to_string(manual).expect("the manual");
    let block = |begin: &str| {
        let rest = manual.split(begin).nth(1).expect("a block");
        rest.split("```").next().expect("its end").to_owned()
    };
    let bottle = with(&block("```yaml\n"));
    let console = block("```console\n");
    let commands = console.split("$ egress ").skip(1);
    let mut seen = 0;
    for (command, printed) in commands.filter_map(|part| part.split_once('\n')) {
        let arguments: Vec<&str> = command.split(' ').collect();
        assert_eq!(bottle.egress(&arguments).data(), printed, "{command}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}
