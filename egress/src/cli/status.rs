//! `egress status`: what a running sidecar says of itself over its admin socket.

use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use super::{Failure, print};
use crate::admin::{self, AdminAddress, client, watch};

/// Arguments of `egress status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  egress status --admin unix:/run/bottle/admin.sock\n  egress status --json | jq .slots"
)]
pub struct Args {
    /// The sidecar's admin socket: unix:PATH or IP:PORT
    #[arg(long, value_name = "ADDRESS", env = "EGRESS_ADMIN")]
    admin: AdminAddress,
    /// Print the JSON object as the sidecar gives it
    #[arg(long)]
    json: bool,
}

/// Asks the sidecar, and prints what it says. Exit code 1 where it runs but cannot serve every route.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let (body, status) = ask(&args.admin)?;
    if args.json {
        print(&format!("{body}\n"))?;
    } else {
        print(&text(&status))?;
    }
    let healthy = status
        .get("healthy")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A running sidecar's account of itself, as it gives it and read.
///
/// # Errors
///
/// A runtime [`Failure`], where nobody answers, or something else than a sidecar does.
pub(super) fn ask(address: &AdminAddress) -> Result<(String, Value), Failure> {
    let (_, body) = client::ask(address, Method::GET, "/status")?;
    let status = serde_json::from_str(&body)
        .ok()
        .filter(|status: &Value| status.get("version").is_some());
    match status {
        Some(status) => Ok((body, status)),
        None => Err(foreign(address)),
    }
}

/// Something listens there, and is no sidecar.
pub(super) fn foreign(address: &AdminAddress) -> Failure {
    let error = watch::Error::Foreign(address.clone());
    error.into()
}

fn text(status: &Value) -> String {
    let field = |value: &Value, name: &str| match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".into(),
        Some(other) => other.to_string(),
    };
    let list = |name: &str| {
        status
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let mut out = match status.get("observe_seconds_left").and_then(Value::as_u64) {
        Some(left) => format!(
            "OBSERVING, {} left: what no route admits is let through, without a credential\n",
            admin::duration(left)
        ),
        None => String::new(),
    };
    out.push_str(&format!(
        "{}: {} routes, up {} s, CA {}\n",
        if status.get("healthy") == Some(&Value::Bool(true)) {
            "healthy"
        } else {
            "NOT HEALTHY"
        },
        field(status, "routes"),
        field(status, "uptime_seconds"),
        field(status, "ca"),
    ));
    if let Some(fault) = status.get("last_reload_fault").and_then(Value::as_str) {
        out.push_str(&format!(
            "\nthe last reload failed, the routes before it are in force:\n{fault}\n"
        ));
    }
    if let Some(audit) = status.get("audit").filter(|audit| audit.is_object()) {
        let state = match audit.get("failing") == Some(&Value::Bool(true)) {
            true => "NOT WRITTEN",
            false => "written",
        };
        let (waiting, lost) = (field(audit, "waiting"), field(audit, "lost"));
        out.push_str(&format!(
            "audit file {state}, {waiting} rows waiting, {lost} lost\n"
        ));
    }
    out.push_str("\nslots\n");
    for slot in list("slots") {
        let left = match slot.get("seconds_left").and_then(Value::as_u64) {
            Some(seconds) => format!(", {} left", admin::duration(seconds)),
            None => String::new(),
        };
        out.push_str(&format!(
            "  {}: {}{left}\n",
            field(&slot, "name"),
            field(&slot, "state")
        ));
    }
    out.push_str("\ncounters\n");
    if let Some(counters) = status.get("counters").and_then(Value::as_object) {
        for (name, value) in counters {
            out.push_str(&format!("  {name}: {value}\n"));
        }
    }
    out.push_str("\nrecent denials\n");
    for denial in list("denials") {
        let part = |name| field(&denial, name);
        out.push_str(&format!(
            "  {} {} {}{} {} {}\n",
            part("time"),
            part("method"),
            part("host"),
            part("path"),
            part("code"),
            part("id")
        ));
    }
    out.push_str("\nconfinement\n");
    for measure in list("confinement") {
        out.push_str(&format!(
            "  {}: {}\n",
            field(&measure, "name"),
            field(&measure, "state")
        ));
    }
    out
}
