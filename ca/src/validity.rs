//! The span of time in which a certificate holds, in whole seconds as X.509 has them. Pure: the clock is passed in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use crate::Error;

pub(crate) const HOUR: i64 = 60 * 60;
pub(crate) const DAY: i64 = 24 * HOUR;

/// From `not_before` to `not_after`, both included (RFC 5280 section 4.1.2.5), in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

impl Validity {
    /// `days` long from now on, and backdated by an hour: the guest's clock may lag behind ours, and a certificate
    /// "from the future" fails with a message that nobody connects with the clock.
    pub(crate) fn starting(now: SystemTime, days: i64) -> Result<Self, Error> {
        let now = unix_seconds(now)?;
        Ok(Self {
            not_before: now - HOUR,
            not_after: now + days * DAY - HOUR,
        })
    }

    /// The part of this span that lies within `outer`.
    pub(crate) fn clipped_to(self, outer: Validity) -> Self {
        Self {
            not_before: self.not_before.max(outer.not_before),
            not_after: self.not_after.min(outer.not_after),
        }
    }

    pub(crate) fn contains(self, now: i64) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    pub(crate) fn bounds(self) -> Result<(OffsetDateTime, OffsetDateTime), Error> {
        let date = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Error::Clock);
        Ok((date(self.not_before)?, date(self.not_after)?))
    }

    pub(crate) fn end(self) -> SystemTime {
        let seconds = u64::try_from(self.not_after).unwrap_or(0);
        UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .unwrap_or(UNIX_EPOCH)
    }
}

pub(crate) fn unix_seconds(now: SystemTime) -> Result<i64, Error> {
    let since = now.duration_since(UNIX_EPOCH).map_err(|_| Error::Clock)?;
    let seconds = i64::try_from(since.as_secs()).map_err(|_| Error::Clock)?;
    // Checked here so that no sum of such a time and a lifetime can overflow.
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Error::Clock)?;
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_without_an_x509_form_is_refused() {
        assert!(matches!(
            unix_seconds(UNIX_EPOCH - Duration::from_secs(1)),
            Err(Error::Clock)
        ));
        let year_10000 = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        assert!(matches!(unix_seconds(year_10000), Err(Error::Clock)));
        assert!(unix_seconds(year_10000 - Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn a_span_counts_its_backdated_hour_and_includes_both_ends() {
        let span = Validity::starting(UNIX_EPOCH + Duration::from_secs(1_000_000), 7).unwrap();
        assert_eq!(span.not_after - span.not_before, 7 * DAY);
        assert!(span.contains(span.not_before) && span.contains(span.not_after));
        assert!(!span.contains(span.not_before - 1) && !span.contains(span.not_after + 1));
        assert_eq!(
            span.end(),
            UNIX_EPOCH + Duration::from_secs(span.not_after.unsigned_abs())
        );
    }
}
