//! The homes that launchers make, taken by the real clients: each starts at work, with no question and no login screen.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use egress::config::manifest::Template;
use egress::config::render::{RenderedSlot, TokenRef};
use egress::launch::Host;
use egress::launch::agent::{Agent, Setting};
use egress::launch::handover::Handed;
use egress::launch::resolve::resolve;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::codex::DAY;
use crate::harness::chatgpt::{access_token, unix_now};
use crate::harness::clients::{Home, Running, node_program, run, system};
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;

/// Nothing is admitted, so nothing leaves the machine.
const CLOSED: &str = "routes: []\n";

const SECRET: &str = "rt_real-refresh-token-of-the-host";

#[tokio::test]
async fn codex_takes_the_dummy_and_knows_the_workspace() {
    let host = tempfile::tempdir().expect("a temporary directory");
    let token = access_token(unix_now() + DAY.as_secs());
    let login = json!({
        "auth_mode": "chatgpt",
        "tokens": {"id_token": token, "access_token": token, "refresh_token": SECRET, "account_id": "a-1"},
        "last_refresh": "2026-11-01T00:00:00Z",
    });
    std::fs::write(host.path().join("auth.json"), login.to_string()).expect("a writable directory");
    let config = format!("model = 'gpt-5.1-codex'\n[mcp_servers.x]\nurl = 'https://{SECRET}/'\n");
    std::fs::write(host.path().join("config.toml"), config).expect("a writable directory");

    let sidecar = Sidecar::with_routes(&Pki::new(), CLOSED).start().await;
    let home = Home::behind(&sidecar);
    let env = |name: &str| (name == "CODEX_HOME").then(|| host.path().as_os_str().to_owned());
    let handed = handed(&env);
    let (home, agent) = provisioned(home, Template::Codex, &env, &[], Some(&handed));

    let program = node_program("codex").await;
    let test = agent.test.expect("Codex can be tested");
    let output = run(home.command(&program).args(test.iter().skip(1))).await;
    let output = output.success();
    assert!(
        output.stderr.contains("Logged in using ChatGPT"),
        "{output:#?}"
    );

    // It reads a project's own settings only where the project is trusted.
    home.write(
        "work/.codex/config.toml",
        "model_reasoning_effort = 'high'\n",
    );
    let mut exec = home.command(&program);
    let output = run(exec.args(["exec", "--skip-git-repo-check", "say hi"])).await;
    for setting in ["model: gpt-5.1-codex\n", "reasoning effort: high\n"] {
        assert!(output.stderr.contains(setting), "{output:#?}");
    }
    home.assert_free_of(SECRET, &output);
    home.assert_free_of(&token, &output);
}

#[tokio::test]
async fn claude_starts_at_its_prompt() {
    let sidecar = Sidecar::with_routes(&Pki::new(), CLOSED).start().await;
    let roles = ["claude_code_oauth".to_owned()];
    let home = Home::behind(&sidecar).set("TERM", "xterm-256color");
    let (home, _) = provisioned(home, Template::Claude, &|_| None, &roles, None);
    assert_at_its_prompt(&home).await;
}

#[tokio::test]
async fn claude_with_an_api_key_that_is_a_placeholder_asks_nothing() {
    let sidecar = Sidecar::with_routes(&Pki::new(), CLOSED).start().await;
    let home = Home::behind(&sidecar)
        .set("TERM", "xterm-256color")
        .set("ANTHROPIC_API_KEY", "sk-ant-api03-placeholder");
    let (home, _) = provisioned(home, Template::Claude, &|_| None, &[], None);
    assert_at_its_prompt(&home).await;
}

/// It draws its screen on a terminal, which script(1) gives it.
async fn assert_at_its_prompt(home: &Home) {
    let program = node_program("claude").await;
    let mut command = home.command(system("script", "bsdutils"));
    command.args(["-qec", &program.to_string_lossy(), "/dev/null"]);
    let mut running = Running::spawn(command.stdin(Stdio::piped()));
    let mut stdout = running.stdout();
    let mut screen = Vec::new();
    let prompt = async {
        loop {
            let mut piece = [0; 4096];
            let length = stdout.read(&mut piece).await.expect("a readable terminal");
            screen.extend_from_slice(&piece[..length]);
            let text = plain(&screen);
            if text.contains("forshortcuts") {
                break;
            }
            assert!(length > 0, "it ended: {text}");
        }
    };
    let at_prompt = tokio::time::timeout(Duration::from_secs(60), prompt).await;
    assert!(at_prompt.is_ok(), "{}", plain(&screen));
}

/// The letters on a screen, without the blanks, which it draws by moving the cursor.
fn plain(screen: &[u8]) -> String {
    let text = String::from_utf8_lossy(screen);
    let escapes = regex::Regex::new(r"\x1b\[[0-9;?<>=]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
        .expect("a valid pattern");
    let text = escapes.replace_all(&text, "");
    text.split_whitespace().collect()
}

fn host<'a>(env: &'a dyn Fn(&str) -> Option<OsString>) -> Host<'a> {
    Host {
        env,
        now: SystemTime::now(),
    }
}

fn handed(env: &dyn Fn(&str) -> Option<OsString>) -> Handed {
    let slot = RenderedSlot {
        name: "EGRESS_TOKEN_0".parse().expect("a slot's name"),
        reference: TokenRef::CodexHost,
        hosts: vec!["chatgpt.com".into()],
    };
    resolve(&[slot], &host(env)).expect("a login that is good")
}

/// Puts an agent's files and variables into a home.
fn provisioned(
    mut home: Home,
    template: Template,
    env: &dyn Fn(&str) -> Option<OsString>,
    roles: &[String],
    handed: Option<&Handed>,
) -> (Home, Agent) {
    let (path, work) = (home.path().to_owned(), home.work());
    let setting = Setting {
        host: host(env),
        home: &path,
        workspace: &work,
        routes: None,
        roles,
        handed,
    };
    let agent = Agent::builtin(template, &setting).expect("an agent that can be prepared");
    for file in &agent.files {
        let target: &Path = &file.target;
        home.write(&target.to_string_lossy(), &file.contents);
    }
    for (name, value) in &agent.environment {
        home = home.set(name, value);
    }
    (home, agent)
}
