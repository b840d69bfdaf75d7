//! A row as an object, in which form programs read it: from an audit file, and from a sidecar as it happens.

use std::borrow::Cow;
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

/// The row of an object, or `None` where it is none of a row. A text is as whoever sent the object wrote it.
pub fn row(object: &Value) -> Option<Row<'_>> {
    let value = |name: &str| object.get(name);
    let text = |name: &str| value(name)?.as_str().map(Cow::from);
    let integer = |name: &str| value(name)?.as_i64();
    let time = OffsetDateTime::parse(value("time")?.as_str()?, &Rfc3339).ok()?;
    Some(Row {
        number: integer("number").unwrap_or_default(),
        time: i64::try_from(time.unix_timestamp_nanos() / 1000).ok()?,
        client: text("client")?,
        bottle: text("bottle"),
        method: text("method")?,
        scheme: text("scheme"),
        host: text("host")?,
        path: text("path")?,
        query: text("query"),
        route: integer("route"),
        verdict: text("verdict")?,
        code: text("code")?,
        slot: text("slot"),
        credential: text("credential"),
        status: integer("status")?,
        bytes_up: integer("bytes_up")?,
        bytes_down: integer("bytes_down")?,
        head_us: value("head_ms").and_then(Value::as_f64).map(microseconds),
        total_us: microseconds(value("total_ms")?.as_f64()?),
        upstream: text("upstream"),
        id: text("id"),
        detail: text("detail"),
    })
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

fn microseconds(milliseconds: f64) -> i64 {
    (milliseconds * 1e3).round() as i64
}

/// To the microsecond.
fn precise(micros: i64) -> String {
    let text = moment(micros);
    let whole = text.strip_suffix('Z').unwrap_or(&text);
    format!("{whole}.{:06}Z", micros.rem_euclid(1_000_000))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{object, row};
    use crate::audit::row::Row;

    #[test]
    fn a_row_is_read_from_its_object_as_it_was() {
        let full = Row {
            number: 3,
            time: 1_795_973_510_429_853,
            client: "127.0.0.1".into(),
            bottle: Some("blue".into()),
            method: "GET".into(),
            scheme: Some("https".into()),
            host: "api.test:443".into(),
            path: "/a".into(),
            query: Some("b=c".into()),
            route: Some(7),
            verdict: "denied".into(),
            code: "path_not_allowed".into(),
            slot: Some("EGRESS_TOKEN_0".into()),
            credential: Some("0123456789ab".into()),
            status: 403,
            bytes_up: 1,
            bytes_down: 2,
            head_us: Some(1234),
            total_us: 98_765_432_109,
            upstream: Some("192.0.2.1:443".into()),
            id: Some("1-2".into()),
            detail: Some("why".into()),
        };
        assert_eq!(row(&object(&full)), Some(full));
        let empty = Row::default();
        assert_eq!(row(&object(&empty)), Some(empty));
    }

    #[test]
    fn what_has_no_time_or_another_kind_of_value_is_no_row() {
        let good = object(&Row::default());
        for (name, value) in [
            ("time", json!("yesterday")),
            ("host", json!(1)),
            ("status", json!("200")),
            ("total_ms", json!(null)),
        ] {
            let mut wrong = good.clone();
            if let Some(member) = wrong.get_mut(name) {
                *member = value;
            }
            assert_eq!(row(&wrong), None, "{name}");
        }
    }
}
