//! Reads the keys of one map: unknown and duplicate keys become faults, and each value is asked for as what it must be.
//!
//! A reader that finds a fault says so and goes on, so that one reading finds all of them.

use super::document::{Entry, Node, Scalar, ScalarKind, Value};
use super::fault::{Fault, Span, shown};
use super::keys::{Keys, Unknown};

/// The keys of a map, each once.
#[derive(Debug)]
pub(super) struct Fields<'d> {
    found: Vec<Field<'d>>,
    /// Keys that unknown ones were probably meant to be.
    meant: Vec<&'static str>,
}

/// A key with its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'d> {
    pub(super) name: &'static str,
    pub(super) key: Span,
    pub(super) node: &'d Node<'d>,
}

impl<'d> Fields<'d> {
    pub(super) fn read(map: &'d [Entry<'d>], keys: &Keys, faults: &mut Vec<Fault>) -> Self {
        let mut fields: Vec<Field<'d>> = Vec::with_capacity(map.len());
        let mut meant = Vec::new();
        for entry in map {
            let span = entry.key.span;
            let Value::Scalar(Scalar { text, plain }) = &entry.key.value else {
                if !matches!(entry.key.value, Value::Refused) {
                    faults.push(Fault::new(span, "a list or a map cannot be a key"));
                }
                continue;
            };
            if *plain && text == "<<" {
                faults.push(
                    Fault::new(span, "merge keys are not supported")
                        .key(text)
                        .hint("write the keys out"),
                );
                continue;
            }
            let Some(name) = keys.names().find(|known| known == text) else {
                match keys.unknown(text) {
                    Unknown::ReadOver => continue,
                    Unknown::Meant(known) => meant.push(known),
                    Unknown::Hint(_) => {}
                }
                faults.push(unknown(span, text, keys));
                continue;
            };
            if let Some(first) = fields.iter().find(|field| field.name == name) {
                faults.push(duplicate(span, name, first.key));
                continue;
            }
            fields.push(Field {
                name,
                key: span,
                node: &entry.value,
            });
        }
        Self {
            found: fields,
            meant,
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<Field<'d>> {
        self.found.iter().find(|field| field.name == name).copied()
    }

    /// The keys that are there, in the order of the text.
    pub(super) fn iter(&self) -> impl Iterator<Item = Field<'d>> {
        self.found.iter().copied()
    }

    /// Whether a key is missing, and does not seem to be there under a wrong name, which has its fault already.
    pub(super) fn lacks(&self, name: &str) -> bool {
        self.find(name).is_none() && !self.meant.contains(&name)
    }
}

fn unknown(span: Span, text: &str, keys: &Keys) -> Fault {
    let fault = Fault::new(span, format!("unknown key {}", shown(text))).key(text);
    let fault = match keys.unknown(text) {
        Unknown::Meant(known) => fault.hint(match keys.few() {
            Some(all) => format!("did you mean `{known}`? {all}"),
            None => format!("did you mean `{known}`?"),
        }),
        Unknown::Hint(hint) => fault.hint(hint),
        Unknown::ReadOver => fault,
    };
    // Someone who writes `token: ...` may well have put the token itself behind it.
    let lower = text.to_ascii_lowercase();
    if ["token", "secret", "passw", "credential", "api_key", "auth"]
        .iter()
        .any(|word| lower.contains(word))
    {
        fault.quiet()
    } else {
        fault
    }
}

pub(super) fn duplicate(span: Span, name: &str, first: Span) -> Fault {
    Fault::new(span, format!("{} is given twice", shown(name)))
        .key(name)
        .hint("remove one of the two")
        .related(first.line, "the first one")
}

impl<'d> Field<'d> {
    /// A fault of the value, or of the key where no value stands behind it.
    pub(super) fn fault(&self, problem: impl Into<String>) -> Fault {
        let empty =
            matches!(&self.node.value, Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null);
        let span = if empty { self.key } else { self.node.span };
        Fault::new(span, problem).key(self.name)
    }

    /// A fault of one of the value's items.
    pub(super) fn fault_in(&self, item: Span, problem: impl Into<String>) -> Fault {
        Fault::new(item, problem).key(self.name)
    }

