//! A micro-VM of smolvm, with the sidecar as a process of the host beside it: root in the guest is not root over the
//! sidecar. The guest's only way out is the sidecar.
//!
//! With an engine that has an egress interceptor, every connection of the guest is handed to the sidecar, and the guest's
//! resolver answers for admitted names alone. With an older one the machine has no network at all: the sidecar's socket
//! is mounted into it. The engine's other way, a network that may reach the host's loopback, would show the guest every
//! service there, and is not taken.

mod engine;
mod guest;
mod problem;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use tokio::process::{Child, Command};

use self::engine::{Engine, complaint, run};
use crate::credential::Secret;
use crate::route::Routes;
use crate::route::host::{Host, HostPattern};

pub use self::guest::{BUNDLE, Contents, PROXY, WORKSPACE};
pub use self::problem::Error;

/// What a machine is made of.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The machine's name.
    pub name: &'a str,
    /// The image, as `smolvm` takes it.
    pub image: &'a str,
    /// A directory of the host for the agent to work in.
    pub workspace: &'a Path,
    /// The agent's user.
    pub user: &'a str,
    /// The agent's home.
    pub home: &'a Path,
    /// A private directory of the host, for what is copied into the machine.
    pub staging: &'a Path,
    /// Further arguments of `machine create`.
    pub arguments: Vec<String>,
}

/// How the guest reaches the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The engine hands every connection to the sidecar.
    Interceptor,
    /// A socket of the host is mounted, and a relay in the guest makes a proxy of it.
    Socket,
}

/// A machine of this launch's. Dropping it removes it.
#[derive(Debug)]
pub struct Machine {
    engine: Engine,
    name: String,
    user: String,
    home: PathBuf,
    staging: PathBuf,
    /// The user's numbers, once they are known.
    owner: String,
    /// Whether there is a machine to remove.
    made: bool,
    /// The agent's command.
    child: Option<Child>,
}

