//! `egress completions`: a shell's completion script, made from the commands' own definitions.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Failure, print};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  egress completions bash > ~/.local/share/bash-completion/completions/egress
  egress completions zsh > \"${fpath[1]}/_egress\"
  egress completions fish > ~/.config/fish/completions/egress.fish";

/// Runs the command.
///
/// # Errors
///
/// Output that cannot be written.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "egress", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
