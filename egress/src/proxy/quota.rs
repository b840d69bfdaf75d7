//! A ration of log lines.

use std::time::Instant;

/// How many lines are written about what an agent can do as often as it likes: so many at once, and then one a second.
#[derive(Debug)]
pub(super) struct Quota {
    left: u32,
    filled: Instant,
    left_out: u64,
}

impl Quota {
    const BURST: u32 = 20;

    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: Self::BURST,
            filled: now,
            left_out: 0,
        }
    }

    /// Whether one more may be written; if so, how many were not since the last one.
    pub(super) fn take(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.filled).as_secs();
        if passed > 0 {
            let passed = u32::try_from(passed).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(passed).min(Self::BURST);
            self.filled = now;
        }
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Quota;

    #[test]
    fn lines_are_rationed() {
        let start = Instant::now();
        let mut quota = Quota::new(start);
        for _ in 0..Quota::BURST {
            assert_eq!(quota.take(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(quota.take(start), None);
        }
        let later = start + Duration::from_secs(1);
        assert_eq!(quota.take(later), Some(7));
        assert_eq!(quota.take(later), None);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!(quota.take(much_later), Some(1));
        let left = std::iter::from_fn(|| quota.take(much_later)).count();
        assert_eq!(left, Quota::BURST as usize - 1);
    }
}
