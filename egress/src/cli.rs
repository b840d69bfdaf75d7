//! The command line: one file a command. Each command says what it did by its exit code: 0 it is so, 1 what was asked
//! about is not so, 2 usage or configuration, 3 runtime.

pub mod check;
pub mod codex;
pub mod explain;
pub mod reload;
pub mod serve;
pub mod status;

mod logging;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Colour, Faults};

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(*args),
        Command::Check(args) => check::run(args).map_err(Failure::runtime),
        Command::Explain(args) => explain::run(args).map_err(Failure::runtime),
        Command::Status(args) => status::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Codex(command) => return codex::run(&command),
    };
    result.unwrap_or_else(|failure| {
        failure.report();
        failure.code()
    })
}

/// A proxy beside an AI agent: admits only what its routes name, and adds the credentials the agent never holds
#[derive(Debug, Parser)]
#[command(
    name = "egress",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar
    Serve(Box<serve::Args>),
    /// Find everything that is wrong with a routes file
    Check(check::Args),
    /// Say which route decides a request, and why, without any network
    Explain(explain::Args),
    /// Show what a running sidecar does: slots, counters, recent denials
    Status(status::Args),
    /// Have a running sidecar read its routes again, and wait for the result
    Reload(reload::Args),
    /// The Codex login of this host
    #[command(subcommand)]
    Codex(codex::Codex),
}

/// Why a command fails: what is told, and with which exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    what: What,
}

#[derive(Debug)]
enum What {
    Error {
        error: anyhow::Error,
        hint: Option<String>,
    },
    Faults(Faults),
}

impl Failure {
    /// Usage or configuration: exit code 2.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: 2,
            what: What::Error {
                error: error.into(),
                hint: None,
            },
        }
    }

    /// Runtime: exit code 3.
    pub fn runtime(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: 3,
            what: What::Error {
                error: error.into(),
                hint: None,
            },
        }
    }

    /// Adds what can be done about it.
    pub fn hint(mut self, text: impl fmt::Display) -> Self {
        if let What::Error { hint, .. } = &mut self.what {
            *hint = Some(text.to_string());
        }
        self
    }

    fn code(&self) -> ExitCode {
        self.code.into()
    }

    fn report(&self) {
        match &self.what {
            What::Error { error, hint } => {
                eprintln!("error: {error:#}");
                if let Some(hint) = hint {
                    eprintln!("hint: {hint}");
                }
            }
            What::Faults(faults) => eprintln!("{}", faults.to_text(Colour::of_stderr())),
        }
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self {
            code: 2,
            what: What::Faults(faults),
        }
    }
}

impl From<egress_ca::Error> for Failure {
    fn from(error: egress_ca::Error) -> Self {
        let hint = match &error {
            egress_ca::Error::Io { .. } => Some(
                "choose another directory with --ca-dir, or keep the key in memory with --ca-ephemeral",
            ),
            other => other.hint(),
        };
        let failure = Self::runtime(error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Where the bottle's CA is, if nothing else is said: `$XDG_STATE_HOME/egress/ca`, or `~/.local/state/egress/ca`.
fn default_ca_dir() -> PathBuf {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    state
        .unwrap_or_else(|| PathBuf::from("."))
        .join("egress/ca")
}
