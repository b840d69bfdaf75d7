//! `egress replay`: which recorded requests new routes would decide otherwise. Nothing is sent.
//!
//! Exit: 0 none, 1 some, 2 usage or configuration, 3 runtime.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Failure, Format, load_routes, one_is_a_file, print, recorded};
use crate::advice::decision::Decision;
use crate::advice::difference::probe;
use crate::advice::reach::{Change, Reach, headed};
use crate::advice::recorded::{Asked, Kind, Recorded, Request};
use crate::audit::object::rfc3339;
use crate::config::cases;
use crate::credential::SlotName;
use crate::outcome::Verdict;
use crate::route::Routes;
use crate::route::denial::Reason;
use crate::route::target::Target;

/// Say which recorded requests a change of routes would decide otherwise
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Recorded requests: an audit file, or one JSON object a line; `-` is stdin
    #[arg(long, value_name = "FILE")]
    audit: PathBuf,
    /// The new routes file
    #[arg(short, long, value_name = "FILE")]
    routes: PathBuf,
    /// How the difference is told
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  egress replay --audit egress.db --routes new.yaml

Exit status: 0 no recorded request would be decided otherwise, 1 one would or may be, 2 usage or
configuration, 3 runtime.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    one_is_a_file(
        &args.audit,
        &args.routes,
        "the records and the routes cannot both be standard input",
    )?;
    let routes = load_routes(&args.routes)?;
    let recorded = recorded::read(&args.audit)?;
    let replay = Replay::of(&recorded, &routes);
    print(&match args.format {
        Format::Text => replay.to_text(),
        Format::Json => format!("{:#}\n", replay.to_json()),
    })?;
    Ok(match replay.changed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Recorded requests, decided about again.
struct Replay<'r> {
    /// What changes, in the order of care.
    changed: Vec<(Change, &'r Recorded, String)>,
    /// How many would be decided as they were.
    unchanged: u64,
    /// How many no routes decided about.
    undecided: u64,
}

impl<'r> Replay<'r> {
    fn of(recorded: &'r [Recorded], routes: &Routes) -> Self {
        let mut replay = Self {
            changed: Vec::new(),
            unchanged: 0,
            undecided: 0,
        };
        for record in recorded {
            let (request, count) = (&record.request, record.seen.count);
            match (reach(request), request.asked()) {
                (Some(before), Ok(asked)) => match change(request, before, asked, routes) {
                    Some((change, now)) => replay.changed.push((change, record, now)),
                    None => replay.unchanged += count,
                },
                _ => replay.undecided += count,
            }
        }
        replay
            .changed
            .sort_by_key(|(change, record, _)| (*change, std::cmp::Reverse(record.seen.count)));
        replay
    }

    fn to_text(&self) -> String {
        let lines = self.changed.iter().map(|(change, record, now)| {
            let (request, seen) = (&record.request, &record.seen);
            (
                *change,
                format!(
                    "{} ({seen})\n    was {}\n    now {now}",
                    shown(request),
                    was(request)
                ),
            )
        });
        let changed: u64 = self
            .changed
            .iter()
            .map(|(_, record, _)| record.seen.count)
            .sum();
        let gap = if self.changed.is_empty() { "" } else { "\n" };
        format!(
            "{}{gap}{changed} changed, {} as they were, {} not for routes to decide\n",
            headed(lines),
            self.unchanged,
            self.undecided
        )
    }

    fn to_json(&self) -> Value {
        let changes = self.changed.iter().map(|(change, record, now)| {
            let Recorded { request, seen } = record;
            json!({
                "change": change.word(),
                "method": request.method,
                "scheme": request.scheme.as_str(),
                "host": request.host,
                "path": request.path,
                "count": seen.count,
                "first": rfc3339(seen.first.into()),
                "last": rfc3339(seen.last.into()),
                "before": was(request),
                "after": now,
            })
        });
        json!({
            "version": 1,
            "changes": changes.collect::<Vec<_>>(),
            "unchanged": self.unchanged,
            "undecided": self.undecided,
        })
    }
}

/// What the routes of its time made of a request; `None` where they had no part in it.
fn reach(request: &Request) -> Option<Reach<'_>> {
    match request.verdict {
        Verdict::Allowed if request.is_observed() => Some(Reach::Denied),
        Verdict::Allowed => Some(Reach::Admitted(request.slot.as_deref())),
        Verdict::Failed => request
            .route
            .map(|_| Reach::Admitted(request.slot.as_deref())),
        Verdict::Denied => cases::is_code(&request.code).then_some(Reach::Denied),
    }
}

