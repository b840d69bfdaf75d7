//! Each way in which a manifest can be wrong, what is read over, and how a bottle is found.

use std::path::Path;

use super::super::manifest::{Manifest, Template, parse};
use super::super::{Fault, Faults};

pub(super) fn read(text: &str) -> Result<Manifest, Faults> {
    parse("bottle.yaml", text, Path::new("/nonexistent"))
}

#[track_caller]
pub(super) fn good(text: &str) -> Manifest {
    match read(text) {
        Ok(manifest) => manifest,
        Err(faults) => panic!("{text}\n{faults}"),
    }
}

fn faults(text: &str) -> Vec<Fault> {
    match read(text) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().cloned().collect(),
    }
}

/// A text (or a part of it), and its one fault: line, column, key, a part of the problem, a part of the hint.
type Case = (
    &'static str,
    u32,
    u32,
    &'static str,
    &'static str,
    &'static str,
);

/// Whole files.
#[rustfmt::skip] // One case a line.
const FILES: &[Case] = &[
    ("{}", 1, 1, "bottles", "has no `bottles`", "bottles: {dev"),
    ("- dev", 1, 1, "bottles", "must be a map", "bottles: {dev"),
    ("bottles:", 1, 1, "bottles", "no value", "{name"),
    ("bottles: []", 1, 10, "bottles", "must be a map, and is a list", "{name"),
    ("bottles: {dev: }", 1, 11, "bottle", "no value", "`{}`"),
    ("bottles: {dev: none}", 1, 16, "bottle", "must be a map, and is a text", "`{}`"),
    ("bottles: {dev: {}, dev: {}}", 1, 20, "dev", "given twice", "remove one"),
    ("bottles: {'': {}}", 1, 11, "bottles", "cannot be a name", ""),
    ("bottles: {\"a\\nb\": {}}", 1, 11, "bottles", "cannot be a name", ""),
    ("bottels: {dev: {}}", 1, 1, "bottels", "unknown key", "did you mean `bottles`"),
    ("bottles: {dev: {}}\nroutes: []", 2, 1, "routes", "unknown key", "stand in a bottle"),
    ("bottles: {dev: {}}\negress: {}", 2, 1, "egress", "unknown key", "stands in a bottle"),
    ("bottles: {dev: {egres: {}}}", 1, 17, "egres", "unknown key", "did you mean `egress`"),
    ("bottles: {dev: {agent-provider: {}}}", 1, 17, "agent-provider", "unknown key", "did you mean `agent_provider`"),
    ("bottles: {dev: {routes: []}}", 1, 17, "routes", "unknown key", "under `egress`"),
    ("bottles: {dev: {template: codex}}", 1, 17, "template", "unknown key", "under `agent_provider`"),
    ("bottles: {dev: {egress: }}", 1, 17, "egress", "no value", "`{}`"),
    ("bottles: {dev: {egress: {rules: []}}}", 1, 26, "rules", "unknown key", "did you mean `routes`? `egress` has the keys routes"),
    ("bottles: {dev: {egress: {routes: }}}", 1, 26, "routes", "no value", "routes: []"),
    ("bottles: {dev: {egress: {routes: {}}}}", 1, 34, "routes", "must be a list", "- host:"),
    ("bottles: {dev: {}}\nagents: {demo: {}}", 2, 10, "bottle", "has no `bottle`", "dev"),
    ("bottles: {dev: {}}\nagents: {demo: {bottle: dve}}", 2, 25, "bottle", "no bottle `dve`", "did you mean `dev`"),
    ("bottles: {dev: {}}\nagents: {demo: {bottel: dev}}", 2, 17, "bottel", "unknown key", "did you mean `bottle`"),
    ("bottles: {dev: {}}\nagents: {a: {bottle: dev}, a: {bottle: dev}}", 2, 28, "a", "given twice", ""),
    ("bottles: {dev: &x {}}", 1, 16, "-", "anchors", ""),
];

/// What stands in `agent_provider: {...}`, from column 36.
#[rustfmt::skip] // One case a line.
const PROVIDERS: &[Case] = &[
    ("templat: codex", 1, 36, "templat", "unknown key", "did you mean `template`? `agent_provider` has the keys template, dockerfile, forward_host_credentials"),
    ("image: x", 1, 36, "image", "unknown key", "has the keys template, dockerfile, forward_host_credentials"),
    ("template: codx", 1, 46, "template", "unknown `template` `codx`", "did you mean `codex`"),
    ("template: copilot", 1, 46, "template", "unknown `template`", "one of claude, codex, gemini, opencode, custom"),
    ("dockerfile: 1", 1, 48, "dockerfile", "must be text", ""),
    ("forward_host_credentials: yes", 1, 62, "forward_host_credentials", "must be true or false", "write true or false"),
    ("forward_host_credentials: 'true'", 1, 62, "forward_host_credentials", "must be true or false", ""),
    ("forward_host_credentials: 1", 1, 62, "forward_host_credentials", "must be true or false", ""),
    ("forward_host_credentials: ", 1, 36, "forward_host_credentials", "no value", ""),
    ("forward_host_credentials: true", 1, 62, "forward_host_credentials", "this is claude", "template: codex"),
    ("template: custom, forward_host_credentials: true", 1, 80, "forward_host_credentials", "this is custom", ""),
];

