//! What was counted and timed, in what stretch of time, and the line that tells of it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::time::sleep_until;

use crate::process::{Tree, Usage};

#[derive(Debug, Args)]
pub(crate) struct WindowArgs {
    /// How long to measure, seconds
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// How long to run before that
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    warm: f64,
}

/// The stretch of time that counts.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    pub(crate) fn from_now(args: &WindowArgs) -> Self {
        let begin = Instant::now() + Duration::from_secs_f64(args.warm);
        Self {
            begin,
            end: begin + Duration::from_secs_f64(args.seconds),
        }
    }

    pub(crate) fn contains(&self, moment: Instant) -> bool {
        self.begin <= moment && moment < self.end
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Sleeps until the end, reads the measured tree at both ends, and prints the report.
    pub(crate) async fn report(&self, tree: Option<&Tree>, tally: &Tally) {
        sleep_until(self.begin.into()).await;
        let (before, bytes, begin) = (usage(tree), tally.bytes.get(), Instant::now());
        sleep_until(self.end.into()).await;
        let after = usage(tree);
        let moved = tally.bytes.get() - bytes;
        tally
            .report(begin.elapsed(), before, after)
            .with_bytes(moved)
            .print();
    }
}

/// What the tree took until now; nothing where none is measured.
pub(crate) fn usage(tree: Option<&Tree>) -> Usage {
    tree.map(Tree::usage).unwrap_or_default()
}

/// Counts of one measurement.
#[derive(Default)]
pub(crate) struct Tally {
    /// Nanoseconds, one for each unit of work.
    taken: RefCell<Vec<u64>>,
    /// Bytes of bodies.
    pub(crate) bytes: Cell<u64>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
}

impl Tally {
    pub(crate) fn took(&self, nanoseconds: u64) {
        self.taken.borrow_mut().push(nanoseconds);
    }

    pub(crate) fn took_since(&self, begin: Instant) {
        self.took(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn failed(&self, error: &impl fmt::Display) {
        self.errors.set(self.errors.get() + 1);
        self.first_error
            .borrow_mut()
            .get_or_insert_with(|| error.to_string());
    }

    pub(crate) fn report(&self, lasted: Duration, before: Usage, after: Usage) -> Report {
        let mut taken = self.taken.take();
        taken.sort_unstable();
        let cpu_us = after.cpu_us - before.cpu_us;
        Report {
            n: taken.len(),
            errors: self.errors.get(),
            first_error: self.first_error.take(),
            seconds: lasted.as_secs_f64(),
            rate: taken.len() as f64 / lasted.as_secs_f64(),
            p50_us: quantile(&taken, 0.5),
            p99_us: quantile(&taken, 0.99),
            p999_us: quantile(&taken, 0.999),
            max_us: quantile(&taken, 1.0),
            cpu_us,
            cpu_us_per: (!taken.is_empty()).then(|| cpu_us / taken.len() as f64),
            rss_mb: after.rss_mb,
            pss_mb: after.pss_mb,
            mb_per_s: None,
            cpu_us_per_mb: None,
            held: None,
        }
    }
}

/// One line of JSON.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Units of work: requests, tunnels or events.
    n: usize,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
    seconds: f64,
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    /// Of the measured tree, as is all that follows.
    cpu_us: f64,
    /// For a unit of work.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_us_per: Option<f64>,
    /// At the end.
    rss_mb: f64,
    pss_mb: f64,
    /// Megabytes are of 10^6 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    mb_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_us_per_mb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Held>,
}

/// Memory before anything was opened, and what each of the opened took.
#[derive(Serialize)]
pub(crate) struct Held {
    pub(crate) idle_rss_mb: f64,
    pub(crate) idle_pss_mb: f64,
    /// By PSS.
    pub(crate) kb_each: f64,
}

impl Report {
    pub(crate) fn with_held(self, held: Held) -> Self {
        Self {
            held: Some(held),
            ..self
        }
    }

    pub(crate) fn print(&self) {
        println!("{}", serde_json::to_string(self).unwrap_or_default());
    }

    fn with_bytes(self, bytes: u64) -> Self {
        if bytes == 0 {
            return self;
        }
        let megabytes = bytes as f64 / 1e6;
        Self {
            mb_per_s: Some(megabytes / self.seconds),
            cpu_us_per_mb: Some(self.cpu_us / megabytes),
            ..self
        }
    }
}

/// Microseconds; 0 of nothing.
fn quantile(sorted: &[u64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    let nanoseconds = sorted.get(at).or(sorted.last()).copied().unwrap_or(0);
    nanoseconds as f64 / 1e3
}
