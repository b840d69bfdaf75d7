//! The commands that read the host's secrets, or files into which somebody may have pasted one.

use serde_json::{Value, json};
use tokio::process::Command;

use super::{Hay, assert_free, canary, jwt};
use crate::harness::command;
use crate::harness::sidecar::EGRESS;

/// The canaries of a login.
const LOGIN: [&str; 6] = [
    "access claim",
    "access signature",
    "id claim",
    "id signature",
    "refresh",
    "key",
];

#[tokio::test]
async fn row_42_no_command_shows_the_hosts_login() {
    let home = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(home.path().join(".codex")).expect("a directory");
    let mut hay = Hay::default();
    let access = jwt("access claim", "access signature", 3600);
    let whole = login(&access);
    let mut logins = vec![
        whole.to_string(),
        login(&jwt("access claim", "access signature", 0)).to_string(),
        // As an editor that was interrupted leaves it.
        whole.to_string()[..whole.to_string().len() - 40].to_owned(),
        format!("{access}\n"),
        json!([whole]).to_string(),
        json!({"OPENAI_API_KEY": canary("key"), "auth_mode": "apikey"}).to_string(),
    ];
    for (key, value) in [
        ("access_token", json!({"value": access})),
        ("access_token", json!(canary("key"))),
        ("access_token", json!(format!("{access}.{}", canary("key")))),
        ("id_token", json!([canary("key")])),
        ("account_id", json!({"x": canary("key")})),
    ] {
        let mut login = whole.clone();
        login["tokens"][key] = value;
        logins.push(login.to_string());
    }
    for (number, login) in logins.iter().enumerate() {
        std::fs::write(home.path().join(".codex/auth.json"), login).expect("a file");
        for arguments in [
            &["codex", "status"][..],
            &["codex", "status", "--json"],
            &["codex", "dummy-auth", "-o", "-"],
            &["codex", "dummy-auth", "-o", "dummy.json"],
        ] {
            let mut command = Command::new(EGRESS);
            command
                .args(arguments)
                .env_clear()
                .env("HOME", home.path())
                .current_dir(home.path());
            let done = command::finish(&mut command).await;
            if number == 0 {
                assert_eq!(done.code, Some(0), "{done:?}");
            }
            hay.told(&format!("egress {arguments:?} with login {number}"), &done);
        }
        let dummy = home.path().join("dummy.json");
        if dummy.exists() {
            hay.add("the dummy login", std::fs::read(&dummy).expect("a file"));
            std::fs::remove_file(&dummy).expect("it is ours");
        }
    }
    assert_free(&hay, &LOGIN);
}

fn login(access_token: &str) -> Value {
    json!({
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": null,
        "tokens": {
            "id_token": jwt("id claim", "id signature", 3600),
            "access_token": access_token,
            "refresh_token": canary("refresh"),
            "account_id": "0b7c2a52-6f7e-4a3c-9d0e-1f6f1a3f7c11",
        },
        "last_refresh": "2026-11-01T00:00:00Z",
    })
}

/// Manifests with a token where none belongs.
const PASTED: [&str; 5] = [
    "bottles: {b: {egress: {routes: [{host: a.test, auth: {scheme: Bearer, token_ref: ghp_PASTED}}]}}}\n",
    "bottles: {b: {egress: {routes: [{host: a.test, auth: {scheme: Bearer PASTED, token_ref: A}}]}}}\n",
    "bottles: {b: {egress: {routes: [{host: a.test, auth: {scheme: Bearer, token: PASTED}}]}}}\n",
    "bottles: {b: {egress: {routes: [{host: a.test, auth: PASTED}]}}}\n",
    "bottles: {b: {agent_provider: {forward_host_credentials: PASTED}}}\n",
];

#[tokio::test]
async fn row_42_no_command_repeats_a_token_that_was_pasted_into_a_manifest() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut hay = Hay::default();
    for text in PASTED {
        let text = text.replace("PASTED", &canary("pasted"));
        std::fs::write(dir.path().join("bottle.yaml"), &text).expect("a file");
        for arguments in [
            &["check", "bottle.yaml"][..],
            &["check", "--format=json", "bottle.yaml"],
            &["render-routes", "-m", "bottle.yaml", "-o", "-"],
            &["run", "-m", "bottle.yaml", "--", "true"],
        ] {
            let mut command = Command::new(EGRESS);
            command
                .args(arguments)
                .env_clear()
                .env("HOME", dir.path())
                .current_dir(dir.path());
            let done = command::finish(&mut command).await;
            assert_ne!(done.code, Some(0), "{text}: {done:?}");
            hay.told(&format!("egress {arguments:?} with {text:?}"), &done);
        }
    }
    assert_free(&hay, &["pasted"]);
}
