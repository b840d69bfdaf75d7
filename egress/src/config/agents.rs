//! The agents file: agents of the operator's own.

use std::path::PathBuf;

/// An agent as its operator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomAgent {
    /// Its name.
    pub name: String,
    /// What runs it; never empty.
    pub command: Vec<String>,
    /// What shows that it works.
    pub test: Option<Vec<String>>,
    /// What installs it.
    pub install: Option<Vec<String>>,
    /// Files of the host that it needs.
    pub credentials: Vec<CredentialFile>,
    /// Its variables.
    pub environment: Vec<(String, String)>,
}

/// A file of the host for an agent's home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFile {
    /// On the host; a leading `~` is not expanded yet.
    pub source: PathBuf,
    /// Relative to the agent's home, without `..`.
    pub target: PathBuf,
    /// Whether the agent cannot do without.
    pub required: bool,
}
