//! What a scrape of `/metrics` gets: the sidecar's numbers under Prometheus' conventions for names and units.
//!
//! No label has a value that an agent can choose: a host, a path or a method of a request would be a new series each, and fill
//! the memory of whoever scrapes. A route is told by its pattern and line, an outcome by its code.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::exposition::{Exposition, Kind};
use crate::audit::Counters;
use crate::audit::journal::Journal;
use crate::credential::unix_seconds;
use crate::outcome::{Outcome, Verdict};
use crate::policy::Policy;
use crate::proxy::State;

/// All numbers as they are now.
pub(super) fn metrics(state: &State) -> String {
    let mut to = Exposition::default();
    let policy = state.policy.load_full();
    let counters = &state.audit.counters;
    requests(&mut to, &policy, counters);
    connections(&mut to, state, counters);
    reloads(&mut to, state, counters);
    to.single(
        Kind::Gauge,
        "egress_observe_seconds_left",
        "For how long what no route admits is let through, without a credential; 0 where the routes alone decide.",
        state.observing().map_or(0.0, |left| left.as_secs_f64()),
    );
    slots(&mut to, &policy);
    audit(&mut to, state);
    let version = env!("CARGO_PKG_VERSION");
    to.family(Kind::Gauge, "egress_build_info", "Which sidecar it is.")
        .sample(&[("version", version)], 1);
    to.single(
        Kind::Gauge,
        "egress_start_time_seconds",
        "When the sidecar came up, in seconds of the epoch.",
        unix_seconds(state.started),
    );
    to.into_text()
}

fn requests(to: &mut Exposition, policy: &Policy, counters: &Counters) {
    let mut family = to.family(
        Kind::Counter,
        "egress_requests_total",
        "Requests at their end, tunnels included; a refusal has no route.",
    );
    for ((route, outcome), count) in by_route(policy, counters) {
        let Outcome { verdict, code } = outcome;
        let labels = [
            ("route", route.as_str()),
            ("verdict", verdict.as_str()),
            ("code", code),
        ];
        family.sample(&labels, count);
    }
    let mut family = to.family(
        Kind::Histogram,
        "egress_request_duration_seconds",
        "From a request's head to the last byte of its answer, without WebSockets and tunnels.",
    );
    for verdict in Verdict::ALL {
        let histogram = counters.durations.of(verdict);
        let verdict = ("verdict", verdict.as_str());
        // The count has to be that of the last bucket, also while others are counting.
        let mut count = 0;
        for (bound, not_above) in histogram.cumulative() {
            family.suffixed("_bucket", &[verdict, ("le", bound)], not_above);
            count = not_above;
        }
        family.suffixed("_sum", &[verdict], histogram.sum());
        family.suffixed("_count", &[verdict], count);
    }
    let mut family = to.family(
        Kind::Counter,
        "egress_upstream_errors_total",
        "Faults of upstreams, and of the way to them.",
    );
    for (fault, count) in counters.upstream_faults.iter() {
        family.sample(&[("cause", fault.as_str())], count);
    }
}

/// Outcomes under the routes that they are counted by. Routes of one preset can have the same pattern and line: they are one
/// series, since no two may have the same labels.
fn by_route(policy: &Policy, counters: &Counters) -> BTreeMap<(String, Outcome), u64> {
    let mut counts = BTreeMap::new();
    for (outcome, count) in counters.unrouted.iter() {
        *counts.entry((String::new(), outcome)).or_default() += count;
    }
    for route in policy.routes.iter() {
        for (outcome, count) in route.outcomes.iter() {
            *counts.entry((route.to_string(), outcome)).or_default() += count;
        }
    }
    counts
}

