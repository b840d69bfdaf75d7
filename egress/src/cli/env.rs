//! `egress env`: the environment with which an agent finds the sidecar and trusts it.
//!
//! It holds no secret and reads no slot: where a client insists on a key of its own, it gets a placeholder.
//! Exit: 0 done, 2 usage or configuration, 3 runtime.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::ValueEnum;
use serde_json::{Map, Value};

use super::ca::CaDir;
use super::{Failure, load_routes, output, print, trust_bundle};
use crate::launch::variables::{AgentPath, ProxyUrl, variables};

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
  egress env --proxy http://egress:8080 --bundle /etc/egress/ca-bundle.pem --format docker >a.env
  docker run --env-file a.env -v \"$PWD/ca-bundle.pem:/etc/egress/ca-bundle.pem:ro\" ...

Give an agent the bundle, never the CA's directory: the key is in there.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let proxy = ProxyUrl::parse(&args.proxy).map_err(|error| {
        Failure::usage(anyhow!("--proxy {:?}: {error}", args.proxy)).hint(error.hint())
    })?;
    let routes = args.routes.as_deref().map(load_routes).transpose()?;
    let bundle = match &args.bundle {
        Some(path) => agents_path(path)?,
        None => written_bundle(&args.ca)?,
    };
    let variables = variables(&proxy, &bundle, routes.as_ref());
    print(&args.format.render(&variables))?;
    Ok(ExitCode::SUCCESS)
}

/// A path for the agent's side, which need not exist on this one.
fn agents_path(path: &Path) -> Result<AgentPath, Failure> {
    AgentPath::new(path).ok_or_else(|| {
        Failure::usage(anyhow!(
            "--bundle {}: it is not an absolute path in plain text",
            path.display()
        ))
        .hint("name the file as the agent sees it, from the root on")
    })
}

/// Writes the bundle into the CA's directory, unless it is there and up to date.
fn written_bundle(ca: &CaDir) -> Result<AgentPath, Failure> {
    let root = ca.root()?;
    let path = std::path::absolute(super::ca_dir(ca.path.as_ref())?.join("ca-bundle.pem"))
        .map_err(Failure::runtime)?;
    let text = agents_path(&path)?;
    let elsewhere = "where the CA's directory cannot be written, `egress ca bundle -o FILE`, and name the file with --bundle";
    output::write(&path, &trust_bundle(&root)?, elsewhere)?;
    Ok(text)
}

impl Format {
    fn render(self, variables: &[(&str, String)]) -> String {
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
                    .map(|(name, value)| ((*name).into(), value.as_str().into()))
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
    use super::{Format, dotenv_value, single_quoted};

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
        assert_eq!(
            Format::Docker.render(&[("A", "/a b'c".into())]),
            "A=/a b'c\n"
        );
    }
}
