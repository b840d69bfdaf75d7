//! What the page shows beside the sidecar's status: routes with what came of them, refusals with what is to be done about
//! them, and what a reload would change.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::admin::{events, status};
use crate::advice::difference;
use crate::advice::recorded::{Collection, Recorded, record, refused};
use crate::advice::suggestion::{Suggestion, in_words};
use crate::audit::feed::Feed;
use crate::audit::object::rfc3339;
use crate::config::{Faults, render};
use crate::outcome::Verdict;
use crate::proxy::{Preview, State};
use crate::route::{Route, Routes, observation};

/// As many routes as the page has room for.
const SHOWN_ROUTES: usize = 1000;

/// The routes in force, in the order of their file, each with how many requests it admitted.
pub(super) fn routes(state: &State) -> Value {
    let policy = state.policy.load_full();
    let routes = policy.routes.iter();
    let shown: Vec<Value> = routes
        .take(SHOWN_ROUTES)
        .map(|route| route_shown(route))
        .collect();
    json!({ "all": policy.routes.iter().len(), "routes": shown })
}

fn route_shown(route: &Route) -> Value {
    let of = |verdict: Verdict| -> u64 {
        let outcomes = route.outcomes.iter();
        let outcomes = outcomes.filter(|(outcome, _)| outcome.verdict == verdict);
        outcomes.map(|(_, count)| count).sum()
    };
    json!({
        "line": route.line,
        "rule": render::json(&route.rule),
        "allowed": of(Verdict::Allowed),
        "failed": of(Verdict::Failed),
    })
}

/// What no route admitted of late, by host, with the routes that would have.
///
/// # Errors
///
/// What is wrong with a record.
pub(super) async fn refusals(state: &Arc<State>) -> Result<Value, String> {
    let state = state.clone();
    // Each host is looked for among all routes.
    let found = spawn_blocking(move || {
        let recorded = unadmitted(&state)?;
        Ok(by_host(recorded, &state.policy.load_full().routes))
    });
    found.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// What no route admitted of late: refused, or let through by an observation.
fn unadmitted(state: &State) -> Result<Vec<Recorded>, String> {
    let mut all = Collection::default();
    for denial in status::denials(state) {
        all.add(record(&refused(&denial))?);
    }
    // Refusals are kept apart, and what was observed is among all else.
    for entry in state.audit.feed.from(0, Feed::KEPT).entries {
        if entry.code == observation::CODE {
            all.add(record(&events::request(&entry))?);
        }
    }
    Ok(all.list)
}

fn by_host(recorded: Vec<Recorded>, routes: &Routes) -> Value {
    let mut hosts: BTreeMap<String, Vec<Recorded>> = BTreeMap::new();
    for one in recorded {
        hosts.entry(one.request.host.clone()).or_default().push(one);
    }
    let mut hosts: Vec<(String, Vec<Recorded>)> = hosts.into_iter().collect();
    let latest = |of: &[Recorded]| of.iter().map(|one| one.seen.last).max();
    hosts.sort_by_key(|(_, of)| std::cmp::Reverse(latest(of)));
    let hosts = hosts.into_iter().map(|(host, of)| {
        let suggestion = Suggestion::of(&of, Some(routes), None);
        let refusals = of.iter().map(|Recorded { request, seen }| {
            json!({
                "method": request.method,
                "path": request.path,
                "code": request.code,
                "why": in_words(&request.code),
                "count": seen.count,
                "last": rfc3339(seen.last.into()),
            })
        });
        json!({
            "host": host,
            "refusals": refusals.collect::<Vec<_>>(),
            "suggestion": (!suggestion.is_empty()).then(|| suggestion.to_text()),
            "is_settled": suggestion.is_settled(),
            "has_routes": suggestion.has_routes(),
        })
    });
    hosts.collect()
}

/// What a reload would change in effect, or all that is wrong with the file.
///
/// # Errors
///
/// The system's, where it gives no thread.
pub(super) async fn preview(state: &Arc<State>) -> io::Result<Result<Value, Faults>> {
    let Preview { policy, digest } = match state.preview().await? {
        Ok(preview) => preview,
        Err(faults) => return Ok(Err(faults)),
    };
    let state = state.clone();
    let compared = spawn_blocking(move || {
        let changes = difference::between(&state.policy.load_full().routes, &policy.routes);
        json!({
            "digest": digest,
            "difference": difference::to_text(&changes),
            "unusable": policy.unusable(SystemTime::now()),
        })
    });
    compared.await.map(Ok).map_err(io::Error::other)
}