impl Machine {
    /// Finds the engine, and sees that the name is free. Nothing is made yet.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn plan(program: &Path, state_dir: Option<&Path>, plan: &Plan<'_>) -> Result<Self, Error> {
        let engine = Engine::find(program, state_dir)?;
        if let Some(state) = engine.state(plan.name)? {
            return Err(Error::taken(&engine, plan.name, &state));
        }
        Ok(Self {
            engine,
            name: plan.name.into(),
            user: plan.user.into(),
            home: plan.home.into(),
            staging: plan.staging.into(),
            owner: String::new(),
            made: false,
            child: None,
        })
    }

    /// How its guest will reach the sidecar.
    pub fn reach(&self) -> Reach {
        if self.engine.intercepts && self.engine.narrows {
            Reach::Interceptor
        } else {
            Reach::Socket
        }
    }

    /// Makes the machine: with the sidecar's socket where one is given, else with a network for the interceptor.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn create(
        &mut self,
        plan: &Plan<'_>,
        routes: &Routes,
        socket: Option<&Path>,
    ) -> Result<(), Error> {
        let mut command = self.engine.command("create");
        command.args(["--name", plan.name, "--image", plan.image]);
        command
            .arg("--volume")
            .arg(joined(plan.workspace, WORKSPACE)?);
        match socket {
            Some(socket) => command
                .arg("--mount-socket")
                .arg(joined(socket, guest::SOCKET)?),
            None => command.args(network(routes)),
        };
        // Not the image's own program, which would run without the agent's environment.
        command.args(&plan.arguments).args(["--", "sh", "-c", IDLE]);
        // Not to be interrupted: a machine that is half made is nobody's.
        let output = run(&mut command)?;
        if !output.status.success() {
            let complaint = complaint(&output);
            return Err(if complaint.contains("already exists") {
                Error::taken(&self.engine, plan.name, "running or stopped")
            } else {
                Error::Create(complaint)
            });
        }
        self.made = true;
        Ok(())
    }

    /// Starts the machine. With an interceptor, `at` is its address and its token.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn start(&self, at: Option<(&str, &Secret)>) -> Result<(), Error> {
        let mut command = self.engine.command("start");
        command.args(["--name", &self.name]);
        if let Some((address, token)) = at {
            command.args(["--egress-interceptor", address]);
            command.env(TOKEN, token.expose());
        }
        let output = finish(command).await?;
        if output.status.success() {
            Ok(())
        } else {
            Err(Error::Start(complaint(&output)))
        }
    }

    /// Starts the agent's command, at this process's terminal where it has one.
    ///
    /// # Errors
    ///
    /// The engine cannot be run.
    pub fn begin(
        &mut self,
        environment: &[(String, String)],
        command: &[String],
    ) -> Result<(), Error> {
        use std::io::IsTerminal as _;
        let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let mut exec = self.engine.attached("exec");
        exec.args(["--name", &self.name, "--interactive"]);
        exec.args(terminal.then_some("--tty"));
        exec.args(["--workdir", WORKSPACE]);
        exec.arg("--").args(self.as_agent(environment, command));
        let program = PathBuf::from(exec.get_program());
        let child = Command::from(exec).kill_on_drop(true).spawn();
        self.child = Some(child.map_err(|source| Error::Unusable(program, source.to_string()))?);
        Ok(())
    }

    /// Waits for the end of the agent's command: its code in the way of a shell.
    ///
    /// # Errors
    ///
    /// The machine has ended, and the command with it.
    pub async fn ended(&mut self) -> Result<i32, Error> {
        let Some(child) = &mut self.child else {
            return std::future::pending().await;
        };
        let status = child
            .wait()
            .await
            .map_err(|error| Error::Command("exec", error.to_string()))?;
        let code = code(status);
        // Only then can it have been the machine. A machine that nobody can ask about has ended, too.
        if code != 0
            && !matches!(self.engine.state(&self.name), Ok(Some(state)) if state == "running")
        {
            return Err(Error::Died(self.name.clone()));
        }
        Ok(code)
    }

    /// Sends a signal to the agent's command.
    pub fn signal(&self, number: i32) {
        use rustix::process::{Pid, Signal, kill_process};
        let id = self.child.as_ref().and_then(Child::id);
        let pid = id.and_then(|id| Pid::from_raw(id.try_into().ok()?));
        if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number)) {
            _ = kill_process(pid, signal);
        }
    }

    /// Stops and removes the machine.
    ///
    /// # Errors
    ///
    /// It may still be there.
    pub async fn close(mut self) -> Result<(), Error> {
        if let Some(mut child) = self.child.take() {
            _ = child.kill().await;
        }
        self.remove()
    }

    fn remove(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.made) {
            return Ok(());
        }
        // One that does not stop is removed all the same.
        _ = self
            .engine
            .command("stop")
            .args(["--name", &self.name])
            .output();
        let mut delete = self.engine.command("delete");
        let output = run(delete.args(["--force", "--name", &self.name]))?;
        let complaint = complaint(&output);
        if output.status.success() || complaint.contains("not found") {
            return Ok(());
        }
        let typed = self
            .engine
            .typed(&format!("delete --force --name {}", self.name));
        Err(Error::Left {
            name: self.name.clone(),
            complaint,
            typed,
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("warning: {error}\nhint: {}", error.hint());
        }
    }
}

/// The variable in which the engine looks for the interceptor's token, and by which the sidecar is handed it.
pub const TOKEN: &str = "SMOLVM_INTERCEPTOR_TOKEN";

/// Runs until it is asked to end, and then ends at once: the engine would wait for it.
const IDLE: &str = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait; done";

/// A network that resolves the admitted names, and reaches nothing but what they resolve to.
fn network(routes: &Routes) -> Vec<String> {
    let mut arguments: Vec<String> = Vec::new();
    for route in routes.iter() {
        let [flag, value] = match &route.rule.host {
            HostPattern::Exact(Host::Address(address)) => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                ["--allow-cidr".into(), format!("{address}/{bits}")]
            }
            pattern => ["--allow-host-pattern".into(), pattern.to_string()],
        };
        if !arguments
            .chunks(2)
            .any(|pair| pair == [flag.as_str(), value.as_str()])
        {
            arguments.extend([flag, value]);
        }
    }
    arguments
}

/// `HOST:GUEST`, of which the engine takes the first colon for the border.
fn joined(host: &Path, guest: &str) -> Result<String, Error> {
    match host.to_str() {
        Some(text) if !text.contains(':') => Ok(format!("{text}:{guest}")),
        _ => Err(Error::Path(host.into())),
    }
}

/// Runs a command to its end. Dropped before, it is killed.
async fn finish(command: std::process::Command) -> Result<std::process::Output, Error> {
    let program = PathBuf::from(command.get_program());
    let output = Command::from(command).kill_on_drop(true).output().await;
    output.map_err(|source| Error::Unusable(program, source.to_string()))
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    let signalled = || 128 + status.signal().unwrap_or_default();
    status.code().unwrap_or_else(signalled)
}
