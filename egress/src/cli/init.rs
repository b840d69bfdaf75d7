//! `egress init`: a manifest to begin with. What is written has been read back, and is never written over a file.
//!
//! Exit: 0 done, 2 usage or configuration, 3 runtime.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::ValueEnum;

use super::{Failure, output, print};
use crate::config::manifest;
use crate::config::presets::{self, Preset};

/// Write a manifest to begin with
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The agent that it is for
    #[arg(long, value_enum, default_value_t = Agent::Codex)]
    agent: Agent,
    /// Further presets, such as npm; `egress presets` lists them
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    preset: Vec<String>,
    /// Write it here, where there is no file yet, and not to stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// An agent, as a manifest's `template` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Agent {
    Codex,
    Claude,
    Gemini,
    Opencode,
    /// Any other
    Custom,
}

const EXAMPLES: &str = "\
Examples:
  egress init -o bottle.yaml                                 # for Codex, with your login
  egress init --agent claude --preset github-read,npm -o bottle.yaml
  egress init --agent custom --preset pypi | egress check -

Next: egress check bottle.yaml, and egress run -m bottle.yaml codex.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let own = presets::find(args.agent.name());
    let mut chosen: Vec<&Preset> = own.into_iter().collect();
    for name in &args.preset {
        let preset = presets::find(name).ok_or_else(|| {
            Failure::usage(anyhow!("there is no preset {name:?}"))
                .hint(format!("one of {}", presets::names().join(", ")))
        })?;
        if !chosen.iter().any(|known| known.name == preset.name) {
            chosen.push(preset);
        }
    }
    let file = args
        .output
        .as_deref()
        .filter(|path| *path != Path::new("-"));
    let name = file.map_or("bottle.yaml".into(), |path| path.display().to_string());
    let text = text(args.agent, &chosen, &name);
    // Presets may stand in each other's way, which is told as a fault of the file that they would make.
    manifest::parse(&name, &text, Path::new("."))?
        .bottle(None)?
        .render()?;
    match file {
        None => print(&text)?,
        Some(path) if path.symlink_metadata().is_ok() => {
            let error = anyhow!("{} is there already, and is left alone", path.display());
            return Err(Failure::usage(error).hint("name another file with -o, or remove that one"));
        }
        Some(path) => output::write(path, &text, "choose a file in a directory of yours")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(agent: Agent, presets: &[&Preset], file: &str) -> String {
    let name = agent.name();
    let file = shlex::try_quote(file).unwrap_or_else(|_| "bottle.yaml".into());
    let file = match file.contains(char::is_control) {
        true => "bottle.yaml".into(),
        false => file,
    };
    let started = match agent {
        Agent::Custom => "-- COMMAND",
        _ => name,
    };
    let mut text = format!(
        "# What an agent may reach, and where this host has the credentials for it. It names them, and never holds one.\n\
         #\n\
         #   egress check {file}                             # is it right?\n\
         #   egress run -m {file} {started}\n\
         #   egress render-routes -m {file} -o routes.yaml   # the routes file that `egress serve` takes\n\
         #\n\
         # What no route admits is refused; `egress suggest` tells which route was missing.\n\
         \n\
         bottles:\n  dev:\n    agent_provider:\n      template: {name}\n"
    );
    if agent == Agent::Codex {
        text.push_str(
            "      # The host's own login is lent to the agent, which never holds it.\n      forward_host_credentials: true\n",
        );
    }
    text.push_str("    egress:\n");
    text.push_str(match presets.is_empty() {
        true => "      # Nothing yet: everything is refused. Remove the brackets with the first route.\n      routes: []\n",
        false => "      routes:\n",
    });
    for preset in presets {
        text.push_str(&format!(
            "        # {}.\n        - preset: {}\n",
            preset.about, preset.name
        ));
        if let Some(token_ref) = token_ref(preset.name) {
            text.push_str(&format!(
                "          # A variable of this host; `file:PATH` and `cmd:PROGRAM ARGUMENT...` work, too.\n          \
                 auth: {{token_ref: {token_ref}}}\n"
            ));
        }
        text.push('\n');
    }
    text.push_str(
        "        # A host of your own: what is left out of `path_allowlist` and `methods` is refused.\n        \
         # - host: api.example.com\n        \
         #   path_allowlist: [/v1/]\n        \
         #   methods: [GET, POST]\n        \
         #   auth: {scheme: Bearer, token_ref: EXAMPLE_TOKEN}\n",
    );
    text.push_str(&format!("\nagents:\n  {name}: {{bottle: dev}}\n"));
    text
}

/// The variable in which a host usually has the credential for a preset that takes one.
fn token_ref(preset: &str) -> Option<&'static str> {
    Some(match preset {
        "claude" => "CLAUDE_TOKEN",
        "gemini" => "GEMINI_API_KEY",
        "opencode" => "ANTHROPIC_API_KEY",
        "github-read" | "mise" => "GH_PAT",
        _ => return None,
    })
}

impl Agent {
    fn name(self) -> &'static str {
        match self {
            Self::Codex => "codex",
            Self::Claude => "claude",
            Self::Gemini => "gemini",
            Self::Opencode => "opencode",
            Self::Custom => "custom",
        }
    }
}
