//! What `egress run` and `egress launch` share: which bottle and agent are meant, and how a launch's errors are told.

#[cfg(target_os = "linux")]
pub(super) mod reach;
#[cfg(target_os = "linux")]
pub(super) mod stops;
#[cfg(target_os = "linux")]
pub(super) mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::anyhow;
#[cfg(target_os = "linux")]
use rustix::process::WaitOptions;
#[cfg(target_os = "linux")]
use tokio::runtime::Builder;

#[cfg(target_os = "linux")]
use self::stops::Stops;
use super::Failure;
use crate::config::agents::{self, CustomAgent};
use crate::config::manifest::{self, Bottle, Template};
use crate::launch::agent::{self, Agent, Setting};
#[cfg(target_os = "linux")]
use crate::launch::place::local::contents::{is_systems_own, secret_inside};
use crate::launch::prepare::Prepared;
use crate::launch::refusals::Refusals;
use crate::launch::{Host, claim, prepare, resolve, sidecar};

/// Where bottles and agents are described.
#[derive(Debug, clap::Args)]
pub(super) struct Sources {
    /// The manifest [default: without it, the preset of AGENT]
    #[arg(short, long, value_name = "FILE", env = "EGRESS_MANIFEST")]
    pub(super) manifest: Option<PathBuf>,
    /// The bottle of the manifest, by its name or that of an agent in it; needed where there are several
    #[arg(short, long, value_name = "NAME")]
    bottle: Option<String>,
    /// A file of agents of your own [default: $XDG_CONFIG_HOME/egress/agents.yaml, where there is one]
    #[arg(long, value_name = "FILE", env = "EGRESS_AGENTS")]
    pub(super) agents: Option<PathBuf>,
}

/// A bottle, and the agent that works in it.
#[derive(Debug)]
pub(super) struct Chosen {
    /// The bottle.
    pub(super) bottle: Bottle,
    kind: Kind,
    /// Whether the bottle is an agent's preset, without a manifest.
    is_preset: bool,
}

#[derive(Debug)]
enum Kind {
    /// Known here, and named on the command line or not.
    Builtin(Template, Named),
    /// The operator's own.
    Custom(Box<CustomAgent>),
}

/// Whether the agent's own command is run, or the one that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Yes,
    No,
}

impl Chosen {
    /// Finds both. Without a manifest, an agent that is known here brings its own.
    pub(super) fn new(agent: Option<&str>, sources: &Sources) -> Result<Self, Failure> {
        let (manifest, agents) = (sources.manifest.as_deref(), sources.agents.as_deref());
        let bottle = sources.bottle.as_deref();
        let builtin = agent.and_then(template);
        let custom = match (agent, builtin) {
            (Some(name), None) => Some(Box::new(custom(name, agents)?)),
            _ => None,
        };
        if let (None, Some(name)) = (manifest, bottle) {
            let error = anyhow!("--bottle {name}: there is no manifest to have it");
            return Err(Failure::usage(error).hint("name the manifest with --manifest FILE"));
        }
        if let (Some(path), Some(_)) = (agents, builtin) {
            // Nothing of it is used, and a fault in it is none to be passed over.
            agents::read(path)?;
        }
        let bottle = match (manifest, agent) {
            (Some(path), _) => manifest::read(path)?.bottle(bottle)?.clone(),
            (None, Some(name)) if builtin.is_some() => preset(name)?,
            (None, Some(name)) => return Err(no_manifest(&format!("agent `{name}`"))),
            (None, None) => return Err(no_manifest("command")),
        };
        let kind = match (builtin, custom) {
            (_, Some(custom)) => Kind::Custom(custom),
            (Some(template), None) => Kind::Builtin(template, Named::Yes),
            (None, None) => Kind::Builtin(bottle.provider.template, Named::No),
        };
        let is_preset = manifest.is_none();
        Ok(Self {
            bottle,
            kind,
            is_preset,
        })
    }

    /// Refuses a launch that would run nothing.
    pub(super) fn needs_command(&self, given: &[String]) -> Result<(), Failure> {
        if given.is_empty() && matches!(self.kind, Kind::Builtin(_, Named::No)) {
            let error = anyhow!("neither an agent nor a command is given");
            return Err(Failure::usage(error)
                .hint("egress run codex, or egress run --manifest FILE -- COMMAND"));
        }
        Ok(())
    }

    /// The agent, with its files.
    pub(super) fn agent(&self, setting: &Setting<'_>) -> Result<Agent, Failure> {
        let mut agent = match &self.kind {
            Kind::Builtin(template, _) => Agent::builtin(*template, setting),
            Kind::Custom(custom) => Agent::custom(custom, setting),
        }?;
        if self.is_preset {
            agent.notes.extend(without_credential(&agent.name));
        }
        Ok(agent)
    }

