//! One launch: from its arguments to the end of the machine and of its sidecar.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};

use super::Args;
use super::way::Way;
use crate::cli::Failure;
use crate::cli::launching::reach::keep_out_of_workspace;
use crate::cli::launching::watch::{AtWork, watch};
use crate::cli::launching::{self, Chosen, given_variables, prepared, without_logins};
use crate::launch::agent::{Agent, HomeFile, Setting};
use crate::launch::place::local::contents::terminal;
use crate::launch::place::smolvm::{
    BUNDLE, Contents, Error, Machine, PROXY, Plan, Reach, WORKSPACE,
};
use crate::launch::prepare::Prepared;
use crate::launch::sidecar::{Sidecar, Start, audit_arguments};
use crate::launch::variables::{AgentPath, ProxyUrl, variables, without_proxy};
use crate::launch::{Host, bundle};

/// Runs an agent to its end.
pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    // Before any other thread runs, and before anything is started.
    crate::os::keep_descriptors().map_err(Failure::runtime)?;
    let workspace = workspace(args.workspace.as_deref().unwrap_or(Path::new(".")))?;
    launching::absolute_home(&args.agent_home)?;
    launching::drive(async |stops| {
        let ready = match stops.before(Session::begin(&args, &workspace)).await {
            Ok(ready) => ready?,
            // What was begun is dropped, and goes with it.
            Err(number) => return Ok(128 + number),
        };
        let Session {
            machine,
            sidecar,
            prepared,
            agent,
        } = ready;
        watch(machine, sidecar, &prepared, &agent, stops).await
    })
}

/// An agent at work. The machine goes before its sidecar, and the bottle is let go last.
struct Session {
    machine: Machine,
    sidecar: Sidecar,
    prepared: Prepared,
    agent: Agent,
}

impl Session {
    /// Starts everything. Dropped half-way it leaves nothing behind.
    async fn begin(args: &Args, workspace: &Path) -> Result<Self, Failure> {
        let chosen = Chosen::new(args.agent.as_deref(), &args.sources)?;
        let host = Host::this();
        let own = [
            ("the sidecar's log", args.log.as_deref()),
            ("the audit file", args.audit.as_deref()),
        ];
        keep_out_of_workspace(workspace, &args.sources, &own, &chosen, &host)?;
        let prepared = prepared(&chosen).await?;
        let directory = prepared.directory().to_owned();
        let name = args
            .name
            .clone()
            .unwrap_or_else(|| machine_name(&prepared.name));
        let plan = args.plan(&name, workspace, &directory);
        let machine = Machine::plan(&args.smolvm, args.state_dir.as_deref(), &plan)?;

        let agent = chosen.agent(&Setting {
            host,
            home: &args.agent_home,
            workspace: Path::new(WORKSPACE),
            routes: Some(&prepared.routes),
            roles: &prepared.roles,
            handed: Some(&prepared.handed),
        })?;
        for note in &agent.notes {
            eprintln!("note: {note}");
        }
        let command = match chosen.command(&agent, &args.command) {
            command if command.is_empty() => agent.command.clone(),
            command => command,
        };
        if command.is_empty() {
            return Err(Failure::usage(anyhow!(
                "the bottle's agent is a custom one, and no command is given"
            ))
            .hint("write the command after `--`"));
        }
        let environment = args.environment(&agent, &prepared, machine.reach())?;

        let way = Way::open(machine.reach(), &directory)?;
        let routes = prepared.routes_file();
        let sidecar = Sidecar::start(args.sidecar(&prepared, &routes, &way)?).await?;
        let certificate = bundle::pem(sidecar.certificate());
        let (text, unread) = bundle::text(&certificate)
            .map_err(|error| Failure::runtime(error).hint(error.hint()))?;
        for error in unread {
            eprintln!("warning: a root certificate cannot be read: {error}");
        }
        let mut session = Self {
            machine,
            sidecar,
            prepared,
            agent,
        };
        let contents = Contents {
            agent: &session.agent,
            certificate: &certificate,
            bundle: &text,
            environment: &environment,
        };
        let machine = &mut session.machine;
        machine.create(&plan, &session.prepared.routes, way.mounted())?;
        machine.start(way.interceptor()).await?;
        // A sidecar that ends now would leave the machine without any way out, and the launch without a reason.
        let settled = async {
            let notes = machine.settle(&contents).await?;
            if way.mounted().is_some() {
                let program = std::env::current_exe()
                    .map_err(|source| Error::Io("/proc/self/exe".into(), source))?;
                machine.relay(&program).await?;
            }
            machine.test(&contents).await?;
            Ok::<_, Error>(notes)
        };
        let notes = tokio::select! {
            settled = settled => settled?,
            ended = session.sidecar.ended() => return Err(launching::sidecar_ended(&ended)),
        };
        for note in notes {
            eprintln!("warning: {note}");
        }
        session.machine.begin(&environment, &command)?;
        Ok(session)
    }
}

