//! The real binary as a child process, started as an operator starts it and stopped when the test ends.
//! Its output is kept in memory, for a test to search.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::clients::system;
use super::network::Network;
use super::pki::{CaFile, Pki};
use super::{command, within};

/// The binary under test.
pub(crate) const EGRESS: &str = env!("CARGO_BIN_EXE_egress");

/// A running `egress serve`. It is killed when it is dropped.
pub(crate) struct Sidecar {
    child: Child,
    pid: Pid,
    ready: Ready,
    log: Log,
    dir: TempDir,
    ca_dir: PathBuf,
    _upstream_ca: Arc<CaFile>,
}

impl Sidecar {
    /// A sidecar with these routes, that trusts the certificates of `pki` upstream.
    pub(crate) fn with_routes(pki: &Pki, routes: impl Into<String>) -> Builder {
        Builder {
            upstream_ca: pki.ca_file(),
            routes: routes.into(),
            environment: BTreeMap::new(),
            arguments: Vec::new(),
            descriptors: Vec::new(),
            under: Vec::new(),
            ca_dir: None,
            admin: None,
            log_format: Some("json"),
            is_ordinary: false,
            is_relative: false,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.told_address("LISTEN")
    }

    /// The values of a key on its ready descriptor, in their order. The harness's own listener is the first one.
    pub(crate) fn told(&self, key: &str) -> Vec<&str> {
        let values = self.ready.iter().filter(|(told, _)| told == key);
        values.map(|(_, value)| value.as_str()).collect()
    }

    /// The first address under a key.
    pub(crate) fn told_address(&self, key: &str) -> SocketAddr {
        self.told(key)[0].parse().expect("an address")
    }

    /// The value of HTTPS_PROXY.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The bottle's CA certificate, which is the file that an agent trusts.
    pub(crate) fn ca_cert(&self) -> PathBuf {
        self.ca_dir.join("ca-cert.pem")
    }

    pub(crate) fn routes_file(&self) -> PathBuf {
        self.dir.path().join("routes.yaml")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// The directory of its files, which goes when it does.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// What `egress status --json` says.
    pub(crate) async fn status(&self) -> serde_json::Value {
        let admin = format!("unix:{}", self.admin_socket().display());
        let done = command::egress(["status", "--json", "--admin", &admin]).await;
        serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("no status: {done:?}"))
    }

    /// Everything that it printed so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until at least `count` lines of the log contain `needle`, and returns all that do.
    pub(crate) async fn logged_times(&self, needle: &str, count: usize) -> Vec<String> {
        let mut changed = self.log.changed.subscribe();
        within(&format!("{count} log lines with {needle:?}"), async {
            loop {
                changed.borrow_and_update();
                let log = self.log();
                let lines = log.lines().filter(|line| line.contains(needle));
                let lines: Vec<_> = lines.map(str::to_owned).collect();
                if lines.len() >= count {
                    return lines;
                }
                changed.changed().await.expect("the sidecar runs");
            }
        })
        .await
    }

    /// The most memory that it ever held, in KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = std::fs::read_to_string(path).expect("the sidecar runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let value = line.and_then(|line| line.trim().strip_suffix(" kB"));
        value
            .and_then(|value| value.parse().ok())
            .expect("a size in kB")
    }

    /// Waits until a line of the log contains `needle`, and returns that line.
    pub(crate) async fn logged(&self, needle: &str) -> String {
        self.logged_times(needle, 1).await.swap_remove(0)
    }

    /// Replaces the routes file by a rename, as an editor does. Takes effect with `sighup`.
    pub(crate) fn write_routes(&self, routes: &str) {
        let next = self.dir.path().join("routes.yaml.next");
        std::fs::write(&next, routes).expect("the routes file is written");
        std::fs::rename(&next, self.routes_file()).expect("the routes file is replaced");
    }

    pub(crate) fn sighup(&self) {
        kill_process(self.pid, Signal::HUP).expect("the sidecar runs");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the sidecar runs");
    }

    /// Asks it to stop, and waits for it. Returns the status and all that it printed.
    pub(crate) async fn terminate(self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        self.exit().await
    }

    /// Waits for its end. Returns the status and all that it printed.
    pub(crate) async fn exit(mut self) -> (ExitStatus, String) {
        let status = within("exit of the sidecar", self.child.wait()).await;
        self.log.ended().await;
        (status.expect("a child to wait for"), self.log())
    }

    /// Whether it still runs.
    pub(crate) fn is_up(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child to ask about")
            .is_none()
    }
}

