//! Records that wait for the thread that writes them: so many bytes and no more, and nobody waits to put one in.
//!
//! Those that come close together are written together. A write and a wake-up for each of them cost half as much as all else
//! that a busy sidecar does for a request.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The way of a record from whoever logs it to the thread that writes it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// For the thread that writes.
    came: Condvar,
    /// For whoever waits until all is written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// More than one only where records are missing between them.
    batches: VecDeque<Batch>,
    bytes: usize,
    /// Records that found no room since the last one that did.
    lost: u64,
    writer: Writer,
    /// Somebody waits until all is written.
    hurried: bool,
}

/// What the thread that writes is at.
#[derive(Debug, Default, PartialEq, Eq)]
enum Writer {
    /// It lets records gather.
    #[default]
    Resting,
    /// It waits for one.
    Idle,
    Writing,
}

/// Records, one after the other, and how many are missing before the first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) lost: u64,
    pub(super) bytes: Vec<u8>,
    /// Where each record ends. None where nothing came after those that are missing.
    pub(super) ends: Vec<usize>,
}

impl Batch {
    /// A batch of one.
    pub(super) fn of(record: &[u8]) -> Self {
        let mut batch = Self::default();
        batch.push(record);
        batch
    }

    pub(super) fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }
}

/// Bytes that wait, with what it takes to keep each record. Some thousand records.
const ROOM: usize = 1 << 20;
/// What a record costs beside its bytes.
const OVERHEAD: usize = size_of::<usize>();
/// How long after a write records gather before the next one.
const REST: Duration = Duration::from_millis(5);

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
        match waiting.batches.back_mut().filter(|_| lost == 0) {
            Some(batch) => batch.push(record),
            None => {
                let mut batch = Batch::of(record);
                batch.lost = lost;
                waiting.batches.push_back(batch);
            }
        }
        if waiting.writer == Writer::Idle || waiting.is_urgent() {
            self.came.notify_one();
        }
        true
    }

    /// Waits for records. What is missing at the end is told with none, as soon as there is room.
    pub(super) fn next(&self) -> Batch {
        let mut waiting = self.lock();
        let rests = |waiting: &mut Waiting| !waiting.is_urgent();
        (waiting, _) = self
            .came
            .wait_timeout_while(waiting, REST, rests)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.writer = Writer::Idle;
        loop {
            let next = match waiting.batches.pop_front() {
                Some(batch) => Some(batch),
                None if waiting.lost > 0 => Some(Batch {
                    lost: std::mem::take(&mut waiting.lost),
                    ..Batch::default()
                }),
                None => None,
            };
            if let Some(batch) = next {
                waiting.writer = Writer::Writing;
                return batch;
            }
            waiting = self
                .came
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The batch that was taken last is written, or lost. Until then it takes up room.
    pub(super) fn written(&self, batch: &Batch) {
        let mut waiting = self.lock();
        waiting.bytes -= batch.bytes.len() + batch.ends.len() * OVERHEAD;
        waiting.writer = Writer::Resting;
        if waiting.hurried {
            self.written.notify_all();
        }
    }

    /// Waits until nothing waits, but not for longer than `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let mut waiting = self.lock();
        waiting.hurried = true;
        self.came.notify_one();
        let under_way = |waiting: &mut Waiting| {
            waiting.writer == Writer::Writing || waiting.lost > 0 || !waiting.batches.is_empty()
        };
        (waiting, _) = self
            .written
            .wait_timeout_while(waiting, patience, under_way)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.hurried = false;
    }

    /// Nothing that holds the lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whether it is no time to let more gather.
    fn is_urgent(&self) -> bool {
        self.hurried || self.bytes > ROOM / 2
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, OVERHEAD, Queue, ROOM};

    fn batch(lost: u64, records: &[&[u8]]) -> Batch {
        let mut batch = Batch::default();
        records.iter().for_each(|record| batch.push(record));
        batch.lost = lost;
        batch
    }

    #[test]
    fn what_finds_no_room_is_missing_in_its_place() {
        let queue = Queue::new();
        let half = vec![b'x'; ROOM / 2 - OVERHEAD];
        assert!(queue.push(&half));
        assert!(queue.push(&half));
        assert!(!queue.push(b"lost"));
        let first = queue.next();
        assert_eq!(first, batch(0, &[&half, &half]));
        // What is being written still takes up room.
        assert!(!queue.push(b"lost"));
        queue.written(&first);
        assert!(queue.push(b"third"));
        assert!(queue.push(b"fourth"));
        assert!(!queue.push(&vec![b'x'; ROOM]));
        assert!(queue.push(b"fifth"));
        assert!(!queue.push(&vec![b'x'; ROOM]));
        for expected in [
            batch(2, &[b"third", b"fourth"]),
            batch(1, &[b"fifth"]),
            batch(1, &[]),
        ] {
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
