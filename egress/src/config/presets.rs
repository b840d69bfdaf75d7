//! Routes that many bottles need, under a name: the fewest that a client or a package registry works with.
//!
//! They are written as a routes file is, so what `egress presets NAME` prints can be edited and pasted.

mod texts;

use std::path::Path;

use super::render;
use super::routes_file::parse;
use crate::route::Rule;

/// Routes under a name.
#[derive(Debug)]
pub struct Preset {
    /// What a manifest calls it by.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its forms, the usual one first; each has a credential of another scheme.
    pub forms: &'static [Form],
}

/// Routes for one kind of credential.
#[derive(Debug)]
pub struct Form {
    /// What `scheme` of `auth` asks for it; `None` where no credential is taken.
    pub scheme: Option<&'static str>,
    /// The text of a routes file. Its one slot is `EGRESS_TOKEN_0`.
    pub routes: &'static str,
}

/// All presets.
pub static ALL: &[Preset] = &[
    Preset {
        name: "codex",
        about: "Codex with a ChatGPT login, which `forward_host_credentials: true` adds; no telemetry",
        forms: &[Form {
            scheme: None,
            routes: texts::CODEX,
        }],
    },
    Preset {
        name: "claude",
        about: "Claude Code, with a login (Bearer) or an API key (raw); no telemetry",
        forms: &[
            Form {
                scheme: Some("Bearer"),
                routes: texts::CLAUDE_LOGIN,
            },
            Form {
                scheme: Some("raw"),
                routes: texts::CLAUDE_KEY,
            },
        ],
    },
    Preset {
        name: "gemini",
        about: "The Gemini command line with an API key; no telemetry",
        forms: &[Form {
            scheme: Some("raw"),
            routes: texts::GEMINI,
        }],
    },
    Preset {
        name: "opencode",
        about: "opencode with an Anthropic API key, its list of models and its packages",
        forms: &[Form {
            scheme: Some("raw"),
            routes: texts::OPENCODE,
        }],
    },
    Preset {
        name: "github-read",
        about: "GitHub to read from: its REST API, and git clone and fetch",
        forms: &[Form {
            scheme: Some("Bearer"),
            routes: texts::GITHUB_READ,
        }],
    },
    Preset {
        name: "npm",
        about: "npm's registry to read from, scoped packages too",
        forms: &[Form {
            scheme: None,
            routes: texts::NPM,
        }],
    },
    Preset {
        name: "pypi",
        about: "PyPI to read from",
        forms: &[Form {
            scheme: None,
            routes: texts::PYPI,
        }],
    },
    Preset {
        name: "crates",
        about: "crates.io to read from, by its sparse index",
        forms: &[Form {
            scheme: None,
            routes: texts::CRATES,
        }],
    },
    Preset {
        name: "mise",
        about: "mise's lists of versions, and tools that are released on GitHub",
        forms: &[Form {
            scheme: Some("Bearer"),
            routes: texts::MISE,
        }],
    },
];

/// The preset of a name.
pub fn find(name: &str) -> Option<&'static Preset> {
    ALL.iter().find(|preset| preset.name == name)
}

/// Every name.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|preset| preset.name).collect()
}

impl Preset {
    /// The form for a scheme of `auth`, or the usual one.
    pub fn form(&self, scheme: Option<&str>) -> Option<&'static Form> {
        match scheme {
            None => self.forms.first(),
            Some(_) => self.forms.iter().find(|form| form.scheme == scheme),
        }
    }

    /// The schemes that it takes a credential with.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> {
        self.forms.iter().filter_map(|form| form.scheme)
    }
}

impl Form {
    /// The rules.
    pub fn rules(&self) -> Vec<Rule> {
        let rules = parse("preset", self.routes, Path::new("/"));
        let rules = rules.expect("every preset is read by a test");
        rules.into_iter().map(|(rule, _)| rule).collect()
    }

    /// The routes, as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let rules = self.rules();
        rules.iter().map(render::json).collect()
    }
}
