//! `egress top`: a running sidecar on a full screen, over its admin socket: requests, hosts, refusals and slots as they change.
//!
//! What is known (`model`) stands apart from how it is drawn (`draw`), and both from sockets and the terminal (`live`).

#[cfg(feature = "top")]
mod draw;
#[cfg(feature = "top")]
mod hosts;
#[cfg(feature = "top")]
mod input;
#[cfg(feature = "top")]
mod live;
#[cfg(feature = "top")]
mod model;
#[cfg(feature = "top")]
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use crate::admin::AdminAddress;

/// Arguments of `egress top`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The sidecar's admin socket: unix:PATH or IP:PORT
    #[arg(long, value_name = "ADDRESS", env = "EGRESS_ADMIN")]
    admin: AdminAddress,
    /// The routes file in force, for suggestions: a route of it that injects a credential is named, to be extended
    #[arg(short, long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Use no colours, as with `NO_COLOR`
    #[arg(long, visible_alias = "no-color")]
    no_colour: bool,
}

const EXAMPLES: &str = "\
Examples:
  egress top --admin unix:/run/bottle/admin.sock
  egress top -r routes.yaml --admin unix:admin.sock

Press ? for the keys and q to quit.";

/// Shows the sidecar until somebody quits.
///
/// # Errors
///
/// A usage [`Failure`] where there is no terminal, and a runtime one where no sidecar answers.
#[cfg(feature = "top")]
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    use std::io::IsTerminal as _;

    use crate::config::Colour;

    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if is_dumb || !is_terminal {
        let error = anyhow::anyhow!("`egress top` needs a terminal");
        return Err(
            Failure::usage(error).hint("`egress tail` prints requests to wherever you like")
        );
    }
    let routes = args.routes.as_deref().map(super::load_routes).transpose()?;
    let colour = match args.no_colour {
        true => Colour::Never,
        false => Colour::of_stdout(),
    };
    live::run(&args.admin, routes, colour)
}

/// Says that it is not built in.
///
/// # Errors
///
/// A usage [`Failure`], always.
#[cfg(not(feature = "top"))]
pub fn run(_: &Args) -> Result<ExitCode, Failure> {
    let error = anyhow::anyhow!("`egress top` is not part of this build");
    Err(Failure::usage(error).hint("use `egress tail`, or build it with the feature `top`"))
}