/// A sidecar about to start.
pub(crate) struct Builder {
    upstream_ca: Arc<CaFile>,
    routes: String,
    environment: BTreeMap<String, String>,
    arguments: Vec<String>,
    descriptors: Vec<FdMapping>,
    /// A program and its arguments that become the sidecar, whose own follow them.
    under: Vec<String>,
    ca_dir: Option<PathBuf>,
    admin: Option<String>,
    /// The binary's own choice where there is none.
    log_format: Option<&'static str>,
    is_ordinary: bool,
    is_relative: bool,
}

impl Builder {
    /// Starts it in a network of the test's own.
    pub(crate) fn within(mut self, network: &Network) -> Self {
        self.under.extend(network.enter());
        self
    }

    /// Another form of the log than JSON.
    pub(crate) fn log_format(mut self, format: Option<&'static str>) -> Self {
        self.log_format = format;
        self
    }

    /// Another directory for the bottle's CA than one of its own.
    pub(crate) fn ca_dir(mut self, dir: &Path) -> Self {
        self.ca_dir = Some(dir.to_owned());
        self
    }

    /// The routes file is named as in a shell that stands in its directory.
    pub(crate) fn relative(mut self) -> Self {
        self.is_relative = true;
        self
    }

    /// Another admin socket than the one that `Sidecar::status` asks.
    pub(crate) fn admin(mut self, address: &str) -> Self {
        self.admin = Some(address.to_owned());
        self
    }

    /// Runs it as nobody, with no privilege at all, where the tests run as root.
    pub(crate) fn ordinary(mut self) -> Self {
        self.is_ordinary = rustix::process::geteuid().is_root();
        self
    }

    /// Starts it by way of a program that becomes it.
    pub(crate) fn wrapped<I: IntoIterator<Item: Into<String>>>(mut self, wrapper: I) -> Self {
        self.under.extend(wrapper.into_iter().map(Into::into));
        self
    }

    /// Puts a credential into a slot.
    pub(crate) fn slot(self, name: &str, value: impl Into<String>) -> Self {
        self.env(name, value)
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// A further argument of `egress serve`.
    pub(crate) fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Runs a line of shell in the process that becomes the sidecar.
    pub(crate) fn after(mut self, script: &str) -> Self {
        let script = format!("{script} && exec \"$@\"");
        let words = ["/bin/sh", "-c", &script, "sh"].map(str::to_owned);
        self.under.extend(words);
        self
    }

    /// The same where what it mounts is seen by the sidecar alone. Only root can mount, and CI is root.
    pub(crate) fn mounting(mut self, script: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "`mount` needs root: run this test as root"
        );
        let unshare = ["unshare", "--mount"].map(str::to_owned);
        self.under.extend(unshare);
        self.after(script)
    }

    /// A descriptor that the sidecar finds open under this number.
    pub(crate) fn hand(mut self, number: i32, descriptor: impl Into<OwnedFd>) -> Self {
        self.descriptors.push(FdMapping {
            parent_fd: descriptor.into(),
            child_fd: number,
        });
        self
    }

    pub(crate) async fn start(self) -> Sidecar {
        match self.try_start().await {
            Ok(sidecar) => sidecar,
            Err(failure) => panic!(
                "the sidecar did not start ({}):\n{}",
                failure.status, failure.log
            ),
        }
    }

