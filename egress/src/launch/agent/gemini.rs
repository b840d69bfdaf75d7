//! gemini-cli, with an API key that is a placeholder. Nothing of the host's `~/.gemini` is copied: the login and the
//! settings of MCP servers are in there.
//!
//! Tried with 0.61.0: with these files its screen starts at the prompt.

use serde_json::json;

use super::{Agent, HomeFile, Setting, words};

pub(super) fn agent(setting: &Setting<'_>) -> Agent {
    let settings = json!({
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        // Neither could be reached.
        "privacy": {"usageStatisticsEnabled": false},
        "general": {"enableAutoUpdate": false, "enableAutoUpdateNotification": false},
    });
    let trusted = json!({setting.workspace.to_string_lossy(): "TRUST_FOLDER"});
    let file = |target: &str, json: serde_json::Value| HomeFile {
        target: target.into(),
        mode: 0o600,
        contents: format!("{json:#}\n").into_bytes(),
    };
    Agent {
        name: "gemini".into(),
        command: words(["gemini"]),
        test: Some(words(["gemini", "--version"])),
        install: Some(words(["npm", "install", "-g", "@google/gemini-cli"])),
        files: vec![
            file(".gemini/settings.json", settings),
            file(".gemini/trustedFolders.json", trusted),
        ],
        environment: Vec::new(),
        notes: Vec::new(),
    }
}
