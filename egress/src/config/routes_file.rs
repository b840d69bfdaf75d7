//! The routes file: what the sidecar enforces. It names slots, and never holds a secret.
//!
//! [`read`] takes in what there is, [`Draft`] knows everything that is wrong with it, and only what has no fault becomes
//! a [`RoutesFile`] or a [`Policy`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};

use super::authority::Authorities;
use super::conflicts;
use super::document::{self, Node, ScalarKind, Value};
use super::fault::{Fault, Faults};
use super::fields::Fields;
use super::keys::{Form, Key, Keys, Unknown};
use super::rule::{self, Entry};
use super::source::Source;
use crate::credential::{Environment, SlotName, Slots, Unusable};
use crate::policy::{self, Policy};
use crate::route::{Line, Rule};

/// A routes file without a fault.
#[derive(Clone, Debug)]
pub struct RoutesFile {
    /// Its name, as it was given.
    pub name: Arc<str>,
    /// Its rules in the order of the file, with the line of each.
    pub rules: Vec<(Rule, Line)>,
}

/// Reads a routes file from disk.
///
/// # Errors
///
/// All [`Faults`] that the file has by itself; whether its slots are there is not asked.
pub fn load(path: &Path) -> Result<RoutesFile, Faults> {
    read(path).finish()
}

/// Reads the text of a routes file. `directory` is what the names of other files in it are relative to.
///
/// # Errors
///
/// As [`load`].
pub fn parse(name: &str, text: &str, directory: &Path) -> Result<Vec<(Rule, Line)>, Faults> {
    Draft::parse(name, text.into(), directory)
        .finish()
        .map(|file| file.rules)
}

/// Reads a routes file from disk, whatever is wrong with it.
pub fn read(path: &Path) -> Draft {
    match Source::read(path, "routes file") {
        Ok(source) => Draft::of(&source),
        Err(fault) => Draft::unreadable(path, *fault),
    }
}

/// What was found in a routes file, with everything that is wrong with it.
#[derive(Debug)]
pub struct Draft {
    name: Arc<str>,
    source: Arc<str>,
    entries: Vec<Entry>,
    faults: Vec<Fault>,
    files: Vec<PathBuf>,
}

pub(super) static KEYS: Keys = Keys {
    one_of: &["routes"],
    unknown: |key| {
        Some(Unknown::Hint(match key {
            "bottles" | "agents" => {
                "this is a manifest; `egress render-routes` makes a routes file of it".into()
            }
            "egress" => "a routes file begins with `routes:`".into(),
            _ => return None,
        }))
    },
    ..Keys::new(
        "a routes file",
        &[&[Key {
            name: "routes",
            form: Form::Maps(&rule::keys::KEYS),
            about: "What the agent may reach; a request that no route admits is denied",
        }]],
    )
};

impl Draft {
    fn empty(name: &str) -> Self {
        Self {
            name: name.into(),
            source: "".into(),
            entries: Vec::new(),
            faults: Vec::new(),
            files: Vec::new(),
        }
    }

    /// A file that could not be read.
    pub(super) fn unreadable(path: &Path, fault: Fault) -> Self {
        Self {
            faults: vec![fault],
            ..Self::empty(&path.display().to_string())
        }
    }

    /// Reads a file's text.
    pub(super) fn of(source: &Source) -> Self {
        Self::parse(&source.name, source.text.clone(), &source.directory)
    }

    /// Reads a text.
    pub fn parse(name: &str, source: Arc<str>, directory: &Path) -> Self {
        let mut draft = Self {
            source: source.clone(),
            ..Self::empty(name)
        };
        let faults = &mut draft.faults;
        let root = document::parse(&source, faults);
        let mut authorities = Authorities::new(directory);
        for node in routes_of(root.as_ref(), faults) {
            draft
                .entries
                .extend(rule::read(node, &mut authorities, faults));
        }
        conflicts::check(&draft.entries.iter().collect::<Vec<_>>(), faults);
        draft.files = authorities.files();
        draft
    }

