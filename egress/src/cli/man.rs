//! `egress man`: the manual pages, made from the commands' own definitions.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, Failure, print};

/// Print the manual page, or write those of all commands
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write one page for each command into this directory, and print none
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  egress man | man -l -
  egress man --dir ~/.local/share/man/man1";

/// Runs the command.
///
/// # Errors
///
/// Output that cannot be written.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let command = Cli::command();
    match &args.dir {
        Some(dir) => std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(command, dir))
            .with_context(|| format!("cannot write manual pages to {}", dir.display()))
            .map_err(|error| {
                Failure::runtime(error).hint("choose a directory of yours with --dir")
            })?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command)
                .render(&mut page)
                .map_err(Failure::runtime)?;
            print(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
