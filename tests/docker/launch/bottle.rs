//! A host with an operator on it, who launches agents into the engine of the tests.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Response;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::chatgpt::{self, access_token, unix_now};
use crate::harness::clients::{Output, run};
use crate::harness::docker::Docker;
use crate::harness::docker::images;
use crate::harness::pki::Pki;
use crate::harness::sidecar::EGRESS;
use crate::harness::upstream::{self, Body, Call, Upstream};
use crate::harness::within;

/// The value of `GH_PAT` on the host.
pub(super) const GH_PAT: &str = "ghp_real-token-of-the-host-0123456789";

/// The host: its login, its project, its manifest, and an upstream that only a sidecar reaches.
pub(super) struct Bottle {
    pub(super) docker: Docker,
    pub(super) upstream: Upstream,
    pub(super) token: String,
    dir: TempDir,
}

impl Bottle {
    pub(super) async fn new() -> Self {
        let docker = Docker::turn().await;
        let pki = Pki::new();
        let listener = docker.internet().listen("198.51.100.2:443");
        let bottle = Self {
            upstream: Upstream::tls(&pki).start_on(listener, answer).await,
            token: access_token(unix_now() + WEEK),
            docker,
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        for directory in ["home/.codex", "project", "run"] {
            std::fs::create_dir_all(bottle.path(directory)).expect("a directory");
        }
        // The agent's user writes there, who is another one than the operator.
        open(&bottle.path("project"), 0o777);
        open(&bottle.path("run"), 0o700);
        std::fs::copy(pki.ca_file().path(), bottle.path("upstream-ca.pem")).expect("a copy");
        bottle.write("bottle.yaml", MANIFEST);
        bottle.log_in(&bottle.token);
        bottle
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a writable directory");
    }

    /// Logs the host in, as Codex does it: by a rename.
    pub(super) fn log_in(&self, token: &str) {
        self.write(
            "home/.codex/auth.json.new",
            &chatgpt::login(token).to_string(),
        );
        let file = self.path("home/.codex/auth.json");
        std::fs::rename(self.path("home/.codex/auth.json.new"), file).expect("a rename");
    }

    /// A command of the operator's.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("DOCKER_HOST", self.docker.host())
            .env("GH_PAT", GH_PAT)
            .current_dir(self.path("project"))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// `egress launch docker` with a command for the agent.
    pub(super) fn launch(&self, image: &str, command: &[&str]) -> Command {
        let mut launch = self.command(EGRESS);
        launch
            .args(["launch", "docker", "--manifest"])
            .arg(self.path("bottle.yaml"))
            .args(["--image", image, "--"])
            .args(command);
        launch
    }

    /// Runs a shell script as the agent.
    pub(super) async fn script(&self, script: &str) -> Output {
        run(&mut self.launch(images::AGENT, &["sh", "-c", script])).await
    }

    /// An agent that works until it is told not to.
    pub(super) async fn at_work(&self) -> Working {
        let mut launch = self.launch(images::AGENT, &["sh", "-c", "echo at work; exec sleep 600"]);
        let mut child = launch.spawn().expect("the binary runs");
        let stdout = child.stdout.take().expect("a piped stdout");
        let mut lines = BufReader::new(stdout).lines();
        let begun = within("an agent at work", lines.next_line()).await;
        match begun.expect("a readable pipe") {
            Some(line) => assert_eq!(line, "at work"),
            None => panic!("{:#?}", child.wait_with_output().await),
        }
        Working(child)
    }

    /// A command in the agent's container, as its user, beside the agent.
    pub(super) async fn beside(&self, script: &str) -> String {
        let exec = ["exec", "-u", "node", "egress-dev-agent", "sh", "-c", script];
        self.docker.run(&exec).await
    }

    /// `exp` of the dummy that the agent holds.
    pub(super) async fn dummy_exp(&self) -> Value {
        use base64::Engine as _;
        let text = self.beside("cat ~/.codex/auth.json").await;
        let login: Value = serde_json::from_str(&text).expect("a JSON file");
        let token = login["tokens"]["access_token"].as_str().expect("a token");
        let payload = token.split('.').nth(1).expect("a JWT");
        let payload = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(payload);
        let payload: Value = serde_json::from_slice(&payload.expect("base64url")).expect("JSON");
        payload["exp"].clone()
    }

    /// Nothing of a launch is there any more.
    pub(super) async fn assert_nothing_left(&self) {
        for list in [
            ["ps", "--all", "--format", "{{.Names}}"],
            ["network", "ls", "--format", "{{.Name}}"],
        ] {
            let left = self.docker.run(&[&list[..]].concat()).await;
            assert!(!left.contains("egress"), "{left}");
        }
        let volumes = self.docker.run(&["volume", "ls", "--quiet"]).await;
        assert_eq!(volumes, "");
        let run = std::fs::read_dir(self.path("run")).expect("a directory");
        assert_eq!(run.count(), 0, "the runtime directory is empty");
    }
}

/// A launcher whose agent is at work.
pub(super) struct Working(Child);

impl Working {
    pub(super) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id().expect("it runs")).expect("a process id");
        let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end: its code, and what it said.
    pub(super) async fn ended(self) -> (Option<i32>, String) {
        let output = tokio::time::timeout(Duration::from_secs(30), self.0.wait_with_output()).await;
        let output = output.expect("it ends").expect("a child to wait for");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    pub(super) async fn stop(self) {
        self.signal(Signal::TERM);
        let (code, said) = self.ended().await;
        assert_eq!(code, Some(143), "{said}");
    }
}

pub(super) const WEEK: u64 = 7 * 86_400;

const MANIFEST: &str = "\
bottles:
  dev:
    agent_provider: {template: codex, forward_host_credentials: true}
    egress:
      routes:
        - {host: chatgpt.com, path_allowlist: [/backend-api/], connect_to: '198.51.100.2:443', upstream_ca: upstream-ca.pem}
        - {host: api.github.com, auth: {scheme: Bearer, token_ref: GH_PAT}, connect_to: '198.51.100.2:443',
           upstream_ca: upstream-ca.pem}
";

async fn answer(call: Call) -> Response<Body> {
    match call.seen.host.as_str() {
        "chatgpt.com" => chatgpt::answer(call).await,
        _ => upstream::text(200, "ok\n"),
    }
}

fn open(path: &Path, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("its owner may do so");
}
