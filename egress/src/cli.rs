//! The command line: one file a command. Each command says what it did by its exit code: 0 it is so, 1 what was asked
//! about is not so, 2 usage or configuration, 3 runtime.

pub mod audit;
pub mod ca;
pub mod check;
pub mod codex;
pub mod completions;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod env;
pub mod explain;
pub mod init;
pub mod launch;
pub mod man;
pub mod presets;
pub mod relay;
pub mod reload;
pub mod render_routes;
pub mod replay;
pub mod run;
pub mod schema;
pub mod serve;
pub mod status;
pub mod suggest;
pub mod tail;
pub mod test;
pub mod top;
pub mod ui;

mod launching;
mod limits;
mod logging;
mod output;
mod recorded;

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use clap::{Parser, Subcommand};
use egress_ca::Root;

use crate::admin::{self, watch};
use crate::audit::database;
use crate::config::{self, Colour, Faults};
use crate::launch::bundle;
use crate::route::Routes;

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(*args),
        Command::Init(args) => init::run(&args),
        Command::Check(args) => check::run(args).map_err(Failure::runtime),
        Command::RenderRoutes(args) => render_routes::run(&args),
        Command::Presets(args) => presets::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Suggest(args) => suggest::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Ui(args) => ui::run(&args),
        Command::Audit(args) => audit::run(*args),
        Command::Run(args) => run::run(*args),
        Command::Launch(command) => launch::run(command),
        Command::Relay(args) => relay::run(&args),
        Command::Env(args) => env::run(&args),
        Command::Ca(command) => ca::run(&command),
        Command::Codex(command) => return codex::run(&command),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
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
    max_term_width = 100,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  egress run codex                      # in a box on this machine, with your login, which stays out
  egress check routes.yaml
  EGRESS_TOKEN_0=... egress serve -r routes.yaml
  eval \"$(egress env --proxy http://127.0.0.1:8080 -r routes.yaml)\"

