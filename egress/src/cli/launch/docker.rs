//! `egress launch docker`: an agent in a container, and its sidecar in one beside it.

mod session;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::super::Failure;
use super::super::launching::reach::keep_out_of_workspace;
use super::super::launching::{self, Chosen, Sources};
use crate::launch::Host;
use crate::launch::place::docker::Error;

/// Arguments of `egress launch docker`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The agent: codex, claude, gemini, opencode, or one of the agents file. Without it, COMMAND names a program
    agent: Option<String>,
    #[command(flatten)]
    sources: Sources,
    /// The agent's image, with a shell and the agent's user in it
    #[arg(short, long, value_name = "IMAGE")]
    image: String,
    /// The sidecar's image
    #[arg(
        long,
        value_name = "IMAGE",
        env = "EGRESS_SIDECAR_IMAGE",
        default_value = "egress"
    )]
    sidecar_image: String,
    /// The directory that the agent works in, as /workspace [default: the current one]
    #[arg(short, long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// The agent's user in the image: a name, UID, or UID:GID
    #[arg(short, long, value_name = "USER", default_value = "node")]
    user: String,
    /// That user's home
    #[arg(long, value_name = "DIR", default_value = "/home/node")]
    agent_home: PathBuf,
    /// A variable for the agent: NAME=VALUE, or NAME for the value that it has here. May be given several times
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A PEM file of certificates that the sidecar trusts for upstreams besides the roots. May be given several times
    #[arg(long, value_name = "FILE")]
    upstream_ca: Vec<PathBuf>,
    /// Where the sidecar's log goes; without it, it is shown only where the sidecar ends
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// An audit file of the sidecar's, with a row for each request; `egress audit` reads it. The sidecar has its directory
    /// whole, as your user
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// The program and its arguments; after AGENT, the agent's arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  egress launch docker codex --image my/codex      # your Codex login; here is /workspace there
  egress launch docker --manifest ~/bottle.yaml --image my/agent -- codex exec \"fix the tests\"
  egress launch docker -m ~/bottle.yaml -i debian:12 --user root --agent-home /root -- bash

Meanwhile: docker exec egress-BOTTLE-sidecar /egress status

Exit status: that of the command; 128 and the signal's number where a signal ended it; 2 (usage or
configuration) or 3 where it was not started, and 3 where its sidecar ended before it did.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let chosen = Chosen::new(args.agent.as_deref(), &args.sources)?;
    chosen.needs_command(&args.command)?;
    launching::absolute_home(&args.agent_home)?;
    let workspace = args.workspace.as_deref().unwrap_or(Path::new("."));
    let workspace = workspace
        .canonicalize()
        .with_context(|| format!("cannot find {}", workspace.display()))
        .map_err(Failure::usage)?;
    launching::without_logins(&workspace)?;
    let own = [
        ("the sidecar's log", args.log.as_deref()),
        ("the audit file", args.audit.as_deref()),
    ];
    keep_out_of_workspace(&workspace, &args.sources, &own, &chosen, &Host::this())?;
    launching::drive(async |stops| {
        let begin = session::Session::begin(&args, &chosen, &workspace);
        match stops.before(begin).await {
            Ok(begun) => begun?.watch(stops).await,
            Err(number) => Ok(128 + number),
        }
    })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = error.hint();
        let failure = if error.is_usage() {
            Self::usage(error)
        } else {
            Self::runtime(error)
        };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
