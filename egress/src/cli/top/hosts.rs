//! How much was asked of each host, lately and since somebody watches. Pure, and bounded: an agent chooses the names.

use std::collections::HashMap;

use crate::audit::row::Row;

/// Hosts with what was asked of them.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Host>);

/// What was asked of one.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// Requests by the second of their end, at that second's place of the minute.
    seconds: [u32; MINUTE],
    /// The last second that is in it.
    last: i64,
    /// Requests.
    pub(super) requests: u64,
    /// Those refused.
    pub(super) denied: u64,
    /// Those that failed after the decision.
    pub(super) failed: u64,
    /// Bytes of the answers.
    pub(super) bytes: u64,
}

const MINUTE: usize = 60;
/// The most hosts that are told apart; the one that was asked for the longest ago goes.
const MOST: usize = 256;

impl Hosts {
    /// Counts a request.
    pub(super) fn add(&mut self, row: &Row<'_>) {
        let ended = row.time.saturating_add(row.total_us).div_euclid(1_000_000);
        if !self.0.contains_key(&*row.host) {
            self.make_room();
        }
        let host = self.0.entry(row.host.clone().into_owned());
        let host = host.or_insert_with(|| Host::new(ended));
        host.requests += 1;
        host.denied += u64::from(row.verdict == "denied");
        host.failed += u64::from(row.verdict == "failed");
        host.bytes += u64::try_from(row.bytes_down).unwrap_or_default();
        host.at(ended);
    }

    /// All of them, the busiest of the last minute first.
    pub(super) fn list(&self, now: i64) -> Vec<(&str, &Host)> {
        let mut list: Vec<_> = self.0.iter().map(|(name, host)| (&**name, host)).collect();
        list.sort_by_key(|(name, host)| {
            (
                std::cmp::Reverse((host.within(60, now), host.requests)),
                *name,
            )
        });
        list
    }

    fn make_room(&mut self) {
        if self.0.len() < MOST {
            return;
        }
        let oldest = self.0.iter().min_by_key(|(_, host)| host.last);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.0.remove(&name);
        }
    }
}

impl Host {
    fn new(second: i64) -> Self {
        Self {
            seconds: [0; MINUTE],
            last: second,
            requests: 0,
            denied: 0,
            failed: 0,
            bytes: 0,
        }
    }

    /// Counts one at a second; what is more than a minute before the last one is not lately.
    fn at(&mut self, second: i64) {
        if second > self.last {
            let passed = usize::try_from(second - self.last).unwrap_or(MINUTE);
            for gone in (1..=MINUTE.min(passed)).rev() {
                let gone = second - i64::try_from(gone).unwrap_or_default() + 1;
                if let Some(count) = self.seconds.get_mut(place(gone)) {
                    *count = 0;
                }
            }
            self.last = second;
        }
        if self.last - second < MINUTE as i64
            && let Some(count) = self.seconds.get_mut(place(second))
        {
            *count += 1;
        }
    }

    /// How many there were in the last so many seconds before `now`, of a minute at the most.
    pub(super) fn within(&self, seconds: i64, now: i64) -> u64 {
        let first = (now - seconds + 1).max(self.last - MINUTE as i64 + 1);
        (first..=self.last.min(now + 1))
            .filter_map(|second| self.seconds.get(place(second)))
            .map(|count| u64::from(*count))
            .sum()
    }
}

fn place(second: i64) -> usize {
    usize::try_from(second.rem_euclid(MINUTE as i64)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Hosts, MOST};
    use crate::audit::row::Row;

    fn row(host: String, second: i64) -> Row<'static> {
        Row {
            host: host.into(),
            time: second * 1_000_000,
            verdict: "denied".into(),
            ..Row::default()
        }
    }

    #[test]
    fn what_is_long_ago_is_counted_and_is_not_lately() {
        let mut hosts = Hosts::default();
        for second in [100, 130, 130, 159, 101, 300] {
            hosts.add(&row("a".into(), second));
            let list = hosts.list(second.max(159));
            let host = list[0].1;
            if second == 101 {
                assert_eq!((host.within(60, 159), host.within(1, 159)), (5, 1));
                assert_eq!(host.within(60, 161), 3, "two of them are over a minute ago");
            }
        }
        let list = hosts.list(300);
        assert_eq!(list[0].1.requests, 6);
        assert_eq!(list[0].1.denied, 6);
        assert_eq!(list[0].1.within(60, 300), 1);
        assert_eq!(list[0].1.within(60, 400), 0);
    }

    #[test]
    fn however_many_names_an_agent_invents_the_latest_are_kept() {
        let mut hosts = Hosts::default();
        for number in 0..2 * MOST {
            hosts.add(&row(
                number.to_string(),
                i64::try_from(number).expect("few"),
            ));
        }
        let list = hosts.list(0);
        assert_eq!(list.len(), MOST);
        let names: Vec<usize> = list
            .iter()
            .map(|(name, _)| name.parse().expect("a number"))
            .collect();
        assert!(names.iter().all(|number| *number >= MOST));
    }
}
