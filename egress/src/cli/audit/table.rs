//! Rows as they are printed: a table for people, JSON and CSV for programs.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::Value;

use crate::audit::object::{NAMES, moment, object, values};
use crate::audit::row::Row;

/// A form of output.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) enum Shape {
    /// A line a row, the most telling columns first.
    Table,
    /// An object a row.
    Json,
    /// RFC 4180.
    Csv,
}

impl Shape {
    /// What stands before the first row.
    pub(in crate::cli) fn head(self, out: &mut impl Write) -> io::Result<()> {
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
    pub(in crate::cli) fn row(self, out: &mut impl Write, row: &Row<'_>) -> io::Result<()> {
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
        plain(&row.verdict),
        row.status,
        plain(&row.method),
        plain(&row.host),
        plain(&row.path)
    )?;
    if let Some(query) = &row.query {
        write!(out, "?{}", plain(query))?;
    }
    if row.code != "ok" {
        write!(out, "  {}", plain(&row.code))?;
    }
    if let Some(slot) = &row.slot {
        write!(out, "  with {}", plain(slot))?;
    }
    if let Some(detail) = &row.detail {
        write!(out, "  ({})", plain(detail))?;
    }
    writeln!(out)
}

/// A text without what moves a terminal's cursor or turns its direction. The sidecar writes none; somebody else may have.
pub(in crate::cli) fn plain(text: &str) -> Cow<'_, str> {
    match text.contains(is_hidden) {
        true => text.escape_debug().to_string().into(),
        false => text.into(),
    }
}

/// Controls, and the marks of direction and of line ends beside them (Unicode Standard Annex #9, table 1).
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Quoted where a comma or a quote is in it, and so that no spreadsheet takes it for a formula: an agent chooses paths.
fn quoted(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@']);
    let text = match is_formula && text != "-" {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match text.contains(['"', ',', ';', '\t', '\r', '\n']) {
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
        // Where lists are parted by semicolons, spreadsheets part fields by them, too.
        assert_eq!(quoted("/a;=1"), "\"/a;=1\"");
    }

    #[test]
    fn a_terminal_is_shown_text_alone() {
        for text in ["\u{1b}[31m", "\u{202e}", "\u{2066}", "\u{2028}", "\u{9b}"] {
            let row = Row {
                verdict: text.into(),
                code: text.into(),
                slot: Some(text.into()),
                path: text.into(),
                detail: Some(text.into()),
                ..Row::default()
            };
            let mut out = Vec::new();
            Shape::Table.row(&mut out, &row).expect("memory");
            let shown = String::from_utf8(out).expect("text");
            assert!(!shown.contains(text), "{shown:?}");
        }
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