/// Routes, from column 35 on.
#[rustfmt::skip] // One case a line.
const ROUTES: &[Case] = &[
    ("{}", 1, 35, "host", "no `host`", ""),
    ("{host: ''}", 1, 42, "host", "empty", ""),
    ("{hots: a.test}", 1, 36, "hots", "unknown key", "did you mean `host`"),
    ("{host: a.test, zzzzzz: 1}", 1, 50, "zzzzzz", "unknown key", "host, path_allowlist, auth, methods"),
    ("{host: a.test, auth_scheme: Bearer}", 1, 50, "auth_scheme", "unknown key", "auth: {scheme: Bearer"),
    ("{host: a.test, token_env: X}", 1, 50, "token_env", "unknown key", "auth: {scheme: Bearer"),
    ("{host: a.test, token_ref: X}", 1, 50, "token_ref", "unknown key", "auth: {scheme: Bearer"),
    ("{host: a.test, redact: yes}", 1, 58, "redact", "must be true or false", ""),
    ("{host: a.test, cookies: [a b]}", 1, 60, "cookies", "not a cookie's name", "__cf_bm"),
    ("{host: a.test, query_credentials: true}", 1, 69, "query_credentials", "unknown `query_credentials` `true`", "one of deny, allow"),
    ("{host: a.test, websocket_extensions: none}", 1, 72, "websocket_extensions", "unknown", "pass, drop"),
    ("{host: a.test, auth: X}", 1, 56, "auth", "must be a map", "token_ref"),
    ("{host: a.test, auth: }", 1, 50, "auth", "no value", "token_ref"),
    ("{host: a.test, auth: {token_ref: X}}", 1, 50, "auth", "without `scheme`", "scheme: Bearer"),
    ("{host: a.test, auth: {scheme: Bearer}}", 1, 50, "auth", "without `token_ref`", "GH_PAT"),
    ("{host: a.test, auth: {scheme: bearer, token_ref: X}}", 1, 65, "scheme", "unknown `scheme`", "did you mean `Bearer`"),
    ("{host: a.test, auth: {scheme: Digest, token_ref: X}}", 1, 65, "scheme", "unknown `scheme`", "one of Bearer, Basic, token, raw"),
    ("{host: a.test, auth: {scheme: raw, token_ref: X, realm: x}}", 1, 84, "realm", "unknown key", "`auth` has the keys scheme, token_ref"),
    ("{host: a.test, auth: {scheme: raw, token: X}}", 1, 70, "token", "unknown key", "did you mean `token_ref`"),
    ("{host: a.test, auth: {scheme: Basic, token_ref: X}}", 1, 65, "scheme", "`scheme: Basic` without `auth_user`", "x-access-token"),
    ("{host: a.test, auth_user: u, auth: {scheme: raw, token_ref: X}}", 1, 50, "auth_user", "without `scheme: Basic`", ""),
    ("{host: a.test, auth_header: x-api-key}", 1, 50, "auth_header", "without a credential", "auth: {"),
    ("{host: a.test, scheme: http, auth: {scheme: raw, token_ref: X}}", 1, 64, "auth", "plain text", "insecure_inject"),
    ("{host: a.test, tls: passthrough, auth: {scheme: raw, token_ref: X}}", 1, 68, "auth", "no effect", ""),
    ("{host: a.test, auth: {scheme: raw, token_ref: ''}}", 1, 81, "token_ref", "neither a variable's name", "GH_PAT"),
    ("{host: a.test, auth: {scheme: raw, token_ref: sk-ant-1}}", 1, 81, "token_ref", "neither a variable's name", "never stands"),
    ("{host: a.test, auth: {scheme: raw, token_ref: ghp_0123456789abcdefghijABCDEFGHIJ}}", 1, 81, "token_ref", "looks like a token", "never stands"),
    ("{host: a.test, auth: {scheme: raw, token_ref: 'file:'}}", 1, 81, "token_ref", "without a path", ""),
    ("{host: a.test, auth: {scheme: raw, token_ref: 'cmd:'}}", 1, 81, "token_ref", "without a program", ""),
    ("{host: a.test, auth: {scheme: raw, token_ref: 'cmd: '' '''''}}", 1, 81, "token_ref", "not closed", "close the quote"),
    ("{host: a.test, auth: {scheme: raw, token_ref: 'cmd:a | b'}}", 1, 81, "token_ref", "a shell's operator", "sh -c"),
    ("{host: a.test, auth: {scheme: raw, token_ref: BOT_BOTTLE_CODEX_HOST_ACCESS_TOKEN}}", 1, 81, "token_ref", "not forwarded", "forward_host_credentials: true"),
    ("{host: a.test, role: ''}", 1, 56, "role", "a role is empty", ""),
    ("{host: a.test, role: {}}", 1, 56, "role", "must be a text", ""),
    ("{host: a.test, pipelock: {x: 1}}", 1, 61, "x", "unknown key", "`pipelock` has the keys"),
    ("{host: a.test, pipelock: {ssrf_ip_allowlist: [10.0.0.1/8]}}", 1, 81, "ssrf_ip_allowlist", "bits set", ""),
    ("{host: a.test, ssrf_ip_allowlist: [10.0.0.0/8], pipelock: {ssrf_ip_allowlist: [10.0.0.0/8]}}", 1, 94, "ssrf_ip_allowlist", "stands here and", "keep one"),
    ("{host: a.test}, {host: A.Test}", 1, 58, "host", "equal rank", "remove one of the two"),
    ("{host: a.test}, {host: a.test, path_allowlist: [/a], tls: passthrough, description: 1}", 1, 66, "path_allowlist", "no effect", ""),
    ("{preset: nmp}", 1, 44, "preset", "unknown `preset` `nmp`", "did you mean `npm`"),
    ("{preset: npm, host: a.test}", 1, 49, "host", "`host` beside `preset`", "egress presets npm"),
    ("{preset: npm, auth: {token_ref: X}}", 1, 49, "auth", "takes no credential", "remove `auth`"),
    ("{preset: codex, auth: {token_ref: X}}", 1, 51, "auth", "takes no credential", "forward_host_credentials: true"),
    ("{preset: gemini, auth: {scheme: Bearer, token_ref: X}}", 1, 67, "scheme", "has no form for `Bearer`", "one of raw"),
    ("{preset: claude, auth: {token_ref: X}}, {preset: opencode, auth: {token_ref: Y}}", 1, 84, "host", "equal rank", ""),
];

