//! What a sidecar says of itself, as `GET /status` has it.

use std::path::{self, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::audit::object::rfc3339;
use crate::credential::{Source, time_left};
use crate::proxy::State;
use crate::route::target::Scheme;

/// All that there is to tell at one moment.
pub fn status(state: &State) -> Value {
    let now = SystemTime::now();
    let policy = state.policy.load_full();
    let slots: Vec<Value> = policy.slots.iter().map(|slot| {
        json!({
            "name": slot.name().as_str(),
            "source": match slot.source() { Source::Environment => "environment".into(), Source::File(path) => path.display().to_string(), Source::Handed => "launcher".into() },
            "state": match slot.lease(now) { Ok(_) => "ok".into(), Err(reason) => reason.to_string() },
            "expires": slot.expiry().map(rfc3339),
            "seconds_left": time_left(slot.expiry(), now).map(|left| left.as_secs()),
        })
    }).collect();
    let counters = &state.audit.counters;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let confinement: Vec<Value> = state
        .confinement
        .iter()
        .map(|measure| json!({ "name": measure.name, "state": measure.state.to_string() }))
        .collect();
    json!({
        "version": 1,
        "egress": env!("CARGO_PKG_VERSION"),
        "healthy": hindrances(state).is_empty(),
        "observe_seconds_left": state.observing().map(|left| left.as_secs()),
        "pid": std::process::id(),
        "uptime_seconds": now.duration_since(state.started).unwrap_or_default().as_secs(),
        "routes": policy.routes.iter().len(),
        "routes_file": routes_file(&state.source.routes).display().to_string(),
        "ca": state.issuer.root().fingerprint_sha256(),
        "ca_expires": rfc3339(state.issuer.root().not_after()),
        "memory_ceiling": state.limits.ceiling().total(),
        "leaves_minted": state.issuer.minted(),
        "last_reload_fault": state.source.fault(),
        "slots": slots,
        "counters": {
            "connections": count(&counters.connections),
            "turned_away": count(&counters.turned_away),
            "open_connections": count(&counters.open_connections),
            "open_tunnels": count(&counters.open_tunnels),
            "open_websockets": count(&counters.open_websockets),
            "open_splices": count(&counters.open_splices),
            "requests": counters.requests(),
            "denied": counters.denied(),
            "failed": counters.failed(),
            "names": count(&counters.names),
            "names_denied": count(&counters.names_denied),
            "log_records_lost": count(&counters.log_records_lost),
            "reloads": count(&counters.reloads),
            "reload_failures": count(&counters.reload_failures),
        },
        "audit": state.audit.journal().map(|journal| json!({
            "waiting": journal.waiting(),
            "lost": journal.lost(),
            "failing": journal.is_failing(),
        })),
        "denials": denials(state),
        "confinement": confinement,
    })
}

/// The latest refusals, newest last.
pub fn denials(state: &State) -> Vec<Value> {
    let denials = state.audit.denials().into_iter().map(|denied| {
        json!({
            "time": rfc3339(denied.time + denied.total),
            "method": denied.method(),
            "scheme": denied.scheme.map(Scheme::as_str),
            "host": denied.host,
            "path": denied.path,
            "code": denied.code,
            "id": denied.id.map(|id| id.to_string()),
        })
    });
    denials.collect()
}

/// Who asks stands in another directory.
fn routes_file(named: &Path) -> PathBuf {
    path::absolute(named).unwrap_or_else(|_| named.to_owned())
}

/// What keeps requests from being served that the routes admit, in words that name no value; nothing where all is well.
pub fn hindrances(state: &State) -> Vec<String> {
    let mut hindrances = state.policy.load().unusable(SystemTime::now());
    if state.audit.refuses() {
        hindrances.push("the audit file cannot be written".into());
    }
    hindrances
}