    /// The files of the host that are copied for the agent.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Path> {
        let custom = match &self.kind {
            Kind::Custom(custom) => Some(custom),
            Kind::Builtin(..) => None,
        };
        let credentials = custom.into_iter().flat_map(|custom| &custom.credentials);
        credentials.map(|credential| credential.source.as_path())
    }

    /// What is run.
    pub(super) fn command(&self, agent: &Agent, given: &[String]) -> Vec<String> {
        let own = match self.kind {
            Kind::Builtin(_, Named::No) => &[][..],
            _ => &agent.command,
        };
        own.iter().chain(given).cloned().collect()
    }
}

/// Takes the bottle and looks its credentials up. That may wait for programs, so signals are seen to meanwhile.
pub(super) async fn prepared(chosen: &Chosen) -> Result<Prepared, Failure> {
    let mut number = 1;
    loop {
        let mut bottle = chosen.bottle.clone();
        if number > 1 {
            bottle.name = format!("{}-{number}", bottle.name);
        }
        let prepared = tokio::task::spawn_blocking(move || Prepared::new(&bottle, &Host::this()));
        match prepared.await.map_err(Failure::runtime)? {
            // A bottle that nobody wrote is not anybody's to hold: several projects may each have one.
            Err(prepare::Error::Claim(claim::Error::Taken { .. }))
                if chosen.is_preset && number < MOST_OF_A_PRESET =>
            {
                number += 1;
            }
            other => return Ok(other?),
        }
    }
}

/// How many launches of an agent without a manifest there may be at a time.
const MOST_OF_A_PRESET: u32 = 1000;

/// Runs a launch on a runtime of its own. At its end a program that a credential is waited for from ends too.
#[cfg(target_os = "linux")]
pub(super) fn drive(
    launch: impl AsyncFnOnce(&mut Stops) -> Result<i32, Failure>,
) -> Result<ExitCode, Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let result = runtime.block_on(async {
        let mut stops = Stops::new().map_err(Failure::runtime)?;
        match launch(&mut stops).await {
            // A key reaches all of the terminal's programs: what failed may have failed of it.
            Err(failure) => match stops.came().await {
                Some(number) => Ok(128 + number),
                None => Err(failure),
            },
            code => code,
        }
    });
    resolve::abandon();
    runtime.shutdown_timeout(ENDING);
    bury();
    result.map(|code| u8::try_from(code).unwrap_or(u8::MAX).into())
}

/// Waits for what was killed when it was dropped: when a launch has ended, so has all that it started.
#[cfg(target_os = "linux")]
fn bury() {
    let begun = Instant::now();
    while begun.elapsed() < ENDING {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => return,
        }
    }
}

/// Programs are killed within milliseconds.
const ENDING: Duration = Duration::from_secs(1);

/// The variables that the operator names for the agent.
pub(super) fn given_variables(given: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut variables = Vec::new();
    for given in given {
        let variable = match given.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => match std::env::var(given) {
                Ok(value) => (given.clone(), value),
                Err(error) => {
                    eprintln!("note: --env {given}: {error}, so the agent has none");
                    continue;
                }
            },
        };
        if variable.0.is_empty() {
            let error = anyhow!("--env {given:?} has no name");
            return Err(Failure::usage(error).hint("write NAME=VALUE, or NAME"));
        }
        variables.push(variable);
    }
    Ok(variables)
}

/// Refuses a home that is not named from the root on.
pub(super) fn absolute_home(home: &Path) -> Result<(), Failure> {
    if home.is_absolute() {
        return Ok(());
    }
    let error = anyhow!("--agent-home {}: not an absolute path", home.display());
    Err(Failure::usage(error).hint("name it as the image has it, such as /home/node"))
}

/// The agents that are known here.
const BUILTIN: [(&str, Template); 4] = [
    ("claude", Template::Claude),
    ("codex", Template::Codex),
    ("gemini", Template::Gemini),
    ("opencode", Template::Opencode),
];

fn template(name: &str) -> Option<Template> {
    let found = BUILTIN.iter().find(|(known, _)| *known == name);
    found.map(|(_, template)| *template)
}

/// Refuses a workspace that has one of the host's logins in it, or that is the system's: /run has the sockets of its
/// services, the container engine's among them.
#[cfg(target_os = "linux")]
pub(super) fn without_logins(workspace: &Path) -> Result<(), Failure> {
    let path = workspace.display();
    let error = if is_systems_own(workspace) {
        anyhow!("the agent would work in {path}, which belongs to the system")
    } else if let Some(secret) = secret_inside(workspace) {
        anyhow!(
            "the agent would get {path}, and {} is in it",
            secret.display()
        )
    } else {
        return Ok(());
    };
    Err(Failure::usage(error)
        .hint("start in the directory of a project, or name one with --workspace DIR"))
}

fn no_manifest(what: &str) -> Failure {
    Failure::usage(anyhow!(
        "neither a manifest nor an agent that is known here is given, so nothing says what the {what} may reach"
    ))
    .hint("egress run codex (or claude, gemini, opencode), or egress run --manifest FILE -- COMMAND")
}

