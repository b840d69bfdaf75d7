//! Rows as they are printed: a table for people, JSON and CSV for programs.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::admin::rfc3339;
use crate::audit::row::Row;

/// A form of output.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A line a row, the most telling columns first.
    Table,
    /// An object a row.
    Json,
    /// RFC 4180.
    Csv,
}

/// The names of the values in the order of [`values`].
const NAMES: [&str; 21] = [
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
    "detail",
];

impl Shape {
    /// What stands before the first row.
    pub(super) fn head(self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Table => writeln!(
                out,
                "{:<20} {:<7} {:>3} {:<7} {:<32} PATH",
                "TIME", "VERDICT", "ST", "METHOD", "HOST"
            ),
            Self::Json => Ok(()),
            Self::Csv => write!(out, "{}\r\n", NAMES.join(",")),
        }
    }

    /// One row.
    pub(super) fn row(self, out: &mut impl Write, row: &Row<'_>) -> io::Result<()> {
        match self {
            Self::Table => line(out, row),
            Self::Json => writeln!(out, "{}", object(row)),
            Self::Csv => {
                let fields = values(row).map(|value| match value {
                    Value::Null => String::new(),
                    Value::String(text) => quoted(&text),
                    other => other.to_string(),
                });
                write!(out, "{}\r\n", fields.join(","))
            }
        }
    }
}

/// What people look for first; why it was refused, and with which slot it went out, at the end.
fn line(out: &mut impl Write, row: &Row<'_>) -> io::Result<()> {
    write!(
        out,
        "{:<20} {:<7} {:>3} {:<7} {:<32} {}",
        moment(row.time),
        row.verdict,
        row.status,
        plain(&row.method),
        plain(&row.host),
        plain(&row.path)
    )?;
    if let Some(query) = &row.query {
        write!(out, "?{}", plain(query))?;
    }
    if row.code != "ok" {
        write!(out, "  {}", row.code)?;
    }
    if let Some(slot) = &row.slot {
        write!(out, "  with {slot}")?;
    }
    if let Some(detail) = &row.detail {
        write!(out, "  ({})", plain(detail))?;
    }
    writeln!(out)
}

/// A text without what moves a terminal's cursor. The sidecar writes none; somebody else may have.
fn plain(text: &str) -> Cow<'_, str> {
    match text.contains(char::is_control) {
        true => text.escape_debug().to_string().into(),
        false => text.into(),
    }
}

/// A row as an object.
pub(in super::super) fn object(row: &Row<'_>) -> Value {
    let named = NAMES.iter().map(|name| (*name).to_owned());
    Value::Object(named.zip(values(row)).collect())
}

fn values(row: &Row<'_>) -> [Value; 21] {
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
        json!(row.detail),
    ]
}

fn milliseconds(micros: i64) -> f64 {
    micros as f64 / 1e3
}

fn moment(micros: i64) -> String {
    let micros = u64::try_from(micros).unwrap_or_default();
    let time: SystemTime = UNIX_EPOCH + Duration::from_micros(micros);
    rfc3339(time)
}

/// To the microsecond.
fn precise(micros: i64) -> String {
    let text = moment(micros);
    let whole = text.strip_suffix('Z').unwrap_or(&text);
    format!("{whole}.{:06}Z", micros.rem_euclid(1_000_000))
}

/// Quoted where a comma or a quote is in it, and so that no spreadsheet takes it for a formula: an agent chooses paths.
fn quoted(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@']);
    let text = match is_formula && text != "-" {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match text.contains(['"', ',', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::{Shape, quoted};
    use crate::audit::row::Row;

    #[test]
    fn a_field_is_one_field_and_no_formula() {
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("=HYPERLINK(1)"), "'=HYPERLINK(1)");
        assert_eq!(quoted("-"), "-");
        assert_eq!(quoted("/v1"), "/v1");
    }

    #[test]
    fn a_row_has_as_many_values_as_names_in_each_form() {
        let row = Row {
            number: 3,
            time: 1_795_973_510_429_853,
            host: "api.test:443".into(),
            path: "/a,b".into(),
            total_us: 1500,
            ..Row::default()
        };
        let printed = |shape: Shape| {
            let mut out = Vec::new();
            shape.head(&mut out).expect("memory");
            shape.row(&mut out, &row).expect("memory");
            String::from_utf8(out).expect("text")
        };
        let csv = printed(Shape::Csv);
        let [names, values] = csv.lines().collect::<Vec<_>>()[..] else {
            panic!("{csv}");
        };
        // One comma more, in the quoted path.
        assert_eq!(values.matches(',').count(), names.matches(',').count() + 1);
        let object: serde_json::Value = serde_json::from_str(&printed(Shape::Json)).expect("JSON");
        assert_eq!(object["time"], "2026-11-29T17:31:50.429853Z");
        assert_eq!(object["total_ms"], 1.5);
        assert!(printed(Shape::Table).contains("2026-11-29T17:31:50Z"));
    }
}
