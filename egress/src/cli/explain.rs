//! `egress explain`: what the sidecar would do with a request, and why. Nothing is sent, and no slot is read.
//!
//! The decision is the data path's own ([`Routes::admits`], [`Routes::decide`]), on the URL's bytes as they are given.
//! Exit: 0 the request is admitted, 1 it is denied, 2 usage or configuration.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use http::Method;

use self::explanation::Explanation;
use self::url::Url;
use crate::config::{self, Colour};
use crate::route::Routes;
use crate::route::target::{Kind, Target};

mod explanation;
mod url;

/// Show which route decides about a request, why, and what would be stripped and injected
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The routes file
    #[arg(short, long, value_name = "FILE")]
    routes: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Take the request for a WebSocket handshake, as `ws://` and `wss://` URLs do by themselves
    #[arg(long)]
    websocket: bool,
    /// The request's method
    #[arg(value_name = "METHOD")]
    method: String,
    /// The request's URL; its path and query are taken byte for byte, as a client would send them
    #[arg(value_name = "URL")]
    url: String,
}

const EXAMPLES: &str = "\
Examples:
  egress explain -r routes.yaml GET https://api.github.com/repos/o/r/pulls
  egress explain -r routes.yaml GET wss://chatgpt.com/backend-api/codex/responses
  egress explain -r routes.yaml --json POST 'https://github.com/o/r.git/git-receive-pack'

Exit status: 0 the request is admitted, 1 it is denied, 2 usage or configuration.";

/// Runs the command.
///
/// # Errors
///
/// Output that cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (out, err) = (&mut io::stdout().lock(), &mut io::stderr().lock());
    explain(&args, Colour::of_stderr(), out, err)
}

fn explain(
    args: &Args,
    colour: Colour,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let usage = ExitCode::from(2);
    let target = match target_of(args) {
        Ok(target) => target,
        Err(problem) => {
            writeln!(err, "error: {problem}")?;
            return Ok(usage);
        }
    };
    let file = match config::load(&args.routes) {
        Ok(file) => file,
        Err(faults) if args.json => {
            writeln!(out, "{:#}", faults.to_json())?;
            return Ok(usage);
        }
        Err(faults) => {
            writeln!(err, "{}", faults.to_text(colour))?;
            return Ok(usage);
        }
    };
    let routes = Routes::new(file.rules, None)
        .map_err(|_| anyhow::anyhow!("the routes file has ties that were not found at load"))?;
    let explanation = Explanation::of(&file.name, &routes, target);
    if args.json {
        writeln!(out, "{:#}", explanation.to_json())?;
    } else {
        write!(out, "{}", explanation.to_text())?;
    }
    Ok(match explanation.is_admitted() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    })
}

/// The request's target from the command line.
fn target_of(args: &Args) -> Result<Target, String> {
    let method = Method::from_bytes(args.method.as_bytes())
        .map_err(|_| format!("{:?} is not a method", args.method))?;
    let url = Url::parse(&args.url).map_err(|error| format!("{:?}: {error}", args.url))?;
    let kind = match args.websocket {
        true => Kind::WebSocket,
        false => url.kind,
    };
    if kind == Kind::WebSocket && method != Method::GET {
        return Err("a WebSocket handshake is a GET (RFC 6455, section 4.1)".into());
    }
    Target::new(url.origin, method, &url.path_and_query, kind)
        .map_err(|_| format!("{:?}: the path holds a byte that no request can", args.url))
}
