//! What becomes of requests, and how many there were of each kind.
//!
//! Counting is two or three atomic operations: it allocates at the first outcome of a kind alone, and takes no lock. A code
//! is a text of the program, so nothing that comes from the network can be one, and nobody outside can have more
//! counters made than the program has codes.

use std::iter::successors;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// A route admitted it, and the upstream answered.
    Allowed,
    /// No route admits it, or its form is ambiguous.
    Denied,
    /// It was admitted, and then a credential or the upstream failed.
    Failed,
}

impl Verdict {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Failed];

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|verdict| verdict.as_str() == name)
    }

    /// Its name in the log, the audit file and the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// A verdict and its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// Whose fault it is, if any.
    pub verdict: Verdict,
    /// The stable code of the answer and of the log.
    pub code: &'static str,
}

/// A counter for each outcome that there has been: a list that only grows, in the order in which they were first seen. That
/// of a route begins with what is usual on it.
#[derive(Debug, Default)]
pub struct Outcomes(OnceLock<Box<Counter>>);

#[derive(Debug)]
struct Counter {
    outcome: Outcome,
    count: AtomicU64,
    others: Outcomes,
}

impl Outcomes {
    /// Counts one.
    pub fn add(&self, outcome: Outcome) {
        let mut outcomes = self;
        loop {
            let counter = outcomes.0.get_or_init(|| Counter::of(outcome).into());
            if counter.outcome == outcome {
                counter.count.fetch_add(1, Ordering::Relaxed);
                return;
            }
            outcomes = &counter.others;
        }
    }

    /// Each that there has been, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> {
        let counters = successors(self.0.get(), |counter| counter.others.0.get());
        counters.map(|counter| (counter.outcome, counter.count.load(Ordering::Relaxed)))
    }
}

impl Counter {
    fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            count: AtomicU64::new(0),
            others: Outcomes::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{Outcome, Outcomes, Verdict};

    #[test]
    fn nothing_is_lost_where_many_count_at_once() {
        const CODES: [&str; 5] = ["ok", "tunnel", "aborted", "revoked", "stopping"];
        let outcomes = Outcomes::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for code in CODES.iter().cycle().take(5000) {
                        outcomes.add(allowed(code));
                    }
                });
            }
        });
        let mut counted: Vec<_> = outcomes.iter().collect();
        counted.sort();
        let mut expected = CODES.map(|code| (allowed(code), 4000));
        expected.sort();
        assert_eq!(counted, expected);
    }

    #[test]
    fn one_code_under_two_verdicts_is_two_outcomes() {
        let outcomes = Outcomes::default();
        let failed = Outcome {
            verdict: Verdict::Failed,
            ..allowed("stopping")
        };
        outcomes.add(allowed("stopping"));
        outcomes.add(failed);
        outcomes.add(failed);
        let counted: Vec<_> = outcomes.iter().collect();
        assert_eq!(counted, [(allowed("stopping"), 1), (failed, 2)]);
    }

    fn allowed(code: &'static str) -> Outcome {
        Outcome {
            verdict: Verdict::Allowed,
            code,
        }
    }
}
