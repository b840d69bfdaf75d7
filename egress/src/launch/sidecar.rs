//! The sidecar as a child process of the launcher: started with its listeners and its credentials in hand, held for as long
//! as the agent works.
//!
//! Credentials travel through a pipe that is the sidecar's standard input, and by no other way. The pipe's end is the
//! launcher's end: the sidecar stops when it closes, however the launcher ends.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use command_fds::{CommandFdExt as _, FdMapping};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::refusals::Refusals;

/// What a sidecar is started with.
#[derive(Debug)]
pub struct Start<'a> {
    /// The routes file.
    pub routes: &'a Path,
    /// Listening sockets, each with the flag of `egress serve` that takes it.
    pub sockets: Vec<(&'static str, OwnedFd)>,
    /// Further arguments of `egress serve`.
    pub arguments: Vec<OsString>,
    /// The slots with their values (see [`super::handover::Handed::line`]).
    pub slots: Zeroizing<Vec<u8>>,
    /// Where its log goes; without it, it is kept for the case that the sidecar ends.
    pub log: Option<PathBuf>,
}

/// A sidecar at work. It is killed when this is dropped.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    slots: ChildStdin,
    certificate: CertificateDer<'static>,
    addresses: Vec<String>,
    log: Log,
    logging: Option<JoinHandle<()>>,
}

impl Sidecar {
    /// Starts a sidecar, and waits until it takes connections.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn start(start: Start<'_>) -> Result<Self, Error> {
        let log = Log::open(start.log.as_deref())?;
        let child = spawn(&start).map_err(Error::Spawn)?;
        drop(start.sockets);
        Self::attend(child, &start.slots, log).await
    }

    /// Starts a sidecar by a command of the caller's own, which runs `egress serve --slots-fd 0 --ready-fd 1` somewhere,
    /// and waits until it takes connections.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn start_by(
        mut command: Command,
        slots: &[u8],
        log: Option<&Path>,
    ) -> Result<Self, Error> {
        let log = Log::open(log)?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::Spawn)?;
        Self::attend(child, slots, log).await
    }

    async fn attend(mut child: Child, values: &[u8], log: Log) -> Result<Self, Error> {
        let (Some(mut slots), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::Silent);
        };
        let logging = tokio::spawn(follow(stderr, log.clone()));
        // A sidecar that is gone already has said why, and is asked for it below.
        _ = slots.write_all(values).await;
        match tokio::time::timeout(PATIENCE, readiness(stdout)).await {
            Ok(Some(ready)) => Ok(Self {
                child,
                slots,
                certificate: ready.certificate,
                addresses: ready.addresses,
                log,
                logging: Some(logging),
            }),
            Ok(None) => {
                let status = child.wait().await.map_err(Error::Spawn)?;
                _ = logging.await;
                Err(Error::Refused {
                    status,
                    said: log.text(),
                })
            }
            Err(_) => Err(Error::Silent),
        }
    }

    /// Gives the sidecar new values of slots.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub async fn hand(&mut self, line: &[u8]) -> io::Result<()> {
        self.slots.write_all(line).await
    }

    /// The certificate of the bottle's CA.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Where it listens, in the order of its flags.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.addresses.iter().map(String::as_str)
    }

    /// Waits until it ends, which it does by itself only where something is wrong.
    pub async fn ended(&mut self) -> Ended {
        let status = self.child.wait().await;
        if let Some(logging) = self.logging.take() {
            _ = logging.await;
        }
        Ended {
            status: status.ok(),
            said: self.log.text(),
        }
    }

    /// Stops it: what is under way in it has lost its client. Returns what it refused.
    pub async fn stop(self) -> Refusals {
        let Self {
            mut child,
            slots,
            log,
            logging,
            ..
        } = self;
        drop(slots);
        if tokio::time::timeout(STOPPING, child.wait()).await.is_err() {
            _ = child.kill().await;
        }
        if let Some(logging) = logging {
            // Its last lines may be in the pipe yet.
            _ = tokio::time::timeout(STOPPING, logging).await;
        }
        log.refusals()
    }
}

/// How a sidecar ended that should not have.
#[derive(Debug)]
pub struct Ended {
    /// Its status, where it is known.
    pub status: Option<ExitStatus>,
    /// The end of its log.
    pub said: String,
}

