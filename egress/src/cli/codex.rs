//! `egress codex`: the state of the host's Codex login without its secrets, and the dummy login for an agent.
//!
//! Exit: 0 ok, 1 the login is of no use, 2 usage or configuration, 3 runtime.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::credential::codex::dummy::{Dummy, Leak, WriteError};
use crate::credential::codex::login::HostLogin;
use crate::credential::codex::{self, HostFile, NoHome};

/// The Codex login of this host
#[derive(Debug, Subcommand)]
pub enum Codex {
    /// Show the state of the login, without its secrets
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Write an auth.json without secrets, with which Codex in a sandbox looks logged in
    #[command(after_help = DUMMY_EXAMPLES)]
    DummyAuth(DummyAuth),
}

/// Arguments of `egress codex status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// Arguments of `egress codex dummy-auth`.
#[derive(Debug, Args)]
pub struct DummyAuth {
    /// Where to write the dummy, mode 0600; `-` for stdout
    #[arg(short, long, value_name = "PATH|-")]
    output: PathBuf,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
struct Source {
    /// The host's login [default: $CODEX_HOME/auth.json, else ~/.codex/auth.json]
    #[arg(long, value_name = "PATH")]
    auth_file: Option<PathBuf>,
}

/// Runs the command with this process's environment, clock and output.
pub fn run(command: &Codex) -> ExitCode {
    let surroundings = Surroundings {
        env: &|name| std::env::var_os(name),
        now: SystemTime::now(),
    };
    let code = surroundings.run(command, &mut io::stdout().lock(), &mut io::stderr().lock());
    ExitCode::from(code)
}

/// What a command depends on besides its arguments.
struct Surroundings<'a> {
    env: &'a dyn Fn(&str) -> Option<OsString>,
    now: SystemTime,
}

impl Surroundings<'_> {
    fn run(&self, command: &Codex, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
        let done = match command {
            Codex::Status(args) => self.status(args, out, err),
            Codex::DummyAuth(args) => self.dummy_auth(args, out, err),
        };
        let Err(failure) = done else {
            return 0;
        };
        // With stderr gone as well, the exit code is all that is left to tell.
        let _ = writeln!(err, "error: {failure}\nhint: {}", failure.hint());
        failure.exit_code()
    }

    fn status(
        &self,
        args: &Status,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<(), Failure> {
        let path = self.path(&args.source)?;
        let login = HostFile::read(&path).and_then(|file| file.login(self.now));
        let text = match &login {
            Ok(login) if args.json => self.as_json(&path, login),
            Ok(login) => self.as_text(&path, login),
            Err(error) if args.json => {
                let state = error.problem().code();
                format!(
                    "{:#}\n",
                    json!({"file": path.to_string_lossy(), "state": state})
                )
            }
            Err(_) => String::new(),
        };
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(Failure::Output)?;
        warn(&login?, err);
        Ok(())
    }

    fn dummy_auth(
        &self,
        args: &DummyAuth,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<(), Failure> {
        let file = HostFile::read(&self.path(&args.source)?)?;
        let login = file.login(self.now)?;
        let dummy = Dummy::build(file.document(), login.expiry())?;
        if args.output == Path::new("-") {
            out.write_all(dummy.as_str().as_bytes())
                .and_then(|()| out.flush())
                .map_err(Failure::Output)?;
        } else {
            dummy.write(&args.output)?;
        }
        warn(&login, err);
        Ok(())
    }

    fn path(&self, source: &Source) -> Result<PathBuf, NoHome> {
        match &source.auth_file {
            Some(path) => Ok(path.clone()),
            None => codex::locate(self.env),
        }
    }

    fn as_text(&self, path: &Path, login: &HostLogin) -> String {
        format!(
            "file     {}\nmode     {}\naccount  {}\nplan     {}\nexpires  {} (in {})\n",
            path.display(),
            login.mode().name(),
            login.account_id().map_or("none".to_owned(), masked),
            login.plan().unwrap_or("not stated"),
            login.expiry(),
            roughly(login.expiry().left(self.now).unwrap_or_default()),
        )
    }

    fn as_json(&self, path: &Path, login: &HostLogin) -> String {
        let left = login.expiry().left(self.now).unwrap_or_default();
        let status = json!({
            "file": path.to_string_lossy(),
            "state": "ok",
            "mode": login.mode().name(),
            "account": login.account_id().map(masked),
            "plan": login.plan(),
            "expires_at": login.expiry().to_string(),
            "seconds_left": left.as_secs(),
        });
        format!("{status:#}\n")
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    NoHome(#[from] NoHome),
    #[error(transparent)]
    Login(#[from] codex::Error),
    #[error(transparent)]
    Leak(#[from] Leak),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("stdout: {0}")]
    Output(io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Login(_) => 1,
            Self::NoHome(_) | Self::Write(WriteError::RealLogin(_)) => 2,
            Self::Leak(_) | Self::Write(_) | Self::Output(_) => 3,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Login(error) => error.hint(),
            Self::NoHome(_) => "set HOME or CODEX_HOME, or name the file with --auth-file",
            Self::Leak(_) => {
                "a field that the dummy keeps repeats a secret; log in anew with `codex login --device-auth`"
            }
            Self::Write(WriteError::RealLogin(_)) => {
                "name a file in the agent's CODEX_HOME, not the one of the host"
            }
            Self::Write(WriteError::OpenDirectory(_)) => {
                "choose a directory of its own, or take the right to write from others (chmod o-w)"
            }
            Self::Write(_) => "choose a file in a directory that this user may write to",
            Self::Output(_) => "give the output a place to go, or write to a file with -o",
        }
    }
}

fn warn(login: &HostLogin, err: &mut dyn Write) {
    if let Some(warning) = login.mode().warning() {
        // A warning that nobody can hear is no reason to fail.
        let _ = writeln!(err, "warning: {warning}");
    }
}

/// Enough of an account id to tell two apart. One too short to be masked, or with signs that a terminal might obey, is
/// not shown at all.
fn masked(id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match (id.get(..4), id.get(id.len().saturating_sub(4)..)) {
        (Some(first), Some(last)) if id.len() >= 16 && id.chars().all(plain) => {
            format!("{first}...{last}")
        }
        _ => "present".to_owned(),
    }
}

/// The two largest units, which is all that anyone plans by.
fn roughly(left: Duration) -> String {
    let seconds = left.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

const STATUS_EXAMPLES: &str = "\
Examples:
  egress codex status
  egress codex status --json | jq .seconds_left
  egress codex status --auth-file /mnt/host/.codex/auth.json

Exits with 1 when the login cannot be used: missing, broken, of another kind, or expired.";

const DUMMY_EXAMPLES: &str = "\
Examples:
  egress codex dummy-auth -o agent-home/.codex/auth.json
  egress codex dummy-auth -o - | jq .tokens.account_id

The dummy is made from an allowlist and checked against every text of the login.
A login that is not a dummy is never overwritten.";

#[cfg(test)]
mod tests;
