//! The way of entries into the audit file: a bounded queue, and the one thread that writes.
//!
//! No request waits for the disk. What finds no room is counted, and told once; with [`Demand::Required`] nothing is lost,
//! because requests are refused before the room is full.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::database::{Error, Rotated, Writer};
use super::entry::Entry;
use crate::credential::Salt;

/// Where entries are put.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    demand: Demand,
    salt: Salt,
    keeps_query: bool,
}

/// What becomes of requests while the file cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// They go on, and their entries are lost once there is no room for more.
    Wanted,
    /// They are refused.
    Required,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// For the thread that writes.
    came: Condvar,
    /// For whoever waits until the file is closed.
    written: Condvar,
    is_failing: AtomicBool,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Arc<Entry>>,
    /// Taken by the thread, and not written yet.
    under_way: usize,
    /// The thread sleeps until it is woken.
    is_idle: bool,
    /// No more entries come: the thread ends once all is written.
    is_ending: bool,
    has_ended: bool,
}

/// Entries that wait. Each takes about half a kilobyte.
const ROOM: usize = 65_536;
/// How long entries gather after a write, before the next one.
const REST: Duration = Duration::from_millis(50);
/// How long after a failure the next try is made.
const RETRY: Duration = Duration::from_secs(1);
/// How long it is before the next file is tried again, where somebody held this one.
const LATER: Duration = Duration::from_secs(10);

impl Journal {
    /// Begins to write, on a thread of its own.
    ///
    /// # Errors
    ///
    /// The system's, where it gives no thread.
    pub fn begin(
        writer: Writer,
        bottle: Option<String>,
        demand: Demand,
        keeps_query: bool,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let salt = writer.salt();
        let of_thread = shared.clone();
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || of_thread.write(writer, bottle.as_deref()))?;
        Ok(Self {
            shared,
            demand,
            salt,
            keeps_query,
        })
    }

    /// Puts an entry in, where there is room.
    pub fn push(&self, entry: Arc<Entry>) {
        let mut waiting = self.shared.lock();
        if waiting.entries.len() + waiting.under_way >= ROOM {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.entries.push_back(entry);
        if waiting.is_idle {
            waiting.is_idle = false;
            self.shared.came.notify_one();
        }
    }

    /// Whether requests are to be refused, because what becomes of them could not be written down.
    pub fn refuses(&self) -> bool {
        self.demand == Demand::Required && (self.is_failing() || self.waiting() > ROOM / 2)
    }

    /// What fingerprints are made with.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }

    /// Whether queries are kept.
    pub fn keeps_query(&self) -> bool {
        self.keeps_query
    }

    /// Entries that are not written yet.
    pub fn waiting(&self) -> usize {
        let waiting = self.shared.lock();
        waiting.entries.len() + waiting.under_way
    }

    /// Entries that found no room since the start.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Whether the last try to write failed.
    pub fn is_failing(&self) -> bool {
        self.shared.is_failing.load(Ordering::Relaxed)
    }

    /// Has all that was put in so far written, and the file closed, but waits for no longer than `patience`. How many entries were
    /// not written.
    pub fn close(&self, patience: Duration) -> usize {
        let mut waiting = self.shared.lock();
        waiting.is_ending = true;
        self.shared.came.notify_one();
        (waiting, _) = self
            .shared
            .written
            .wait_timeout_while(waiting, patience, |waiting| !waiting.has_ended)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.entries.len() + waiting.under_way
    }
}

impl Shared {
    /// The thread.
    fn write(&self, mut writer: Writer, bottle: Option<&str>) {
        let mut not_before = Instant::now();
        while let Some(entries) = self.next() {
            while let Err(error) = writer.append(&entries, bottle) {
                self.failed(&error);
                thread::sleep(RETRY);
            }
            self.wrote();
            if Instant::now() < not_before {
                continue;
            }
            match writer.rotate(SystemTime::now()) {
                Ok(Rotated::NotDue | Rotated::Begun) => {}
                Ok(Rotated::Held) => not_before = Instant::now() + LATER,
                Err(error) => {
                    not_before = Instant::now() + LATER;
                    tracing::error!(error = told(&error), "the audit goes on in the same file");
                }
            }
        }
        drop(writer);
        self.lock().has_ended = true;
        self.written.notify_all();
    }

    /// Waits for entries. None once there will be no more.
    fn next(&self) -> Option<Vec<Arc<Entry>>> {
        let mut waiting = self.lock();
        // Those that come close together are written together: a transaction costs as much as ten rows.
        let gathers =
            |waiting: &mut Waiting| !waiting.is_ending && waiting.entries.len() < ROOM / 2;
        (waiting, _) = self
            .came
            .wait_timeout_while(waiting, REST, gathers)
            .unwrap_or_else(PoisonError::into_inner);
        while waiting.entries.is_empty() {
            if waiting.is_ending {
                return None;
            }
            waiting.is_idle = true;
            waiting = self
                .came
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        waiting.is_idle = false;
        let entries: Vec<Arc<Entry>> = waiting.entries.drain(..).collect();
        waiting.under_way = entries.len();
        Some(entries)
    }

    fn wrote(&self) {
        let mut waiting = self.lock();
        waiting.under_way = 0;
        drop(waiting);
        if self.is_failing.swap(false, Ordering::Relaxed) {
            let lost = self.lost.load(Ordering::Relaxed);
            tracing::warn!(lost, "the audit file is written again");
        }
    }

    fn failed(&self, error: &Error) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                error = told(error),
                hint = error.hint(),
                "the audit file cannot be written"
            );
        }
    }

    /// Nothing that holds the lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with what caused it.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