    /// Starts it, and waits until it says that it is ready or ends.
    pub(crate) async fn try_start(mut self) -> Result<Sidecar, StartFailure> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let routes = dir.path().join("routes.yaml");
        std::fs::write(&routes, &self.routes).expect("the routes file is written");
        let mut command = self.command(dir.path(), &routes);
        if self.is_ordinary {
            self.give_away(dir.path());
        }
        command
            .fd_mappings(std::mem::take(&mut self.descriptors))
            .expect("no number twice");
        let mut child = command.spawn().expect("/bin/sh runs");
        // It holds copies of what was handed down, which would keep pipes open.
        drop(command);
        let pid = child.id().expect("a running child");
        let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("a process id");
        let log = Log::of(child.stderr.take().expect("a piped stderr"));
        let ready = BufReader::new(child.stdout.take().expect("a piped stdout"));
        match within("readiness of the sidecar", read_ready(ready)).await {
            Some(ready) => Ok(Sidecar {
                child,
                pid,
                ready,
                log,
                ca_dir: self.ca_dir.unwrap_or_else(|| dir.path().join("ca")),
                dir,
                _upstream_ca: self.upstream_ca,
            }),
            None => {
                let status = within("exit of the sidecar", child.wait()).await;
                log.ended().await;
                Err(StartFailure {
                    status: status.expect("a child to wait for"),
                    log: log.text(),
                })
            }
        }
    }

    fn command(&self, dir: &Path, routes: &Path) -> Command {
        // The shell makes descriptor 3 of the pipe that it got as stdout, sends stdout after stderr, and becomes the
        // sidecar. It is the way to hand down a descriptor that needs no unsafe code.
        let unix = || format!("unix:{}", dir.join("admin.sock").display());
        let mut command = Command::new("/bin/sh");
        if self.is_ordinary {
            // The pipe is opened anew, by its new owner.
            let script = "exec 3>&1 1>&2; chown \"$0\" /dev/fd/3; exec \"$@\"";
            let binary = dir.join("egress");
            command.args(["-c", script, &NOBODY.to_string()]);
            command.args(as_nobody()).args(&self.under).arg(binary);
        } else {
            command.args(["-c", "exec 3>&1 1>&2; exec \"$@\"", "sh"]);
            command.args(&self.under).arg(EGRESS);
        }
        command
            .args(["serve", "--routes"])
            .arg(match self.is_relative {
                true => Path::new("routes.yaml"),
                false => routes,
            })
            .current_dir(match self.is_relative {
                true => dir,
                false => Path::new("."),
            })
            .args(["--listen", "127.0.0.1:0", "--ready-fd", "3"])
            .args(
                self.log_format
                    .map(|format| format!("--log-format={format}")),
            )
            .arg("--ca-dir")
            .arg(self.ca_dir.clone().unwrap_or_else(|| dir.join("ca")))
            .arg("--upstream-ca")
            .arg(self.upstream_ca.path())
            .arg("--admin")
            .arg(self.admin.clone().unwrap_or_else(unix))
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

impl Builder {
    /// Gives nobody what the sidecar reads and writes, with a copy of the binary that it can reach.
    fn give_away(&self, dir: &Path) {
        // By another process: a descriptor for writing that a child of this one inherits would keep it from running.
        let copied = std::process::Command::new("cp")
            .args([EGRESS.as_ref(), dir.as_os_str()])
            .status();
        assert!(copied.is_ok_and(|status| status.success()));
        for path in [dir, &dir.join("routes.yaml"), &dir.join("egress")] {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("the tests run as root");
        }
        let ca = self.upstream_ca.path();
        let parent = ca.parent().expect("a directory");
        std::fs::set_permissions(parent, Permissions::from_mode(0o755)).expect("it is ours");
    }
}

/// The ordinary user's number, which is nobody's on Debian.
pub(crate) const NOBODY: u32 = 65534;

/// A command that runs another one as nobody, with no privilege at all.
pub(crate) fn as_nobody() -> Vec<String> {
    let id = NOBODY.to_string();
    let program = system("setpriv", "util-linux").display().to_string();
    let arguments = ["--reuid", &id, "--regid", &id, "--clear-groups", "--"];
    [program.as_str()]
        .iter()
        .chain(&arguments)
        .map(ToString::to_string)
        .collect()
}

/// A sidecar that refused to start.
#[derive(Debug)]
pub(crate) struct StartFailure {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

/// The lines that a sidecar writes to its ready descriptor, as keys and values.
type Ready = Vec<(String, String)>;

/// Reads all up to `READY=1`. `None` where the pipe ends without it.
async fn read_ready(ready: BufReader<tokio::process::ChildStdout>) -> Option<Ready> {
    let mut lines = ready.lines();
    let mut told = Ready::new();
    while let Ok(Some(line)) = lines.next_line().await {
        match line.split_once('=') {
            Some(("READY", "1")) => return Some(told),
            Some((key, value)) => told.push((key.into(), value.into())),
            _ => panic!("unexpected line on the ready descriptor: {line:?}"),
        }
    }
    None
}

/// A child's output, collected as it comes.
#[derive(Clone)]
struct Log {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Bumped with every piece; true once the output has ended.
    changed: watch::Sender<bool>,
}

impl Log {
    fn of(mut output: tokio::process::ChildStderr) -> Self {
        let log = Self {
            bytes: Arc::default(),
            changed: watch::Sender::new(false),
        };
        let sink = log.clone();
        tokio::spawn(async move {
            let mut piece = [0; 8192];
            while let Ok(read @ 1..) = output.read(&mut piece).await {
                sink.bytes
                    .lock()
                    .expect("no holder panicked")
                    .extend_from_slice(&piece[..read]);
                sink.changed.send_replace(false);
            }
            sink.changed.send_replace(true);
        });
        log
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no holder panicked")).into_owned()
    }

    async fn ended(&self) {
        let mut changed = self.changed.subscribe();
        within("end of the log", changed.wait_for(|ended| *ended))
            .await
            .expect("the reader holds a sender");
    }
}