/// The bottle of an agent without a manifest: its preset, with the host's own login where that is supported.
fn preset(name: &str) -> Result<Bottle, Failure> {
    let forward = name == "codex";
    let text = format!(
        "bottles: {{{name}: {{agent_provider: {{template: {name}, forward_host_credentials: {forward}}}, \
         egress: {{routes: [{{preset: {name}}}]}}}}}}\n"
    );
    let manifest = manifest::parse(name, &text, Path::new("."))?;
    Ok(manifest.bottle(None)?.clone())
}

/// What is missing to an agent that works behind its bare preset. Only Codex's login is lent without a manifest.
fn without_credential(name: &str) -> Option<String> {
    let auth = match name {
        "claude" => "{scheme: Bearer, token_ref: CLAUDE_TOKEN}",
        "gemini" => "{scheme: raw, token_ref: GEMINI_API_KEY}",
        "opencode" => "{scheme: raw, token_ref: ANTHROPIC_API_KEY}",
        _ => return None,
    };
    Some(format!(
        "without a manifest {name} has no credential, and is logged out; write one (--manifest FILE): \
         bottles: {{dev: {{agent_provider: {{template: {name}}}, egress: {{routes: [{{preset: {name}, auth: {auth}}}]}}}}}}"
    ))
}

fn custom(name: &str, file: Option<&Path>) -> Result<CustomAgent, Failure> {
    let named = file.map(Path::to_owned);
    let path = named
        .or_else(default_agents)
        .filter(|path| path.exists() || file.is_some());
    let Some(path) = path else {
        let error = anyhow!("there is no agent `{name}`");
        return Err(Failure::usage(error).hint(
            "codex, claude, gemini and opencode are known; describe others in an agents file (--agents FILE), or write a \
             command after `--`",
        ));
    };
    let found = agents::read(&path)?;
    let names: Vec<String> = found.iter().map(|agent| agent.name.clone()).collect();
    found
        .into_iter()
        .find(|agent| agent.name == name)
        .ok_or_else(|| {
            let error = anyhow!("{} has no agent `{name}`", path.display());
            Failure::usage(error).hint(format!("it has: {}", names.join(", ")))
        })
}

fn default_agents() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(config.join("egress/agents.yaml"))
}

impl From<prepare::Error> for Failure {
    fn from(error: prepare::Error) -> Self {
        match error {
            prepare::Error::Faults(faults) => faults.into(),
            prepare::Error::Unresolved(unresolved) => unresolved.into(),
            prepare::Error::Claim(error) => error.into(),
            error => Self::runtime(error),
        }
    }
}

impl From<resolve::Unresolved> for Failure {
    fn from(unresolved: resolve::Unresolved) -> Self {
        let each = unresolved.iter();
        Self::several(each.map(|unmet| (unmet.to_string(), unmet.hint().to_owned())))
    }
}

impl From<agent::Error> for Failure {
    fn from(error: agent::Error) -> Self {
        let each = error.iter();
        Self::several(each.map(|problem| (problem.to_string(), problem.hint().to_owned())))
    }
}

impl From<claim::Error> for Failure {
    fn from(error: claim::Error) -> Self {
        let hint = match &error {
            claim::Error::Taken { .. } => {
                "end the other launch first, or give the second one a bottle of its own in the manifest"
            }
            claim::Error::Foreign(_) => {
                "set XDG_RUNTIME_DIR to a directory of yours with mode 0700"
            }
            claim::Error::Io { .. } => "set XDG_RUNTIME_DIR to a directory that you can write to",
        };
        Self::runtime(error).hint(hint)
    }
}

impl From<sidecar::Error> for Failure {
    fn from(error: sidecar::Error) -> Self {
        match error {
            sidecar::Error::Refused { status, said } => Self::said(&status, said),
            error @ sidecar::Error::Log { .. } => {
                Self::runtime(error).hint("name a file that you can write to with --log")
            }
            error => Self::runtime(error),
        }
    }
}

/// Tells what the sidecar refused, and what failed behind it, if anything: an agent often says no more than that something
/// did not work.
pub(super) fn tell_refusals(Refusals { refused, failed }: &Refusals) {
    const MORE: &str = "--log FILE keeps each with its path";
    if !refused.is_empty() {
        eprintln!("note: the sidecar refused {refused}; {MORE}");
    }
    if !failed.is_empty() {
        eprintln!("note: behind the sidecar failed {failed}; {MORE}, and the reason");
    }
}

/// A sidecar that ended while its agent worked: the agent was ended too.
pub(super) fn sidecar_ended(ended: &sidecar::Ended) -> Failure {
    let how = ended
        .status
        .map_or_else(|| "in an unknown way".into(), |status| status.to_string());
    let error = anyhow!("the sidecar has ended ({how}), and with it the agent");
    let last = ended.said.lines().rev().take(5).collect::<Vec<_>>();
    let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
    if last.is_empty() {
        Failure::runtime(error)
    } else {
        Failure::runtime(error).hint(format!("the end of its log:\n  {last}"))
    }
}

#[cfg(target_os = "linux")]
impl From<crate::launch::place::local::Error> for Failure {
    fn from(error: crate::launch::place::local::Error) -> Self {
        let hint = error.hint();
        let failure = Self::runtime(error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
