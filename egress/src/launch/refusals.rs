//! What a sidecar refused while its agent was at work, and what failed behind it, from the lines of its log: told at the
//! end, when the operator wonders why something did not work.
//!
//! The agent chooses hosts and paths, so that none of them may look like another part of a line, reach a terminal as
//! anything but plain text, or fill the memory.

use std::collections::BTreeMap;
use std::fmt;

/// Requests that came to nothing.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// Refused by the sidecar.
    pub refused: Tally,
    /// Admitted, and then a credential or the upstream failed.
    pub failed: Tally,
}

impl Refusals {
    /// Counts a line of the log, where it tells of such a request.
    pub(super) fn note(&mut self, line: &str) {
        match record(line) {
            Some(("denied", host, reason)) => self.refused.add(host, reason),
            Some(("failed", host, reason)) if !BROKEN_OFF.contains(&reason) => {
                self.failed.add(host, reason);
            }
            _ => {}
        }
    }
}

/// What happens whenever somebody has had enough of an answer.
const BROKEN_OFF: [&str; 2] = ["aborted", "upstream_broke_off"];

/// Requests, counted by host and reason.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<(String, String), u64>,
    total: u64,
}

impl Tally {
    fn add(&mut self, host: &str, reason: &str) {
        self.total += 1;
        let key = (host.to_owned(), reason.to_owned());
        if self.counts.len() < MOST_KEPT || self.counts.contains_key(&key) {
            *self.counts.entry(key).or_default() += 1;
        }
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

/// `3 requests: other.test 2 (host_not_allowed), pypi.org 1 (path_not_allowed)`
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.total == 1 { "" } else { "s" };
        write!(f, "{} request{plural}: ", self.total)?;
        let mut all: Vec<_> = self.counts.iter().collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut told = 0;
        for (number, ((host, reason), count)) in all.into_iter().take(MOST_TOLD).enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{host} {count} ({reason})")?;
            told += count;
        }
        match self.total - told {
            0 => Ok(()),
            more => write!(f, ", others {more}"),
        }
    }
}

/// The verdict, the host and the reason of a line that tells of a request (see `crate::audit`).
fn record(line: &str) -> Option<(&str, &str, &str)> {
    let (_, record) = line.split_once(" egress::request: ")?;
    let (before, rest) = record.split_once("host=\"")?;
    let (host, rest) = rest.split_once('"')?;
    let rest = after_text(rest.strip_prefix(" path=\"")?)?;
    // Nothing that the agent chooses stands between the path and the verdict.
    let (_, rest) = rest.split_once(" verdict=\"")?;
    let (verdict, rest) = rest.split_once("\" code=\"")?;
    let (code, _) = rest.split_once('"')?;
    let host = host.strip_suffix(":443").unwrap_or(host);
    if host.len() > LONGEST_HOST || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some((verdict, "a host without a plain name", code));
    }
    let host = if host.is_empty() { "no host" } else { host };
    let is_lookup = before.contains("method=\"DNS\"");
    Some((verdict, host, if is_lookup { "name lookup" } else { code }))
}

/// What follows a text that has begun, in which quotation marks and backslashes have a backslash before them.
fn after_text(text: &str) -> Option<&str> {
    let mut escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    text.get(end + 1..)
}

/// How many hosts are counted one by one.
const MOST_KEPT: usize = 1000;

/// How many of them one line tells of.
const MOST_TOLD: usize = 5;

/// A name has 253 characters (RFC 1035, section 2.3.4), and a port is added.
const LONGEST_HOST: usize = 260;

#[cfg(test)]
mod tests {
    use super::{MOST_KEPT, Refusals};

    fn line(method: &str, host: &str, path: &str, verdict: &str, code: &str) -> String {
        format!(
            "2026-11-22T11:46:38.525516Z  INFO egress::request: client=127.0.0.1 method={method:?} host={host:?} \
             path={path:?} route=3 verdict={verdict:?} code={code:?} status=403 bytes_up=0"
        )
    }

    fn of<'a>(lines: impl IntoIterator<Item = &'a String>) -> Refusals {
        let mut refusals = Refusals::default();
        lines.into_iter().for_each(|line| refusals.note(line));
        refusals
    }

    #[test]
    fn refusals_are_counted_by_host_and_reason_and_the_most_frequent_is_first() {
        let get = |host, code| line("GET", host, "/x", "denied", code);
        let refusals = of(&[
            line("GET", "api.test:443", "/", "allowed", "ok"),
            line("GET", "api.test:443", "/", "failed", "upstream_tls"),
            get("api.test:443", "path_not_allowed"),
            get("other.test:443", "host_not_allowed"),
            get("other.test:443", "host_not_allowed"),
            get("api.test:80", "port_not_allowed"),
            line("DNS", "other.test", "", "denied", "host_not_allowed"),
            "2026-11-22T11:46:38Z  INFO egress::cli::serve: stopped".into(),
        ]);
        assert_eq!(
            refusals.refused.to_string(),
            "5 requests: other.test 2 (host_not_allowed), api.test 1 (path_not_allowed), \
             api.test:80 1 (port_not_allowed), other.test 1 (name lookup)"
        );
        assert_eq!(
            refusals.failed.to_string(),
            "1 request: api.test 1 (upstream_tls)"
        );
        let left = line("GET", "api.test:443", "/", "failed", "aborted");
        assert!(of(&[left]).failed.is_empty());
    }

    #[test]
    fn an_agent_cannot_forge_a_refusal_reach_the_terminal_or_fill_the_memory() {
        let forged = "/\" verdict=\"denied\" code=\"x\" \\";
        assert!(
            of(&[line("GET", "a.test:443", forged, "allowed", "ok")])
                .refused
                .is_empty()
        );
        let refusals = of(&[line("GET", "a.test:443", forged, "denied", "bad_target")]);
        assert_eq!(
            refusals.refused.to_string(),
            "1 request: a.test 1 (bad_target)"
        );
        for host in ["\u{1b}[2J", "a\u{9b}b", "\u{202e}x"] {
            let told = of(&[line("GET", host, "/", "denied", "bad_target")])
                .refused
                .to_string();
            assert!(
                told.chars().all(|c| c.is_ascii_graphic() || c == ' '),
                "{told}"
            );
        }
        let many: Vec<_> = (0..2 * MOST_KEPT)
            .map(|n| {
                line(
                    "GET",
                    &format!("{n}.test:443"),
                    "/",
                    "denied",
                    "host_not_allowed",
                )
            })
            .collect();
        let refusals = of(&many).refused;
        assert_eq!(refusals.counts.len(), MOST_KEPT);
        assert!(refusals.to_string().ends_with("others 1995"), "{refusals}");
    }
}
