//! Prometheus' text format, version 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
//!
//! It knows nothing of what is measured.

use std::fmt::{self, Display, Write as _};

/// The media type. Prometheus 3 takes no scrape that comes without a type it knows.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Families of samples, as they are written one after the other.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

/// What kind of numbers a family has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// One that only grows.
    Counter,
    /// One that goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// The samples of one name.
#[derive(Debug)]
pub(super) struct Family<'a> {
    exposition: &'a mut Exposition,
    name: &'static str,
}

impl Exposition {
    /// Begins a family. `name` and `help` need no escapes.
    pub(super) fn family(&mut self, kind: Kind, name: &'static str, help: &str) -> Family<'_> {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        Family {
            exposition: self,
            name,
        }
    }

    /// A family of one number without a label.
    pub(super) fn single(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &str,
        value: impl Display,
    ) {
        self.family(kind, name, help).sample(&[], value);
    }

    /// All that was written.
    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Nothing fails to be written to a text.
        _ = writeln!(self.0, "{line}");
    }
}

impl Family<'_> {
    /// Writes one of its numbers.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.suffixed("", labels, value);
    }

    /// Writes one of its numbers under a longer name, as those of a histogram have.
    pub(super) fn suffixed(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let (name, labels) = (self.name, Labels(labels));
        self.exposition
            .line(format_args!("{name}{suffix}{labels} {value}"));
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// `{name="value",...}`, or nothing at all.
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([first, rest @ ..]) = self else {
            return Ok(());
        };
        let mut pair = |before: char, (name, value): (&str, &str)| {
            write!(f, "{before}{name}=\"")?;
            for c in value.chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    c => f.write_char(c)?,
                }
            }
            f.write_char('"')
        };
        pair('{', *first)?;
        for other in rest {
            pair(',', *other)?;
        }
        f.write_char('}')
    }
}

#[cfg(test)]
mod tests {
    use super::{Exposition, Kind};

    #[test]
    fn a_family_is_written_as_the_format_has_it() {
        let mut exposition = Exposition::default();
        exposition.single(Kind::Gauge, "open", "Open now.", 7);
        let mut family = exposition.family(Kind::Histogram, "took_seconds", "How long.");
        family.suffixed("_bucket", &[("verdict", "denied"), ("le", "0.5")], 1);
        family.suffixed("_sum", &[("verdict", "denied")], 0.25);
        let text = "\
# HELP open Open now.
# TYPE open gauge
open 7
# HELP took_seconds How long.
# TYPE took_seconds histogram
took_seconds_bucket{verdict=\"denied\",le=\"0.5\"} 1
took_seconds_sum{verdict=\"denied\"} 0.25
";
        assert_eq!(exposition.into_text(), text);
    }

    #[test]
    fn a_label_cannot_end_its_value_or_its_line() {
        let mut exposition = Exposition::default();
        let mut family = exposition.family(Kind::Counter, "all_total", "All.");
        family.sample(&[("route", "a\"} 1\nb\\")], 2);
        let text = exposition.into_text();
        let sample = text.lines().last();
        assert_eq!(sample, Some(r#"all_total{route="a\"} 1\nb\\"} 2"#));
    }
}
