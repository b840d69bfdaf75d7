//! Claude Code. Nothing of the host's `~/.claude` is copied: its files hold the login, the tokens of MCP servers, and the
//! history of every project.
//!
//! Tried with 2.1.197: with a placeholder for its token and these two entries, its screen starts at the prompt.

use serde_json::json;

use super::{Agent, HomeFile, Setting, words};
use crate::launch::variables::placeholders;

pub(super) fn agent(setting: &Setting<'_>) -> Agent {
    Agent {
        name: "claude".into(),
        command: words(["claude"]),
        test: Some(words(["claude", "--version"])),
        install: Some(words(["npm", "install", "-g", "@anthropic-ai/claude-code"])),
        files: vec![HomeFile {
            target: ".claude.json".into(),
            mode: 0o600,
            contents: settings(setting).into_bytes(),
        }],
        environment: environment(setting),
        notes: Vec::new(),
    }
}

fn settings(setting: &Setting<'_>) -> String {
    let workspace = setting.workspace.to_string_lossy();
    // It asks about a key that it finds in its environment, and remembers the answer by the key's last 20 characters.
    let asked = API_KEY.get(API_KEY.len() - 20..).unwrap_or(API_KEY);
    let settings = json!({
        "hasCompletedOnboarding": true,
        "customApiKeyResponses": {"approved": [asked], "rejected": []},
        "projects": {workspace: {"hasTrustDialogAccepted": true}},
    });
    format!("{settings:#}\n")
}

fn environment(setting: &Setting<'_>) -> Vec<(String, String)> {
    let marked = setting.roles.iter().any(|role| role == "claude_code_oauth");
    let injected = setting
        .routes
        .is_some_and(|routes| placeholders(routes).any(|(name, _)| name == TOKEN.0));
    let token = (marked || injected).then_some(TOKEN);
    token
        .into_iter()
        .chain([
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ("DISABLE_ERROR_REPORTING", "1"),
        ])
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// What [`super::super::variables`] gives a client that sends `x-api-key`.
const API_KEY: &str = "sk-ant-api03-placeholder";

const TOKEN: (&str, &str) = ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-placeholder");
