//! One line for each event of the log: text for people, or JSON.
//!
//! What an agent wrote may be in any value, so none can end its line or move a terminal's cursor. This writes the record of
//! each request; tracing-subscriber's own formats take eight times as many instructions for it.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;

use super::{Log, LogFilter, LogFormat};
use crate::audit::object::rfc3339;

/// Hands each event to the log as a line. Spans, of which this program has none, are not followed.
pub(super) struct Lines {
    log: Arc<Log>,
    format: LogFormat,
    filter: LogFilter,
    is_coloured: bool,
}

impl Lines {
    pub(super) fn new(
        log: Arc<Log>,
        format: LogFormat,
        filter: LogFilter,
        is_coloured: bool,
    ) -> Self {
        Self {
            log,
            format,
            filter,
            is_coloured,
        }
    }

    fn write(&self, event: &Event<'_>, line: &mut String) {
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let now = SystemTime::now();
        match self.format {
            LogFormat::Json => {
                line.push_str("{\"timestamp\":\"");
                push_time(line, now);
                _ = write!(line, "\",\"level\":\"{level}\"");
                event.record(&mut Json(line));
                line.push_str(",\"target\":");
                push_json(line, target);
                line.push('}');
            }
            LogFormat::Text => {
                let [dim, coloured, plain] = match self.is_coloured {
                    true => [DIM, colour(level), PLAIN],
                    false => [""; 3],
                };
                line.push_str(dim);
                push_time(line, now);
                let [level, target] = [padded(level), target];
                for part in [
                    plain, " ", coloured, level, plain, " ", dim, target, ":", plain,
                ] {
                    line.push_str(part);
                }
                event.record(&mut Text { line, dim, plain });
            }
        }
        line.push('\n');
    }
}

impl Subscriber for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // What is never logged then costs next to nothing.
        match self.enabled(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && self
                .filter
                .0
                .would_enable(metadata.target(), metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let of_modules = self.filter.0.iter().map(|(_, level)| level);
        of_modules.chain(self.filter.0.default_level()).max()
    }

    fn event(&self, event: &Event<'_>) {
        thread_local! {
            static LINE: RefCell<String> = const { RefCell::new(String::new()) };
        }
        let take = |line: &mut String| {
            line.clear();
            self.write(event, line);
            self.log.take(line.as_bytes());
        };
        LINE.with(|line| match line.try_borrow_mut() {
            Ok(mut line) => take(&mut line),
            // A value that logs something while it is written.
            Err(_) => take(&mut String::new()),
        });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

fn colour(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

fn padded(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "ERROR",
        Level::WARN => " WARN",
        Level::INFO => " INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

/// Adds a time in UTC, to the microsecond. All but that is the same for a second.
fn push_time(line: &mut String, time: SystemTime) {
    thread_local! {
        static LATEST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    LATEST.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            (*second, *text) = (since.as_secs(), rfc3339(time));
        }
        line.push_str(text.strip_suffix('Z').unwrap_or(text));
    });
    line.push('.');
    push_padded(line, since.subsec_micros().into(), 6);
    line.push('Z');
}

/// ` message name=value name="value"`.
struct Text<'l> {
    line: &'l mut String,
    dim: &'static str,
    plain: &'static str,
}

impl Text<'_> {
    /// Begins a field. The message has no name.
    fn begin(&mut self, field: &Field) {
        self.line.push(' ');
        if field.name() != MESSAGE {
            self.line.push_str(self.dim);
            self.line.push_str(field.name());
            self.line.push('=');
            self.line.push_str(self.plain);
        }
    }
}

impl Visit for Text<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.begin(field);
        let is_plain = |byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if field.name() == MESSAGE {
            _ = Visible(self.line).write_str(value);
        } else if value.bytes().all(is_plain) {
            self.line.push('"');
            self.line.push_str(value);
            self.line.push('"');
        } else {
            _ = write!(self.line, "{value:?}");
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.begin(field);
        _ = write!(Visible(self.line), "{value:?}");
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.begin(field);
        push_integer(self.line, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.begin(field);
        push_number(self.line, value);
    }
}

/// Text in which what is no plain character is escaped.
struct Visible<'l>(&'l mut String);

