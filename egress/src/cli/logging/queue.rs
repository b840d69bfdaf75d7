//! Records that wait for the thread that writes them: so many bytes and no more, and nobody waits to put one in.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The way of a record from whoever logs it to the thread that writes it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// Records that found no room since the last one that did.
    lost: u64,
    /// One was taken out and is not written yet.
    writing: bool,
}

/// A record, and how many are missing before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) lost: u64,
    /// Empty where nothing came after those that are missing.
    pub(super) record: Vec<u8>,
}

/// Bytes that wait, with what it takes to keep each record. Some thousand records: seconds of a busy sidecar.
const ROOM: usize = 1 << 20;
/// What a record costs beside its bytes.
const OVERHEAD: usize = 64;

impl Queue {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Puts a record in. False where there is no room for it.
    pub(super) fn push(&self, record: &[u8]) -> bool {
        let mut waiting = self.lock();
        let size = record.len() + OVERHEAD;
        if waiting.bytes + size > ROOM {
            waiting.lost += 1;
            return false;
        }
        waiting.bytes += size;
        let lost = std::mem::take(&mut waiting.lost);
        let record = record.to_vec();
        waiting.batches.push_back(Batch { lost, record });
        self.changed.notify_all();
        true
    }

    /// Waits for the next record. What is missing at the end is told with none, as soon as there is room.
    pub(super) fn next(&self) -> Batch {
        let mut waiting = self.lock();
        loop {
            let next = match waiting.batches.pop_front() {
                Some(batch) => Some(batch),
                None if waiting.lost > 0 => Some(Batch {
                    lost: std::mem::take(&mut waiting.lost),
                    record: Vec::new(),
                }),
                None => None,
            };
            if let Some(batch) = next {
                waiting.writing = true;
                return batch;
            }
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The batch that was taken last is written, or lost. Until then it takes up room.
    pub(super) fn written(&self, batch: &Batch) {
        let mut waiting = self.lock();
        if !batch.record.is_empty() {
            waiting.bytes -= batch.record.len() + OVERHEAD;
        }
        waiting.writing = false;
        self.changed.notify_all();
    }

    /// Waits until nothing waits, but not for longer than `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let waiting = self.lock();
        let under_way = |waiting: &mut Waiting| {
            waiting.writing || waiting.lost > 0 || !waiting.batches.is_empty()
        };
        _ = self
            .changed
            .wait_timeout_while(waiting, patience, under_way)
            .unwrap_or_else(PoisonError::into_inner);
    }

    /// Nothing that holds the lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, OVERHEAD, Queue, ROOM};

    fn batch(lost: u64, record: &[u8]) -> Batch {
        let record = record.to_vec();
        Batch { lost, record }
    }

    #[test]
    fn what_finds_no_room_is_missing_in_its_place() {
        let queue = Queue::new();
        let half = vec![b'x'; ROOM / 2 - OVERHEAD];
        assert!(queue.push(&half));
        assert!(queue.push(&half));
        assert!(!queue.push(b"lost"));
        let first = queue.next();
        // What is being written still takes up room.
        assert!(!queue.push(b"lost"));
        queue.written(&first);
        assert_eq!(first, batch(0, &half));
        assert!(queue.push(b"third"));
        assert!(!queue.push(&vec![b'x'; ROOM]));
        for expected in [batch(0, &half), batch(2, b"third"), batch(1, b"")] {
            let next = queue.next();
            queue.written(&next);
            assert_eq!(next, expected);
        }
        assert!(
            queue.push(&vec![b'x'; ROOM - OVERHEAD]),
            "all of it is free again"
        );
    }
}
