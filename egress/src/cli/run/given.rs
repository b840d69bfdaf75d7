//! What the arguments of a run come to: the sidecar's start, the agent's environment, and what of the host it is given.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use rustix::fs::{Access, access};

use super::Args;
use crate::cli::Failure;
use crate::cli::launching::given_variables;
use crate::credential::codex;
use crate::launch::Host;
use crate::launch::agent::Agent;
use crate::launch::place::local::contents::{
    find_program, has_users_home, is_systems_own, secret_inside,
};
use crate::launch::place::local::{self, Sockets};
use crate::launch::prepare::Prepared;
use crate::launch::sidecar::Start;
use crate::launch::variables::{AgentPath, ProxyUrl, variables};

impl Args {
    /// How the sidecar is started; without sockets it listens by itself.
    pub(super) fn sidecar<'a>(
        &self,
        prepared: &Prepared,
        routes: &'a Path,
        sockets: Sockets,
    ) -> Start<'a> {
        let mut arguments: Vec<OsString> = vec!["--ca-ephemeral".into()];
        if sockets.is_empty() {
            arguments.extend(["--listen".into(), "127.0.0.1:0".into()]);
        } else {
            arguments.extend(["--dns-answer".into(), local::SIDECAR.to_string().into()]);
        }
        for path in &self.upstream_ca {
            arguments.extend(["--upstream-ca".into(), path.into()]);
        }
        if let Some(address) = &self.admin {
            arguments.extend(["--admin".into(), address.into()]);
        }
        Start {
            routes,
            sockets,
            arguments,
            slots: prepared.handed.line(),
            log: self.log.clone(),
        }
    }

    /// What else of the host the agent is given, and whether it may write there.
    pub(super) fn more(&self) -> Result<Vec<(PathBuf, bool)>, Failure> {
        let with = |option, writable| {
            move |path: &PathBuf| Ok((harmless(canonical(option, path)?)?, writable))
        };
        let read = self.ro_bind.iter().map(with("--ro-bind", false));
        read.chain(self.bind.iter().map(with("--bind", true)))
            .collect()
    }

    /// The agent's whole environment: nothing of the host's comes in unnamed.
    pub(super) fn environment(
        &self,
        agent: &Agent,
        prepared: &Prepared,
        home: &Path,
        bundle: &Path,
        proxy: &str,
    ) -> Result<Vec<(String, String)>, Failure> {
        let text = |name: &str| std::env::var(name).ok();
        let mut environment: Vec<(String, String)> = PASSED
            .iter()
            .filter_map(|name| Some(((*name).into(), text(name)?)))
            .collect();
        let home = home.display().to_string();
        for (name, value) in [
            ("HOME", home.as_str()),
            ("USER", "agent"),
            ("LOGNAME", "agent"),
        ] {
            environment.push((name.into(), value.into()));
        }
        let proxy = ProxyUrl::parse(proxy).map_err(Failure::runtime)?;
        let bundle = AgentPath::new(bundle)
            .ok_or_else(|| Failure::usage(anyhow!("{}: not a plain path", bundle.display())))?;
        let found = variables(&proxy, &bundle, Some(&prepared.routes));
        environment.extend(found.into_iter().map(|(name, value)| (name.into(), value)));
        environment.extend(agent.environment.iter().cloned());
        environment.extend(given_variables(&self.env)?);
        Ok(environment)
    }
}

/// What the agent may know of the environment that it was launched from.
const PASSED: [&str; 14] = [
    "PATH",
    "TERM",
    "COLORTERM",
    "TERM_PROGRAM",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "NO_COLOR",
    "FORCE_COLOR",
    "COLUMNS",
    "LINES",
    "EDITOR",
];

/// Refuses a program that `PATH` does not have. One that is given by its path may stand in the box alone.
pub(super) fn is_installed(command: &[String], agent: &Agent) -> Result<(), Failure> {
    let name = command.first().map_or("", String::as_str);
    let path = std::env::var_os("PATH").unwrap_or_default();
    if name.contains('/') || find_program(name, &path).is_some() {
        return Ok(());
    }
    let error = Failure::usage(anyhow!(
        "there is no program `{name}` in the directories of PATH"
    ));
    Err(match &agent.install {
        Some(install) if agent.command.first().is_some_and(|own| own == name) => {
            error.hint(format!("install it: {}", install.join(" ")))
        }
        _ => error.hint(
            "install it, or give its path; in the box it needs --ro-bind where it is not in PATH",
        ),
    })
}

/// The working directory, without symbolic links, and without the host's logins in it.
pub(super) fn workspace(args: &Args) -> Result<PathBuf, Failure> {
    let workspace = directory(
        "--workspace",
        args.workspace.as_deref().unwrap_or(Path::new(".")),
    )?;
    if args.no_box {
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
pub(super) fn home(args: &Args, host: &Host<'_>) -> Result<Option<PathBuf>, Failure> {
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
