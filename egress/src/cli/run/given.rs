//! What the operator gives to an agent of the file system, and what must not be found by way of it.
//!
//! It reads names and links, and opens no file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use rustix::fs::{Access, access};

use super::Args;
use crate::admin::AdminAddress;
use crate::cli::Failure;
use crate::cli::launching::Chosen;
use crate::cli::launching::reach::{Trust, in_reach, keep_out_of};
use crate::credential::codex;
use crate::launch::place::local::contents::{has_users_home, is_systems_own, secret_inside};
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
            home: home(args, host)?,
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
            ("the manifest", args.sources.manifest.as_ref()),
            ("the agents file", args.sources.agents.as_ref()),
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
            ("the audit file", args.audit.as_ref()),
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

    /// What the bottle and the agent name.
    pub(super) fn keep_out_of(&self, chosen: &Chosen, host: &Host<'_>) -> Result<(), Failure> {
        if !self.is_boxed {
            return Ok(());
        }
        let trust = if self.pinned.is_empty() {
            Trust::Whole
        } else {
            Trust::NoPrograms
        };
        keep_out_of(&self.shared(), trust, chosen, host)
    }
}

/// What the operator adds, and whether the agent may write there.
fn more(args: &Args) -> Result<Vec<(PathBuf, bool)>, Failure> {
    let with = |option, writable| {
        move |path: &PathBuf| Ok((harmless(canonical(option, path)?)?, writable))
    };
    let read = args.ro_bind.iter().map(with("--ro-bind", false));
    let write = args.bind.iter().map(with("--bind", true));
    read.chain(write).collect()
}

/// A path without symbolic links, where it has none.
fn plain(path: &Path) -> Option<PathBuf> {
    let real = path.canonicalize().ok()?;
    (std::path::absolute(path).ok()? == real).then_some(real)
}

/// The working directory, without symbolic links, and without the host's logins in it.
fn workspace_of(named: &Path, is_boxed: bool) -> Result<PathBuf, Failure> {
    let workspace = directory("--workspace", named)?;
    if !is_boxed {
        return Ok(workspace);
    }
    let hint = "start in the directory of a project, or name one with --workspace DIR";
    if is_systems_own(&workspace) {
        let error = anyhow!(
            "the agent would work in {}, which belongs to the system",
            workspace.display()
        );
        return Err(Failure::usage(error).hint(hint));
    }
    harmless(workspace).map_err(|failure| failure.hint(hint))
}

/// The directory that is kept as the agent's home. Never the user's own: the agent could read all of it, and its dummy
/// login would be written over the real one.
fn home(args: &Args, host: &Host<'_>) -> Result<Option<PathBuf>, Failure> {
    let Some(home) = &args.home else {
        return Ok(None);
    };
    let home = directory("--home", home)?;
    let login = codex::locate(host.env)
        .ok()
        .and_then(|path| path.canonicalize().ok());
    let error = if has_users_home(&home) {
        anyhow!("--home {}: that is your own home", home.display())
    } else if let Some(login) = login.filter(|login| login.starts_with(&home)) {
        let login = login.display();
        anyhow!("--home {}: your own login {login} is in it", home.display())
    } else {
        return Ok(Some(home));
    };
    Err(Failure::usage(error)
        .hint("name a directory that is the agent's alone, such as one that you make with `mkdir -p ~/.local/share/agent-home`"))
}

/// A path that need not be there yet, with the links on the way to it followed.
fn real_parent(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?.canonicalize().ok()?;
    Some(parent.join(path.file_name()?))
}

/// Refuses a path that has one of the host's logins in it.
fn harmless(path: PathBuf) -> Result<PathBuf, Failure> {
    match secret_inside(&path) {
        Some(secret) => {
            let error = if secret == path {
                anyhow!(
                    "the agent would get {}, which is your home or a login",
                    path.display()
                )
            } else {
                let (path, secret) = (path.display(), secret.display());
                anyhow!("the agent would get {path}, and {secret} is in it")
            };
            Err(Failure::usage(error).hint("name the directories that the agent needs, one by one"))
        }
        None => Ok(path),
    }
}

fn directory(option: &str, path: &Path) -> Result<PathBuf, Failure> {
    let found = canonical(option, path)?;
    let error = if !found.is_dir() {
        anyhow!("{option} {}: not a directory", path.display())
    } else if access(&found, Access::READ_OK | Access::EXEC_OK).is_err() {
        anyhow!("{option} {}: you may not enter it", found.display())
    } else {
        return Ok(found);
    };
    Err(Failure::usage(error).hint("name a directory of yours"))
}

/// A path without symbolic links.
fn canonical(option: &str, path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    let found = path
        .canonicalize()
        .with_context(|| format!("{option} {shown}: cannot be found"))
        .map_err(|error| Failure::usage(error).hint("name what is there, or make it first"))?;
    if found.to_str().is_none() {
        let error = anyhow!("{option} {}: the name is not UTF-8", found.display());
        return Err(Failure::usage(error).hint("rename it"));
    }
    Ok(found)
}
