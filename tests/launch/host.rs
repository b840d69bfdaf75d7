//! A host with an operator on it: a home with a Codex login, credentials in variables, a project, a manifest, and an
//! upstream that only a sidecar reaches.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use http::Response;
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::chatgpt::{self, REFRESH_TOKEN, SIGNATURE, access_token, unix_now};
use crate::harness::clients::{Output, run, system};
use crate::harness::pki::Pki;
use crate::harness::sidecar::{EGRESS, NOBODY, as_nobody};
use crate::harness::upstream::{self, Body, Call, Upstream};

/// The value of `GH_PAT` on the host.
pub(crate) const GH_PAT: &str = "ghp_real-token-of-the-host-0123456789";

/// A variable of the host that no manifest names.
pub(crate) const UNNAMED: &str = "AKIA-real-key-that-nobody-named";

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Who types the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// Whoever runs the tests; root in CI.
    Own,
    /// Nobody, with no privilege at all.
    Ordinary,
}

/// A host. Its files go when it is dropped.
pub(crate) struct Host {
    pub(crate) upstream: Upstream,
    pub(crate) token: String,
    pki: Pki,
    user: User,
    dir: TempDir,
}

impl Host {
    /// A host whose upstream answers as the ChatGPT service does, and `ok` elsewhere.
    pub(crate) async fn new(user: User) -> Self {
        Self::answering(user, answer).await
    }

    pub(crate) async fn answering<F, R>(user: User, answer: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let pki = Pki::new();
        let host = Self {
            upstream: Upstream::tls(&pki).start(answer).await,
            token: access_token(unix_now() + WEEK.as_secs()),
            pki,
            user,
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        host.furnish();
        host
    }

    fn furnish(&self) {
        for directory in ["home/.codex", "home/project", "run", "bin"] {
            std::fs::create_dir_all(self.path(directory)).expect("a directory");
        }
        self.log_in(&self.token);
        // By another process: a descriptor for writing that a child of this one inherits would keep it from running.
        let copied = std::process::Command::new("cp")
            .arg(EGRESS)
            .arg(self.path("bin/egress"))
            .status();
        assert!(copied.is_ok_and(|status| status.success()));
        std::fs::copy(self.pki.ca_file().path(), self.path("upstream-ca.pem")).expect("a copy");
        self.write(
            "home/.netrc",
            "machine api.github.com password netrc-real-password",
        );
        self.write("bottle.yaml", self.manifest());
        self.give("home");
        self.give("run");
        self.give("bin");
        let everybody = Permissions::from_mode(0o755);
        std::fs::set_permissions(self.dir.path(), everybody).expect("it is ours");
        std::fs::set_permissions(self.path("run"), Permissions::from_mode(0o700)).expect("ours");
    }

    /// Gives a path and what is in it to the user.
    pub(crate) fn give(&self, name: &str) {
        if self.user == User::Own {
            return;
        }
        let mut pending = vec![self.path(name)];
        while let Some(path) = pending.pop() {
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("the tests run as root");
            if path.is_dir() {
                let entries = std::fs::read_dir(&path).expect("a directory");
                pending.extend(entries.map(|entry| entry.expect("an entry").path()));
            }
        }
    }

    /// A manifest for Codex and GitHub, whose hosts are all at the upstream.
    pub(crate) fn manifest(&self) -> String {
        let to = format!(
            "connect_to: \"{}\", ssrf_ip_allowlist: [127.0.0.0/8]",
            self.upstream.addr()
        );
        format!(
            "bottles:\n  dev:\n    agent_provider: {{template: codex, forward_host_credentials: true}}\n    \
             egress:\n      routes:\n        \
             - {{host: chatgpt.com, path_allowlist: [/backend-api/], {to}}}\n        \
             - {{host: api.github.com, auth: {{scheme: Bearer, token_ref: GH_PAT}}, {to}}}\n        \
             - {{host: plain.test, {to}}}\n\
             agents:\n  demo: {{bottle: dev, skills: [], prompt: \"\"}}\n"
        )
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.path("home/project")
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).expect("a file is written");
        self.give(name);
    }

    /// Makes this the access token of the host's Codex login, in one step, as Codex does it.
    pub(crate) fn log_in(&self, token: &str) {
        let staged = "home/.codex/auth.json.new";
        std::fs::write(self.path(staged), chatgpt::login(token).to_string()).expect("written");
        std::fs::set_permissions(self.path(staged), Permissions::from_mode(0o600)).expect("ours");
        self.give(staged);
        std::fs::rename(self.path(staged), self.path("home/.codex/auth.json")).expect("renamed");
    }

    /// Every secret of the host.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        vec![
            &self.token,
            SIGNATURE,
            REFRESH_TOKEN,
            GH_PAT,
            UNNAMED,
            "netrc-real-password",
        ]
    }

    /// `egress` as the operator types it, in the project.
    pub(crate) fn egress<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Command {
        self.program(&self.path("bin/egress"), arguments)
    }

    /// `egress run` with the host's manifest, for a command.
    pub(crate) fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, command: I) -> Command {
        let mut run = self.egress(["run", "--manifest"]);
        run.arg(self.path("bottle.yaml"))
            .arg("--upstream-ca")
            .arg(self.path("upstream-ca.pem"))
            .arg("--")
            .args(command);
        run
    }

    /// Runs a shell script in a box.
    pub(crate) async fn script(&self, script: &str) -> Output {
        run(&mut self.run(["bash", "-c", script])).await
    }

    /// A program in the operator's environment.
    pub(crate) fn program<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        program: &Path,
        arguments: I,
    ) -> Command {
        let mut command = match self.user {
            User::Own => Command::new(program),
            User::Ordinary => {
                let words = as_nobody();
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]).arg(program);
                command
            }
        };
        command
            .args(arguments)
            .env_clear()
            .env("PATH", path())
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("LANG", "C.UTF-8")
            .env("GH_PAT", GH_PAT)
            .env("AWS_SECRET_ACCESS_KEY", UNNAMED)
            .current_dir(self.project())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Fails if a launch left anything behind.
    pub(crate) fn assert_nothing_left(&self) {
        let left = std::fs::read_dir(self.path("run")).expect("the runtime directory");
        let left: Vec<_> = left.map(|entry| entry.expect("an entry").path()).collect();
        assert!(left.is_empty(), "{left:?}");
        // What the kernel kills on the death of its parent is gone a moment later.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let running = processes(&self.path("bin/egress"));
            if running.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still running: {running:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The system's programs, and Node wherever it is.
pub(crate) fn path() -> String {
    let node = system("node", "nodejs");
    let node = node.parent().expect("a directory").display();
    format!("/usr/local/bin:/usr/bin:/bin:{node}")
}

/// The processes that run a program, with their arguments.
pub(crate) fn processes(program: &Path) -> Vec<(u32, String)> {
    let entries = std::fs::read_dir("/proc").expect("the process table");
    entries
        .filter_map(|entry| {
            let directory = entry.ok()?.path();
            let number = directory.file_name()?.to_str()?.parse().ok()?;
            let runs = std::fs::read_link(directory.join("exe")).ok()?;
            let arguments = std::fs::read(directory.join("cmdline")).ok()?;
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            (runs == program).then_some((number, arguments))
        })
        .collect()
}

async fn answer(call: Call) -> Response<Body> {
    match call.seen.path() {
        path if path.starts_with("/backend-api/") => chatgpt::answer(call).await,
        _ => upstream::typed(200, "text/plain", "ok\n"),
    }
}
