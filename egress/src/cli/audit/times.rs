//! Times as people write them: so long ago, or a moment.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::limits::span;

/// Reads `10m` as ten minutes ago, and a moment as RFC 3339 has it. In microseconds since 1970.
pub(in crate::cli) fn parse(text: &str) -> Result<i64, String> {
    if let Ok(ago) = span(text) {
        let moment = SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH);
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        return i64::try_from(since.as_micros()).map_err(|error| error.to_string());
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(
        |_| "write how long ago, as in 10m, 2h or 3d, or a moment as in 2026-11-29T12:00:00Z",
    )?;
    i64::try_from(moment.unix_timestamp_nanos() / 1000).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_moment_is_read_with_its_offset_and_what_is_none_is_refused() {
        assert_eq!(parse("1970-01-01T01:00:00.5+01:00"), Ok(500_000));
        assert!(parse("10m").is_ok_and(|then| parse("5m").is_ok_and(|later| later > then)));
        for text in ["", "yesterday", "2026-11-29", "10 m"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
