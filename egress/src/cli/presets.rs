//! `egress presets`: the routes that a manifest may have by name. Exit: 0 done, 2 usage.

use std::process::ExitCode;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::{Failure, print};
use crate::config::presets::{self, Preset};

/// List the presets that a manifest's routes may name, or print one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The preset whose routes are printed
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The form for a credential of this scheme [default: the preset's usual one]
    #[arg(long, value_name = "SCHEME", requires = "name")]
    scheme: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  egress presets
  egress presets npm                     # its routes, to be edited and pasted
  egress presets claude --scheme raw     # with an API key in place of a login
  egress presets --json | jq -r '.presets[].name'

In a manifest: `- preset: npm`, or `- {preset: github-read, auth: {token_ref: GH_PAT}}`.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let text = match &args.name {
        None if args.json => {
            let all: Vec<Value> = presets::ALL.iter().map(summary).collect();
            format!("{:#}\n", json!({"version": 1, "presets": all}))
        }
        None => list(),
        Some(name) => one(name, args)?,
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn list() -> String {
    let mut text = String::new();
    for preset in presets::ALL {
        let schemes: Vec<&str> = preset.schemes().collect();
        text.push_str(&format!("{:<12}  {}\n", preset.name, preset.about));
        if !schemes.is_empty() {
            let schemes = schemes.join(" or ");
            text.push_str(&format!("{:<12}  takes `auth`: {schemes}\n", ""));
        }
    }
    text
}

fn summary(preset: &Preset) -> Value {
    let schemes: Vec<&str> = preset.schemes().collect();
    json!({"name": preset.name, "about": preset.about, "schemes": schemes})
}

fn one(name: &str, args: &Args) -> Result<String, Failure> {
    let preset = presets::find(name).ok_or_else(|| {
        Failure::usage(anyhow!("there is no preset {name:?}"))
            .hint(format!("one of {}", presets::names().join(", ")))
    })?;
    let form = preset.form(args.scheme.as_deref()).ok_or_else(|| {
        let schemes: Vec<&str> = preset.schemes().collect();
        let hint = match schemes.as_slice() {
            [] => "it takes no credential; leave --scheme out".to_owned(),
            schemes => format!("one of {}", schemes.join(", ")),
        };
        let error = anyhow!("the preset {name} has no form for this scheme");
        Failure::usage(error).hint(hint)
    })?;
    if !args.json {
        return Ok(format!("# {}\n{}", preset.about, form.routes));
    }
    let mut json = summary(preset);
    if let Value::Object(map) = &mut json {
        map.insert("version".into(), 1.into());
        map.insert("routes".into(), form.to_json());
    }
    Ok(format!("{json:#}\n"))
}
