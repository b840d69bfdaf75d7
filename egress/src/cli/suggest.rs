//! `egress suggest`: from what no route admitted, refused or observed, to the smallest routes that would have.
//!
//! An agent chooses what it asks for, so a suggestion is what it asked for, and never a judgement that it should have it.
//! Exit: 0 there is something to suggest, 1 there is nothing, 2 usage or configuration, 3 runtime.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, load_routes, print, recorded, status};
use crate::admin::AdminAddress;
use crate::advice::recorded::record;
use crate::advice::suggestion::Suggestion;
use crate::audit::object::object;
use crate::audit::row::Row;
use crate::outcome::Verdict;
use crate::route::Routes;

/// Print the smallest routes that would have admitted what was refused, or let through by an observation
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The routes file in force: what it admits by now is left out, and a route of it that injects a credential is named,
    /// to be extended, in place of a second route beside it
    #[arg(short, long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Recorded requests: an audit file, or one JSON object a line; `-` is stdin
    #[arg(long, value_name = "FILE", required_unless_present = "admin")]
    audit: Option<PathBuf>,
    /// A running sidecar's admin socket, for its latest refusals: unix:PATH or IP:PORT. With `--audit` it is not asked
    #[arg(long, value_name = "ADDRESS", env = "EGRESS_ADMIN")]
    admin: Option<AdminAddress>,
    /// Suggest the longest common prefix of N paths or more of one host, in place of each path by itself; without a number 4
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "4",
        value_parser = clap::value_parser!(u16).range(2..)
    )]
    prefix: Option<u16>,
}

const EXAMPLES: &str = "\
Examples:
  egress suggest -r routes.yaml --admin unix:/run/bottle/admin.sock
  egress suggest --audit egress.db --prefix > suggested.yaml

The agent chose what it asked for: read each route before you keep it.
Exit status: 0 there is something to suggest, 1 there is nothing, 2 usage or configuration,
3 runtime.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let routes = args.routes.as_deref().map(load_routes).transpose()?;
    let recorded = match (&args.audit, &args.admin) {
        (Some(file), _) => recorded::read(file)?,
        (None, Some(address)) => recorded::denials(&status::ask(address)?.1)?,
        (None, None) => Vec::new(),
    };
    let suggestion = Suggestion::of(&recorded, routes.as_ref(), args.prefix.map(usize::from));
    print(&suggestion.to_text())?;
    Ok(match suggestion.is_empty() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// What is suggested for one request, where it was refused or observed.
#[cfg_attr(
    not(feature = "top"),
    expect(dead_code, reason = "`egress top` alone asks for it")
)]
pub(super) fn for_row(row: &Row<'_>, routes: Option<&Routes>) -> Option<String> {
    let recorded = record(&object(row)).ok()?;
    let request = &recorded.request;
    let is_wanted = request.verdict == Verdict::Denied || request.is_observed();
    is_wanted.then(|| Suggestion::of(&[recorded], routes, None).to_text())
}
