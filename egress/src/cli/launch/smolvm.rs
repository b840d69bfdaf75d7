//! `egress launch smolvm`: an agent in a micro-VM, and its sidecar on the host beside it.

#[cfg(target_os = "linux")]
mod session;
#[cfg(target_os = "linux")]
mod way;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::Failure;
use crate::cli::launching::Sources;

/// Arguments of `egress launch smolvm`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The agent: codex, claude, gemini, opencode, or one of the agents file [default: that of the bottle]
    agent: Option<String>,
    #[command(flatten)]
    sources: Sources,
    /// The machine's image: a saved image (./image.tar), an unpacked root file system (./rootfs/), or one of a registry
    #[arg(short = 'I', long, value_name = "IMAGE")]
    image: String,
    /// The smolvm program
    #[arg(long, value_name = "PATH", default_value = "smolvm")]
    smolvm: PathBuf,
    /// Where smolvm keeps its machines [default: its own]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The machine's name [default: egress- and the bottle's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The directory that the agent works in, as /workspace, and the only one of yours that it has [default: the current one]
    #[arg(short, long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// The agent's user in the image
    #[arg(short, long, value_name = "USER", default_value = "node")]
    user: String,
    /// The home of that user in the image
    #[arg(long, value_name = "DIR", default_value = "/home/node")]
    agent_home: PathBuf,
    /// The machine's processors at most
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// The machine's memory at most, in MiB
    #[arg(long, value_name = "MIB")]
    mem: Option<u32>,
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
    /// What is run in the machine [default: the agent]; after AGENT, the agent's arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  docker save my-agent:latest -o agent.tar
  egress launch smolvm codex --image ./agent.tar    # your Codex login; here is /workspace there
  egress launch smolvm -m ~/bottle.yaml --image ./agent.tar -- codex exec \"fix the tests\"
  egress launch smolvm -m ~/bottle.yaml --image ./rootfs/ --user dev --agent-home /home/dev -- bash

Exit status: that of the command; 128 and the signal's number where a signal ended the launch; 2
(usage or configuration) or 3 where the command was not started, and 3 where its machine or its
sidecar ended before it did.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Result<ExitCode, Failure> {
    session::run(args)
}

/// Elsewhere the sidecar cannot be handed its sockets yet.
///
/// # Errors
///
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn run(_: Args) -> Result<ExitCode, Failure> {
    let error = anyhow::anyhow!("`egress launch smolvm` needs Linux");
    Err(Failure::usage(error).hint("run the agent in a container: `egress launch docker`"))
}
