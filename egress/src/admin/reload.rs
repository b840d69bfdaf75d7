//! A reload that somebody asked for, by a signal or over the admin socket: the log and the service manager are told of it
//! from its begin to its end.

use std::fmt;
use std::io;
use std::sync::Arc;

use http::StatusCode;

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
        ended(&state, turn.run().await)
    })
    .await
    .map_err(io::Error::other)?
}

/// The same, if the routes file is the one that was shown, by its digest. `None` where it is another by now.
///
/// # Errors
///
/// As [`reload`].
pub async fn reload_as_shown(
    state: &Arc<State>,
    digest: &str,
) -> io::Result<Option<Result<Reloaded, Faults>>> {
    let (state, digest) = (state.clone(), digest.to_owned());
    tokio::spawn(async move {
        let turn = state.reloading().await;
        let draft = turn.read().await?;
        if draft.digest() != digest {
            return Ok(None);
        }
        service_manager::reloading();
        ended(&state, turn.put_in_force(draft).await).map(Some)
    })
    .await
    .map_err(io::Error::other)?
}

/// What an answer says of a reload.
pub fn told(reloaded: io::Result<Result<Reloaded, Faults>>) -> (StatusCode, String) {
    match reloaded {
        // As `/healthz` answers, too: the routes are in force, and some of them send nothing.
        Ok(Ok(changes)) if !changes.unusable.is_empty() => {
            (StatusCode::SERVICE_UNAVAILABLE, changes.to_string())
        }
        Ok(Ok(changes)) => (StatusCode::OK, changes.to_string()),
        Ok(Err(faults)) => (StatusCode::UNPROCESSABLE_ENTITY, faults.to_string()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Tells the log and the service manager what came of a reload.
fn ended(
    state: &State,
    result: io::Result<Result<Reloaded, Faults>>,
) -> io::Result<Result<Reloaded, Faults>> {
    match &result {
        Ok(result) => log(result),
        Err(error) => {
            tracing::error!(%error, "the reload broke off; the old routes stay in force")
        }
    }
    service_manager::reloaded(state, &result);
    result
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
