//! What the service manager is told (sd_notify(3)): when the sidecar can be used, and the line that `systemctl status` shows.
//!
//! Where there is none, there is nobody to tell, and that is no fault. Nor is it one where it cannot be told: the log has it.

use std::io;
use std::time::SystemTime;

use sd_notify::NotifyState::{self, MonotonicUsec, Ready, Reloading, Status, Stopping};

use crate::audit::object::rfc3339;
use crate::config::Faults;
use crate::proxy::{Reloaded, State};

/// Clients can connect.
pub fn ready(state: &State) {
    tell(&[Ready, Status(&in_force(state))]);
}

/// A reload begins.
pub fn reloading() {
    // With `Type=notify-reload` the manager tells by the time whether this is the reload that it asked for, and waits for
    // the next word that all is ready.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    tell(&[Reloading, MonotonicUsec(micros)]);
}

/// A reload ended. The protocol knows no failed one, so the line says so.
pub fn reloaded(state: &State, result: &io::Result<Result<Reloaded, Faults>>) {
    let now = rfc3339(SystemTime::now());
    let status = match result {
        Ok(Ok(changes)) if changes.unusable.is_empty() => {
            format!("{}, reloaded at {now}", in_force(state))
        }
        Ok(Ok(changes)) => format!(
            "{}, reloaded at {now}; not usable: {}",
            in_force(state),
            changes.unusable.join(", ")
        ),
        Ok(Err(faults)) => failed(&now, &first(faults)),
        Err(error) => failed(&now, &error.to_string()),
    };
    tell(&[Ready, Status(&one_line(&status))]);
}

/// Nothing new is taken any more.
pub fn stopping() {
    tell(&[Stopping, Status("stopping: no new requests are taken")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

fn in_force(state: &State) -> String {
    let policy = state.policy.load();
    format!(
        "routes: {}, slots: {}",
        policy.routes.iter().len(),
        policy.slots.iter().count()
    )
}

fn failed(now: &str, why: &str) -> String {
    format!("the reload at {now} failed, the routes before it are in force: {why}")
}

/// The first fault, and how many there are besides.
fn first(faults: &Faults) -> String {
    let Some(fault) = faults.iter().next() else {
        return faults.file().to_owned();
    };
    let line = fault.line().map(|line| format!(":{line}"));
    let more = match faults.len() {
        0 | 1 => String::new(),
        all => format!(" (and {} more)", all - 1),
    };
    format!(
        "{}{}: {}{more}",
        faults.file(),
        line.unwrap_or_default(),
        fault.problem
    )
}

/// A line break would begin another word of the protocol.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
