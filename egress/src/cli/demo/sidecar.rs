//! The demo's sidecar: this binary again, as `egress serve`, in a child process with a directory of its own. Both are
//! gone when the [`Sidecar`] is dropped, and the child also where the demo is killed.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::unix::pipe;

use super::{Unlike, within};
use crate::cli::Failure;

/// A running `egress serve`.
pub(super) struct Sidecar {
    // Before the directory, which it writes to: fields are dropped in this order.
    child: KilledOnDrop,
    dir: TempDir,
    address: SocketAddr,
    log: Log,
}

impl Sidecar {
    /// Starts it with these routes, the upstream's CA and a value for the slot, and waits until it listens.
    pub(super) async fn start(
        routes: &str,
        upstream_ca: &str,
        token: &str,
    ) -> Result<Self, Failure> {
        let dir = directory(routes, upstream_ca).map_err(|error| {
            Failure::runtime(error).hint("set TMPDIR to a directory that can be written to")
        })?;
        let mut child = spawn(dir.path(), token)
            .context("cannot start `egress serve`")
            .map_err(Failure::runtime)?;
        let ready = lines(child.0.stdout.take().map(OwnedFd::from)).map_err(Failure::runtime)?;
        let log = lines(child.0.stderr.take().map(OwnedFd::from)).map_err(Failure::runtime)?;
        let mut log = Log {
            lines: log,
            read: Vec::new(),
        };
        let listening = within("sidecar that listens", listening(ready)).await;
        if let Ok(Some(address)) = listening {
            return Ok(Self {
                child,
                dir,
                address,
                log,
            });
        }
        child.kill();
        log.read_to_end().await;
        let told = log.read.join("\n").replace(token, "[the token]");
        Err(Failure::runtime(anyhow!(
            "`egress serve` did not come up, and said:\n{told}"
        )))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that an agent has to trust.
    pub(super) fn ca_cert(&self) -> PathBuf {
        self.dir.path().join("ca/ca-cert.pem")
    }

    /// Replaces the routes file as an editor does, and has it read again.
    pub(super) fn reload(&self, routes: &str) -> Result<(), Unlike> {
        let (new, file) = (
            self.dir.path().join("routes.new"),
            routes_file(self.dir.path()),
        );
        let replaced = std::fs::write(&new, routes).and_then(|()| std::fs::rename(&new, &file));
        replaced.map_err(|error| Unlike(format!("{}: {error}", file.display())))?;
        self.child.signal(Signal::HUP)
    }

    /// Waits for the outcome of a reload, in the words of the log.
    pub(super) async fn reloaded(&mut self) -> Result<String, Unlike> {
        within("outcome of the reload in the log", async {
            while let Some(line) = self.log.next().await {
                let record: Value = serde_json::from_str(&line).unwrap_or_default();
                let field = |name| record.get(name).and_then(Value::as_str).unwrap_or_default();
                let message = field("message");
                if message == "reloaded" {
                    return Ok(format!("{message}, added: {}", field("added")));
                }
                if message.starts_with("not reloaded") {
                    return Err(Unlike(message.to_owned()));
                }
            }
            Err(Unlike("the sidecar ended".into()))
        })
        .await?
    }

    /// Has it stop as an operator does, and returns its whole log.
    pub(super) async fn terminate(&mut self) -> Result<&[String], Unlike> {
        self.child.signal(Signal::TERM)?;
        within("end of the sidecar after SIGTERM", self.log.read_to_end()).await?;
        // It closes its log when it ends; what is left to wait for is its exit code.
        match self.child.0.wait() {
            Ok(status) if status.success() => Ok(&self.log.read),
            Ok(status) => Err(Unlike(format!("the sidecar ended with {status}"))),
            Err(error) => Err(Unlike(format!("the sidecar: {error}"))),
        }
    }

    /// Ends it at once, and returns its whole log.
    pub(super) async fn kill_and_read(&mut self) -> &[String] {
        self.child.kill();
        self.log.read_to_end().await;
        &self.log.read
    }
}

/// A child that does not outlive its owner, and leaves no zombie.
struct KilledOnDrop(Child);

impl KilledOnDrop {
    fn signal(&self, signal: Signal) -> Result<(), Unlike> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let sent = pid
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| kill_process(pid, signal));
        sent.map_err(|error| Unlike(format!("the sidecar takes no signal: {error}")))
    }

    /// Returns when it is gone. Neither fails for a child that was not waited for; for one that was, both do nothing.
    fn kill(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The sidecar's standard error, read when it is asked for: it is a few kilobytes, which the pipe holds.
struct Log {
    lines: PipeLines,
    read: Vec<String>,
}

impl Log {
    async fn next(&mut self) -> Option<String> {
        let line = self.lines.next_line().await.ok().flatten()?;
        self.read.push(line.clone());
        Some(line)
    }

    async fn read_to_end(&mut self) {
        while self.next().await.is_some() {}
    }
}

type PipeLines = Lines<BufReader<pipe::Receiver>>;

fn lines(pipe: Option<OwnedFd>) -> io::Result<PipeLines> {
    let pipe = pipe.ok_or(io::ErrorKind::BrokenPipe)?;
    Ok(BufReader::new(pipe::Receiver::from_owned_fd(pipe)?).lines())
}

/// A directory that only its owner can enter, with the two files that the sidecar reads.
fn directory(routes: &str, upstream_ca: &str) -> anyhow::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder
        .prefix("egress-demo-")
        .permissions(Permissions::from_mode(0o700));
    let dir = builder
        .tempdir()
        .context("cannot make a temporary directory")?;
    for (path, text) in [
        (routes_file(dir.path()), routes),
        (upstream_ca_file(dir.path()), upstream_ca),
    ] {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(dir)
}

fn routes_file(dir: &Path) -> PathBuf {
    dir.join("routes.yaml")
}

fn upstream_ca_file(dir: &Path) -> PathBuf {
    dir.join("upstream-ca.pem")
}

/// Nothing of the demo's own environment reaches the sidecar: a variable there could change what it does.
fn spawn(dir: &Path, token: &str) -> io::Result<KilledOnDrop> {
    let child = Command::new(std::env::current_exe()?)
        .args(["serve", "--listen", "127.0.0.1:0", "--roots", "bundled"])
        .args(["--log", "info", "--log-format", "json"])
        // It opens the descriptor anew, so its standard output may be the pipe that tells readiness.
        .args(["--ready-fd", "1", "--die-with-parent"])
        .arg("--routes")
        .arg(routes_file(dir))
        .arg("--ca-dir")
        .arg(dir.join("ca"))
        .arg("--upstream-ca")
        .arg(upstream_ca_file(dir))
        .env_clear()
        .env("EGRESS_TOKEN_0", token)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok(KilledOnDrop(child))
}

/// Reads `LISTEN=ADDRESS` and `READY=1`. `None` where the pipe ends without them.
async fn listening(mut ready: PipeLines) -> Option<SocketAddr> {
    let mut address = None;
    loop {
        let line = ready.next_line().await.ok().flatten()?;
        match line.split_once('=')? {
            ("LISTEN", value) => address = value.parse().ok(),
            ("READY", "1") => return address,
            _ => {}
        }
    }
}