impl fmt::Write for Visible<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            self.0.push_str(text);
            return Ok(());
        }
        for character in text.chars() {
            match character.is_control() {
                true => self.0.extend(character.escape_default()),
                false => self.0.push(character),
            }
        }
        Ok(())
    }
}

/// `,"name":"value"`.
struct Json<'l>(&'l mut String);

impl Json<'_> {
    fn begin(&mut self, field: &Field) {
        self.0.push_str(",\"");
        self.0.push_str(field.name());
        self.0.push_str("\":");
    }
}

impl Visit for Json<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.begin(field);
        push_json(self.0, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.begin(field);
        push_json(self.0, &format!("{value:?}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.begin(field);
        _ = write!(self.0, "{value}");
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.begin(field);
        push_integer(self.0, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.begin(field);
        match value.is_finite() {
            true => push_number(self.0, value),
            false => self.0.push_str("null"),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.begin(field);
        _ = write!(self.0, "{value}");
    }
}

/// Adds a string of JSON (RFC 8259, section 7).
fn push_json(line: &mut String, text: &str) {
    // Beyond what the grammar asks for: C1 control characters, which a terminal takes for commands.
    line.push('"');
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control if control.is_control() => {
                _ = write!(line, "\\u{:04x}", u32::from(control));
            }
            other => line.push(other),
        }
    }
    line.push('"');
}

/// Adds a number as short as can be. Times have three digits after the point, which takes no search for the shortest.
fn push_number(line: &mut String, value: f64) {
    let thousandths = (value * 1e3).round();
    let is_short = value.is_sign_positive() && thousandths < 1e15 && thousandths / 1e3 == value;
    if !is_short {
        _ = write!(line, "{value:?}");
        return;
    }
    let thousandths = thousandths as u64;
    let (whole, rest) = (thousandths / 1000, thousandths % 1000);
    push_integer(line, whole);
    line.push('.');
    match rest {
        _ if rest % 100 == 0 => push_padded(line, rest / 100, 1),
        _ if rest % 10 == 0 => push_padded(line, rest / 10, 2),
        _ => push_padded(line, rest, 3),
    }
}

/// Adds an integer. The standard library's formatting takes ten times as many instructions, for eight of them a request.
fn push_integer(line: &mut String, value: u64) {
    line.push_str(itoa::Buffer::new().format(value));
}

/// Adds an integer of so many digits, with zeros before it.
fn push_padded(line: &mut String, value: u64, digits: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value);
    line.extend(std::iter::repeat_n('0', digits.saturating_sub(text.len())));
    line.push_str(text);
}

/// The field that is what an event says.
const MESSAGE: &str = "message";

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::{Visible, push_json, push_number, push_time};

    #[test]
    fn times_are_those_of_rfc_3339_to_the_microsecond() {
        let time = |seconds, nanos| {
            let mut line = String::new();
            push_time(&mut line, UNIX_EPOCH + Duration::new(seconds, nanos));
            line
        };
        assert_eq!(time(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            time(1_795_973_510, 429_853_999),
            "2026-11-29T17:31:50.429853Z"
        );
        assert_eq!(time(1_795_973_510, 1_000), "2026-11-29T17:31:50.000001Z");
        assert_eq!(time(1_795_973_511, 0), "2026-11-29T17:31:51.000000Z");
    }

    proptest! {
        #[test]
        fn a_number_is_as_short_as_the_shortest(thousandths: u32, other: f64) {
            for value in [f64::from(thousandths) / 1e3, other] {
                let mut line = String::new();
                push_number(&mut line, value);
                prop_assert_eq!(line, format!("{value:?}"));
            }
        }

        #[test]
        fn a_string_of_json_reads_back_and_is_one_line(text: String) {
            let mut line = String::new();
            push_json(&mut line, &text);
            prop_assert!(!line.chars().any(char::is_control));
            let read: String = serde_json::from_str(&line).expect("JSON");
            prop_assert_eq!(read, text);
        }

        #[test]
        fn no_text_ends_its_line_or_moves_a_cursor(text: String) {
            let mut line = String::new();
            Visible(&mut line).write_str(&text).expect("a string takes all");
            prop_assert!(!line.chars().any(char::is_control));
        }
    }
}
