//! Agents: what is run, and the home and the environment that it finds. Secrets of the host never enter either.

use std::path::{Path, PathBuf};

use super::Host;
use super::handover::Handed;
use crate::config::agents::CustomAgent;
use crate::config::manifest::Template;
use crate::route::Routes;

/// An agent, ready to be put into a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// `codex`, or as its file names it.
    pub name: String,
    /// What runs it; the user's arguments follow. Empty where a template names none.
    pub command: Vec<String>,
    /// What shows that it works, without any network.
    pub test: Option<Vec<String>>,
    /// What installs it.
    pub install: Option<Vec<String>>,
    /// The files of its home.
    pub files: Vec<HomeFile>,
    /// Its own variables, beside those of [`super::variables`].
    pub environment: Vec<(String, String)>,
    /// What the operator should hear: what was replaced, left out or skipped.
    pub notes: Vec<String>,
}

/// A file of an agent's home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeFile {
    /// Relative to the agent's home, without `..`.
    pub target: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// What is in it. No secret.
    pub contents: Vec<u8>,
}

/// Where an agent will run, and what is known of it.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The host that it is launched from.
    pub host: Host<'a>,
    /// The agent's home, as the agent sees it: an absolute path.
    pub home: &'a Path,
    /// Its working directory, as the agent sees it.
    pub workspace: &'a Path,
    /// What the sidecar enforces, where that is known already.
    pub routes: Option<&'a Routes>,
    /// The roles of the bottle's routes, such as `claude_code_oauth`.
    pub roles: &'a [String],
    /// What the sidecar is handed: the host's Codex login, of which the agent gets a dummy, and every value that must
    /// not be found in what the agent gets.
    pub handed: Option<&'a Handed>,
}

impl Agent {
    /// One of the agents that are known here. [`Template::Custom`] is one of which nothing is known.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn builtin(template: Template, setting: &Setting<'_>) -> Result<Self, Error> {
        let _ = (template, setting);
        todo!()
    }

    /// An agent of the operator's own.
    ///
    /// # Errors
    ///
    /// Every credential file that is required and missing, unreadable, or a secret that may not enter the box.
    pub fn custom(agent: &CustomAgent, setting: &Setting<'_>) -> Result<Self, Error> {
        let _ = (agent, setting);
        todo!()
    }
}

/// Why an agent cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Error(Vec<Problem>);

impl Error {
    /// Each problem.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.0.iter()
    }
}

/// One problem of an agent.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Problem {
    what: String,
    hint: String,
}

impl Problem {
    /// What the operator can do about it.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}
