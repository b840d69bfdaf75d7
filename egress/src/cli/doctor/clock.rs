//! The clock: certificates and tokens are good for a time, and a clock that is off ends them early or never.

use std::time::{Duration, SystemTime};

use super::report::Finding;
use crate::admin::duration;

/// Who told the time, by the `Date` of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teller {
    /// The sidecar, by the clock of its machine.
    Sidecar,
    /// A host behind it.
    Upstream,
}

/// More than an answer takes, and than a machine that keeps time is off.
const NOTICEABLE: Duration = Duration::from_secs(60);

/// Tokens and certificates are commonly made with so much to spare.
const TOLERABLE: Duration = Duration::from_secs(5 * 60);

/// Holds the clock of this machine against another one's.
pub(super) fn judge(teller: Teller, theirs: SystemTime, ours: SystemTime) -> Finding {
    let (name, who) = match teller {
        Teller::Sidecar => ("clock", "the sidecar's"),
        Teller::Upstream => ("clock.upstream", "the host's behind the sidecar"),
    };
    const HINT: &str = "set it, and have it kept: `timedatectl set-ntp true`; a virtual machine that slept may be behind";
    let (off, way) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let text = format!("this clock is {} {way} {who}", duration(off.as_secs()));
    if off <= NOTICEABLE {
        Finding::ok(name, format!("this clock and {who} agree"))
    } else if off <= TOLERABLE {
        Finding::warn(name, text, HINT)
    } else {
        Finding::fail(name, text, HINT)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{Teller, judge};

    #[test]
    fn a_clock_may_be_off_by_a_little_and_either_way() {
        let now = SystemTime::now();
        let of = |seconds| judge(Teller::Sidecar, now, now + Duration::from_secs(seconds));
        assert!(of(60).is("ok", "agree"));
        assert!(of(61).is("warn", "1 min 1 s ahead of the sidecar's"));
        assert!(of(300).is("warn", ""));
        assert!(of(301).is("fail", "5 min 1 s ahead"));
        let behind = judge(Teller::Upstream, now + Duration::from_secs(86_400), now);
        assert!(behind.is("fail", "1 d 0 h behind the host's"), "{behind:?}");
    }
}
