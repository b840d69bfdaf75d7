//! What the operator gives to an agent of the file system, and what must not be found by way of it.
//!
//! It reads names and links, and opens no file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::Args;
use crate::admin::AdminAddress;
use crate::cli::Failure;
use crate::cli::launching::reach::{Trust, in_reach, keep_out_of};
use crate::cli::launching::{Chosen, without_logins};
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
            home: args.home.as_deref().map(canonical).transpose()?,
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
    let with = |writable| move |path: &PathBuf| canonical(path).map(|path| (path, writable));
    let read = args.ro_bind.iter().map(with(false));
    read.chain(args.bind.iter().map(with(true))).collect()
}

/// A path without symbolic links, where it has none.
fn plain(path: &Path) -> Option<PathBuf> {
    let real = path.canonicalize().ok()?;
    (std::path::absolute(path).ok()? == real).then_some(real)
}

/// The working directory, without symbolic links, and without the host's logins in it.
fn workspace_of(named: &Path, is_boxed: bool) -> Result<PathBuf, Failure> {
    let workspace = canonical(named)?;
    if is_boxed {
        without_logins(&workspace)?;
    }
    Ok(workspace)
}

/// A path that need not be there yet, with the links on the way to it followed.
fn real_parent(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?.canonicalize().ok()?;
    Some(parent.join(path.file_name()?))
}

pub(super) fn canonical(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))
        .map_err(Failure::usage)
}
