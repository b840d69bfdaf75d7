//! What bottles render to: the worked examples, the slots, and that no text of a manifest can come to say something else.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::render::{Rendered, TokenRef};
use super::super::{Fault, manifest, presets};
use super::manifests::{good, read};
use super::{draft, rules};
use crate::route::passing::{Cookies, QueryCredentials, Redact};

fn render(text: &str) -> Rendered {
    good(text).bottle(None).unwrap().render().unwrap()
}

/// The text without its head.
fn body(rendered: &Rendered) -> &str {
    let (head, body) = rendered.routes.split_once('\n').unwrap();
    assert!(head.starts_with("# "), "{head}");
    body
}

fn codex(routes: &str) -> String {
    format!(
        "bottles:
  dev:
    agent_provider: {{template: codex, forward_host_credentials: true}}
    egress: {{routes: [{routes}]}}
"
    )
}

const CODEX_SLOT: &str = "BOT_BOTTLE_CODEX_HOST_ACCESS_TOKEN";

#[test]
fn a_route_with_another_credential_is_not_given_the_hosts_login() {
    let one = |text: &str| -> Fault {
        let faults = read(&codex(text)).expect_err(text);
        assert_eq!(faults.len(), 1, "{faults}");
        faults.iter().next().cloned().unwrap()
    };
    for host in ["chatgpt.com", "ChatGPT.COM", "api.openai.com"] {
        let fault = one(&format!(
            "{{host: {host}, auth: {{scheme: Bearer, token_ref: OTHER}}}}"
        ));
        let lower = host.to_ascii_lowercase();
        assert!(fault.problem.contains(&lower), "{fault:#?}");
        let hint = fault.hint.clone().unwrap();
        assert!(
            hint.contains("remove the `auth` block") && hint.contains(&lower),
            "{hint}"
        );
        assert!(hint.contains("forward_host_credentials: false"), "{hint}");
        assert_eq!(fault.line(), Some(4));
        assert_eq!(fault.related.first().unwrap().line, 3);
    }
    // One of several routes is enough.
    let fault = one(
        "{host: chatgpt.com, path_allowlist: [/a]}, {host: chatgpt.com, path_allowlist: [/b], auth: {scheme: raw, token_ref: OTHER}}",
    );
    assert!(fault.problem.contains("chatgpt.com"), "{fault:#?}");
    let fault = one("{host: chatgpt.com, tls: passthrough}");
    assert!(fault.hint.unwrap().contains("remove `tls: passthrough`"));
    let fault = one("{host: chatgpt.com, scheme: http}");
    assert!(fault.problem.contains("plain text"), "{fault:#?}");
}

#[test]
fn a_forwarded_login_without_routes_gives_both_hosts() {
    let rendered = render(
        "bottles: {dev: {agent_provider: {template: codex, forward_host_credentials: true}}}",
    );
    assert_eq!(
        body(&rendered),
        "routes:
  - host: api.openai.com
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
    cookies: ['__cf_bm', '_cfuvid', cf_clearance]
  - host: chatgpt.com
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
    cookies: ['__cf_bm', '_cfuvid', cf_clearance]
"
    );
    let [slot] = rendered.slots.as_slice() else {
        panic!("{rendered:#?}");
    };
    assert_eq!(slot.reference, TokenRef::CodexHost);
    assert_eq!(slot.reference.to_string(), CODEX_SLOT);
    assert_eq!(slot.hosts, ["api.openai.com", "chatgpt.com"]);
}

#[test]
fn a_bare_route_is_upgraded_where_it_stands_and_keeps_its_keys() {
    let rendered = render(&codex(
        "{host: ChatGPT.com, path_allowlist: [/backend-api/], methods: [GET], description: mine}",
    ));
    assert_eq!(
        body(&rendered),
        "routes:
  - host: chatgpt.com
    description: mine
    path_allowlist: [/backend-api/]
    methods: [GET]
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
    cookies: ['__cf_bm', '_cfuvid', cf_clearance]
  - host: api.openai.com
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
    cookies: ['__cf_bm', '_cfuvid', cf_clearance]
"
    );
    assert_eq!(rendered.slots.len(), 1);
}

