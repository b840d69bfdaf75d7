//! A bottle of a manifest as a routes file, and the references that its slots stand for.

use std::path::PathBuf;

use crate::credential::SlotName;

/// A bottle, as the sidecar and its launcher take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text of the routes file.
    pub routes: String,
    /// Its slots, in the order of their first use.
    pub slots: Vec<RenderedSlot>,
    /// What routes were marked with, each once: `claude_code_oauth` and the like.
    pub roles: Vec<String>,
}

/// One slot of a rendered routes file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedSlot {
    /// The slot.
    pub name: SlotName,
    /// Where its value is had at launch.
    pub reference: TokenRef,
    /// The hosts of the routes that name it.
    pub hosts: Vec<String>,
}

/// Where a credential is had at launch, on the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenRef {
    /// A variable of the host's environment.
    Variable(String),
    /// A file of the host.
    File(PathBuf),
    /// The output of a program: its name and arguments.
    Command(Vec<String>),
    /// The access token of the host's Codex login.
    CodexHost,
}