#[track_caller]
fn check(text: &str, case: &Case) {
    let (_, line, column, key, problem, hint) = *case;
    let found = faults(text);
    let [fault] = found.as_slice() else {
        panic!("{text}\n{found:#?}");
    };
    assert_eq!(
        (fault.line(), fault.column()),
        (Some(line), Some(column)),
        "{text}\n{fault:#?}"
    );
    assert_eq!(
        fault.key.as_deref().unwrap_or("-"),
        key,
        "{text}\n{fault:#?}"
    );
    assert!(fault.problem.contains(problem), "{text}\n{fault:#?}");
    let told = fault.hint.as_deref().unwrap_or_default();
    assert!(told.contains(hint), "{text}\n{fault:#?}");
}

#[test]
fn each_fault_of_a_file_is_told_in_its_place() {
    for case in FILES {
        check(case.0, case);
    }
}

#[test]
fn each_fault_of_a_provider_is_told_in_its_place() {
    for case in PROVIDERS {
        check(
            &format!("bottles: {{dev: {{  agent_provider: {{{}}}}}}}", case.0),
            case,
        );
    }
}

#[test]
fn each_fault_of_a_route_is_told_in_its_place() {
    for case in ROUTES {
        check(
            &format!("bottles: {{dev: {{egress: {{routes: [{}]}}}}}}", case.0),
            case,
        );
    }
}

#[test]
fn all_bottles_faults_are_told_at_once() {
    let found = faults(
        "bottles:
  one:
    agent_provider: {template: codx, colour: red}
    egress: {routes: [{hots: a.test}, {host: b.test, port: 0}]}
  two:
    agent_provider: {template: codex, forward_host_credentials: true}
    egress:
      routes:
        - {host: ChatGPT.com, auth: {scheme: Bearer, token_ref: OTHER}}
        - {host: API.openai.com, tls: passthrough}
        - {host: c.test}
        - {host: C.test}
agents: {demo: {bottle: three}}
",
    );
    let lines: Vec<_> = found.iter().filter_map(Fault::line).collect();
    assert_eq!(lines, [3, 3, 4, 4, 9, 10, 12, 13], "{found:#?}");
}