Exit status: 0 it is so, 1 what was asked about is not so, 2 usage or configuration, 3 runtime.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole thing at work, on this machine alone, and test it on the way
    Demo(demo::Args),
    /// Run an agent in a box whose only way out is its sidecar
    Run(Box<run::Args>),
    /// Run an agent in a container or a machine of its own, and its sidecar for as long as it works
    #[command(subcommand)]
    Launch(launch::Launch),
    /// Run the sidecar
    Serve(Box<serve::args::Args>),
    /// Write a manifest to begin with
    Init(init::Args),
    /// Find everything that is wrong with a routes file or a manifest
    Check(check::Args),
    /// Make the routes file of a manifest's bottle
    RenderRoutes(render_routes::Args),
    /// List the presets that a manifest's routes may name, or print one
    Presets(presets::Args),
    /// Print the JSON Schema of one of the files, for editors
    Schema(schema::Args),
    /// Say which route decides a request, and why, without any network
    Explain(explain::Args),
    /// Hold a routes file to what is expected of it, case by case
    Test(test::Args),
    /// Say what a change of routes opens and closes
    Diff(diff::Args),
    /// Say which recorded requests a change of routes would decide otherwise
    Replay(replay::Args),
    /// Print the smallest routes that would have let through what was refused
    Suggest(suggest::Args),
    /// Show what a running sidecar does: slots, counters, recent denials
    Status(status::Args),
    /// Find what keeps an agent from its sidecar or leads it around it, in the sandbox or on the host
    Doctor(doctor::Args),
    /// Print requests as they come to a running sidecar
    Tail(tail::Args),
    /// Watch a running sidecar on a full screen: requests, hosts, refusals, slots
    Top(top::Args),
    /// Have a running sidecar read its routes again, and wait for the result
    Reload(reload::Args),
    /// Print an address that opens the page of a running sidecar, once
    Ui(ui::Args),
    /// Read an audit file: rows by what is asked for, or whether nothing in it was changed
    Audit(Box<audit::Args>),
    /// Print the environment that an agent needs: the proxy, the CA, and placeholders for keys
    Env(env::Args),
    /// The bottle's CA: create it, print it, and bundle it with the public roots
    #[command(subcommand)]
    Ca(ca::Ca),
    /// The Codex login of this host
    #[command(subcommand)]
    Codex(codex::Codex),
    /// Carry connections to a port of this machine to a Unix socket
    Relay(relay::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the manual page, or write those of all commands
    Man(man::Args),
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
    /// Several errors, each with its hint.
    Several(Vec<(String, String)>),
    /// What another process of this program has said already, in the same form.
    Said(String),
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

    /// Several errors of one kind, each with what can be done about it: exit code 2.
    fn several(errors: impl Iterator<Item = (String, String)>) -> Self {
        Self {
            code: 2,
            what: What::Several(errors.collect()),
        }
    }

    /// The failure of a process of this program, in its own words and with its own code.
    fn said(status: &ExitStatus, text: String) -> Self {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Self {
            code: code.filter(|code| *code > 0).unwrap_or(3),
            what: What::Said(text),
        }
    }

    fn code(&self) -> ExitCode {
        self.code.into()
    }

    fn report(&self) {
        // Not by `eprintln!`, which panics where nobody can be told: the exit code says it all the same.
        _ = writeln!(std::io::stderr().lock(), "{}", self.text());
    }

    fn text(&self) -> String {
        match &self.what {
            What::Error { error, hint: None } => format!("error: {error:#}"),
            What::Error {
                error,
                hint: Some(hint),
            } => format!("error: {error:#}\nhint: {hint}"),
            What::Several(errors) => {
                let pairs = errors.iter();
                let pairs = pairs.map(|(error, hint)| format!("error: {error}\nhint: {hint}"));
                pairs.collect::<Vec<_>>().join("\n")
            }
            What::Said(text) => text.clone(),
            What::Faults(faults) => faults.to_text(Colour::of_stderr()),
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

impl From<database::Error> for Failure {
    fn from(error: database::Error) -> Self {
        let hint = error.hint();
        Self::runtime(error).hint(hint)
    }
}

impl From<admin::Error> for Failure {
    fn from(error: admin::Error) -> Self {
        let hint = error.hint();
        Self::runtime(error).hint(hint)
    }
}

impl From<watch::Error> for Failure {
    fn from(error: watch::Error) -> Self {
        let hint = error.hint();
        Self::runtime(error).hint(hint)
    }
}

/// How changes are told.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// In words, what a credential newly reaches first
    Text,
    /// One JSON object
    Json,
}

/// The routes of a file, without their slots.
fn load_routes(path: &Path) -> Result<Routes, Failure> {
    let file = config::load(path)?;
    Routes::new(file.rules, None)
        .map_err(|_| Failure::usage(anyhow::anyhow!("{}: two routes tie", path.display())))
}

/// The trust bundle of a CA: its certificate and the platform's roots.
fn trust_bundle(root: &Root) -> Result<String, Failure> {
    let (text, unread) = bundle::text(root.certificate_pem())
        .map_err(|error| Failure::runtime(error).hint(error.hint()))?;
    for error in unread {
        eprintln!("warning: a root certificate cannot be read: {error}");
    }
    Ok(text)
}

/// Prints a command's data. A reader that has seen enough is no fault.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::runtime(
            anyhow::Error::new(error).context("cannot write to stdout"),
        )),
        _ => Ok(()),
    }
}

/// Refuses standard input for two files at once, with `problem` as the error.
fn one_is_a_file(one: &Path, other: &Path, problem: &'static str) -> Result<(), Failure> {
    let stdin = Path::new("-");
    if one == stdin && other == stdin {
        return Err(Failure::usage(anyhow::anyhow!(problem)).hint("name a file for one of them"));
    }
    Ok(())
}

/// Where the bottle's CA is: as named, else `$XDG_STATE_HOME/egress/ca`, else `~/.local/state/egress/ca`. Where none of
/// these can be told, a key is not written to wherever the command happens to be run.
fn ca_dir(named: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let state =
        || variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    named
        .cloned()
        .or_else(|| Some(state()?.join("egress/ca")))
        .ok_or_else(|| {
            let error = anyhow::anyhow!("the CA's directory is not known: HOME is not set");
            Failure::usage(error).hint("name it with --ca-dir")
        })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_definitions_agree_with_themselves() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_that_no_terminal_breaks_and_none_is_hidden() {
        let mut pending = vec![Cli::command()];
        while let Some(command) = pending.pop() {
            let after = command.get_after_help().map(ToString::to_string);
            for line in after.iter().flat_map(|text| text.lines()) {
                assert!(line.len() <= 100, "{}: {line}", command.get_name());
            }
            assert!(!command.is_hide_set(), "{}", command.get_name());
            if command.has_subcommands() {
                pending.extend(command.get_subcommands().cloned());
            } else {
                let help = command.get_after_help().map(ToString::to_string);
                assert!(
                    help.is_some_and(|help| help.contains("Examples:\n  ")),
                    "{}",
                    command.get_name()
                );
            }
        }
    }
}
