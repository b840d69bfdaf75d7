//! YAML text, and so JSON, as a tree in which each key and each value knows its place.
//!
//! Keys are kept as they stand, duplicates among them, and scalars keep their source text and whether they were quoted:
//! what a key means is judged by its reader. What makes one text mean another (anchors, aliases, merge keys, tags,
//! directives, a second document) is a fault here. Nothing in a tree was resolved, so it is never larger than its text.

use std::borrow::Cow;

use serde_yaml::granit_parser::{self as granit, ErrorKind, Event, Parser, ScalarStyle, ScanError};

use super::fault::{Fault, Span};

/// The deepest that collections nest in a file that is one of ours, and then some.
const MAX_DEPTH: usize = 16;

/// A key or a value.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// Where it stands.
    pub(super) span: Span,
    /// What it is.
    pub(super) value: Value<'a>,
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Value<'a> {
    /// Text, however it is to be read.
    Scalar(Scalar<'a>),
    /// A list.
    Seq(Vec<Node<'a>>),
    /// A map, in the order of the text, with duplicates.
    Map(Vec<Entry<'a>>),
    /// Something that has its fault already: an alias, a tagged value.
    Refused,
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The key.
    pub(super) key: Node<'a>,
    /// The value.
    pub(super) value: Node<'a>,
}

/// The text of a scalar.
#[derive(Debug)]
pub(super) struct Scalar<'a> {
    /// The text, with escapes and line folding resolved.
    pub(super) text: Cow<'a, str>,
    /// Whether it stands without quotes, and so may be no text at all.
    pub(super) plain: bool,
}

impl Scalar<'_> {
    /// What YAML 1.2 (its core schema) reads the scalar as. `yes`, `no`, `on` and `off` are text.
    pub(super) fn kind(&self) -> ScalarKind {
        if !self.plain {
            return ScalarKind::Text;
        }
        match &*self.text {
            "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => ScalarKind::Bool,
            text if is_number(text) => ScalarKind::Number,
            _ => ScalarKind::Text,
        }
    }
}

/// What a scalar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScalarKind {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number in one of YAML's forms.
    Number,
    /// Anything else, and everything in quotes.
    Text,
}

/// Whether the core schema reads a plain scalar as a number (YAML 1.2.2, section 10.3.2).
fn is_number(text: &str) -> bool {
    let all = |digits: &str, legal: fn(&u8) -> bool| {
        !digits.is_empty() && digits.as_bytes().iter().all(legal)
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return all(digits, u8::is_ascii_hexdigit);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return all(digits, |byte| matches!(byte, b'0'..=b'7'));
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let exponent = exponent.is_none_or(|digits| {
        all(
            digits.strip_prefix(['+', '-']).unwrap_or(digits),
            u8::is_ascii_digit,
        )
    });
    let digits = mantissa.replacen('.', "", 1);
    exponent && all(&digits, u8::is_ascii_digit)
}

/// Reads a text as far as it can be read. `None` where there is nothing in it.
///
/// A syntax error ends the reading; the lists and maps that are whole before it are kept, so that their faults can be told
/// together with it.
pub(super) fn parse<'a>(text: &'a str, faults: &mut Vec<Fault>) -> Option<Node<'a>> {
    let options = granit::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder {
        open: Vec::new(),
        root: None,
        documents: 0,
        faults,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        match next {
            Ok((event, span)) => builder.take(event, &span),
            Err(error) => {
                builder.break_off(&error, text);
                break;
            }
        }
        if builder.documents > 1 {
            break;
        }
    }
    builder.root
}

struct Builder<'a, 'f> {
    open: Vec<Open<'a>>,
    root: Option<Node<'a>>,
    documents: usize,
    faults: &'f mut Vec<Fault>,
}

/// A collection whose end has not come yet.
enum Open<'a> {
    Seq(Span, Vec<Node<'a>>),
    Map(Span, Vec<Entry<'a>>, Option<Node<'a>>),
}

