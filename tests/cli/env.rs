//! `egress env`.

use std::collections::BTreeMap;
use std::process::Command;

use super::{Bottle, mode_of};

const PROXY: &str = "http://127.0.0.1:8080";

#[test]
fn a_proxy_without_a_scheme_is_refused() {
    let bottle = Bottle::new("routes: []\n");
    bottle.egress(&["ca", "init"]).data();
    for proxy in [
        "127.0.0.1:8080",
        "https://127.0.0.1:8080",
        "socks5://127.0.0.1:8080",
        "http://egress",
    ] {
        bottle.egress(&["env", "--proxy", proxy]).refused(2, proxy);
    }
    assert!(!bottle.path("ca/ca-bundle.pem").exists());
}

#[test]
fn without_a_ca_or_a_bundle_there_is_nothing_to_trust() {
    let bottle = Bottle::new("routes: []\n");
    let said = bottle.egress(&["env", "--proxy", PROXY]);
    said.refused(2, "there is no CA in ca");
    let said = bottle.egress(&["env", "--proxy", PROXY, "--bundle", "bundle.pem"]);
    said.refused(2, "absolute");
}

#[test]
fn a_slots_value_is_never_read() {
    let bottle = Bottle::new(
        "routes:\n  - {host: api.openai.com, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}\n",
    );
    let arguments = [
        "env",
        "--proxy",
        PROXY,
        "--bundle",
        "/b.pem",
        "-r",
        "routes.yaml",
    ];
    let said = bottle.egress_with(&arguments, &[("EGRESS_TOKEN_0", "the-real-one")]);
    assert!(
        said.stdout.contains("OPENAI_API_KEY='sk-placeholder'"),
        "{said:#?}"
    );
    assert!(!said.stdout.contains("the-real-one"));
}

#[test]
fn each_provider_whose_key_is_injected_gets_a_placeholder() {
    let routes = "routes:
  - {host: api.anthropic.com, auth_scheme: raw, auth_header: x-api-key, token_env: EGRESS_TOKEN_0}
  - {host: generativelanguage.googleapis.com, auth_scheme: raw, auth_header: x-goog-api-key, token_env: EGRESS_TOKEN_1}
  - {host: '*.github.com', auth_scheme: Bearer, token_env: EGRESS_TOKEN_2}
  - {host: github.com, auth_scheme: Basic, auth_user: x-access-token, token_env: EGRESS_TOKEN_2}
  - {host: api.openai.com}\n";
    let set = placeholders(routes);
    assert_eq!(set, ["ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GH_TOKEN"]);
}

#[test]
fn a_login_is_told_from_a_key_and_codex_gets_none() {
    let routes = "routes:
  - {host: api.anthropic.com, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}
  - {host: chatgpt.com, auth_scheme: Bearer, token_env: EGRESS_TOKEN_1}
  - {host: api.openai.com, auth_scheme: Bearer, token_env: EGRESS_TOKEN_1}\n";
    assert_eq!(placeholders(routes), ["CLAUDE_CODE_OAUTH_TOKEN"]);
}

#[test]
fn a_shell_reads_what_json_says() {
    let bottle = Bottle::new("routes: []\n");
    let path = "/odd $HOME 'path' \"here\"/b.pem";
    let arguments = ["env", "--proxy", PROXY, "--bundle", path];
    let script = bottle.egress(&arguments).data();
    let shell = Command::new("/bin/sh")
        .args(["-c", &format!("{script}\nexec /usr/bin/env")])
        .env_clear()
        .output()
        .expect("/bin/sh runs");
    let shell = String::from_utf8(shell.stdout).expect("text");
    let expected = variables(&bottle, &arguments);
    assert_eq!(expected["SSL_CERT_FILE"], path);
    for (name, value) in &expected {
        assert!(
            shell.lines().any(|line| line == format!("{name}={value}")),
            "no {name} in\n{shell}"
        );
    }
    let docker = bottle
        .egress(&[&arguments[..], &["--format", "docker"]].concat())
        .data();
    let lines: BTreeMap<_, _> = docker
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    assert_eq!(lines.len(), expected.len());
    assert!(lines.iter().all(|(name, value)| expected[*name] == *value));
}

#[test]
fn the_bundle_is_written_beside_the_ca_and_follows_it() {
    let bottle = Bottle::new("routes: [{host: api.test}]\n");
    bottle.egress(&["ca", "init"]).data();
    let set = variables(&bottle, &["env", "--proxy", PROXY]);
    let path = bottle.path("ca/ca-bundle.pem");
    assert_eq!(mode_of(&path), 0o644);
    let path = path.to_str().expect("a UTF-8 path");
    let named = set.values().filter(|value| *value == path).count();
    assert_eq!(named, crate::harness::clients::CA_VARIABLES.len());
    for name in crate::harness::clients::CA_VARIABLES {
        assert_eq!(set[*name], path);
    }
    for name in [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        assert_eq!(set[name], PROXY);
    }
    bottle.egress(&["ca", "init", "--renew"]).data();
    bottle.egress(&["env", "--proxy", PROXY]).data();
    let certificate = bottle.read("ca/ca-cert.pem");
    assert!(bottle.read("ca/ca-bundle.pem").starts_with(&certificate));
}

/// The placeholders' names.
fn placeholders(routes: &str) -> Vec<String> {
    let bottle = Bottle::new(routes);
    let arguments = [
        "env",
        "--proxy",
        PROXY,
        "--bundle",
        "/b.pem",
        "-r",
        "routes.yaml",
    ];
    let set = variables(&bottle, &arguments);
    set.into_iter()
        .filter(|(_, value)| value.ends_with("placeholder"))
        .map(|(name, _)| name)
        .collect()
}

fn variables(bottle: &Bottle, arguments: &[&str]) -> BTreeMap<String, String> {
    let text = bottle
        .egress(&[arguments, &["--format", "json"]].concat())
        .data();
    serde_json::from_str(&text).expect("a JSON object of strings")
}
