//! The latest requests, for whoever watches them as they come.
//!
//! Nobody who watches holds a request up: what is kept is bounded, and who comes too late for an entry learns how many were
//! missed.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::entry::Entry;

/// A window on what is finished.
#[derive(Debug, Default)]
pub struct Feed {
    kept: Mutex<Kept>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Arc<Entry>>,
    /// How many there have been: the position after the last one.
    end: u64,
}

/// What there is from a position on.
#[derive(Debug)]
pub struct Portion {
    /// Entries from the position on that are not kept any more.
    pub missed: u64,
    /// Those that are, the earliest first.
    pub entries: Vec<Arc<Entry>>,
    /// The position after the last of them.
    pub end: u64,
}

impl Feed {
    /// How many entries are kept. Each takes a few hundred bytes, and 2.5 KiB where an agent makes all of its texts long.
    pub const KEPT: usize = 1024;

    /// Adds an entry.
    pub fn push(&self, entry: Arc<Entry>) {
        let mut kept = self.lock();
        let earliest = match kept.entries.len() {
            Self::KEPT => kept.entries.pop_front(),
            _ => None,
        };
        kept.entries.push_back(entry);
        kept.end += 1;
        drop(kept);
        // It may be the last to hold that entry, whose memory is then freed.
        drop(earliest);
        self.came.notify_waiters();
    }

    /// What there is from `position` on, `most` entries of it. A position that was never reached is taken for the end.
    pub fn from(&self, position: u64, most: usize) -> Portion {
        let kept = self.lock();
        let first = kept.end - kept.entries.len() as u64;
        let begin = position.clamp(first, kept.end);
        let skipped = usize::try_from(begin - first).unwrap_or(usize::MAX);
        let entries: Vec<_> = kept
            .entries
            .iter()
            .skip(skipped)
            .take(most)
            .cloned()
            .collect();
        Portion {
            missed: begin.saturating_sub(position),
            end: begin + entries.len() as u64,
            entries,
        }
    }

    /// Resolves once there is an entry at `position`.
    pub async fn reached(&self, position: u64) {
        loop {
            let mut came = pin!(self.came.notified());
            came.as_mut().enable();
            if self.lock().end > position {
                return;
            }
            came.await;
        }
    }

    /// Nothing that holds the lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Feed;
    use crate::audit::{Audit, Client};

    fn pushed(count: usize) -> Arc<Audit> {
        let audit = Arc::new(Audit::default());
        for _ in 0..count {
            drop(audit.begin(&Client::Local));
        }
        audit
    }

    #[test]
    fn who_comes_too_late_learns_how_many_were_missed() {
        let audit = pushed(Feed::KEPT + 5);
        let portion = audit.feed.from(2, 10);
        assert_eq!(
            (portion.missed, portion.entries.len(), portion.end),
            (3, 10, 15)
        );
        let portion = audit.feed.from(portion.end, usize::MAX);
        assert_eq!(
            (portion.missed, portion.entries.len()),
            (0, Feed::KEPT - 10)
        );
        assert_eq!(portion.end, Feed::KEPT as u64 + 5);
    }

    #[test]
    fn at_the_end_there_is_nothing_and_beyond_it_neither() {
        let audit = pushed(3);
        for position in [3, 4, u64::MAX] {
            let portion = audit.feed.from(position, 10);
            assert_eq!(
                (portion.missed, portion.entries.len(), portion.end),
                (0, 0, 3)
            );
        }
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_next() {
        let audit = pushed(1);
        audit.feed.reached(0).await;
        let of_waiter = audit.clone();
        let waiter = tokio::spawn(async move { of_waiter.feed.reached(1).await });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(audit.begin(&Client::Local));
        waiter.await.expect("woken");
    }
}
