//! Codex: a login that is a dummy, and of the host's settings those that can hold no secret.
//!
//! Tried with codex-cli 0.169.0: `codex login status` accepts both kinds of dummy.

mod config;

use serde_json::json;
use zeroize::Zeroizing;

use super::{Agent, HomeFile, Setting, words};
use crate::credential::codex;
use crate::launch::variables::placeholders;

pub(super) fn agent(setting: &Setting<'_>) -> Agent {
    let login = login(setting);
    let test = match login {
        Some(_) => words(["codex", "login", "status"]),
        // Without a login it says so, which is no fault then.
        None => words(["codex", "--version"]),
    };
    let config = config::for_agent(
        host_config(setting).as_ref().map(|bytes| bytes.as_slice()),
        setting,
    );
    let mut files: Vec<HomeFile> = login.into_iter().collect();
    files.push(HomeFile {
        target: ".codex/config.toml".into(),
        mode: 0o600,
        contents: config.text.into_bytes(),
    });
    let home = setting.home.join(".codex").to_string_lossy().into_owned();
    Agent {
        name: "codex".into(),
        command: words(["codex"]),
        test: Some(test),
        install: Some(words(["npm", "install", "-g", "@openai/codex"])),
        files,
        environment: vec![("CODEX_HOME".into(), home)],
        notes: config.note.into_iter().collect(),
    }
}

/// The dummy of the host's login where that is forwarded, else one of an API key where the routes inject one.
fn login(setting: &Setting<'_>) -> Option<HomeFile> {
    let forwarded = setting.handed.and_then(|handed| handed.codex());
    if let Some(codex) = forwarded {
        return Some(HomeFile::codex_login(&codex.login));
    }
    let (_, key) = placeholders(setting.routes?).find(|(name, _)| *name == "OPENAI_API_KEY")?;
    Some(auth_file(&api_key_login(key)))
}

/// A login with an API key, as Codex writes it; the key is a placeholder.
pub(super) fn api_key_login(placeholder: &str) -> String {
    let login = json!({"auth_mode": "apikey", "OPENAI_API_KEY": placeholder});
    format!("{login:#}\n")
}

pub(super) fn auth_file(text: &str) -> HomeFile {
    HomeFile {
        target: ".codex/auth.json".into(),
        mode: 0o600,
        contents: text.into(),
    }
}

/// The host's settings. What cannot be read is left out: Codex starts without them too.
fn host_config(setting: &Setting<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let path = codex::locate(setting.host.env).ok()?;
    super::custom::read_bounded(&path.with_file_name("config.toml")).ok()
}
