//! What the arguments of a run come to: the sidecar's start, and the agent's environment.

use std::ffi::OsString;
use std::path::Path;

use anyhow::anyhow;

use super::Args;
use crate::cli::Failure;
use crate::cli::launching::given_variables;
use crate::launch::agent::Agent;
use crate::launch::place::local::contents::find_program;
use crate::launch::place::local::{self, Sockets};
use crate::launch::prepare::Prepared;
use crate::launch::sidecar::{Start, audit_arguments};
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
        if let Some(file) = &self.audit {
            arguments.extend(audit_arguments(file, &prepared.name));
        }
        Start {
            routes,
            sockets,
            arguments,
            slots: prepared.handed.line(),
            log: self.log.clone(),
        }
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
