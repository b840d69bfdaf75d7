//! How faults are shown: as text with the lines that they are about, or as JSON for programs.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::fault::{Fault, Faults, Span};

/// The version of the JSON form. It rises when a field changes its meaning or goes; new fields may come at any time.
const JSON_VERSION: u32 = 1;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// With ANSI escapes.
    Always,
    /// Without any.
    Never,
}

impl Colour {
    /// What suits standard error.
    pub fn of_stderr() -> Self {
        Self::of(&std::io::stderr())
    }

    /// What suits standard output.
    pub fn of_stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    /// Colour on a terminal, unless `NO_COLOR` is set or the terminal is a dumb one.
    fn of(stream: &impl IsTerminal) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if stream.is_terminal() && !set("NO_COLOR") && !dumb {
            Self::Always
        } else {
            Self::Never
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(Colour::Never))
    }
}

impl Faults {
    /// Each fault as `error:`, the line that it is about, and a `hint:`.
    pub fn to_text(&self, colour: Colour) -> String {
        let renderer = match colour {
            Colour::Always => Renderer::styled(),
            Colour::Never => Renderer::plain(),
        };
        let lines = LineStarts::of(&self.source);
        let mut text = String::new();
        for fault in &self.list {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(&renderer.render(&self.groups(fault, &lines)));
        }
        text
    }

    /// All faults as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        let faults = self
            .list
            .iter()
            .map(|fault| JsonFault {
                file: &self.file,
                line: fault.line(),
                column: fault.column(),
                key: fault.key.as_deref(),
                problem: &fault.problem,
                hint: fault.hint.as_deref(),
                related: fault
                    .related
                    .iter()
                    .map(|related| JsonRelated {
                        line: related.line,
                        what: &related.what,
                    })
                    .collect(),
            })
            .collect();
        let report = JsonReport {
            version: JSON_VERSION,
            ok: self.list.is_empty(),
            faults,
        };
        serde_json::to_value(report).unwrap_or_default()
    }

    fn groups<'r>(&'r self, fault: &'r Fault, lines: &LineStarts) -> Vec<Group<'r>> {
        let mut group = Group::with_title(Level::ERROR.primary_title(one_line(&fault.problem)));
        group = match fault.span {
            Some(span) => group.elements(self.place(fault, span, lines)),
            None => group.element(Origin::path(one_line(&self.file))),
        };
        for related in &fault.related {
            let what = format!("line {}: {}", related.line, one_line(&related.what));
            group = group.element(Level::NOTE.message(what));
        }
        let mut groups = vec![group];
        if let Some(hint) = &fault.hint {
            let hint = Level::HELP
                .with_name("hint")
                .secondary_title(one_line(hint));
            groups.push(Group::with_title(hint));
        }
        groups
    }

    /// The place, and the line where it may be shown.
    fn place<'r>(&'r self, fault: &Fault, span: Span, lines: &LineStarts) -> Vec<Element<'r>> {
        let file = one_line(&self.file);
        let (line, column) = (span.line as usize, span.column as usize);
        let shown = Some(())
            .filter(|()| !fault.quiet)
            .and_then(|()| excerpt(&self.source, span, lines));
        let origin = Origin::path(file.clone()).line(line).char_column(column);
        let Some(shown) = shown else {
            return vec![origin.into()];
        };
        let snippet = Snippet::source(shown.text)
            .line_start(line)
            .annotation(AnnotationKind::Primary.span(shown.place));
        if shown.column == Some(column) {
            vec![snippet.path(file).into()]
        } else {
            // The library would count in what is shown: a window of the line, or a line with a byte order mark.
            vec![origin.into(), snippet.into()]
        }
    }
}

/// A line of the file, or a window of it, and where in it the place is.
struct Excerpt<'s> {
    text: &'s str,
    place: Range<usize>,
    /// The column at which the place is shown, where the line is shown from its beginning.
    column: Option<usize>,
}

/// Most bytes of a line before and behind the place that is shown: a file in JSON may be one line of megabytes.
const CONTEXT: usize = 120;

fn excerpt<'s>(source: &'s str, span: Span, lines: &LineStarts) -> Option<Excerpt<'s>> {
    let start = (span.start as usize).min(source.len());
    let end = (span.end as usize).clamp(start, start.saturating_add(CONTEXT));
    let (line_start, line_end) = lines.around(start, source)?;
    let mut from = line_start.max(start.saturating_sub(CONTEXT));
    while !source.is_char_boundary(from) {
        from += 1;
    }
    let mut to = line_end.min(end.saturating_add(CONTEXT)).max(from);
    while !source.is_char_boundary(to) {
        to -= 1;
    }
    let text = source.get(from..to)?.trim_end_matches(['\r', '\n']);
    // A place that was cut off may have been cut within a character, which the library would panic at.
    let first = text.floor_char_boundary(start.checked_sub(from)?.min(text.len()));
    let last = text.floor_char_boundary(end.saturating_sub(from).clamp(first, text.len()));
    let before = text.get(..first).filter(|_| from == line_start);
    Some(Excerpt {
        text,
        place: first..last,
        column: before.map(|before| before.chars().count() + 1),
    })
}

/// Where the lines of a text begin.
struct LineStarts(Vec<usize>);

impl LineStarts {
    fn of(source: &str) -> Self {
        // YAML ends a line at a CR, too, and counts the places of faults by that.
        let bytes = source.as_bytes();
        let is_end = |at: &usize| match bytes.get(*at) {
            Some(b'\n') => true,
            Some(b'\r') => bytes.get(at + 1) != Some(&b'\n'),
            _ => false,
        };
        let ends = (0..bytes.len()).filter(is_end);
        Self(std::iter::once(0).chain(ends.map(|at| at + 1)).collect())
    }

    fn around(&self, at: usize, source: &str) -> Option<(usize, usize)> {
        let line = self.0.partition_point(|start| *start <= at);
        let start = *self.0.get(line.checked_sub(1)?)?;
        Some((start, self.0.get(line).copied().unwrap_or(source.len())))
    }
}

/// A text without line breaks and control characters, which a file may have smuggled into a message.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => line.push(' '),
            c if c.is_control() => {
                let _ = write!(line, "{}", c.escape_default());
            }
            c => line.push(c),
        }
    }
    line
}

#[derive(Serialize)]
struct JsonReport<'r> {
    version: u32,
    ok: bool,
    faults: Vec<JsonFault<'r>>,
}

#[derive(Serialize)]
struct JsonFault<'r> {
    file: &'r str,
    line: Option<u32>,
    column: Option<u32>,
    key: Option<&'r str>,
    problem: &'r str,
    hint: Option<&'r str>,
    related: Vec<JsonRelated<'r>>,
}

#[derive(Serialize)]
struct JsonRelated<'r> {
    line: u32,
    what: &'r str,
}
