//! The binary as a command that runs to its end: its exit code and what it printed.

use std::ffi::OsStr;
use std::process::Stdio;

use tokio::process::Command;

use super::sidecar::EGRESS;
use super::within;

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `egress` with these arguments, and an empty environment.
pub(crate) async fn egress<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Done {
    finish(Command::new(EGRESS).args(arguments).env_clear()).await
}

/// Runs a command to its end.
pub(crate) async fn finish(command: &mut Command) -> Done {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let output = within("end of the command", command.output()).await;
    let output = output.expect("the command runs");
    Done {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
