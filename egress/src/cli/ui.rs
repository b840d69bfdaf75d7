//! `egress ui`: an address that opens the page of a running sidecar, once.

use std::process::ExitCode;

use anyhow::anyhow;
use http::{Method, StatusCode};

use super::{Failure, print, status};
use crate::admin::ticket::Desk;
use crate::admin::{AdminAddress, client};

/// Arguments of `egress ui`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The sidecar's admin socket: unix:PATH or IP:PORT
    #[arg(long, value_name = "ADDRESS", env = "EGRESS_ADMIN")]
    admin: AdminAddress,
}

const EXAMPLES: &str = "\
Examples:
  egress ui --admin unix:/run/bottle/admin.sock
  xdg-open \"$(egress ui)\"

For a sidecar on another machine, first: ssh -L 8090:127.0.0.1:8090 MACHINE
Exit status: 0 there is an address, 1 the sidecar has no page, 2 usage, 3 runtime.";

/// Asks the sidecar for an address, and prints it. Exit code 1 where it has no page.
///
/// # Errors
///
/// A runtime [`Failure`], where nobody answers.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let (status, body) = client::ask(&args.admin, Method::POST, "/ui-url")?;
    match status {
        // It is opened in a browser: nothing but an address is printed.
        StatusCode::OK if body.starts_with("http://") && body.trim_end().lines().count() == 1 => {
            print(&body)?;
            let minutes = Desk::LIFE.as_secs() / 60;
            eprintln!("It opens the page once, within {minutes} minutes.");
            Ok(ExitCode::SUCCESS)
        }
        StatusCode::CONFLICT => {
            eprintln!("error: the sidecar has no page\nhint: start it with --ui 127.0.0.1:8090");
            Ok(ExitCode::FAILURE)
        }
        StatusCode::INTERNAL_SERVER_ERROR => {
            let error = anyhow!("the sidecar's system has no random numbers for an address");
            Err(Failure::runtime(error).hint("look at its log, and try again"))
        }
        StatusCode::NOT_FOUND => {
            let error = anyhow!("what listens on {} knows of no page", args.admin);
            Err(Failure::runtime(error).hint(
                "a sidecar older than this command does not: start it anew with this version and --ui 127.0.0.1:8090",
            ))
        }
        _ => Err(status::foreign(&args.admin)),
    }
}
