//! What is copied of the host's settings, and that nothing else is.

use std::time::SystemTime;

use super::*;
use crate::launch::Host;

fn made(host: Option<&str>) -> Config {
    let setting = Setting {
        host: Host {
            env: &|_| None,
            now: SystemTime::UNIX_EPOCH,
        },
        home: Path::new("/home/node"),
        workspace: Path::new("/work \"space\""),
        routes: None,
        roles: &[],
        handed: None,
    };
    for_agent(host.map(str::as_bytes), &setting)
}

const TRUST: &str = "[projects.'/work \"space\"']\ntrust_level = \"trusted\"\n";

#[test]
fn nothing_that_may_hold_a_secret_is_copied() {
    let host = r#"
# old key: s3cret
model = "gpt-5.1-codex" # s3cret
model_provider = "s3cret"
openai_base_url = "https://s3cret@x.example/"
notify = ["notify-send", "s3cret"]
model_reasoning_effort = "a s3cret with blanks"
cli_auth_credentials_store = "keyring"
model_instructions_file = "/home/s3cret/x.md"
approval_policy = { granular = { sandbox_approval = true } }

[mcp_servers.a]
command = "npx"
args = ["--token", "s3cret"]
env = { TOKEN = "s3cret" }
[mcp_servers.b]
url = "https://x.example/"
bearer_token_env_var = "s3cret"
http_headers = { Authorization = "s3cret" }
[model_providers.p]
experimental_bearer_token = "s3cret"
http_headers = { x = "s3cret" }
query_params = { key = "s3cret" }
[otel.exporter.otlp-http]
headers = { x = "s3cret" }
[shell_environment_policy]
set = { TOKEN = "s3cret" }
[projects."/home/s3cret"]
trust_level = "trusted"
[profiles.fast]
model = "gpt-5-mini"
chatgpt_base_url = "https://s3cret.example/"
[profiles."s3cret name"]
model = "x"
[features]
web_search = true
secret = "s3cret"
[sandbox_workspace_write]
network_access = true
writable_roots = ["/home/s3cret"]
"#;
    let Config { text, note } = made(Some(host));
    assert!(!text.contains("s3cret"), "{text}");
    let expected = format!(
        r#"model = "gpt-5.1-codex"

[profiles.fast]
model = "gpt-5-mini"

[features]
web_search = true

[sandbox_workspace_write]
network_access = true

{TRUST}"#
    );
    assert_eq!(text, expected);
    let note = note.unwrap();
    for name in [
        "model_provider",
        "notify",
        "cli_auth_credentials_store",
        "approval_policy",
        "mcp_servers",
        "model_providers",
        "otel",
        "shell_environment_policy",
        "profiles.fast.chatgpt_base_url",
        "features.secret",
        "sandbox_workspace_write.writable_roots",
    ] {
        assert!(note.contains(name), "{name}: {note}");
    }
    assert!(!note.contains("projects"), "{note}");
}

#[test]
fn without_a_host_file_or_with_a_broken_one_the_workspace_is_trusted_alone() {
    let none = made(None);
    assert_eq!((none.text.as_str(), none.note), (TRUST, None));
    let broken = made(Some("model = s3cret"));
    assert_eq!(broken.text, TRUST);
    let note = broken.note.unwrap();
    assert!(
        note.contains("not TOML") && !note.contains("s3cret"),
        "{note}"
    );
}

#[test]
fn settings_are_copied_as_they_are_spelt_and_however_the_table_is_written() {
    let host = "model_context_window = 400_000\nfeatures = {a = true}\ntui.theme = 'dark'\nhide_agent_reasoning = true\n";
    let text = made(Some(host)).text;
    for line in [
        "model_context_window = 400_000\n",
        "a = true\n",
        "theme = 'dark'\n",
        "hide_agent_reasoning = true\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let read: toml_edit::DocumentMut = text.parse().unwrap();
    assert_eq!(read["features"]["a"].as_bool(), Some(true));
    assert_eq!(read["tui"]["theme"].as_str(), Some("dark"));
    assert_eq!(
        read["projects"]["/work \"space\""]["trust_level"].as_str(),
        Some("trusted")
    );
}
