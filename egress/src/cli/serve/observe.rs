//! `--observe-for`: what no route admits is let through for a while and recorded, and what that takes.

use std::time::Duration;

use anyhow::anyhow;
use egress_ca::{Constraints, Root};

use super::super::limits::span;
use super::super::{Failure, ca_dir};
use super::args::Args;
use crate::route::Routes;

/// Arguments about an observation.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Observation")]
pub(super) struct ObserveArgs {
    /// Let through what no route admits by its host, path or method, without any credential, and record it, for as long as
    /// this, 24h at the most; from then on the routes alone decide. Only for an agent that you trust with a way out
    #[arg(long, value_name = "TIME", value_parser = time, requires = "audit")]
    observe_for: Option<Duration>,
    /// The same as --observe-for 30m
    #[arg(long, requires = "audit", conflicts_with = "observe_for")]
    observe: bool,
}

/// What `--observe` stands for.
const USUAL: Duration = Duration::from_secs(30 * 60);
/// An observation that is forgotten is over the next day.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

fn time(text: &str) -> Result<Duration, String> {
    let time = span(text).map_err(|error| error.to_string())?;
    if time.is_zero() || time > LONGEST {
        return Err("an observation lasts for 24h at the most, and not for no time".into());
    }
    Ok(time)
}

impl ObserveArgs {
    /// For how long to observe, where that is wanted.
    pub(super) fn time(&self) -> Option<Duration> {
        self.observe_for.or(self.observe.then_some(USUAL))
    }
}

/// Refuses an observation in which addresses could not be judged: a further proxy resolves names by itself, and any name
/// may be asked for.
pub(super) fn check(args: &Args) -> Result<(), Failure> {
    if args.observe.time().is_none() || args.upstream_proxy.is_none() {
        return Ok(());
    }
    let error = anyhow!(
        "--observe-for cannot be used with --upstream-proxy, which could reach private networks under any name"
    );
    Err(Failure::usage(error).hint("observe where the sidecar connects to upstreams by itself"))
}

/// The bottle's root. That of an observation has to stand for every host, since clients would refuse the leaf of one that
/// no route names.
pub(super) fn root(args: &Args, routes: &Routes) -> Result<Root, Failure> {
    let ca = &args.ca;
    if args.observe.time().is_none() {
        return ca.open(routes);
    }
    if ca.ca_ephemeral {
        return Ok(Root::ephemeral(&Constraints::None)?);
    }
    match Root::load(&ca_dir(ca.ca_dir.as_ref())?)? {
        Some(root) if root.permitted_names().is_none() => return Ok(root),
        None if ca.no_name_constraints => return ca.open(routes),
        // Not made by the way, or it would have to be made anew at once.
        Some(_) | None => {}
    }
    let error = anyhow!(
        "--observe-for needs a CA without name constraints: which hosts it is to stand for is not known yet"
    );
    Err(Failure::usage(error).hint(
        "give --ca-ephemeral, or make such a CA with `egress ca init --no-name-constraints`, and --renew where there is one",
    ))
}
