//! `egress render-routes`: the routes file of a manifest's bottle, and what its slots stand for.
//!
//! It reads no credential. Exit: 0 done, 2 usage or configuration, 3 runtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use serde_json::{Map, Value};

use super::{Failure, output, print};
use crate::config::manifest;
use crate::config::render::Rendered;

/// Make the routes file of a manifest's bottle
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The manifest: YAML, JSON, or a Markdown file with the manifest as front matter; `-` reads stdin
    #[arg(short, long, value_name = "FILE")]
    manifest: PathBuf,
    /// The bottle, by its name or by that of an agent in it [default: the only one]
    #[arg(short, long, value_name = "NAME")]
    bottle: Option<String>,
    /// Write the routes file here, in one step, and not to stdout; `-` is stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print what each slot stands for as one JSON object, in place of the routes
    #[arg(long)]
    slots: bool,
}

const EXAMPLES: &str = "\
Examples:
  egress render-routes -m bottle.yaml
  egress render-routes -m bottle.yaml -b dev -o routes.yaml
  egress render-routes -m bottle.yaml --slots                   # {\"EGRESS_TOKEN_0\": \"GH_PAT\"}
  egress render-routes -m bottle.yaml -o routes.yaml --slots    # both

The routes file names slots. No credential is read; references to them are resolved when a bottle
is launched.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let file = args
        .output
        .as_deref()
        .filter(|path| *path != Path::new("-"));
    if args.slots && args.output.is_some() && file.is_none() {
        let error = anyhow!("the routes and the slots cannot both go to stdout");
        return Err(Failure::usage(error).hint("give -o a file, or leave it out"));
    }
    let manifest = manifest::read(&args.manifest)?;
    let rendered = manifest.bottle(args.bottle.as_deref())?.render()?;
    match file {
        Some(path) if is_same(path, &args.manifest) => {
            let error = anyhow!("{} is the manifest itself", path.display());
            return Err(Failure::usage(error).hint("name another file with -o"));
        }
        Some(path) => output::write(
            path,
            &rendered.routes,
            "choose a file in a directory of yours",
        )?,
        None if args.slots => {}
        None => print(&rendered.routes)?,
    }
    if args.slots {
        print(&format!("{:#}\n", slots(&rendered)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Each slot with its reference.
pub(super) fn slots(rendered: &Rendered) -> Value {
    let slots = rendered.slots.iter();
    let slots = slots.map(|slot| (slot.name.to_string(), slot.reference.to_string().into()));
    Value::Object(slots.collect::<Map<_, _>>())
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}