#[test]
fn codexs_hosts_get_cloudflares_cookies_unless_the_route_names_its_own() {
    for (routes, expected) in [
        (
            "{host: chatgpt.com}",
            Some("['__cf_bm', '_cfuvid', cf_clearance]"),
        ),
        (
            "{preset: codex}",
            Some("['__cf_bm', '_cfuvid', cf_clearance]"),
        ),
        ("{host: chatgpt.com, cookies: [oai-did]}", Some("[oai-did]")),
        // No cookie is the default beside a credential, and so is not rendered.
        ("{host: chatgpt.com, cookies: []}", None),
    ] {
        let rendered = render(&codex(routes)).routes;
        let before = rendered.split("api.openai.com").next().unwrap();
        assert!(before.contains("host: chatgpt.com"), "{rendered}");
        let cookies = before
            .lines()
            .find_map(|line| line.trim().strip_prefix("cookies: "));
        assert_eq!(cookies, expected, "{rendered}");
    }
    // Another host of the login has them, too; another login's host has not.
    let eu = format!("{{host: eu.chatgpt.com, auth: {{scheme: Bearer, token_ref: {CODEX_SLOT}}}}}");
    let rendered = render(&codex(&eu)).routes;
    assert_eq!(rendered.matches("'__cf_bm'").count(), 3, "{rendered}");
    let other = "{host: api.github.com, auth: {scheme: Bearer, token_ref: GH_PAT}}";
    let rendered = render(&codex(other)).routes;
    assert_eq!(rendered.matches("'__cf_bm'").count(), 2, "{rendered}");
}

#[test]
fn a_route_that_comes_to_a_credential_late_has_the_defaults_of_one() {
    let rendered = render(&codex("{host: chatgpt.com, query_credentials: allow}"));
    let found = rules(&rendered.routes);
    let (rule, _) = found.first().unwrap();
    assert_eq!(rule.query_credentials, QueryCredentials::Allow);
    assert_eq!(rule.redact, Redact::Mask);
    // A preset's routes have them with a credential only.
    let bare = render("bottles: {dev: {egress: {routes: [{preset: claude}]}}}");
    assert!(
        rules(&bare.routes)
            .iter()
            .all(|(rule, _)| rule.cookies == Cookies::All)
    );
    let given = render(&item("claude", Some("raw")));
    let none = Cookies::Named(Vec::new());
    assert!(
        rules(&given.routes)
            .iter()
            .all(|(rule, _)| rule.cookies == none)
    );
}

#[test]
fn a_route_that_names_the_login_itself_is_accepted() {
    let rendered = render(&codex(&format!(
        "{{host: pypi.org}}, {{host: eu.chatgpt.com, auth: {{scheme: Bearer, token_ref: {CODEX_SLOT}}}}}, {{host: chatgpt.com, auth: {{scheme: Bearer, token_ref: {CODEX_SLOT}}}}}"
    )));
    let hosts: Vec<_> = rendered
        .routes
        .lines()
        .filter(|line| line.contains("host:"))
        .collect();
    assert_eq!(
        hosts,
        [
            "  - host: pypi.org",
            "  - host: eu.chatgpt.com",
            "  - host: chatgpt.com",
            "  - host: api.openai.com"
        ]
    );
    assert_eq!(rendered.slots.len(), 1);
}

#[test]
fn a_wildcard_does_not_stand_for_codex_hosts() {
    let rendered = render(&codex(
        "{host: '*.openai.com', auth: {scheme: Bearer, token_ref: OTHER}}",
    ));
    assert_eq!(rendered.slots.len(), 2);
    assert_eq!(
        rendered.slots.last().unwrap().hosts,
        ["api.openai.com", "chatgpt.com"]
    );
}

#[test]
fn without_forwarding_nothing_is_added() {
    let rendered = render(
        "bottles: {dev: {agent_provider: {template: codex}, egress: {routes: [{host: chatgpt.com}]}}}",
    );
    assert_eq!(body(&rendered), "routes:\n  - host: chatgpt.com\n");
    let rendered = render("bottles: {dev: {}}");
    assert_eq!(body(&rendered), "routes: []\n");
}

