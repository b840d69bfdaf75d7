//! `egress schema`: what a file may say, as JSON Schema, for editors and other checkers. Exit: 0 done.

use std::process::ExitCode;

use clap::ValueEnum;

use super::{Failure, print};
use crate::config::schema;

/// Print the JSON Schema of one of the files, for editors
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Of which file
    #[arg(value_enum, value_name = "FILE")]
    file: File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum File {
    /// The routes file
    Routes,
    /// The manifest
    Manifest,
    /// The agents file
    Agents,
}

const EXAMPLES: &str = "\
Examples:
  egress schema routes > routes.schema.json
  egress schema manifest > manifest.schema.json

An editor with the YAML language server checks a file that begins with
  # yaml-language-server: $schema=routes.schema.json
It sees the form of each key. `egress check` sees everything.";

/// Runs the command.
///
/// # Errors
///
/// Output that cannot be written.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let schema = match args.file {
        File::Routes => schema::routes(),
        File::Manifest => schema::manifest(),
        File::Agents => schema::agents(),
    };
    print(&format!("{schema:#}\n"))?;
    Ok(ExitCode::SUCCESS)
}
