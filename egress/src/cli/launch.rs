//! `egress launch`: an agent somewhere else than on this machine's own floor, and its sidecar for as long as it works.

mod docker;

use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;

/// Where the agent is to run.
#[derive(Debug, Subcommand)]
pub enum Launch {
    /// In a container, beside the sidecar's
    #[command(after_help = docker::EXAMPLES)]
    Docker(Box<docker::Args>),
}

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(command: Launch) -> Result<ExitCode, Failure> {
    match command {
        Launch::Docker(args) => docker::run(*args),
    }
}
