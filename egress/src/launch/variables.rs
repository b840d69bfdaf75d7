//! The environment with which an agent finds the sidecar and trusts it: `egress env`, and every launcher's.
//!
//! It holds no secret: where a client insists on a key of its own, it gets a placeholder.

use std::path::Path;

use crate::route::Routes;

/// The variables in their order: the proxy's, the CA's, and placeholders for the keys that `routes` inject.
pub fn variables(
    proxy: &ProxyUrl,
    bundle: &AgentPath,
    routes: Option<&Routes>,
) -> Vec<(&'static str, String)> {
    let _ = (proxy, bundle, routes);
    todo!()
}

/// The sidecar's URL as the agent reaches it: `http://[USER:PASSWORD@]HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    /// Refuses what some client would silently go around.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadProxy> {
        let _ = text;
        todo!()
    }

    /// The URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Not a URL of the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct BadProxy {
    problem: &'static str,
    hint: &'static str,
}

impl BadProxy {
    /// How to write it.
    pub fn hint(&self) -> &'static str {
        self.hint
    }
}

/// An absolute path on the agent's side, in plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPath(String);

impl AgentPath {
    /// `None` for a path that is not absolute, not UTF-8, or holds control characters.
    pub fn new(path: &Path) -> Option<Self> {
        path.to_str()
            .filter(|text| path.is_absolute() && !text.chars().any(char::is_control))
            .map(|text| Self(text.into()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
