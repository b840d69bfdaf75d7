//! What an examination found, and how it is told: a line for each check, and what mends it.

use clap::ValueEnum;
use serde_json::json;

/// How a report is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people: a line for each check, with hints
    #[default]
    Text,
    /// For programs: one JSON object
    Json,
}

/// Everything that was found, in the order of the checks.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Finding>);

impl Report {
    pub(super) fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings);
    }

    /// Whether nothing failed. A warning is no failure.
    pub(super) fn is_healthy(&self) -> bool {
        self.count(State::Fail) == 0
    }

    pub(super) fn render(&self, format: Format) -> String {
        match format {
            Format::Text => self.to_text(),
            Format::Json => self.to_json(),
        }
    }

    fn count(&self, state: State) -> usize {
        self.0.iter().filter(|found| found.state == state).count()
    }

    fn to_text(&self) -> String {
        let widths = self.0.iter().map(|found| found.name.len());
        let width = widths.max().unwrap_or_default();
        let mut text = String::new();
        for found in &self.0 {
            let (state, name) = (found.state.word(), &found.name);
            text.push_str(&format!("{state:<4}  {name:<width$}  {}\n", found.text));
            if let Some(hint) = &found.hint {
                text.push_str(&format!("      hint: {hint}\n"));
            }
        }
        let (failed, warned) = (self.count(State::Fail), self.count(State::Warn));
        text.push_str(&format!("\nfailed: {failed}, warnings: {warned}\n"));
        text
    }

    fn to_json(&self) -> String {
        let checks = self.0.iter().map(|found| {
            json!({
                "name": found.name,
                "state": found.state.word(),
                "text": found.text,
                "hint": found.hint,
            })
        });
        let checks: Vec<_> = checks.collect();
        let report = json!({ "version": 1, "ok": self.is_healthy(), "checks": checks });
        format!("{report:#}\n")
    }
}

/// What one check found. What is not as it should be comes with what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The check's name, which programs rely on.
    name: String,
    state: State,
    text: String,
    hint: Option<String>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is as it should be.
    Ok,
    /// There was nothing to check, or no way to.
    Skip,
    /// It may be meant so.
    Warn,
    /// Something will not work, or something stands open.
    Fail,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skip => "skip",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl Finding {
    pub(super) fn ok(name: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self::new(name, State::Ok, text.as_ref(), None)
    }

    pub(super) fn skip(name: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self::new(name, State::Skip, text.as_ref(), None)
    }

    pub(super) fn warn(
        name: impl Into<String>,
        text: impl AsRef<str>,
        hint: impl AsRef<str>,
    ) -> Self {
        Self::new(name, State::Warn, text.as_ref(), Some(hint.as_ref()))
    }

    pub(super) fn fail(
        name: impl Into<String>,
        text: impl AsRef<str>,
        hint: impl AsRef<str>,
    ) -> Self {
        Self::new(name, State::Fail, text.as_ref(), Some(hint.as_ref()))
    }

    /// Whether it came out so, and says this.
    #[cfg(test)]
    pub(super) fn is(&self, state: &str, text: &str) -> bool {
        self.state.word() == state && self.text.contains(text)
    }

    fn new(name: impl Into<String>, state: State, text: &str, hint: Option<&str>) -> Self {
        Self {
            name: name.into(),
            state,
            text: shown(text),
            hint: hint.map(shown),
        }
    }
}

/// On one line, and without what a terminal would obey: paths, variables and what clients print are not ours.
fn shown(text: &str) -> String {
    const MOST: usize = 400;
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MOST).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::{Finding, Format, Report};

    #[test]
    fn a_warning_is_no_failure() {
        let mut report = Report::default();
        report.add([
            Finding::ok("a", "as it should be"),
            Finding::warn("bc", "odd", "look"),
        ]);
        assert!(report.is_healthy());
        assert_eq!(
            report.render(Format::Text),
            "ok    a   as it should be\nwarn  bc  odd\n      hint: look\n\nfailed: 0, warnings: 1\n"
        );
        report.add([Finding::fail("d", "broken", "mend it")]);
        assert!(!report.is_healthy());
        let json: serde_json::Value = serde_json::from_str(&report.render(Format::Json)).unwrap();
        assert_eq!((&json["version"], &json["ok"]), (&1.into(), &false.into()));
        assert_eq!(json["checks"][2]["hint"], "mend it");
        assert_eq!(json["checks"][0]["hint"], serde_json::Value::Null);
    }

    #[test]
    fn what_others_wrote_stays_on_its_line() {
        let found = Finding::ok("a", "x\u{1b}[31m\ny");
        assert_eq!(found.text, "x [31m y");
    }
}
