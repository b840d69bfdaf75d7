//! The environment with which an agent finds the sidecar and trusts it: `egress env`, and every launcher's.
//!
//! It holds no secret: where a client insists on a key of its own, it gets a placeholder.

use std::path::Path;

use http::Uri;

use crate::route::host::Host;
use crate::route::{AuthScheme, Injection, Routes};

/// The variables in their order: the proxy's, the CA's, and placeholders for the keys that `routes` inject.
pub fn variables(
    proxy: &ProxyUrl,
    bundle: &AgentPath,
    routes: Option<&Routes>,
) -> Vec<(&'static str, String)> {
    let mut variables: Vec<(&'static str, String)> = Vec::new();
    for name in PROXY_VARIABLES {
        variables.push((name, proxy.0.clone()));
    }
    for name in ["NO_PROXY", "no_proxy"] {
        variables.push((name, NO_PROXY.into()));
    }
    // Without it Node's own fetch looks at no proxy variable. Versions that do not know it read over it.
    variables.push(("NODE_USE_ENV_PROXY", "1".into()));
    variables.extend(without_proxy(bundle, routes));
    variables
}

/// The same for an agent whose connections end at the sidecar wherever they go: the CA's, and placeholders.
pub fn without_proxy(bundle: &AgentPath, routes: Option<&Routes>) -> Vec<(&'static str, String)> {
    let mut variables: Vec<(&'static str, String)> = Vec::new();
    for name in CA_VARIABLES {
        variables.push((name, bundle.0.clone()));
    }
    for (name, placeholder) in routes.into_iter().flat_map(placeholders) {
        variables.push((name, placeholder.into()));
    }
    variables
}

/// Whether a variable is one that leads an agent to the sidecar, or has it trust the bottle's CA.
pub fn is_ours(name: &str) -> bool {
    let others = ["NO_PROXY", "no_proxy", "NODE_USE_ENV_PROXY"];
    PROXY_VARIABLES.contains(&name) || CA_VARIABLES.contains(&name) || others.contains(&name)
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
        let wrong = |problem, hint| Err(BadProxy { problem, hint });
        let Some(rest) = text.strip_prefix("http://") else {
            return match text.split_once("://") {
                Some(_) => wrong(
                    "the sidecar speaks plain HTTP to its clients",
                    "write http://HOST:PORT; inside the tunnels it is TLS all the same",
                ),
                None => wrong(
                    "it does not begin with http://",
                    "write http://HOST:PORT; without the scheme Codex does not send its WebSocket through the proxy",
                ),
            };
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let uri: Uri = match format!("http://{rest}/").parse() {
            Ok(uri) => uri,
            Err(_) => return wrong("it is not a URL", "write http://HOST:PORT"),
        };
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        // A fragment would be cut off here, and not by every client.
        if rest.contains(['/', '?', '#']) || !has_host {
            return wrong(
                "it is more or less than a host and a port",
                "write http://HOST:PORT",
            );
        }
        if uri.port_u16().is_none_or(|port| port == 0) {
            return wrong(
                "it names no port",
                "write http://HOST:PORT; clients do not agree on the port where there is none",
            );
        }
        Ok(Self(format!("http://{rest}")))
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

/// Clients look at one case or the other; curl reads `http_proxy` in lower case only.
pub const PROXY_VARIABLES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Every variable that names a CA file to some client (docs/operations.md says to which).
pub const CA_VARIABLES: [&str; 11] = [
    "SSL_CERT_FILE",
    "CODEX_CA_CERTIFICATE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "npm_config_cafile",
];

/// The agent's own loopback is no business of the sidecar, which could not reach it either.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// What a client that insists on a key of its own is given. The sidecar takes it off every request. The form is that of
/// a key where the client looks at it.
const PLACEHOLDERS: [(&str, &str, &str, &str); 5] = [
    (
        "api.anthropic.com",
        "x-api-key",
        "ANTHROPIC_API_KEY",
        "sk-ant-api03-placeholder",
    ),
    (
        "api.anthropic.com",
        "authorization",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "sk-ant-oat01-placeholder",
    ),
    (
        "api.openai.com",
        "authorization",
        "OPENAI_API_KEY",
        "sk-placeholder",
    ),
    (
        "generativelanguage.googleapis.com",
        "x-goog-api-key",
        "GEMINI_API_KEY",
        "placeholder",
    ),
    ("api.github.com", "authorization", "GH_TOKEN", "placeholder"),
];

/// The variables in which clients look for a key that the routes inject, each with what stands in for the key.
pub(super) fn placeholders(routes: &Routes) -> impl Iterator<Item = (&'static str, &'static str)> {
    PLACEHOLDERS
        .iter()
        .filter(|(host, header, ..)| {
            injections(routes, host).any(|injection| {
                injection.header == *header
                    // Codex's own login serves both of its hosts, and a key beside it would be a second one.
                    && !injections(routes, "chatgpt.com").any(|codex| codex.slot == injection.slot)
            })
        })
        .map(|(_, _, variable, text)| (*variable, *text))
}

/// Whether a text is what some client was given in place of a key.
pub fn is_placeholder(text: &str) -> bool {
    PLACEHOLDERS.iter().any(|(.., known)| *known == text)
}

/// The hosts that a client is sent to by placeholders in an environment.
pub fn placeholder_hosts<'a>(
    value: impl Fn(&str) -> Option<&'a str>,
) -> impl Iterator<Item = &'static str> {
    PLACEHOLDERS
        .iter()
        .filter(move |(_, _, variable, text)| value(variable) == Some(*text))
        .map(|(host, ..)| *host)
}

/// What the routes that cover a host inject.
fn injections<'r>(routes: &'r Routes, host: &str) -> impl Iterator<Item = &'r Injection> {
    let host = Host::parse(host).ok();
    routes
        .iter()
        .filter(move |route| {
            host.as_ref()
                .is_some_and(|host| route.rule.host.matches(host))
        })
        .filter_map(|route| route.rule.injection.as_ref())
        // Basic is git's; no client's API key goes there.
        .filter(|injection| !matches!(injection.scheme, AuthScheme::Basic { .. }))
}

#[cfg(test)]
mod tests {
    use super::ProxyUrl;

    #[test]
    fn a_proxy_that_some_client_would_go_around_is_refused() {
        for url in [
            "",
            "127.0.0.1:8080",
            "localhost",
            "https://a:1",
            "socks5://a:1",
            "unix:/run/a",
            "http://",
            "http://a",
            "http://a:0",
            "http://a:99999",
            "http://a:1/x",
            "http://a:1?x",
            "http://a:1#x",
            "http://:1",
            "http://a b:1",
            "http://a:1\nX=1",
            "HTTP://a:1",
        ] {
            assert!(ProxyUrl::parse(url).is_err(), "{url:?}");
        }
        for (url, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://my_egress:8080/", "http://my_egress:8080"),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128"),
            (
                "http://agent:p%40ss@egress:1",
                "http://agent:p%40ss@egress:1",
            ),
        ] {
            assert_eq!(ProxyUrl::parse(url).unwrap().as_str(), expected);
        }
    }
}