    /// The value as text: a scalar that is not null, and that YAML does not read as a boolean or a number either.
    pub(super) fn text(&self, faults: &mut Vec<Fault>) -> Option<&'d str> {
        self.text_of(self.node, faults)
    }

    /// The same for an item of the value.
    pub(super) fn text_of(&self, node: &'d Node<'d>, faults: &mut Vec<Fault>) -> Option<&'d str> {
        let text = self.written(node, faults)?;
        let Value::Scalar(scalar) = &node.value else {
            return None;
        };
        match scalar.kind() {
            ScalarKind::Text => Some(text),
            kind => {
                let fault = Fault::new(
                    node.span,
                    format!(
                        "{} must be text, and {} is {}",
                        shown(self.name),
                        shown(text),
                        named(kind)
                    ),
                );
                faults.push(
                    fault
                        .key(self.name)
                        .hint(format!("put it in quotes if it is meant: '{text}'")),
                );
                None
            }
        }
    }

    /// The value as it is written, whatever YAML would read it as, but for null.
    pub(super) fn written(&self, node: &'d Node<'d>, faults: &mut Vec<Fault>) -> Option<&'d str> {
        let fault = match &node.value {
            Value::Refused => return None,
            Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null => self.empty(node),
            Value::Scalar(scalar) => return Some(&scalar.text),
            Value::Seq(_) | Value::Map(_) => self.wrong_type(node, "a text"),
        };
        faults.push(fault);
        None
    }

    /// The value as a boolean: `true` or `false`, plain.
    pub(super) fn flag(&self, faults: &mut Vec<Fault>) -> Option<bool> {
        let fault = match &self.node.value {
            Value::Refused => return None,
            Value::Scalar(scalar) if scalar.plain && scalar.text == "true" => return Some(true),
            Value::Scalar(scalar) if scalar.plain && scalar.text == "false" => return Some(false),
            Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null => self.empty(self.node),
            Value::Scalar(scalar) => self
                .fault(format!(
                    "{} must be true or false, and {} is neither",
                    shown(self.name),
                    shown(&scalar.text)
                ))
                .hint("write true or false, in lower case and without quotes"),
            Value::Seq(_) | Value::Map(_) => self.wrong_type(self.node, "true or false"),
        };
        faults.push(fault);
        None
    }

    /// The value as a list of at least one item. `leave_out` says what leaving the key out would mean.
    pub(super) fn list(&self, leave_out: &str, faults: &mut Vec<Fault>) -> Option<&'d [Node<'d>]> {
        let fault = match &self.node.value {
            Value::Refused => return None,
            Value::Seq(items) if !items.is_empty() => return Some(items),
            Value::Seq(_) => self
                .fault(format!("{} is an empty list", shown(self.name)))
                .hint(format!("leave the key out {leave_out}")),
            Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null => self
                .empty(self.node)
                .hint(format!("leave the key out {leave_out}")),
            Value::Scalar(scalar) if scalar.kind() == ScalarKind::Text => self
                .wrong_type(self.node, "a list")
                .hint(format!("write [{}]", scalar.text.escape_debug())),
            Value::Scalar(_) => self
                .wrong_type(self.node, "a list")
                .hint(format!("write a list, or leave the key out {leave_out}")),
            Value::Map(_) => self
                .wrong_type(self.node, "a list")
                .hint("begin each item with `- `"),
        };
        faults.push(fault);
        None
    }

    pub(super) fn empty(&self, node: &Node<'_>) -> Fault {
        let span = if std::ptr::eq(node, self.node) {
            self.key
        } else {
            node.span
        };
        Fault::new(span, format!("{} has no value", shown(self.name))).key(self.name)
    }

    pub(super) fn wrong_type(&self, node: &Node<'_>, wanted: &str) -> Fault {
        let found = match &node.value {
            Value::Scalar(scalar) => named(scalar.kind()),
            Value::Seq(_) => "a list",
            Value::Map(_) => "a map",
            Value::Refused => "a value that is not supported",
        };
        self.fault_in(
            node.span,
            format!("{} must be {wanted}, and is {found}", shown(self.name)),
        )
    }
}

/// What a scalar is, in words.
fn named(kind: ScalarKind) -> &'static str {
    match kind {
        ScalarKind::Null => "nothing",
        ScalarKind::Bool => "a boolean",
        ScalarKind::Number => "a number",
        ScalarKind::Text => "a text",
    }
}

/// The known word that a text was probably meant to be.
pub(super) fn closest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    let text: String = text.chars().take(64).collect();
    let folded = text.to_ascii_lowercase().replace('-', "_");
    let most = 1 + folded.len() / 4;
    known
        .iter()
        .map(|word| {
            let distance = strsim::damerau_levenshtein(&folded, &word.to_ascii_lowercase());
            (distance, *word)
        })
        .filter(|(distance, word)| *distance <= most && *distance < word.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Words as a list for a message.
pub(super) fn listed(words: &[&str]) -> String {
    words.join(", ")
}
