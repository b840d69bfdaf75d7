//! What must not be in reach of an agent: whatever decides what is run, read or written on this machine, now or at the next
//! launch.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::{Chosen, Sources};
use crate::cli::Failure;
use crate::config::render::TokenRef;
use crate::credential::codex;
use crate::launch::Host;
use crate::launch::place::local::contents::find_program;
use crate::launch::place::local::shared::Shared;

/// How far a manifest is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Trust {
    /// It is the operator's alone.
    Whole,
    /// An agent could have written it: it may not have programs run.
    NoPrograms,
}

/// Refuses files of the operator's in a workspace that a container or a machine shares: what runs there can replace them. `own`
/// are those of this place alone, each with what it is.
pub(in crate::cli) fn keep_out_of_workspace(
    workspace: &Path,
    sources: &Sources,
    own: &[(&str, Option<&Path>)],
    chosen: &Chosen,
    host: &Host<'_>,
) -> Result<(), Failure> {
    let writable = [workspace.to_owned()];
    let shared = Shared {
        writable: &writable,
        readable: &[],
    };
    let files = [
        ("the manifest", sources.manifest.as_deref()),
        ("the agents file", sources.agents.as_deref()),
    ];
    for (what, path) in files.iter().chain(own) {
        if let Some(path) = path.filter(|path| shared.decides(path)) {
            return Err(in_reach(what, path));
        }
    }
    keep_out_of(&shared, Trust::Whole, chosen, host)
}

/// Refuses what the bottle and the agent name in there: programs that are run, files whose contents go to the sidecar or to
/// the agent.
pub(in crate::cli) fn keep_out_of(
    shared: &Shared<'_>,
    trust: Trust,
    chosen: &Chosen,
    host: &Host<'_>,
) -> Result<(), Failure> {
    for slot in chosen.bottle.render()?.slots {
        match &slot.reference {
            TokenRef::Variable(_) => {}
            TokenRef::File(path) => {
                let path = host.expand(path).unwrap_or_else(|| path.clone());
                if shared.shows(&path) {
                    return Err(in_reach("a credential", &path));
                }
            }
            TokenRef::Command(_) if trust == Trust::NoPrograms => {
                let error = anyhow!(
                    "the manifest is in the workspace, where another agent could have written it, and has a program run \
                     on this machine ({})",
                    slot.reference
                );
                return Err(Failure::usage(error).hint(KEEP_OUTSIDE));
            }
            TokenRef::Command(words) => command(shared, words)?,
            TokenRef::CodexHost => {
                if let Some(path) = codex::locate(host.env)
                    .ok()
                    .filter(|path| shared.shows(path))
                {
                    return Err(in_reach("the host's Codex login", &path));
                }
            }
        }
    }
    for source in chosen.sources() {
        let path = host.expand(source).unwrap_or_else(|| source.to_owned());
        if shared.decides(&path) {
            return Err(in_reach("a file that is copied for the agent", &path));
        }
    }
    Ok(())
}

/// The program, and the files among its arguments, such as the script of an interpreter.
fn command(shared: &Shared<'_>, words: &[String]) -> Result<(), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = words
        .first()
        .and_then(|program| find_program(program, &path));
    // One that cannot be run today may be tomorrow.
    let named = words.iter().take(1).filter(|program| program.contains('/'));
    let files = named.chain(words.iter().skip(1)).map(PathBuf::from);
    let files = files.filter(|path| path.symlink_metadata().is_ok());
    for path in program.into_iter().chain(files) {
        if shared.decides(&path) {
            return Err(in_reach("what gives a credential", &path));
        }
    }
    Ok(())
}

/// The refusal of one file.
pub(in crate::cli) fn in_reach(what: &str, path: &Path) -> Failure {
    let error = anyhow!(
        "{what}, {}, is in reach of the agent, which could change it or put a link in its place",
        path.display()
    );
    Failure::usage(error).hint(KEEP_OUTSIDE)
}

const KEEP_OUTSIDE: &str = "keep it outside of the workspace and of what else the agent is given, for instance in \
    ~/.config/egress; for `egress run`, a manifest without programs may stand in a directory of its own below the workspace";
