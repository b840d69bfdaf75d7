//! The manifest: what an operator writes about bottles and the agents in them.

use std::path::Path;

use super::fault::Faults;
use super::render::Rendered;

/// A manifest without a fault.
#[derive(Clone, Debug)]
pub struct Manifest {
    bottles: Vec<Bottle>,
}

/// Reads a manifest from disk: YAML, JSON, or the front matter of a Markdown file.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn read(path: &Path) -> Result<Manifest, Faults> {
    let _ = path;
    todo!()
}

impl Manifest {
    /// A bottle, by its name or by that of an agent in it; without a name the only one.
    ///
    /// # Errors
    ///
    /// A name that nothing has, or no name where there are several bottles, with the names there are.
    pub fn bottle(&self, name: Option<&str>) -> Result<&Bottle, Faults> {
        let _ = (name, &self.bottles);
        todo!()
    }
}

/// A sandbox for an agent, as far as its way out is concerned.
#[derive(Clone, Debug)]
pub struct Bottle {
    /// Its name.
    pub name: String,
    /// Which agent it is for.
    pub provider: Provider,
}

impl Bottle {
    /// The routes file of the bottle, and what its slots stand for.
    ///
    /// # Errors
    ///
    /// What is wrong with the routes file, where that could not be told from the manifest alone.
    pub fn render(&self) -> Result<Rendered, Faults> {
        todo!()
    }
}

/// The agent that a bottle is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provider {
    /// Its kind.
    pub template: Template,
    /// Whether the host's own login is lent to the agent.
    pub forward_host_credentials: bool,
    /// A Dockerfile of the operator's own.
    pub dockerfile: Option<String>,
}

/// The kind of agent that a bottle is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Template {
    /// Claude Code.
    #[default]
    Claude,
    /// Codex.
    Codex,
    /// The Gemini command line.
    Gemini,
    /// opencode.
    Opencode,
    /// Another one.
    Custom,
}
