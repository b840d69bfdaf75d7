//! What is wrong with a file: every fault at once, each with its place, its key, the problem and how to mend it.
//!
//! A fault never shows a credential's value. How faults are shown is `report`'s business.

use std::sync::Arc;

use serde_yaml::granit_parser as granit;

use super::pasted::blotted;
use crate::route::Line;

/// Everything that is wrong with one file, in the order of the text.
#[derive(Clone, Debug)]
pub struct Faults {
    pub(super) file: Arc<str>,
    pub(super) source: Arc<str>,
    pub(super) list: Vec<Fault>,
}

impl Faults {
    /// Sorts the faults of a file. `source` is its text, for the lines that are shown. A token that was pasted into it is
    /// not.
    pub fn new(file: impl Into<Arc<str>>, source: &str, mut list: Vec<Fault>) -> Self {
        list.sort_by_key(|fault| fault.span.map_or(0, |span| span.start));
        for fault in &mut list {
            fault.blot();
        }
        Self {
            file: file.into(),
            source: blotted(source).into(),
            list,
        }
    }

    /// The file's name, as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The faults, in the order of the text.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Fault> {
        self.list.iter()
    }

    /// How many there are; never 0 in an `Err`.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl std::error::Error for Faults {}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where; `None` for a fault of the file as a whole, such as that it cannot be read.
    pub span: Option<Span>,
    /// The key that is at fault, or whose value is.
    pub key: Option<Box<str>>,
    /// What is wrong: a lower-case fragment that names the thing.
    pub problem: String,
    /// How to mend it.
    pub hint: Option<String>,
    /// Other places that have a part in it.
    pub related: Vec<Related>,
    /// Whether the line may hold a credential by mistake, and so is not shown.
    pub quiet: bool,
}

/// Another place that has a part in a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Its line.
    pub line: Line,
    /// What stands there.
    pub what: String,
}

impl Fault {
    /// A fault at a place.
    pub fn new(span: Span, problem: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            ..Self::of_file(problem)
        }
    }

    /// A fault of a file as a whole.
    pub fn of_file(problem: impl Into<String>) -> Self {
        Self {
            span: None,
            key: None,
            problem: problem.into(),
            hint: None,
            related: Vec::new(),
            quiet: false,
        }
    }

    /// Names the key.
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Says how to mend it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds another place.
    pub fn related(mut self, line: Line, what: impl Into<String>) -> Self {
        self.related.push(Related {
            line,
            what: what.into(),
        });
        self
    }

    /// Keeps the line from being shown.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Takes tokens out of its texts.
    fn blot(&mut self) {
        let related = self.related.iter_mut().map(|other| &mut other.what);
        let texts = [&mut self.problem].into_iter().chain(&mut self.hint);
        for text in texts.chain(related) {
            *text = blotted(text).into_owned();
        }
        self.key = self.key.take().map(|key| (*blotted(&key)).into());
    }

    /// The line, counted from 1.
    pub fn line(&self) -> Option<Line> {
        self.span.map(|span| span.line)
    }

    /// The column in characters, counted from 1.
    pub fn column(&self) -> Option<u32> {
        self.span.map(|span| span.column)
    }
}

/// A place in a file's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The line of its beginning, counted from 1.
    pub line: Line,
    /// The column of its beginning in characters, counted from 1.
    pub column: u32,
    /// The byte at which it begins.
    pub start: u32,
    /// The byte behind its end.
    pub end: u32,
}

impl Span {
    pub(super) fn from_granit(span: &granit::Span) -> Self {
        // Files are bounded far below 4 GiB, so nothing is cut here.
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let start = small(span.start.byte_offset().unwrap_or_default());
        let end = small(span.end.byte_offset().unwrap_or_default());
        Self {
            line: small(span.start.line()),
            column: small(span.start.col().saturating_add(1)),
            start,
            end: end.max(start),
        }
    }
}

/// A text of the file for use in a message: in backquotes, escaped and cut.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown = String::from("`");
    // Before it is cut: half of a token looks like one no more.
    for c in blotted(text).chars().take(MOST) {
        match c {
            '\\' | '"' | '\'' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(MOST).is_some() {
        shown.push_str("...");
    }
    shown.push('`');
    shown
}
