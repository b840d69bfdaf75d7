//! What the operator gives to an agent of the file system, and what must not be found by way of it.
//!
//! It reads names and links, and opens no file.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::Args;
use crate::admin::AdminAddress;
use crate::cli::Failure;
use crate::cli::launching::{Chosen, directory, found, not_the_systems, without_logins};
use crate::config::render::TokenRef;
use crate::credential::codex;
use crate::launch::place::local::contents::{find_program, has_users_home};
use crate::launch::place::local::shared::Shared;
use crate::launch::{Host, claim};

/// Directories and files of the host, without symbolic links.
pub(super) struct Given {
    /// The agent's working directory.
    pub(super) workspace: PathBuf,
    /// Its home, where that is kept.
    pub(super) home: Option<PathBuf>,
    /// What else it gets, and whether it may write there.
    pub(super) more: Vec<(PathBuf, bool)>,
    /// Directories of the operator's in reach of the agent, in which it can change nothing.
    pub(super) pinned: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    readable: Vec<PathBuf>,
    is_boxed: bool,
}

impl Given {
    /// Finds all of it, and refuses what a box must not hold, and the operator's own files where the agent has a say in
    /// what their names lead to.
    pub(super) fn new(args: &Args, host: &Host<'_>) -> Result<Self, Failure> {
        let workspace = args.workspace.as_deref().unwrap_or(Path::new("."));
        let mut given = Self {
            workspace: workspace_of(workspace, !args.no_box)?,
            home: home_of_agent(args.home.as_deref(), host)?,
            more: more(args)?,
            pinned: Vec::new(),
            writable: Vec::new(),
            readable: Vec::new(),
            is_boxed: !args.no_box,
        };
        given.writable.push(given.workspace.clone());
        given.writable.extend(given.home.clone());
        for (path, writable) in &given.more {
            let list = if *writable {
                &mut given.writable
            } else {
                &mut given.readable
            };
            list.push(path.clone());
        }
        if !given.is_boxed {
            return Ok(given);
        }
        let runtime = claim::directory_of_all(host);
        let runtime = real_parent(&runtime);
        // Each as it was named, beside what that led to when it was looked up for the box.
        let more = args.ro_bind.iter().chain(&args.bind).map(PathBuf::as_path);
        let more = more.zip(given.more.iter().map(|(real, _)| real));
        let home = args.home.as_deref().zip(given.home.as_ref());
        let all = [(workspace, &given.workspace)].into_iter().chain(home);
        for (path, real) in all.chain(more) {
            if let Some(why) = given.shared().refusal(path, real, runtime.as_deref()) {
                let error = anyhow!("{} cannot be given to the agent: {why}", path.display());
                return Err(Failure::usage(error)
                    .hint("name a directory of a project, or one that is made for the agent"));
            }
        }
        given.keep_out(args)?;
        Ok(given)
    }

