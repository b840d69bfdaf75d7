//! Outcomes as text, as TAP and as JUnit's XML. Names come from a file, and can end no line and no element.

use std::fmt::Write as _;

use serde_json::json;

use super::outcome::Outcome;

/// A line a case, and more of one that failed.
pub(super) fn text(file: &str, outcomes: &[Outcome<'_>]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        let name = outcome.case.name.escape_debug();
        let Some(failure) = &outcome.failure else {
            let _ = writeln!(text, "ok    {name}");
            continue;
        };
        let _ = writeln!(
            text,
            "FAIL  {name} ({file}:{})\n        expected  {}\n        got       {}",
            outcome.case.line, failure.expected, failure.got
        );
    }
    let failed = failures(outcomes);
    let _ = writeln!(text, "{} passed, {failed} failed", outcomes.len() - failed);
    text
}

/// Test Anything Protocol, version 14 (testanything.org).
pub(super) fn tap(file: &str, outcomes: &[Outcome<'_>]) -> String {
    let mut text = format!("TAP version 14\n1..{}\n", outcomes.len());
    for (number, outcome) in (1..).zip(outcomes) {
        // A `#` would begin a directive, with which a test that failed counts for one that did not.
        let name = outcome.case.name.escape_debug().to_string();
        let name = name.replace('#', "\\#");
        let Some(failure) = &outcome.failure else {
            let _ = writeln!(text, "ok {number} - {name}");
            continue;
        };
        // JSON strings are YAML's, too.
        let _ = writeln!(
            text,
            "not ok {number} - {name}\n  ---\n  at: {}\n  expected: {}\n  got: {}\n  ...",
            json!(format!("{file}:{}", outcome.case.line)),
            json!(failure.expected),
            json!(failure.got)
        );
    }
    text
}

/// The XML of JUnit, as far as CI systems read it.
pub(super) fn junit(file: &str, outcomes: &[Outcome<'_>]) -> String {
    let (file, tests, failed) = (xml(file), outcomes.len(), failures(outcomes));
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{tests}\" failures=\"{failed}\">\n  \
         <testsuite name=\"{file}\" tests=\"{tests}\" failures=\"{failed}\" errors=\"0\">\n"
    );
    for outcome in outcomes {
        let (name, line) = (xml(&outcome.case.name), outcome.case.line);
        let _ = write!(
            text,
            "    <testcase name=\"{name}\" classname=\"{file}\" file=\"{file}\" line=\"{line}\""
        );
        let _ = match &outcome.failure {
            None => writeln!(text, "/>"),
            Some(failure) => writeln!(
                text,
                ">\n      <failure message=\"expected {}\">got {}</failure>\n    </testcase>",
                xml(&failure.expected),
                xml(&failure.got)
            ),
        };
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn failures(outcomes: &[Outcome<'_>]) -> usize {
    outcomes.iter().filter(|outcome| !outcome.is_ok()).count()
}

/// A text for an attribute or an element. XML 1.0 has no way to write most control characters (section 2.2).
fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                safe.extend(c.escape_unicode())
            }
            c => safe.push(c),
        }
    }
    safe
}
