//! A reload that somebody asked for, by a signal or over the admin socket: the log and the service manager are told of it
//! from its begin to its end.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::service_manager;
use crate::config::Faults;
use crate::proxy::{Reloaded, State};

/// Reads routes and slots again and puts them in force. It comes to its end also where nobody waits for it any more: the
/// service manager takes the sidecar for reloading until it hears otherwise.
///
/// # Errors
///
/// As [`Reloading::run`](crate::proxy::Reloading::run).
pub async fn reload(state: &Arc<State>) -> io::Result<Result<Reloaded, Faults>> {
    let state = state.clone();
    tokio::spawn(async move {
        let turn = state.reloading().await;
        service_manager::reloading();
        let result = turn.run().await;
        match &result {
            Ok(result) => log(result),
            Err(error) => {
                tracing::error!(%error, "the reload broke off; the old routes stay in force")
            }
        }
        service_manager::reloaded(&state, &result);
        result
    })
    .await
    .map_err(io::Error::other)?
}

fn log(result: &Result<Reloaded, Faults>) {
    match result {
        Ok(changes) => tracing::info!(
            added = changes.added.join(", "),
            removed = changes.removed.join(", "),
            rotated = changes.rotated.join(", "),
            unusable = changes.unusable.join(", "),
            "reloaded"
        ),
        Err(faults) => {
            for fault in faults.iter() {
                tracing::error!(
                    file = faults.file(),
                    line = fault.line(),
                    key = fault.key.as_deref(),
                    hint = fault.hint.as_deref(),
                    "{}",
                    fault.problem
                );
            }
            tracing::error!(
                faults = faults.len(),
                "not reloaded: the routes before stay in force"
            );
        }
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return writeln!(f, "nothing changed");
        }
        let lists = [
            ("added", &self.added),
            ("removed", &self.removed),
            ("rotated", &self.rotated),
            ("unusable", &self.unusable),
        ];
        for (what, list) in lists {
            for item in list {
                writeln!(f, "{what}: {item}")?;
            }
        }
        Ok(())
    }
}
