//! What `GET /status` says, as far as it is shown. What an older sidecar does not say is taken for none.

use serde::Deserialize;

/// A sidecar's account of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    /// Its version.
    pub(super) egress: String,
    /// Whether all that its routes admit can be served.
    pub(super) healthy: bool,
    /// How long it still lets through what no route admits.
    pub(super) observe_seconds_left: Option<u64>,
    /// How long it is up.
    pub(super) uptime_seconds: u64,
    /// How many routes are in force.
    pub(super) routes: u64,
    /// Where they come from.
    pub(super) routes_file: String,
    /// Why the last reload did not take effect.
    pub(super) last_reload_fault: Option<String>,
    /// What is injected.
    pub(super) slots: Vec<Slot>,
    /// What happened so far.
    pub(super) counters: Counters,
    /// The audit file, where there is one.
    pub(super) audit: Option<Audit>,
    /// What the process gave up.
    pub(super) confinement: Vec<Measure>,
}

/// A slot.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Slot {
    /// Its name.
    pub(super) name: String,
    /// `ok`, or why it is of no use.
    pub(super) state: String,
    /// Where its value comes from.
    pub(super) source: String,
    /// Until it expires.
    pub(super) seconds_left: Option<u64>,
}

/// Numbers since the sidecar came up, and `open_*` of now.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Counters {
    /// Requests at their end.
    pub(super) requests: u64,
    /// Those refused.
    pub(super) denied: u64,
    /// Those that failed after the decision.
    pub(super) failed: u64,
    /// Connections of clients.
    pub(super) open_connections: u64,
    /// Tunnels, intercepted or not.
    pub(super) open_tunnels: u64,
    /// WebSockets.
    pub(super) open_websockets: u64,
    /// Reloads that took effect.
    pub(super) reloads: u64,
    /// Reloads that did not.
    pub(super) reload_failures: u64,
}

/// The audit file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Audit {
    /// Rows that are not in it yet.
    pub(super) waiting: u64,
    /// Rows that found no room.
    pub(super) lost: u64,
    /// Whether it cannot be written.
    pub(super) failing: bool,
}

/// A measure of confinement.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Measure {
    /// Its name.
    pub(super) name: String,
    /// Whether it is in force.
    pub(super) state: String,
}
