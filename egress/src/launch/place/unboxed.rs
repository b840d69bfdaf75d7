//! An agent without a box, for systems that permit none: its variables lead it to the sidecar, and nothing holds it there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use super::local::contents::Contents;
use crate::launch::agent::HomeFile;
use crate::launch::home::Home;

/// What the operator has to know.
pub const WARNING: &str = "\
the agent runs without a box. NOT enforced: it can open connections past the sidecar, reach this machine's own \
services, look names up with any resolver, read every file that you can read (your logins among them), and see your \
processes. Only its variables lead it to the sidecar";

/// An agent that runs as a plain child process. Dropping it kills it.
#[derive(Debug)]
pub struct Unboxed {
    child: Child,
    home: Home,
}

impl Unboxed {
    /// Fills a home directory and starts the command.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn start(contents: Contents, home: &Path, bundle: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(home)?;
        fs::write(bundle, contents.bundle)?;
        let home = Home::open(home, None)?;
        for file in &contents.files {
            home.place(file)?;
        }
        let mut words = contents.command.iter();
        let child = Command::new(words.next().map_or("", String::as_str))
            .args(words)
            .env_clear()
            .envs(contents.environment)
            .current_dir(contents.workspace)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child, home })
    }

    /// Waits for the command's end: its code in the way of a shell.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn ended(&mut self) -> io::Result<i32> {
        let status = self.child.wait().await?;
        let signalled = || 128 + status.signal().unwrap_or_default();
        Ok(status.code().unwrap_or_else(signalled))
    }

    /// Replaces a file of the agent's home in one step.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn write(&self, file: &HomeFile) -> io::Result<()> {
        self.home.place(file)
    }

    /// Sends a signal to the command.
    pub fn signal(&self, number: i32) {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.try_into().ok()?));
        if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number)) {
            _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Ends the command.
    pub async fn close(mut self) {
        _ = self.child.kill().await;
    }
}
