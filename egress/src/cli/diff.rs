//! `egress diff`: what a change of routes opens and closes. Decisions are compared, and not texts.
//!
//! Both files are asked about the same requests: one for each host, path, method and condition that either of them can tell
//! from others. Exit: 0 no difference in effect, 1 there is one, 2 usage or configuration, 3 runtime.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Format, load_routes, one_is_a_file, print};
use crate::advice::difference::{self, Difference};

/// Say what a change of routes opens and closes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The routes file before the change; `-` is stdin
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The routes file after it
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// How the difference is told
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  egress diff routes.yaml new.yaml
  git show main:routes.yaml | egress diff - routes.yaml

Exit status: 0 no difference in effect, 1 there is one, 2 usage or configuration, 3 runtime.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    one_is_a_file(&args.old, &args.new, "both files cannot be standard input")?;
    let (old, new) = (load_routes(&args.old)?, load_routes(&args.new)?);
    let changes = difference::between(&old, &new);
    print(&match args.format {
        Format::Text => difference::to_text(&changes),
        Format::Json => {
            let changes: Vec<_> = changes.iter().map(Difference::to_json).collect();
            format!("{:#}\n", json!({ "version": 1, "changes": changes }))
        }
    })?;
    Ok(match changes.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
