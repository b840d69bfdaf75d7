//! The docker command line: how it is called, and what its failures mean.
//!
//! Every call is a list of arguments; no shell of the host reads them. No value of a slot is ever among them: what a
//! container was started with is for everybody to see who may ask the engine.

use std::ffi::OsStr;
use std::io;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A docker that answers.
#[derive(Clone, Debug)]
pub struct Engine(());

impl Engine {
    /// Asks the engine for its version.
    ///
    /// # Errors
    ///
    /// [`Error::NoClient`], or [`Error::NoEngine`] with what docker says.
    pub async fn find() -> Result<Self, Error> {
        let engine = Self(());
        let asked = engine.output(&["version", "--format", "{{.Server.Version}}"], b"");
        let output = asked.await?;
        if output.status.success() {
            Ok(engine)
        } else {
            Err(Error::NoEngine(said(&output)))
        }
    }

    /// `docker` with these arguments. Nothing of it survives this process unless it is waited for.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments).kill_on_drop(true);
        command
    }

    /// Runs `docker`, which has to succeed, and returns what it printed.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with what docker says.
    pub async fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String, Error> {
        self.feed(arguments, b"").await
    }

    /// The same with something on its standard input.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub async fn feed<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        input: &[u8],
    ) -> Result<String, Error> {
        let output = self.output(arguments, input).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let verb = arguments.first().map(AsRef::as_ref);
        Err(Error::Failed {
            verb: verb.unwrap_or_default().to_string_lossy().into_owned(),
            said: said(&output),
        })
    }

    /// Runs `docker` to its end, whatever that is.
    ///
    /// # Errors
    ///
    /// [`Error::NoClient`], or the system's.
    pub async fn output<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        input: &[u8],
    ) -> Result<Output, Error> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A key at the terminal is the agent's, or this process's own affair.
            .process_group(0)
            .spawn()
            .map_err(Error::spawn)?;
        let mut stdin = child.stdin.take();
        let feeding = async {
            if let Some(stdin) = &mut stdin {
                // Where docker does not want it, it says so.
                _ = stdin.write_all(input).await;
            }
            drop(stdin.take());
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feeding);
        output.map_err(Error::Spawn)
    }
}

/// What docker says of a failure, without its own prefixes.
pub(super) fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("Unable to find image"))
        .unwrap_or("it said nothing");
    let line = line.strip_prefix("docker: ").unwrap_or(line);
    let line = line
        .strip_prefix("Error response from daemon: ")
        .unwrap_or(line);
    line.trim_end_matches('.').to_owned()
}

/// Why docker did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `docker`.
    #[error("there is no `docker` on the PATH")]
    NoClient,
    /// No engine answers.
    #[error("docker has no engine: {0}")]
    NoEngine(String),
    /// It could not be run.
    #[error("docker cannot be run")]
    Spawn(#[source] io::Error),
    /// It said no.
    #[error("docker {verb}: {said}")]
    Failed {
        /// What was asked.
        verb: String,
        /// Its reason.
        said: String,
    },
}

impl Error {
    pub(super) fn spawn(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NoClient,
            _ => Self::Spawn(error),
        }
    }

    /// What the operator can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoClient => {
                Some("install Docker, or run the agent on this machine: `egress run`")
            }
            Self::NoEngine(said) if said.contains("permission denied") => Some(
                "you may not use Docker's socket: join the group `docker` and log in again, or use sudo",
            ),
            Self::NoEngine(_) => {
                Some("start it (`systemctl start docker`), or name another with DOCKER_HOST")
            }
            Self::Spawn(_) | Self::Failed { .. } => None,
        }
    }
}
