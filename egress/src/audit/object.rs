//! A row as an object, in which form programs read it: from an audit file, and from a sidecar as it happens.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::row::Row;
use crate::credential::unix_seconds;

/// The names of the values in the order of [`values`].
pub const NAMES: [&str; 22] = [
    "number",
    "time",
    "client",
    "bottle",
    "method",
    "scheme",
    "host",
    "path",
    "query",
    "route",
    "verdict",
    "code",
    "slot",
    "credential",
    "status",
    "bytes_up",
    "bytes_down",
    "head_ms",
    "total_ms",
    "upstream",
    "id",
    "detail",
];

/// A row as an object.
pub fn object(row: &Row<'_>) -> Value {
    let named = NAMES.iter().map(|name| (*name).to_owned());
    Value::Object(named.zip(values(row)).collect())
}

/// What stands in the columns, for people and programs.
pub fn values(row: &Row<'_>) -> [Value; 22] {
    [
        json!(row.number),
        json!(precise(row.time)),
        json!(row.client),
        json!(row.bottle),
        json!(row.method),
        json!(row.scheme),
        json!(row.host),
        json!(row.path),
        json!(row.query),
        json!(row.route),
        json!(row.verdict),
        json!(row.code),
        json!(row.slot),
        json!(row.credential),
        json!(row.status),
        json!(row.bytes_up),
        json!(row.bytes_down),
        json!(row.head_us.map(milliseconds)),
        json!(milliseconds(row.total_us)),
        json!(row.upstream),
        json!(row.id),
        json!(row.detail),
    ]
}

/// A row's time, in UTC, to the second.
pub fn moment(micros: i64) -> String {
    let micros = u64::try_from(micros).unwrap_or_default();
    let time: SystemTime = UNIX_EPOCH + Duration::from_micros(micros);
    rfc3339(time)
}

/// A time in UTC, to the second.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = i64::try_from(unix_seconds(time)).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| seconds.to_string())
}

fn milliseconds(micros: i64) -> f64 {
    micros as f64 / 1e3
}

/// To the microsecond.
fn precise(micros: i64) -> String {
    let text = moment(micros);
    let whole = text.strip_suffix('Z').unwrap_or(&text);
    format!("{whole}.{:06}Z", micros.rem_euclid(1_000_000))
}
