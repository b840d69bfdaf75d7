//! `egress launch`: an agent in a place of its own, and its sidecar for as long as it works.

mod docker;
pub mod smolvm;

use std::process::ExitCode;

use super::Failure;
use crate::confine;

/// Places where an agent can be launched.
#[derive(Debug, clap::Subcommand)]
pub enum Launch {
    /// Run the agent in a container, and the sidecar in another one beside it
    #[command(after_help = docker::EXAMPLES)]
    Docker(Box<docker::Args>),
    /// Run the agent in a micro-VM of smolvm, and the sidecar on the host beside it
    Smolvm(Box<smolvm::Args>),
}

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(command: Launch) -> Result<ExitCode, Failure> {
    confine::close_launcher();
    match command {
        Launch::Docker(args) => docker::run(*args),
        Launch::Smolvm(args) => smolvm::run(*args),
    }
}