impl AtWork for Machine {
    type Rest = ();

    async fn ended(&mut self) -> Result<i32, Failure> {
        Self::ended(self).await.map_err(Failure::from)
    }

    async fn signal(&self, number: i32) {
        Self::signal(self, number);
    }

    fn has_keys(&self) -> bool {
        terminal().is_some()
    }

    async fn write(&self, file: &HomeFile) -> Result<(), Failure> {
        Self::write(self, file).await.map_err(Failure::from)
    }

    async fn close(self) -> Result<(), Failure> {
        Self::close(self).await.map_err(Failure::from)
    }
}

impl Args {
    fn plan<'a>(&'a self, name: &'a str, workspace: &'a Path, staging: &'a Path) -> Plan<'a> {
        let mut arguments = Vec::new();
        for (flag, value) in [("--cpus", self.cpus), ("--mem", self.mem)] {
            arguments.extend(
                value
                    .into_iter()
                    .flat_map(|value| [flag.into(), value.to_string()]),
            );
        }
        Plan {
            name,
            image: &self.image,
            workspace,
            user: &self.user,
            home: &self.agent_home,
            staging,
            arguments,
        }
    }

    fn sidecar<'a>(
        &self,
        prepared: &Prepared,
        routes: &'a Path,
        way: &Way,
    ) -> Result<Start<'a>, Failure> {
        let mut arguments: Vec<OsString> = vec!["--ca-ephemeral".into()];
        for path in &self.upstream_ca {
            arguments.extend(["--upstream-ca".into(), path.into()]);
        }
        if let Some(address) = &self.admin {
            arguments.extend(["--admin".into(), address.into()]);
        }
        if let Some(file) = &self.audit {
            arguments.extend(audit_arguments(file, &prepared.name));
        }
        Ok(Start {
            routes,
            sockets: vec![way.socket().map_err(Failure::runtime)?],
            arguments,
            slots: way.slots(&prepared.handed),
            log: self.log.clone(),
        })
    }

    /// The agent's environment: nothing of the host's comes in unnamed.
    fn environment(
        &self,
        agent: &Agent,
        prepared: &Prepared,
        reach: Reach,
    ) -> Result<Vec<(String, String)>, Failure> {
        let text = |name: &str| std::env::var(name).ok();
        let passed = PASSED
            .iter()
            .filter_map(|name| Some(((*name).into(), text(name)?)));
        let mut environment: Vec<(String, String)> = passed.collect();
        let home = self.agent_home.display().to_string();
        for (name, value) in [
            ("HOME", &home),
            ("USER", &self.user),
            ("LOGNAME", &self.user),
        ] {
            environment.push((name.into(), value.clone()));
        }
        let bundle = AgentPath::new(Path::new(BUNDLE))
            .context("a plain path")
            .map_err(Failure::runtime)?;
        let routes = Some(&prepared.routes);
        let found = match reach {
            Reach::Interceptor => without_proxy(&bundle, routes),
            Reach::Socket => {
                let proxy = ProxyUrl::parse(PROXY).map_err(Failure::runtime)?;
                variables(&proxy, &bundle, routes)
            }
        };
        environment.extend(found.into_iter().map(|(name, value)| (name.into(), value)));
        environment.extend(agent.environment.iter().cloned());
        environment.extend(given_variables(&self.env)?);
        Ok(environment)
    }
}

/// What the agent may know of the environment that it was launched from. The machine has paths of its own.
const PASSED: [&str; 9] = [
    "TERM",
    "COLORTERM",
    "TERM_PROGRAM",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "NO_COLOR",
    "FORCE_COLOR",
];

/// A machine's name from a bottle's: letters, digits, `-` and `_`, which is all that the engine takes.
fn machine_name(bottle: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '-'
        }
    };
    let name: String = bottle.chars().map(plain).take(100).collect();
    format!("egress-{}", name.trim_matches('-'))
}

/// The directory that the agent works in, without the host's logins in it.
fn workspace(path: &Path) -> Result<PathBuf, Failure> {
    let found = path
        .canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))
        .map_err(|error| Failure::usage(error).hint("name a directory with --workspace DIR"))?;
    if !found.is_dir() {
        let error = anyhow!("{} is no directory", found.display());
        return Err(Failure::usage(error).hint("name a directory with --workspace DIR"));
    }
    without_logins(&found)?;
    Ok(found)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = error.hint();
        match error {
            Error::Missing(_) | Error::Path(_) => Self::usage(error).hint(hint),
            error => Self::runtime(error).hint(hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::machine_name;

    #[test]
    fn every_bottle_has_a_name_that_the_engine_takes() {
        assert_eq!(machine_name("dev"), "egress-dev");
        assert_eq!(machine_name("Dev 1/é."), "egress-Dev-1");
        assert_eq!(machine_name(&"x".repeat(300)).len(), 107);
    }
}