#[test]
fn each_reference_has_one_slot_in_the_order_of_first_use() {
    let text = "bottles: {dev: {egress: {routes: [
        {host: a.test, auth: {scheme: Bearer, token_ref: ONE}},
        {host: b.test},
        {host: c.test, auth: {scheme: raw, token_ref: 'file:tokens/two'}, auth_header: x-api-key},
        {host: '*.a.test', auth: {scheme: Basic, token_ref: ONE}, auth_user: x-access-token},
        {host: d.test, auth: {scheme: token, token_ref: 'file:/run/three'}, role: [r, s]},
        {host: e.test, auth: {scheme: token, token_ref: \"cmd:pass  show 'git hub'\"}, role: s},
        {host: f.test, auth: {scheme: token, token_ref: \"cmd:pass show git\\\\ hub\"}},
        {host: g.test, auth: {scheme: token, token_ref: 'file:~/four'}},
    ]}}}";
    let rendered = render(text);
    let slots: Vec<_> = rendered
        .slots
        .iter()
        .map(|slot| {
            (
                slot.name.to_string(),
                slot.reference.clone(),
                slot.hosts.join(" "),
            )
        })
        .collect();
    let command = ["pass", "show", "git hub"].map(str::to_owned).to_vec();
    let expected = [
        (TokenRef::Variable("ONE".into()), "a.test *.a.test"),
        (
            TokenRef::File(PathBuf::from("/nonexistent/tokens/two")),
            "c.test",
        ),
        (TokenRef::File(PathBuf::from("/run/three")), "d.test"),
        (TokenRef::Command(command), "e.test f.test"),
        (TokenRef::File(PathBuf::from("~/four")), "g.test"),
    ];
    let expected: Vec<_> = (0..)
        .zip(expected)
        .map(|(n, (reference, hosts))| (format!("EGRESS_TOKEN_{n}"), reference, hosts.to_owned()))
        .collect();
    assert_eq!(slots, expected);
    assert_eq!(rendered.roles, ["r", "s"]);
    assert_eq!(
        rendered,
        render(text),
        "the same bottle gives the same bytes"
    );
    for slot in &rendered.slots {
        let again = TokenRef::parse(&slot.reference.to_string(), |path| path.into()).unwrap();
        assert_eq!(again, slot.reference);
    }
}

#[test]
fn every_key_is_rendered() {
    let route = "host: '*.example.com'
path_allowlist: [/v1, {regex: '^/repos/[^/]+/it''s$'}]
auth_scheme: Basic
auth_user: 'a b'
auth_header: x-api-key
token_env: EGRESS_TOKEN_0
methods: [GET, PROPFIND]
query: {service: git-upload-pack, '1': 'true', 'a: b': '', '': x}
port: 8443
scheme: http
insecure_inject: true
websocket: false
websocket_extensions: drop
cookies: [__cf_bm, '1', a-b, '&a']
query_credentials: allow
redact: false
encoded_slash: true
ssrf_ip_allowlist: [10.0.0.0/8, 'fd00::/8']
connect_to: '[2001:db8::1]:443'
description: |
  several
  lines: [
"
    .replace(", '': x", "");
    let own = rules(&format!("routes:\n  - {}", route.replace('\n', "\n    ")));
    let there = route
        .replace(
            "auth_scheme: Basic\n",
            "auth: {scheme: Basic, token_ref: X}\n",
        )
        .replace(
            "token_env: EGRESS_TOKEN_0\n",
            "pipelock: {tls_passthrough: true}\n",
        );
    let rendered = render(&format!(
        "bottles:\n  dev:\n    egress:\n      routes:\n        - {}",
        there.replace('\n', "\n          ")
    ));
    let read = rules(&rendered.routes);
    assert_eq!(
        read.first().unwrap().0,
        own.first().unwrap().0,
        "{}",
        rendered.routes
    );
    let through = "{host: a.test, tls: passthrough, connect_to: 'b.test:1', pipelock: {ssrf_ip_allowlist: [10.0.0.1]}}";
    let rendered = render(&format!(
        "bottles: {{dev: {{egress: {{routes: [{through}]}}}}}}"
    ));
    assert_eq!(
        body(&rendered),
        "routes:
  - host: a.test
    tls: passthrough
    ssrf_ip_allowlist: ['10.0.0.1/32']
    connect_to: 'b.test:1'
"
    );
}

#[test]
fn certificates_are_found_from_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let pem = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let path = directory.path().join("it's ca.pem");
    std::fs::write(&path, pem.cert.pem()).unwrap();
    let text = "bottles: {dev: {egress: {routes: [{host: a.test, upstream_ca: 'it''s ca.pem'}]}}}";
    let manifest = manifest::parse("bottle.yaml", text, directory.path()).unwrap();
    let bottle = manifest.bottle(None).unwrap();
    let read = rules(&bottle.render().unwrap().routes);
    assert_eq!(
        read.first().unwrap().0.upstream_ca,
        [pem.cert.der().clone()]
    );
    // What is rendered is read back.
    std::fs::remove_file(&path).unwrap();
    let told = bottle.render().unwrap_err().to_string();
    assert!(told.contains("cannot be read"), "{told}");
}