#[test]
fn what_may_be_a_token_is_never_shown() {
    let token = "sk-ant-api03-the-real-one";
    for text in [
        format!("bottles: {{d: {{egress: {{routes: [{{host: a.test, auth: {token}}}]}}}}}}"),
        format!("bottles: {{d: {{egress: {{routes: [{{host: a.test, token: {token}}}]}}}}}}"),
        format!(
            "bottles:\n  d:\n    egress:\n      routes:\n        - host: a.test\n          auth:\n            scheme: raw\n            token_ref: {token}\n"
        ),
    ] {
        let told = read(&text).expect_err("a fault").to_string();
        assert!(!told.contains("the-real-one"), "{told}");
    }
}

#[test]
fn other_parts_of_a_sandbox_are_read_over() {
    let manifest = good(
        "version: 3
bottles:
  dev:
    env: {A: 1}
    git: {user: x}
    supervise: true
    ingress: {}
    skills: [a, b]
    whatever: ~
agents:
  demo: {bottle: dev, skills: [x], prompt: |
    many
    lines
  }
"
        .replace("prompt: |\n    many\n    lines\n  }", "prompt: 'many'}")
        .as_str(),
    );
    assert_eq!(manifest.bottles().len(), 1);
}

#[test]
fn a_bottle_has_its_defaults() {
    let manifest = good("bottles: {dev: {agent_provider: {dockerfile: ''}}}");
    let bottle = manifest.bottle(None).unwrap();
    assert_eq!(bottle.provider.template, Template::Claude);
    assert!(!bottle.provider.forward_host_credentials);
    assert_eq!(bottle.provider.dockerfile, None);
    let manifest =
        good("bottles: {dev: {agent_provider: {dockerfile: my/Dockerfile, template: gemini}}}");
    let bottle = manifest.bottle(None).unwrap();
    assert_eq!(bottle.provider.template, Template::Gemini);
    assert_eq!(bottle.provider.dockerfile.as_deref(), Some("my/Dockerfile"));
}

const SEVERAL: &str = "
bottles: {dev: {}, ops: {}, '3': {}}
agents: {demo: {bottle: ops}, dev: {bottle: ops}, third: {bottle: 3}}
";

#[test]
fn a_bottle_that_is_not_there_is_told_with_the_names_there_are() {
    let manifest = good(SEVERAL);
    let told = |name| manifest.bottle(name).expect_err("a fault").to_string();
    assert!(
        told(None).contains("name one of them with --bottle: dev, ops, 3, demo, third"),
        "{}",
        told(None)
    );
    assert!(
        told(Some("dmeo")).contains("did you mean `demo`"),
        "{}",
        told(Some("dmeo"))
    );
    assert!(
        told(Some("production")).contains("there are dev, ops"),
        "{}",
        told(Some("production"))
    );
    let none = good("bottles: {}");
    assert!(none.bottle(None).is_err());
}

#[test]
fn a_bottle_is_found_by_its_name_and_then_by_an_agents() {
    let manifest = good(SEVERAL);
    let found = |name| manifest.bottle(Some(name)).unwrap().name.clone();
    assert_eq!(found("demo"), "ops");
    assert_eq!(found("dev"), "dev");
    assert_eq!(found("third"), "3");
}

#[test]
fn the_front_matter_of_a_markdown_file_is_a_manifest() {
    let read = |text: &str| parse("Bottle.MD", text, Path::new("/nonexistent"));
    for text in [
        "---\nbottles: {dev: {}}\n---\n# Title\n\n---\n\nbottles: [\n",
        "---\r\nbottles: {dev: {}}\r\n---\r\ntext",
        "--- \nbottles: {dev: {}}\n---",
    ] {
        assert_eq!(read(text).unwrap().bottles().len(), 1, "{text:?}");
    }
    let faults = read("---\nbottles:\n  dev: {egress: {x: 1}}\n---\n").unwrap_err();
    let fault = faults.iter().next().unwrap();
    assert_eq!((fault.line(), fault.column()), (Some(3), Some(18)));
    for (text, problem) in [
        ("bottles: {}\n", "has no front matter"),
        ("", "has no front matter"),
        ("# T\n---\nbottles: {}\n---\n", "has no front matter"),
        ("---\nbottles: {}\n", "does not end"),
        ("---\n---\n", "is empty"),
    ] {
        let told = read(text).expect_err(text).to_string();
        assert!(told.contains(problem), "{text:?}: {told}");
    }
}

#[test]
fn json_is_a_manifest() {
    let manifest = good(r#"{"bottles": {"dev": {"egress": {"routes": [{"host": "a.test"}]}}}}"#);
    assert_eq!(manifest.bottle(None).unwrap().routes.len(), 1);
}

#[test]
fn a_manifest_of_megabytes_is_refused() {
    let text = format!("bottles: {{dev: {{}}}}\n# {}", "x".repeat(1024 * 1024));
    let told = read(&text).expect_err("a fault").to_string();
    assert!(told.contains("larger than"), "{told}");
}
