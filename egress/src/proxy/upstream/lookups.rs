//! Turns to look a name up: so many at once, and a part of them for the names of one route.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::route::RouteId;

/// The look-ups under way.
///
/// Each holds a thread of the blocking pool for as long as getaddrinfo takes, also after its caller gave up. Behind a
/// wildcard may be a name server of an agent's own, which never answers: other routes are not to wait for that.
#[derive(Debug)]
pub(super) struct Lookups {
    all: Arc<Semaphore>,
    by_route: Mutex<HashMap<RouteId, Arc<Semaphore>>>,
}

const AT_ONCE: usize = 64;
const OF_A_ROUTE: usize = AT_ONCE / 4;

/// A look-up under way.
#[derive(Debug)]
pub(super) struct Turn {
    _held: [OwnedSemaphorePermit; 2],
}

impl Lookups {
    pub(super) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE)),
            by_route: Mutex::default(),
        }
    }

    /// Waits for a turn. `None` never comes: nothing closes a semaphore.
    pub(super) async fn turn(&self, route: RouteId) -> Option<Turn> {
        let of_route = self.share(route).acquire_owned().await.ok()?;
        let of_all = self.all.clone().acquire_owned().await.ok()?;
        Some(Turn {
            _held: [of_route, of_all],
        })
    }

    /// The route's part. Those that nobody uses are forgotten, so a reload leaves nothing behind.
    fn share(&self, route: RouteId) -> Arc<Semaphore> {
        let mut by_route = self.by_route.lock().unwrap_or_else(PoisonError::into_inner);
        by_route.retain(|_, share| Arc::strong_count(share) > 1);
        let share = by_route.entry(route);
        share
            .or_insert_with(|| Arc::new(Semaphore::new(OF_A_ROUTE)))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::{Lookups, OF_A_ROUTE};
    use crate::route::RouteId;

    #[test]
    fn names_of_one_route_take_no_more_than_its_part() {
        let lookups = Lookups::new();
        let [hangs, other] = [0, 1].map(RouteId::of_a_test);
        let turn = |route| lookups.turn(route).now_or_never().flatten();
        let mut held: Vec<_> = (0..OF_A_ROUTE).map(|_| turn(hangs)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(turn(hangs).is_none());
        assert!(turn(other).is_some());
        held.pop();
        assert!(turn(hangs).is_some());
        drop(held);
        _ = turn(other);
        assert_eq!(lookups.by_route.lock().unwrap().len(), 1);
    }
}
