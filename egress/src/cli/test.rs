//! `egress test`: policy unit tests. The decisions are the data path's own, and nothing is sent.
//!
//! Exit: 0 every case is as expected, 1 one is not, 2 usage or configuration, 3 runtime.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use self::outcome::Outcome;
use super::{Failure, load_routes, one_is_a_file, print, recorded};
use crate::config::cases;

mod from_audit;
mod outcome;
mod report;

/// Hold a routes file to what is expected of it, case by case
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The routes file
    #[arg(
        short,
        long,
        value_name = "FILE",
        required_unless_present = "from_audit"
    )]
    routes: Option<PathBuf>,
    /// The file of cases; `-` is stdin
    #[arg(value_name = "CASES", required_unless_present = "from_audit")]
    cases: Option<PathBuf>,
    /// How the outcome is told
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write a file of cases to stdout that holds the routes to what was decided about these recorded requests: an audit
    /// file, or one JSON object a line; `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["routes", "cases", "format"])]
    from_audit: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A line a case, and more of one that failed
    Text,
    /// Test Anything Protocol 14
    Tap,
    /// The XML that CI systems read
    Junit,
}

const EXAMPLES: &str = "\
Examples:
  egress test -r routes.yaml cases.yaml
  egress test -r routes.yaml cases.yaml --format junit > report.xml
  egress test --from-audit egress.db > cases.yaml

A case: {url: https://api.github.com/user, verdict: allow, slot: EGRESS_TOKEN_0}
Exit status: 0 every case is as expected, 1 one is not, 2 usage or configuration, 3 runtime.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    if let Some(audit) = &args.from_audit {
        print(&from_audit::text(&recorded::read(audit)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let named = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
    let (routes, cases) = (named(&args.routes), named(&args.cases));
    one_is_a_file(
        &routes,
        &cases,
        "the routes and the cases cannot both be standard input",
    )?;
    let (routes, file) = (load_routes(&routes)?, cases::load(&cases)?);
    let outcomes: Vec<Outcome> = file
        .cases
        .iter()
        .map(|case| Outcome::of(case, &routes))
        .collect();
    print(&match args.format {
        Format::Text => report::text(&file.name, &outcomes),
        Format::Tap => report::tap(&file.name, &outcomes),
        Format::Junit => report::junit(&file.name, &outcomes),
    })?;
    Ok(match outcomes.iter().all(Outcome::is_ok) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