impl<'a> Builder<'a, '_> {
    fn take(&mut self, event: Event<'a>, at: &granit::Span) {
        let span = Span::from_granit(at);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.faults.push(
                        Fault::new(span, "the file holds a second document")
                            .hint("one file is one document; remove the `---` line and what follows, or split the file"),
                    );
                }
            }
            Event::Scalar(text, style, _, tag) => {
                let plain = style == ScalarStyle::Plain;
                let value = match tag {
                    Some(_) => self.refuse_tag(at, span),
                    None => Value::Scalar(Scalar { text, plain }),
                };
                self.place(Node { span, value });
            }
            Event::SequenceStart(_, _, tag) => {
                if tag.is_some() {
                    self.refuse_tag(at, span);
                }
                self.open.push(Open::Seq(span, Vec::new()));
            }
            Event::MappingStart(_, _, tag) => {
                if tag.is_some() {
                    self.refuse_tag(at, span);
                }
                self.open.push(Open::Map(span, Vec::new(), None));
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Anchor(..) => {
                self.faults.push(
                    Fault::new(span, "anchors are not supported")
                        .hint("write the value out where it is needed"),
                );
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.faults.push(
                    Fault::new(span, "aliases are not supported")
                        .hint("write the value out; a text that begins with `*` needs quotes"),
                );
                self.place(Node {
                    span,
                    value: Value::Refused,
                });
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            // Comments, which are switched off.
            _ => {}
        }
    }

    fn refuse_tag(&mut self, at: &granit::Span, node: Span) -> Value<'a> {
        let span = at.tag_span().map_or(node, |tag| Span::from_granit(&tag));
        self.faults.push(
            Fault::new(span, "tags are not supported")
                .hint("remove the tag; a text that begins with `!` needs quotes"),
        );
        Value::Refused
    }

    fn close(&mut self) {
        let node = match self.open.pop() {
            Some(Open::Seq(span, items)) => Node {
                span,
                value: Value::Seq(items),
            },
            Some(Open::Map(span, entries, _)) => Node {
                span,
                value: Value::Map(entries),
            },
            None => return,
        };
        self.place(node);
    }

    fn place(&mut self, node: Node<'a>) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::Seq(_, items)) => items.push(node),
            Some(Open::Map(_, entries, pending)) => match pending.take() {
                Some(key) => entries.push(Entry { key, value: node }),
                None => *pending = Some(node),
            },
        }
    }

    /// Keeps what is whole: the finished items of unfinished lists, and the outermost map's finished entries. A map deeper
    /// down would seem to lack the keys that were still to come.
    fn break_off(&mut self, error: &ScanError, text: &str) {
        self.faults.push(syntax_fault(error, text));
        while self.open.len() > 1 {
            match self.open.pop() {
                Some(Open::Seq(span, items)) => self.place(Node {
                    span,
                    value: Value::Seq(items),
                }),
                _ => match self.open.last_mut() {
                    Some(Open::Map(_, _, pending)) => *pending = None,
                    Some(Open::Seq(..)) | None => {}
                },
            }
        }
        if let Some(Open::Map(span, entries, _)) = self.open.pop() {
            self.root = Some(Node {
                span,
                value: Value::Map(entries),
            });
        }
    }
}

fn syntax_fault(error: &ScanError, text: &str) -> Fault {
    let marker = error.marker();
    let span = Span::from_granit(&granit::Span::empty(*marker));
    let fault = match error.kind() {
        ErrorKind::RecursionLimitExceeded => {
            return Fault::new(span, format!("lists and maps nest deeper than {MAX_DEPTH}"));
        }
        ErrorKind::DirectiveDisallowed => {
            return Fault::new(span, "directives are not supported").hint("remove the `%` line");
        }
        _ => Fault::new(span, format!("not valid YAML: {}", error.info())),
    };
    let before = text.get(..span.start as usize).unwrap_or_default();
    let begin = before.rfind(['\r', '\n']).map_or(0, |end| end + 1);
    let line = text.get(begin..).unwrap_or_default();
    let mut indent = line.chars().take_while(|c| matches!(c, ' ' | '\t'));
    if indent.any(|c| c == '\t') {
        fault.hint("indent with spaces, not with tabs")
    } else {
        fault
    }
}