fn connections(to: &mut Exposition, state: &State, counters: &Counters) {
    let kept = state.upstream.kept();
    let gauges = [
        (
            "egress_connections_open",
            "Client connections open now.",
            read(&counters.open_connections),
        ),
        (
            "egress_tunnels_open",
            "Tunnels open now, with intercepted or passed TLS.",
            read(&counters.open_tunnels),
        ),
        (
            "egress_websockets_open",
            "WebSockets open now.",
            read(&counters.open_websockets),
        ),
        (
            "egress_upstream_connections_idle",
            "HTTP/1.1 connections to upstreams that wait for a request.",
            kept.idle as u64,
        ),
        (
            "egress_upstream_connections_shared",
            "HTTP/2 connections to upstreams that requests share.",
            kept.shared as u64,
        ),
        (
            "egress_leaf_certificates_held",
            "Hosts whose leaf certificate is held.",
            state.issuer.held() as u64,
        ),
    ];
    for (name, help, value) in gauges {
        to.single(Kind::Gauge, name, help, value);
    }
    let totals = [
        (
            "egress_connections_total",
            "Client connections accepted.",
            read(&counters.connections),
        ),
        (
            "egress_connections_turned_away_total",
            "Client connections closed at once, because their client had as many as it may.",
            read(&counters.turned_away),
        ),
        (
            "egress_leaf_certificates_minted_total",
            "Leaf certificates made.",
            state.issuer.minted(),
        ),
        (
            "egress_dns_messages_total",
            "DNS messages.",
            read(&counters.names),
        ),
        (
            "egress_dns_refusals_total",
            "Names asked for over DNS that no route admits.",
            read(&counters.names_denied),
        ),
        (
            "egress_log_records_lost_total",
            "Records that could not be written to the log.",
            read(&counters.log_records_lost),
        ),
    ];
    for (name, help, value) in totals {
        to.single(Kind::Counter, name, help, value);
    }
}

fn reloads(to: &mut Exposition, state: &State, counters: &Counters) {
    to.single(
        Kind::Counter,
        "egress_reloads_total",
        "Reloads that took effect.",
        read(&counters.reloads),
    );
    to.single(
        Kind::Counter,
        "egress_reload_failures_total",
        "Reloads that were refused.",
        read(&counters.reload_failures),
    );
    to.single(
        Kind::Gauge,
        "egress_last_reload_successful",
        "0 where the last reload was refused, and the routes before it are in force.",
        u8::from(state.source.fault().is_none()),
    );
    to.single(
        Kind::Gauge,
        "egress_last_reload_success_timestamp_seconds",
        "When the routes in force were read, in seconds of the epoch.",
        match read(&counters.last_reload) {
            0 => unix_seconds(state.started),
            seconds => seconds,
        },
    );
}

/// All of it is 0 where there is no audit file.
fn audit(to: &mut Exposition, state: &State) {
    let journal = state.audit.journal();
    to.single(
        Kind::Gauge,
        "egress_audit_rows_waiting",
        "Rows that are not in the audit file yet.",
        journal.map_or(0, Journal::waiting) as u64,
    );
    to.single(
        Kind::Gauge,
        "egress_audit_failing",
        "Whether the last try to write the audit file failed.",
        u8::from(journal.is_some_and(Journal::is_failing)),
    );
    to.single(
        Kind::Counter,
        "egress_audit_rows_lost_total",
        "Rows that found no room while the audit file could not be written.",
        journal.map_or(0, Journal::lost),
    );
}

fn slots(to: &mut Exposition, policy: &Policy) {
    let now = SystemTime::now();
    let mut slots: Vec<_> = policy.slots.iter().collect();
    slots.sort_by_key(|slot| slot.name());
    let mut family = to.family(
        Kind::Gauge,
        "egress_slot_usable",
        "Whether requests can be sent with the slot's value.",
    );
    for slot in &slots {
        let usable = u8::from(slot.lease(now).is_ok());
        family.sample(&[("slot", slot.name().as_str())], usable);
    }
    let mut family = to.family(
        Kind::Gauge,
        "egress_slot_expiry_seconds",
        "Seconds until the slot's value expires, below 0 after it has; missing where it does not.",
    );
    for slot in slots {
        let Some(expiry) = slot.expiry() else {
            continue;
        };
        let left = match expiry.duration_since(now) {
            Ok(left) => left.as_secs_f64(),
            Err(passed) => -passed.duration().as_secs_f64(),
        };
        family.sample(&[("slot", slot.name().as_str())], left);
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
