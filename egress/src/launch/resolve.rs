//! Credentials at launch: each reference of a manifest becomes a value, on the host, once.
//!
//! Everything that cannot be had is told at once. No message holds a value or a part of one, and none of a program's
//! output either.

use super::Host;
use super::handover::Handed;
use crate::config::render::RenderedSlot;
use crate::credential::SlotName;

/// Finds the value of every slot.
///
/// # Errors
///
/// All references without a usable value, each with its slots, hosts and a hint.
pub fn resolve(slots: &[RenderedSlot], host: &Host<'_>) -> Result<Handed, Unresolved> {
    let _ = (slots, host);
    todo!()
}

/// References without a usable value; never empty.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(.0))]
pub struct Unresolved(Vec<Unmet>);

impl Unresolved {
    /// Each of them, in the order of the slots.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Unmet> {
        self.0.iter()
    }
}

/// One reference without a usable value. Its text is one line without a hint.
#[derive(Debug, thiserror::Error)]
#[error("{reference}: {problem}")]
pub struct Unmet {
    reference: String,
    slots: Vec<SlotName>,
    hosts: Vec<String>,
    problem: String,
    hint: String,
}

impl Unmet {
    /// The slots that it was to fill.
    pub fn slots(&self) -> &[SlotName] {
        &self.slots
    }

    /// The hosts of the routes that name them.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

fn told(list: &[Unmet]) -> String {
    let lines: Vec<String> = list.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
