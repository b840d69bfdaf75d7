//! `egress run`: an agent in a box on this machine, and its sidecar for as long as it works.

#[cfg(target_os = "linux")]
mod arguments;
#[cfg(target_os = "linux")]
mod given;
#[cfg(target_os = "linux")]
mod session;

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use super::launching::Sources;

/// Arguments of `egress run`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The agent: codex, claude, gemini, opencode, or one of the agents file. Without it, COMMAND names a program
    agent: Option<String>,
    #[command(flatten)]
    sources: Sources,
    /// The directory that the agent works in, and the only one of yours that it can write to [default: the current one]
    #[arg(short, long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// A directory that is kept as the agent's home; without it, the home is forgotten at the end
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// A further directory or file of yours that the agent can read. May be given several times
    #[arg(long, value_name = "PATH")]
    ro_bind: Vec<PathBuf>,
    /// A further directory or file of yours that the agent can write to. May be given several times
    #[arg(long, value_name = "PATH")]
    bind: Vec<PathBuf>,
    /// A variable for the agent: NAME=VALUE, or NAME for the value that it has here. May be given several times
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A PEM file of certificates that the sidecar trusts for upstreams besides the roots. May be given several times
    #[arg(long, value_name = "FILE")]
    upstream_ca: Vec<PathBuf>,
    /// Where the sidecar's log goes; without it, it is shown only where the sidecar ends
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// An audit file of the sidecar's, with a row for each request; `egress audit` reads it
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Where `egress status` and `egress reload` find the sidecar: unix:PATH, or IP:PORT on loopback
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Start the agent without a box, where this system permits none: nothing but variables leads it to the sidecar
    #[arg(long)]
    no_box: bool,
    /// The program and its arguments; after AGENT, the agent's arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  egress run codex                           # your Codex login, in a box, in this directory
  egress run codex -- exec \"fix the tests\"
  egress run --manifest ~/bottle.yaml -- codex exec \"fix the tests\"
  egress run --manifest ~/bottle.yaml --bottle dev --ro-bind ~/.rustup --env RUST_LOG -- bash

Without a manifest, only Codex has a credential: that of your login. At the end, a line on stderr
says what the sidecar refused, if anything, and another one what failed behind it.

Exit status: that of the command; 128 and the signal's number where a signal ended it; 2 (usage or
configuration) or 3 where it was not started, and 3 where its sidecar ended before it did.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Result<ExitCode, Failure> {
    crate::confine::close_launcher();
    session::run(args)
}

/// Elsewhere there are no namespaces.
///
/// # Errors
///
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn run(_: Args) -> Result<ExitCode, Failure> {
    let error = anyhow::anyhow!("a box needs Linux");
    Err(Failure::usage(error).hint("run the agent in a container: `egress launch docker`"))
}
