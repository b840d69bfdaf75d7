//! `egress reload`: has a running sidecar read its routes and slots again, and waits for the result.

use std::process::ExitCode;

use anyhow::anyhow;
use http::{Method, StatusCode};

use super::{Failure, print, status};
use crate::admin::{AdminAddress, client};

/// Arguments of `egress reload`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  egress reload --admin unix:/run/bottle/admin.sock")]
pub struct Args {
    /// The sidecar's admin socket: unix:PATH or IP:PORT
    #[arg(long, value_name = "ADDRESS", env = "EGRESS_ADMIN")]
    admin: AdminAddress,
}

/// Reloads. Exit code 1 where the new routes have faults and the old ones stay in force, and where a slot of the new ones has no
/// usable value.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    // Whoever else listens there would be believed that a credential is withdrawn.
    status::ask(&args.admin)?;
    let (status, body) = client::ask(&args.admin, Method::POST, "/reload")?;
    match status {
        StatusCode::OK => {
            print(&body)?;
            Ok(ExitCode::SUCCESS)
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            print(&body)?;
            eprintln!(
                "error: the routes are in force, but a slot has no usable value, and nothing is sent with it\n\
                 hint: give it one again, or take its routes out"
            );
            Ok(ExitCode::FAILURE)
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            eprintln!("{body}\n\nThe routes before stay in force.");
            Ok(ExitCode::FAILURE)
        }
        StatusCode::INTERNAL_SERVER_ERROR => {
            let error = anyhow!("the reload broke off: {}", body.trim_end());
            Err(Failure::runtime(error)
                .hint("the routes before stay in force; look at the sidecar's log"))
        }
        _ => Err(status::foreign(&args.admin)),
    }
}
