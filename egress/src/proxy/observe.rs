//! The course of an observation: said again and again while it lasts, and ended when its time is over.
//!
//! Its end is a change of the policy like any other: what rests on it is closed by what closes the tunnels of a removed
//! route.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep_until;

use super::State;

/// How often the log says that an observation goes on.
const REMINDER: Duration = Duration::from_secs(300);

/// What makes a rest of 1799.9 seconds half an hour.
const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// Waits for the end of the observation, where there is one, and ends it.
pub async fn end_in_time(state: Arc<State>) {
    while let Some(left) = state.observing() {
        tracing::warn!(
            seconds_left = (left + HALF_A_SECOND).as_secs(),
            "OBSERVING: hosts, paths and methods that no route admits are let through, without a credential"
        );
        let pause = left.min(REMINDER);
        sleep_until((Instant::now() + pause).into()).await;
        if pause < left {
            continue;
        }
        let ending = state.clone();
        // On a thread of its own: it waits for a reload that is under way.
        match spawn_blocking(move || ending.enforce()).await {
            Ok(()) => {
                tracing::warn!("the observation is over: from now on the routes alone decide");
            }
            // It is tried again.
            Err(error) => {
                tracing::error!("the observation could not be ended: {error}");
                sleep_until((Instant::now() + HALF_A_SECOND).into()).await;
            }
        }
    }
}

impl State {
    /// How long the observation goes on, where there is one.
    pub fn observing(&self) -> Option<Duration> {
        let policy = self.policy.load();
        let observation = policy.routes.observation()?;
        Some(observation.end().saturating_duration_since(Instant::now()))
    }

    /// Ends the observation: the routes alone decide when this returns. Blocking.
    fn enforce(&self) {
        let _turn = self
            .source
            .turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let enforcing = self.policy.load().enforcing();
        self.policy.store(enforcing.into());
        // After the swap, as with a reload.
        self.upstream.retain(&self.policy.load());
        self.announce();
    }
}
