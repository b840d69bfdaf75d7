//! `egress env`: the environment with which an agent finds the sidecar and trusts it.
//!
//! It holds no secret and reads no slot: where a client insists on a key of its own, it gets a placeholder.
//! Exit: 0 done, 2 usage or configuration, 3 runtime.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::ValueEnum;
use http::Uri;
use serde_json::{Map, Value};

use super::ca::CaDir;
use super::{Failure, bundle, load_routes, output, print};
use crate::route::host::Host;
use crate::route::{AuthScheme, Injection, Routes};

/// Print the environment that an agent needs: the proxy, the CA, and placeholders for keys
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The sidecar's URL as the agent reaches it: http://[USER:PASSWORD@]HOST:PORT
    #[arg(long, value_name = "URL")]
    proxy: String,
    /// The trust bundle as the agent sees it, an absolute path; nothing is written then [default: ca-bundle.pem in
    /// the CA's directory, which is written where it is missing or old]
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    ca: CaDir,
    /// A routes file: adds placeholders for the clients whose keys it injects
    #[arg(short, long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// The form
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// `export` lines for a POSIX shell's eval
    #[default]
    Sh,
    /// A .env file: quoted where needed
    Dotenv,
    /// One JSON object
    Json,
    /// A file for `docker run --env-file`, which knows no quotes
    Docker,
}

const EXAMPLES: &str = "\
Examples:
  eval \"$(egress env --proxy http://127.0.0.1:8080 -r routes.yaml)\"
  egress env --proxy http://egress:8080 --bundle /etc/egress/ca-bundle.pem --format docker > agent.env
  docker run --env-file agent.env -v \"$PWD/ca-bundle.pem:/etc/egress/ca-bundle.pem:ro\" ...

Give an agent the bundle, never the CA's directory: the key is in there.";

/// Clients look at one case or the other; curl reads `http_proxy` in lower case only.
const PROXY_VARIABLES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Every variable that names a CA file to some client (docs/operations.md says to which).
const CA_VARIABLES: [&str; 11] = [
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

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let proxy = proxy_url(&args.proxy)?;
    let routes = args.routes.as_deref().map(load_routes).transpose()?;
    let bundle = match &args.bundle {
        Some(path) => agents_path(path)?,
        None => written_bundle(&args.ca)?,
    };
    let mut variables: Vec<(&str, &str)> = Vec::new();
    for name in PROXY_VARIABLES {
        variables.push((name, &proxy));
    }
    for name in ["NO_PROXY", "no_proxy"] {
        variables.push((name, NO_PROXY));
    }
    // Without it Node's own fetch looks at no proxy variable. Versions that do not know it read over it.
    variables.push(("NODE_USE_ENV_PROXY", "1"));
    for name in CA_VARIABLES {
        variables.push((name, &bundle));
    }
    for (name, placeholder) in routes.iter().flat_map(placeholders) {
        variables.push((name, placeholder));
    }
    print(&args.format.render(&variables))?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses what some client would silently go around.
fn proxy_url(text: &str) -> Result<String, Failure> {
    let wrong = |problem: &str, hint: &str| {
        Err(Failure::usage(anyhow!("--proxy {text:?}: {problem}")).hint(hint))
    };
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
    Ok(format!("http://{rest}"))
}

/// A path for the agent's side, which need not exist on this one.
fn agents_path(path: &Path) -> Result<String, Failure> {
    let text = path
        .to_str()
        .filter(|text| !text.chars().any(char::is_control));
    match text {
        Some(text) if path.is_absolute() => Ok(text.into()),
        _ => Err(Failure::usage(anyhow!(
            "--bundle {}: it is not an absolute path in plain text",
            path.display()
        ))
        .hint("name the file as the agent sees it, from the root on")),
    }
}

/// Writes the bundle into the CA's directory, unless it is there and up to date.
fn written_bundle(ca: &CaDir) -> Result<String, Failure> {
    let root = ca.root()?;
    let path = std::path::absolute(super::ca_dir(ca.path.as_ref())?.join("ca-bundle.pem"))
        .map_err(Failure::runtime)?;
    let text = agents_path(&path)?;
    output::write(&path, &bundle::text(&root)?)?;
    Ok(text)
}

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

fn placeholders(routes: &Routes) -> impl Iterator<Item = (&'static str, &'static str)> {
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

impl Format {
    fn render(self, variables: &[(&str, &str)]) -> String {
        let lines = |line: fn(&str, &str) -> String| {
            variables
                .iter()
                .map(|(name, value)| line(name, value))
                .collect()
        };
        match self {
            Self::Sh => lines(|name, value| format!("export {name}={}\n", single_quoted(value))),
            Self::Dotenv => lines(|name, value| format!("{name}={}\n", dotenv_value(value))),
            Self::Docker => lines(|name, value| format!("{name}={value}\n")),
            Self::Json => {
                let object: Map<String, Value> = variables
                    .iter()
                    .map(|(name, value)| ((*name).into(), (*value).into()))
                    .collect();
                format!("{:#}\n", Value::Object(object))
            }
        }
    }
}

/// Inside single quotes a POSIX shell takes every character for itself but the quote.
fn single_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Plain where every reader agrees, else in the quotes in which most of them agree.
fn dotenv_value(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,=[]".contains(c);
    if value.chars().all(plain) {
        value.into()
    } else if value.contains('\'') {
        let escaped = value
            .replace('\\', r"\\")
            .replace('"', r#"\""#)
            .replace('$', r"\$");
        format!("\"{escaped}\"")
    } else {
        format!("'{value}'")
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, dotenv_value, proxy_url, single_quoted};

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
            assert!(proxy_url(url).is_err(), "{url:?}");
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
            assert_eq!(proxy_url(url).ok().as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_shell_gets_every_character_as_it_is() {
        assert_eq!(
            single_quoted("$(touch /x) `a` \"b\" \\"),
            "'$(touch /x) `a` \"b\" \\'"
        );
        assert_eq!(single_quoted("it's"), r"'it'\''s'");
        assert_eq!(single_quoted(""), "''");
    }

    #[test]
    fn a_dotenv_value_is_quoted_where_readers_differ() {
        assert_eq!(dotenv_value("http://a:1"), "http://a:1");
        assert_eq!(dotenv_value("/a b/$c#"), "'/a b/$c#'");
        assert_eq!(dotenv_value(r#"it's "$x" \"#), r#""it's \"\$x\" \\""#);
    }

    #[test]
    fn docker_takes_quotes_for_the_value() {
        assert_eq!(Format::Docker.render(&[("A", "/a b'c")]), "A=/a b'c\n");
    }
}