/// How new routes change that, and what they make of it.
fn change(
    request: &Request,
    before: Reach<'_>,
    asked: Asked,
    routes: &Routes,
) -> Option<(Change, String)> {
    let target = match asked {
        Asked::Request(target) => target,
        Asked::Tunnel(origin) => {
            let (after, now) = match routes.admits(&origin) {
                Ok(_) => (Reach::Admitted(None), "allowed".to_owned()),
                Err(denial) => (Reach::Denied, format!("denied, {}", denial.reason.code())),
            };
            return before.change_to(after).map(|change| (change, now));
        }
    };
    let decision = Decision::of(routes, target.clone());
    let others = with_queries(&target, routes);
    let is_as_it_was = |decision: &Decision| before.change_to(reach_of(decision)).is_none();
    match before.change_to(reach_of(&decision)) {
        // The query that it had may be one of those that a route asks for.
        Some(_) if before != Reach::Denied && others.iter().any(is_as_it_was) => None,
        Some(change) => Some((change, told(&decision))),
        // Where the new routes refuse it for its query, that is no news. Where they refuse it for something else, they may
        // admit what had the query that they ask for.
        None if before == Reach::Denied && request.code != Reason::Query.code() => {
            let other = others.iter().find(|other| !is_as_it_was(other))?;
            let now = format!("{}, or with another query {}", told(&decision), told(other));
            Some((Change::Unknown, now))
        }
        None => None,
    }
}

/// What is decided about the same request with each of the queries for which a route for its host asks.
fn with_queries(target: &Target, routes: &Routes) -> Vec<Decision> {
    let rules = routes.iter().map(|route| &route.rule);
    let asking =
        rules.filter(|rule| !rule.query.is_empty() && rule.host.matches(&target.origin().host));
    let decisions = asking.filter_map(|rule| {
        let text = format!("{}{}", target.path(), probe::query(&rule.query));
        let (origin, method) = (target.origin().clone(), target.method().clone());
        let target = Target::new(origin, method, &text, target.kind()).ok()?;
        Some(Decision::of(routes, target))
    });
    decisions.collect()
}

fn slot_of(decision: &Decision) -> Option<&SlotName> {
    let injection = decision.route()?.rule.injection.as_ref();
    injection.map(|injection| &injection.slot)
}

fn reach_of(decision: &Decision) -> Reach<'_> {
    match decision {
        Decision::Denied(_) => Reach::Denied,
        _ => Reach::Admitted(slot_of(decision).map(SlotName::as_str)),
    }
}

fn shown(request: &Request) -> String {
    let (scheme, kind) = (
        request.scheme.as_str(),
        match request.kind {
            Kind::WebSocket => " (WebSocket)",
            Kind::Http | Kind::Connect => "",
        },
    );
    // Of these bytes the agent chose most.
    let text = format!(
        "{} {scheme}://{}{}{kind}",
        request.method, request.host, request.path
    );
    text.escape_debug().to_string()
}

fn was(request: &Request) -> String {
    match (request.verdict, &request.slot) {
        _ if request.is_observed() => "observed, nothing injected".into(),
        (Verdict::Denied, _) => format!("denied, {}", request.code.escape_debug()),
        (_, Some(slot)) => format!("allowed with {}", slot.escape_debug()),
        (_, None) => "allowed, nothing injected".into(),
    }
}

fn told(decision: &Decision) -> String {
    match (decision, slot_of(decision)) {
        (Decision::Denied(denial), _) => format!("denied, {}", denial.reason.code()),
        (_, Some(slot)) => format!("allowed with {slot}"),
        (_, None) => "allowed, nothing injected".into(),
    }
}
