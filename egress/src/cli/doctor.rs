//! `egress doctor`: what keeps an agent from its sidecar, and what it could reach beside it, each with what mends it.
//!
//! Facts are gathered by each check's own file, and judged by functions without I/O beside them. Exit: 0 nothing failed, 1
//! something did, 2 usage, 3 runtime.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;

use self::agent::Chosen;
use self::operator::Operator;
use self::report::{Format, Report};
use super::{Failure, print};
use crate::admin::AdminAddress;
use crate::launch::variables::PROXY_VARIABLES;
use crate::route::host::Host;

mod agent;
mod ca;
mod clients;
mod clock;
mod exchange;
mod hosts;
mod operator;
mod proxy;
mod report;
mod sandbox;
mod sidecar;
mod slots;

/// Find what keeps an agent from its sidecar or leads it around it, in the sandbox or on the host
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A host that a route admits, to which each client is sent through the proxy [default: the first of the routes, or
    /// the one that a placeholder in the environment is for]
    #[arg(long, value_name = "HOST", value_parser = name)]
    host: Option<String>,
    /// On the host: the routes file, whose hosts have to resolve and whose slots have to be in this environment
    #[arg(short, long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// On the host: a running sidecar's admin socket, unix:PATH or IP:PORT, which tells its slots and its routes file
    /// [default: EGRESS_ADMIN, where no proxy variable is set]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<AdminAddress>,
    /// In the sandbox: try to connect to this address outside, for a second; it must fail
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["routes", "admin"])]
    probe_direct: Option<SocketAddr>,
    /// The form
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  egress doctor                                  # in the sandbox, with its variables
  egress doctor --host api.openai.com --probe-direct 1.1.1.1:443
  egress doctor -r routes.yaml                   # on the host: slots and hosts
  egress doctor --admin unix:/run/bottle/admin.sock --format json
  egress run -m bottle.yaml -- egress doctor     # a box from inside

What is examined follows from what is there: with a proxy variable, the proxy, the trust bundles,
the clients and the clock; with --routes or --admin, the sidecar's side; without the two, the box.

Exit status: 0 nothing failed, 1 something did, 2 usage, 3 runtime.";

fn name(text: &str) -> Result<String, String> {
    match Host::parse(text) {
        Ok(Host::Name(name)) => Ok(name.to_string()),
        Ok(Host::Address(_)) => Err("it is an address; a certificate is for a name".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let variables = Variables::of_process();
    let way = Way::of(&variables);
    let admin = match (&args.admin, variables.get("EGRESS_ADMIN")) {
        // In a sandbox the variable is a finding.
        (None, Some(named)) if way.is_none() && args.probe_direct.is_none() => {
            let named = named.parse::<AdminAddress>();
            Some(named.map_err(|error| {
                Failure::usage(anyhow!(error).context("the variable EGRESS_ADMIN is of no use"))
            })?)
        }
        (named, _) => named.clone(),
    };
    let is_host = args.routes.is_some() || admin.is_some();
    if way.is_none() && !is_host {
        let error = anyhow!("there is nothing to examine: no proxy variable is set here");
        return Err(Failure::usage(error).hint(
            "in the sandbox, set what `egress env` prints; on the host, name --routes or --admin",
        ));
    }
    let operator = Operator::of(args.routes.as_deref(), admin.as_ref());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let mut report = Report::default();
    if let Some(way) = way {
        let rules = operator.rules();
        let host = Chosen::of(args.host.as_deref(), rules, &variables);
        report.add(runtime.block_on(agent::examine(way, host, rules, &variables)));
    }
    match way {
        Some(way) if !is_host => report.add(sandbox::examine(way, &variables, args.probe_direct)),
        _ => report.add(runtime.block_on(operator.examine())),
    }
    // A lookup that is still under way ends with the process.
    runtime.shutdown_background();
    print(&report.render(args.format))?;
    Ok(if report.is_healthy() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// This process's variables, those that are not empty. They hold what may be secret, so there is no `Debug`.
pub(super) struct Variables(BTreeMap<String, String>);

impl Variables {
    fn of_process() -> Self {
        let all = std::env::vars_os().map(|(name, value)| {
            let text = |text: OsString| text.to_string_lossy().into_owned();
            (text(name), text(value))
        });
        Self(all.filter(|(_, value)| !value.is_empty()).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    #[cfg(test)]
    fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        pairs
            .into_iter()
            .fold(Self(BTreeMap::new()), |all, (name, value)| {
                all.with(name, value)
            })
    }

    #[cfg(test)]
    fn with(mut self, name: &str, value: &str) -> Self {
        match value {
            "" => self.0.remove(name),
            value => self.0.insert(name.into(), value.into()),
        };
        self
    }
}

/// How connections of this environment come to a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By its variables.
    Proxy,
    /// By its network, which leads them there wherever they go.
    Steered,
}

impl Way {
    fn of(variables: &Variables) -> Option<Self> {
        let is_set = |name: &str| variables.get(name).is_some();
        if PROXY_VARIABLES.iter().any(|name| is_set(name)) {
            return Some(Self::Proxy);
        }
        // Of the bundle's variables it is the one that nobody sets for other reasons.
        is_set("CODEX_CA_CERTIFICATE").then_some(Self::Steered)
    }
}