#[test]
fn the_head_tells_nothing_about_the_machine() {
    let text = "bottles: {\"a` # x\": {}}";
    let path = Path::new("/home/someone/secret");
    let manifest = manifest::parse("/home/someone/secret/my\nroutes: x.yaml", text, path).unwrap();
    let routes = manifest.bottle(None).unwrap().render().unwrap().routes;
    assert!(!routes.contains("someone"), "{routes}");
    assert_eq!(routes.lines().count(), 2, "{routes}");
}

#[test]
fn every_preset_is_rendered_alone_and_beside_the_others() {
    let mut beside = Vec::new();
    for preset in presets::ALL {
        for form in preset.forms {
            assert!(!form.rules().is_empty(), "{}", preset.name);
            assert!(draft(form.routes).finish().is_ok(), "{}", preset.name);
            let slots = form
                .rules()
                .iter()
                .filter(|rule| rule.injection.is_some())
                .count();
            assert_eq!(slots > 0, form.scheme.is_some(), "{}", preset.name);
            let rendered = render(&item(preset.name, form.scheme));
            let read: Vec<_> = rules(&rendered.routes)
                .into_iter()
                .map(|(rule, _)| rule)
                .collect();
            assert_eq!(read, form.rules(), "{}", preset.name);
            let bare = rules(&render(&item(preset.name, None)).routes);
            assert!(
                bare.iter().all(|(rule, _)| rule.injection.is_none()),
                "{}",
                preset.name
            );
        }
        // These two are for the same host with the same key.
        if preset.name != "opencode" {
            beside.push(format!("{{preset: {}}}", preset.name));
        }
    }
    let all = render(&codex(&beside.join(", ")));
    let hosts = all.slots.first().map(|slot| slot.hosts.clone()).unwrap();
    assert_eq!(hosts, ["chatgpt.com", "api.openai.com"]);
    assert!(
        !all.routes.contains("api.openai.com\n    auth_scheme"),
        "{}",
        all.routes
    );
    // npm's route comes with opencode's, too.
    let twice = render(
        "bottles: {dev: {egress: {routes: [{preset: npm}, {preset: opencode}, {preset: npm}]}}}",
    );
    assert_eq!(twice.routes.matches("registry.npmjs.org").count(), 1);
}

fn item(name: &str, scheme: Option<&str>) -> String {
    let auth = match scheme {
        Some(scheme) => format!(", auth: {{scheme: {scheme}, token_ref: X}}"),
        None => String::new(),
    };
    format!("bottles: {{dev: {{egress: {{routes: [{{preset: {name}{auth}}}]}}}}}}")
}

#[test]
fn registries_are_only_read_from() {
    for name in ["npm", "pypi", "crates", "mise"] {
        for rule in presets::find(name).unwrap().form(None).unwrap().rules() {
            let methods = rule.methods.unwrap_or_default();
            let methods: Vec<_> = methods.iter().map(http::Method::as_str).collect();
            assert_eq!(methods, ["GET", "HEAD"], "{name}: {}", rule.host);
        }
    }
}

#[test]
fn a_long_key_is_announced() {
    let name = "\u{85}é".repeat(300);
    let manifest = json!({"bottles": {"d": {"egress": {"routes": [{"host": "a.test", "query": {name.clone(): "x", "b": "y"}}]}}}});
    // JSON has no announced keys; YAML reads them up to its own limit.
    let text =
        manifest
            .to_string()
            .replacen(&format!("\"{name}\":"), &format!("? \"{name}\" :"), 1);
    let rendered = render(&text);
    let query = &rules(&rendered.routes).first().unwrap().0.query.clone();
    assert!(query.contains(&(name, "x".to_owned())));
}
