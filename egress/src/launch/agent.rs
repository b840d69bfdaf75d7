//! Agents: what is run, and the home and the environment that it finds.
//!
//! What an agent gets is made here, or is copied by a rule that knows what it copies: the agent may be hostile, and
//! whatever it can read it can send somewhere. `checked` is the last look at all of it.

mod claude;
mod codex;
mod custom;
mod gemini;
mod known;
mod opencode;

use std::path::{Path, PathBuf};

use super::Host;
use super::handover::Handed;
use super::login::Login;
use crate::config::agents::CustomAgent;
use crate::config::manifest::Template;
use crate::credential::codex::leak;
use crate::route::Routes;

/// An agent, ready to be put into a box.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

impl HomeFile {
    /// The `auth.json` of the built-in Codex, which is put in place again when the host's login is renewed.
    pub fn codex_login(login: &Login) -> Self {
        codex::auth_file(login.dummy().as_str())
    }
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
    /// A file of the home, or a variable, would hold a value that only the sidecar may have.
    pub fn builtin(template: Template, setting: &Setting<'_>) -> Result<Self, Error> {
        let agent = match template {
            Template::Claude => claude::agent(setting),
            Template::Codex => codex::agent(setting),
            Template::Gemini => gemini::agent(setting),
            Template::Opencode => opencode::agent(),
            Template::Custom => Self {
                name: "custom".into(),
                ..Self::default()
            },
        };
        checked(agent, setting)
    }

    /// An agent of the operator's own.
    ///
    /// # Errors
    ///
    /// Every credential file that is required and missing, cannot be read, or holds a secret that may not enter the box.
    pub fn custom(agent: &CustomAgent, setting: &Setting<'_>) -> Result<Self, Error> {
        checked(custom::agent(agent, setting)?, setting)
    }
}

/// Looks for every value that the sidecar is handed in everything that the agent is given, plain and encoded. It knows
/// nothing of how that was made.
fn checked(agent: Agent, setting: &Setting<'_>) -> Result<Agent, Error> {
    /// Shorter texts appear by chance.
    const MIN_CHARACTERS: usize = 8;
    let Some(handed) = setting.handed else {
        return Ok(agent);
    };
    let files = agent.files.iter().map(|file| {
        let text = String::from_utf8_lossy(&file.contents);
        (format!("the file {}", shown(&file.target)), text)
    });
    let variables = agent.environment.iter().map(|(name, value)| {
        let name = format!("the variable {}", name.escape_debug());
        (name, value.as_str().into())
    });
    let mut problems = Vec::new();
    for (place, text) in files.chain(variables) {
        for slot in handed.slots() {
            let leaked = handed.get(slot).is_some_and(|secret| {
                let secret = secret.expose();
                secret.chars().count() >= MIN_CHARACTERS && leak::appears(secret, &text)
            });
            if leaked {
                problems.push(Problem {
                    what: format!("{place} would give the agent the value of slot {slot}"),
                    hint: "take it out; the sidecar puts the credential on the agent's requests"
                        .into(),
                });
            }
        }
    }
    Error::unless_none(problems).map(|()| agent)
}

/// A path of the agent's home, as messages name it.
fn shown(target: &Path) -> String {
    format!("~/{}", target.display().to_string().escape_debug())
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(Into::into).into()
}

/// Why an agent cannot be prepared: everything that stands in the way.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Error(Vec<Problem>);

impl Error {
    /// Each problem.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.0.iter()
    }

    fn unless_none(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self(problems))
        }
    }
}

/// One problem of an agent. Its text is one line without a secret, and the hint is not in it.
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

#[cfg(test)]
mod tests;