/// Why there is no sidecar.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process could not be started.
    #[error("the sidecar cannot be started")]
    Spawn(#[source] io::Error),
    /// The log's file could not be opened.
    #[error("the sidecar's log cannot be written to {}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It ended before it was ready, and said why.
    #[error("the sidecar does not start")]
    Refused {
        /// How it ended.
        status: ExitStatus,
        /// What it said, in the form of this program's own errors.
        said: String,
    },
    /// It neither started nor ended.
    #[error("the sidecar was not ready within {} s", PATIENCE.as_secs())]
    Silent,
}

/// How long a start may take. A platform's store of roots on a slow disk is the longest part of it.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a stop may take. No client is left by then.
const STOPPING: Duration = Duration::from_secs(2);

fn spawn(start: &Start<'_>) -> io::Result<Child> {
    let mut command = std::process::Command::new("/proc/self/exe");
    command
        .args(["serve", "--slots-fd", "0", "--stop-at-eof"])
        .args(["--ready-fd", "1", "--die-with-parent", "--routes"])
        .arg(start.routes)
        .args(&start.arguments);
    let mut mappings = Vec::new();
    for (flag, socket) in &start.sockets {
        // The number that it has here is free there: nothing else is handed on.
        let number = socket.as_raw_fd();
        command.arg(flag).arg(format!("fd:{number}"));
        mappings.push(FdMapping {
            parent_fd: socket.try_clone()?,
            child_fd: number,
        });
    }
    command
        .env_clear()
        .envs(INHERITED.iter().filter_map(|name| {
            let value = std::env::var_os(name)?;
            Some((name, value))
        }))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .fd_mappings(mappings)
        .map_err(io::Error::other)?;
    // A key that ends the agent at the terminal is not the sidecar's end.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    Command::from(command).kill_on_drop(true).spawn()
}

/// The sidecar's whole environment. The host's secrets are elsewhere in it.
const INHERITED: [&str; 12] = [
    "EGRESS_LOG",
    "EGRESS_UPSTREAM_PROXY",
    "HOME",
    "LANG",
    "LC_ALL",
    "NO_COLOR",
    "PATH",
    "RUST_BACKTRACE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
    "XDG_STATE_HOME",
];

struct Ready {
    certificate: CertificateDer<'static>,
    addresses: Vec<String>,
}

/// What the sidecar says when it takes connections; `None` where it ends before that.
async fn readiness(stdout: ChildStdout) -> Option<Ready> {
    let mut lines = BufReader::new(stdout).lines();
    let mut addresses = Vec::new();
    let mut certificate = None;
    while let Ok(Some(line)) = lines.next_line().await {
        match line.split_once('=') {
            Some(("LISTEN", address)) => addresses.push(address.to_owned()),
            Some(("CA", text)) => {
                certificate = BASE64_STANDARD.decode(text).ok().map(CertificateDer::from);
            }
            Some(("READY", _)) => {
                return certificate.map(|certificate| Ready {
                    certificate,
                    addresses,
                });
            }
            _ => {}
        }
    }
    None
}

async fn follow(stderr: ChildStderr, log: Log) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(error) = log.add(line) {
            eprintln!("warning: the sidecar's log is not written any more: {error}");
        }
    }
}

/// The sidecar's log: in a file, or its last lines.
#[derive(Clone, Debug)]
struct Log(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    file: Option<File>,
    last: VecDeque<String>,
    refusals: Refusals,
}

impl Log {
    fn open(path: Option<&Path>) -> Result<Self, Error> {
        let open = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|source| Error::Log {
                    path: path.into(),
                    source,
                })
        };
        let file = path.map(open).transpose()?;
        Ok(Self(Arc::new(Mutex::new(Kept {
            file,
            last: VecDeque::new(),
            refusals: Refusals::default(),
        }))))
    }

    /// Adds a line. Where the file takes none any more, such as on a full disk, that is returned once, and the agent
    /// works on.
    fn add(&self, line: String) -> Option<io::Error> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = kept.file.as_mut();
        let failed = file.and_then(|file| file.write_all(format!("{line}\n").as_bytes()).err());
        if failed.is_some() {
            kept.file = None;
        }
        kept.refusals.note(&line);
        if kept.last.len() == KEPT_LINES {
            kept.last.pop_front();
        }
        kept.last.push_back(line);
        failed
    }

    fn refusals(&self) -> Refusals {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.refusals.clone()
    }

    fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = kept.last.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}

const KEPT_LINES: usize = 200;

/// What has the sidecar of a bottle write an audit file.
pub fn audit_arguments(file: &Path, bottle: &str) -> [OsString; 2] {
    // In one word each: a name may look like an option.
    let mut audit = OsString::from("--audit=");
    audit.push(file);
    [audit, format!("--audit-bottle={bottle}").into()]
}
