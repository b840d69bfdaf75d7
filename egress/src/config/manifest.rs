//! The manifest: what an operator writes about bottles and the agents in them. Like a routes file, it is right as a whole
//! or not at all, and all of its faults are told at once.
//!
//! Only what concerns the way out is read. What other parts of a sandbox keep in the same file is read over.

mod forwarding;
mod front_matter;
pub(super) mod keys;
mod reader;

use std::path::Path;
use std::sync::Arc;

use super::fault::{Fault, Faults};
use super::fields::{closest, listed};
use super::rule::manifest::Auth;
use super::source::Source;
use crate::route::Rule;

/// A manifest without a fault.
#[derive(Clone, Debug)]
pub struct Manifest {
    name: Arc<str>,
    bottles: Vec<Bottle>,
    /// Agents, each with its bottle's place in the list.
    agents: Vec<(String, usize)>,
}

/// Reads a manifest from disk: YAML, JSON, or the front matter of a Markdown file. `-` is standard input.
///
/// # Errors
///
/// Everything that is wrong with it, in every bottle, and with what the bottles render to.
pub fn read(path: &Path) -> Result<Manifest, Faults> {
    match Source::read(path, "manifest") {
        Ok(source) => of(&source),
        Err(fault) => Err(Faults::new(path.display().to_string(), "", vec![*fault])),
    }
}

/// Reads a file that was read from disk.
pub(super) fn of(source: &Source) -> Result<Manifest, Faults> {
    reader::read(source)
}

/// Whether a file seems to be a manifest and no routes file.
pub(super) fn is_one(source: &Source) -> bool {
    front_matter::is_manifest(source)
}

/// Reads the text of a manifest. `directory` is what the names of other files in it are relative to.
///
/// # Errors
///
/// As [`read`].
pub fn parse(name: &str, text: &str, directory: &Path) -> Result<Manifest, Faults> {
    reader::read(&Source {
        name: name.into(),
        text: text.into(),
        directory: directory.into(),
    })
}

impl Manifest {
    /// Its name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A bottle, by its name or by that of an agent in it; without a name the only one.
    ///
    /// # Errors
    ///
    /// A name that nothing has, or no name where there is not exactly one bottle, with the names there are.
    pub fn bottle(&self, name: Option<&str>) -> Result<&Bottle, Faults> {
        let Some(name) = name else {
            return match self.bottles.as_slice() {
                [only] => Ok(only),
                [] => Err(self.fault("the manifest has no bottles", "write `bottles: {dev: {}}`")),
                several => Err(self.fault(
                    format!("the manifest has {} bottles", several.len()),
                    format!("name one of them with --bottle: {}", listed(&self.names())),
                )),
            };
        };
        let agent = || {
            let (_, bottle) = self.agents.iter().find(|(agent, _)| agent == name)?;
            self.bottles.get(*bottle)
        };
        let bottle = self.bottles.iter().find(|bottle| bottle.name == name);
        bottle.or_else(agent).ok_or_else(|| {
            let names = self.names();
            self.fault(
                format!(
                    "no bottle and no agent has the name {}",
                    super::fault::shown(name)
                ),
                match closest(name, &names) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("there are {}", listed(&names)),
                },
            )
        })
    }

    /// The bottles, in the order of the file.
    pub fn bottles(&self) -> &[Bottle] {
        &self.bottles
    }

    /// The agents, each with its bottle's name, in the order of the file.
    pub fn agents(&self) -> impl Iterator<Item = (&str, &str)> {
        self.agents.iter().filter_map(|(agent, bottle)| {
            let bottle = self.bottles.get(*bottle)?;
            Some((agent.as_str(), bottle.name.as_str()))
        })
    }

    /// The names of bottles, and then of agents that are called otherwise.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let bottles = self.bottles.iter().map(|bottle| bottle.name.as_str());
        for name in bottles.chain(self.agents.iter().map(|(agent, _)| agent.as_str())) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn fault(&self, problem: impl Into<String>, hint: impl Into<String>) -> Faults {
        let fault = Fault::of_file(problem).hint(hint);
        Faults::new(self.name.clone(), "", vec![fault])
    }
}

/// A sandbox for an agent, as far as its way out is concerned.
#[derive(Clone, Debug)]
pub struct Bottle {
    /// Its name.
    pub name: String,
    /// Which agent it is for.
    pub provider: Provider,
    /// The manifest's name without its directory.
    pub(super) file: String,
    /// Its routes, with those of its presets and of the forwarded login.
    pub(super) routes: Vec<Route>,
}

impl Bottle {
    /// The PEM files that its routes name, which its sidecar has to find under the same names.
    pub fn upstream_cas(&self) -> impl Iterator<Item = &Path> {
        let named = self.routes.iter();
        named.filter_map(|route| route.upstream_ca.as_deref().map(Path::new))
    }
}

/// A route of a bottle.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// What it says, but for its injection: slots are given out at rendering.
    pub(super) rule: Rule,
    /// Its credential.
    pub(super) auth: Option<Auth>,
    /// What it is marked with.
    pub(super) roles: Vec<String>,
    /// The absolute path of its PEM file.
    pub(super) upstream_ca: Option<String>,
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

impl Template {
    /// How a manifest spells it.
    pub fn name(self) -> &'static str {
        let word = TEMPLATES.iter().find(|(_, template)| *template == self);
        word.map_or("custom", |(word, _)| word)
    }
}

const TEMPLATES: [(&str, Template); 5] = [
    ("claude", Template::Claude),
    ("codex", Template::Codex),
    ("gemini", Template::Gemini),
    ("opencode", Template::Opencode),
    ("custom", Template::Custom),
];