    /// A digest of the file's text, in hexadecimal digits: two that are the same have the same text.
    pub fn digest(&self) -> String {
        let digest = digest(&SHA256, self.source.as_bytes());
        let bytes = digest.as_ref().iter();
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    /// The other files that were read for this one.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The slots that the file names, also by routes that have faults, each once.
    pub fn slots(&self) -> impl Iterator<Item = &SlotName> {
        let mut seen = std::collections::HashSet::new();
        self.entries
            .iter()
            .filter_map(|entry| entry.slot.as_ref().map(|(slot, _)| slot))
            .filter(move |slot| seen.insert(*slot))
    }

    /// The file, where nothing is wrong with it.
    ///
    /// # Errors
    ///
    /// Everything that is.
    pub fn finish(self) -> Result<RoutesFile, Faults> {
        if !self.faults.is_empty() {
            return Err(Faults::new(self.name, &self.source, self.faults));
        }
        Ok(RoutesFile {
            name: self.name,
            rules: rules_of(self.entries),
        })
    }

    /// The file and its slots as a policy, carrying over from `previous` what did not change.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the file, and every slot named in it that cannot be used, together.
    pub fn into_policy(
        mut self,
        environment: &Environment,
        previous: Option<&Policy>,
        now: SystemTime,
    ) -> Result<Policy, Faults> {
        if !self.faults.is_empty() {
            let slots = Slots::open(self.slots(), environment, None, now);
            for (slot, reason) in slots.err().into_iter().flatten() {
                let fault = self.slot_fault(&slot, &reason);
                self.faults.push(fault);
            }
            return Err(Faults::new(self.name, &self.source, self.faults));
        }
        let rules = self
            .entries
            .iter()
            .filter_map(|entry| Some((entry.rule.clone()?, entry.line)))
            .collect();
        Policy::new(rules, environment, previous, now).map_err(|faults| {
            let faults = faults.into_iter().map(|fault| match fault {
                policy::Fault::Slot { slot, reason, .. } => {
                    let fault = self.slot_fault(&slot, &reason);
                    match reason {
                        // A running process gets no more variables.
                        Unusable::Missing if previous.is_some() => {
                            let file = slot.file_variable();
                            fault.hint(format!(
                                "set {slot} or {file} in the sidecar's environment, and restart it"
                            ))
                        }
                        _ => fault,
                    }
                }
                policy::Fault::Tie(tie) => {
                    // The draft has looked for ties already, so this is never reached; it is told all the same.
                    let span = self.entries.iter().find(|entry| entry.line == tie.second);
                    let span = span.map(|entry| entry.span).unwrap_or_default();
                    conflicts::tie_fault(span, tie.first)
                }
            });
            Faults::new(self.name.clone(), &self.source, faults.collect())
        })
    }

    /// A slot that cannot be used, with the routes that name it.
    fn slot_fault(&self, slot: &SlotName, reason: &Unusable) -> Fault {
        /// As many routes as are listed.
        const MOST: usize = 8;
        let mut users = self.entries.iter().filter_map(|entry| {
            let (name, span) = entry.slot.as_ref()?;
            (name == slot).then_some((entry, *span))
        });
        let Some((first, span)) = users.next() else {
            return Fault::of_file(format!("slot {slot} {reason}"));
        };
        let mut problem = format!("slot {slot} {reason}; named by {}", named(first));
        let rest: Vec<&Entry> = users.map(|(entry, _)| entry).collect();
        for entry in rest.iter().take(MOST) {
            problem.push_str(", ");
            problem.push_str(&named(entry));
        }
        if rest.len() > MOST {
            problem.push_str(&format!(" and {} more", rest.len() - MOST));
        }
        Fault::new(span, problem)
            .key("token_env")
            .hint(slot_hint(slot, reason))
    }
}

fn rules_of(entries: Vec<Entry>) -> Vec<(Rule, Line)> {
    entries
        .into_iter()
        .filter_map(|entry| Some((entry.rule?, entry.line)))
        .collect()
}

/// The items of `routes`.
fn routes_of<'d>(root: Option<&'d Node<'d>>, faults: &mut Vec<Fault>) -> &'d [Node<'d>] {
    const DENY_ALL: &str = "begin it with `routes:`; `routes: []` denies everything";
    let broken = !faults.is_empty();
    let Some(root) = root else {
        if !broken {
            faults.push(Fault::of_file("the routes file is empty").hint(DENY_ALL));
        }
        return &[];
    };
    let map = match &root.value {
        Value::Map(map) => map,
        Value::Refused => return &[],
        Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null => {
            faults.push(Fault::of_file("the routes file is empty").hint(DENY_ALL));
            return &[];
        }
        Value::Seq(_) => {
            let fault = Fault::new(root.span, "the routes file is a list");
            faults.push(fault.key("routes").hint("put `routes:` in front of it"));
            return &[];
        }
        Value::Scalar(_) => {
            let fault = Fault::new(root.span, "the routes file is a text, not a map");
            faults.push(fault.key("routes").hint(DENY_ALL));
            return &[];
        }
    };
    let fields = Fields::read(map, &KEYS, faults);
    let Some(field) = fields.find("routes") else {
        // After a syntax error the key may have been still to come.
        if !broken && fields.lacks("routes") {
            let fault = Fault::new(root.span, "the routes file has no `routes`");
            faults.push(fault.key("routes").hint(DENY_ALL));
        }
        return &[];
    };
    let fault = match &field.node.value {
        Value::Seq(items) => return items,
        Value::Refused => return &[],
        Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null => field
            .empty(field.node)
            .hint("write `routes: []` to deny everything"),
        _ => field
            .wrong_type(field.node, "a list")
            .hint("begin each route with `- host:`"),
    };
    faults.push(fault);
    &[]
}

fn named(entry: &Entry) -> String {
    match &entry.host {
        Some(host) => format!("{host} (line {})", entry.line),
        None => format!("the route in line {}", entry.line),
    }
}

fn slot_hint(slot: &SlotName, reason: &Unusable) -> String {
    let file = slot.file_variable();
    match reason {
        Unusable::Missing | Unusable::Empty => {
            format!("set {slot} or {file} in the sidecar's environment")
        }
        Unusable::BothForms => format!("unset {slot} or {file}"),
        Unusable::HandedToo => format!("unset {slot} and {file}"),
        Unusable::Byte => {
            "check how the value was written: a token is one line of visible ASCII".into()
        }
        Unusable::SchemeInside => "the route's `auth_scheme` puts that word in front".into(),
        Unusable::Expired(_) => format!("renew the credential and set {slot} or {file} again"),
        Unusable::File { .. } => format!("check the file that {file} names, and who may read it"),
    }
}