    /// What the operator should hear.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.pinned.iter().map(|path| {
            let path = path.display();
            format!("{path} is in the workspace, and read-only to the agent for this run")
        })
    }

    fn shared(&self) -> Shared<'_> {
        Shared {
            writable: &self.writable,
            readable: &self.readable,
        }
    }

    /// The files that the operator names on the command line.
    fn keep_out(&mut self, args: &Args) -> Result<(), Failure> {
        let admin = match args.admin.as_deref().map(str::parse) {
            Some(Ok(AdminAddress::Unix(path))) => Some(path),
            _ => None,
        };
        for (what, path) in [
            ("the manifest", args.manifest.as_ref()),
            ("the agents file", args.agents.as_ref()),
        ] {
            if let Some(path) = path.filter(|path| self.shared().decides(path)) {
                let directory = plain(path).and_then(|real| Some(real.parent()?.to_owned()));
                let below = |path: &PathBuf| !self.writable.contains(path);
                let directory = directory.filter(below);
                self.pinned
                    .push(directory.ok_or_else(|| in_reach(what, path))?);
            }
        }
        let files = [
            ("the sidecar's log", args.log.as_ref()),
            ("the admin socket", admin.as_ref()),
        ];
        let files = files
            .into_iter()
            .filter_map(|(what, path)| Some((what, path?)));
        let roots = args.upstream_ca.iter();
        let roots = roots.map(|path| ("a certificate for upstreams", path));
        for (what, path) in files.chain(roots) {
            if self.shared().decides(path) {
                return Err(in_reach(what, path));
            }
        }
        Ok(())
    }

    /// What the bottle and the agent name: programs that are run, files whose contents go to the sidecar or to the agent.
    pub(super) fn keep_out_of(&self, chosen: &Chosen, host: &Host<'_>) -> Result<(), Failure> {
        if !self.is_boxed {
            return Ok(());
        }
        for slot in chosen.bottle.render()?.slots {
            match &slot.reference {
                TokenRef::Variable(_) => {}
                TokenRef::File(path) => {
                    let path = host.expand(path).unwrap_or_else(|| path.clone());
                    if self.shared().shows(&path) {
                        return Err(in_reach("a credential", &path));
                    }
                }
                TokenRef::Command(_) if !self.pinned.is_empty() => {
                    let error = anyhow!(
                        "the manifest is in the workspace, where another agent could have written it, and has a program \
                         run on this machine ({})",
                        slot.reference
                    );
                    return Err(Failure::usage(error).hint(KEEP_OUTSIDE));
                }
                TokenRef::Command(words) => self.keep_out_command(words)?,
                TokenRef::CodexHost => {
                    if let Some(path) = codex::locate(host.env)
                        .ok()
                        .filter(|path| self.shared().shows(path))
                    {
                        return Err(in_reach("the host's Codex login", &path));
                    }
                }
            }
        }
        for source in chosen.sources() {
            let path = host.expand(source).unwrap_or_else(|| source.to_owned());
            if self.shared().decides(&path) {
                return Err(in_reach("a file that is copied for the agent", &path));
            }
        }
        Ok(())
    }

    /// The program, and the files among its arguments, such as the script of an interpreter.
    fn keep_out_command(&self, words: &[String]) -> Result<(), Failure> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = words
            .first()
            .and_then(|program| find_program(program, &path));
        // One that cannot be run today may be tomorrow.
        let named = words.iter().take(1).filter(|program| program.contains('/'));
        let files = named.chain(words.iter().skip(1)).map(PathBuf::from);
        let files = files.filter(|path| path.symlink_metadata().is_ok());
        for path in program.into_iter().chain(files) {
            if self.shared().decides(&path) {
                return Err(in_reach("what gives a credential", &path));
            }
        }
        Ok(())
    }
}

/// What the operator adds, and whether the agent may write there.
fn more(args: &Args) -> Result<Vec<(PathBuf, bool)>, Failure> {
    let with = |option, writable| {
        move |path: &PathBuf| {
            let path = found(option, path)?;
            if !args.no_box {
                let hint = "name the directories and files that the agent needs, one by one";
                without_logins(&path).map_err(|failure| failure.hint(hint))?;
            }
            Ok((path, writable))
        }
    };
    let read = args.ro_bind.iter().map(with("--ro-bind", false));
    read.chain(args.bind.iter().map(with("--bind", true)))
        .collect()
}

fn in_reach(what: &str, path: &Path) -> Failure {
    let error = anyhow!(
        "{what}, {}, is in reach of the agent, which could change it or put a link in its place",
        path.display()
    );
    Failure::usage(error).hint(KEEP_OUTSIDE)
}

const KEEP_OUTSIDE: &str = "keep it outside of the workspace and of what else the agent is given, for instance in ~/.config/egress; \
     a manifest without programs may stand in a directory of its own below the workspace";

/// A path without symbolic links, where it has none.
fn plain(path: &Path) -> Option<PathBuf> {
    let real = path.canonicalize().ok()?;
    (std::path::absolute(path).ok()? == real).then_some(real)
}

/// The working directory, without symbolic links, and without the host's logins in it.
fn workspace_of(named: &Path, is_boxed: bool) -> Result<PathBuf, Failure> {
    let workspace = directory("--workspace", named)?;
    if is_boxed {
        not_the_systems(&workspace)?;
        without_logins(&workspace)?;
    }
    Ok(workspace)
}

/// The directory that is kept as the agent's home. Never the user's own, in a box or not: the agent could read all of it,
/// and its dummy login would be written over the real one.
fn home_of_agent(named: Option<&Path>, host: &Host<'_>) -> Result<Option<PathBuf>, Failure> {
    let Some(named) = named else {
        return Ok(None);
    };
    let home = directory("--home", named)?;
    let login = codex::locate(host.env)
        .ok()
        .and_then(|path| path.canonicalize().ok());
    let error = if has_users_home(&home) {
        anyhow!("--home {}: it is or has your home", home.display())
    } else if let Some(login) = login.filter(|login| login.starts_with(&home)) {
        let login = login.display();
        anyhow!("--home {}: your own login {login} is in it", home.display())
    } else {
        return Ok(Some(home));
    };
    Err(Failure::usage(error).hint(
        "name a directory that is the agent's alone, such as one that you make with `mkdir -p ~/.local/share/agent-home`",
    ))
}

/// A path that need not be there yet, with the links on the way to it followed.
fn real_parent(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?.canonicalize().ok()?;
    Some(parent.join(path.file_name()?))
}
