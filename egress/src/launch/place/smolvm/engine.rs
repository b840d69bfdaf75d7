//! The `smolvm` program: how it is found, what it can do, and how its commands are run and their errors told.
//!
//! It gets a few named variables of this process and no others: credentials of the host may stand among the rest.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::Error;

/// A `smolvm` that answers.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    program: PathBuf,
    state_dir: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    /// Whether `machine start` knows `--egress-interceptor`.
    pub(super) intercepts: bool,
    /// Whether `machine create` knows `--allow-host-pattern`.
    pub(super) narrows: bool,
}

impl Engine {
    /// Asks the program what it can do.
    pub(super) fn find(program: &Path, state_dir: Option<&Path>) -> Result<Self, Error> {
        let mut engine = Self {
            program: program.into(),
            state_dir: state_dir.map(Path::to_owned),
            environment: named_variables(),
            intercepts: false,
            narrows: false,
        };
        let knows = |verb: &str, flag: &str| {
            let output = engine.command(verb).arg("--help").output();
            let output = output.map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::Missing(program.into()),
                _ => Error::Unusable(program.into(), source.to_string()),
            })?;
            if !output.status.success() {
                return Err(Error::Unusable(program.into(), complaint(&output)));
            }
            let help = String::from_utf8_lossy(&output.stdout);
            Ok(help.split_whitespace().any(|word| word == flag))
        };
        let intercepts = knows("start", "--egress-interceptor")?;
        let narrows = knows("create", "--allow-host-pattern")?;
        if !knows("create", "--mount-socket")? {
            let lacks = "its `machine create` has no --mount-socket".into();
            return Err(Error::Unusable(program.into(), lacks));
        }
        (engine.intercepts, engine.narrows) = (intercepts, narrows);
        Ok(engine)
    }

    /// A command of `smolvm machine`, in a process group of its own: a key at the terminal must not end what cleans up.
    pub(super) fn command(&self, verb: &str) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = self.attached(verb);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }

    /// The same with this process's standard streams, and at its terminal.
    pub(super) fn attached(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["machine", verb]);
        if let Some(state_dir) = &self.state_dir {
            command.arg("--state-dir").arg(state_dir);
        }
        command.env_clear().envs(self.environment.iter().cloned());
        command
    }

    /// How an operator types a command for this machine.
    pub(super) fn typed(&self, words: &str) -> String {
        match &self.state_dir {
            Some(state_dir) => {
                format!("smolvm machine {words} --state-dir {}", state_dir.display())
            }
            None => format!("smolvm machine {words}"),
        }
    }

    /// Whether there is a machine of this name, and in which state.
    pub(super) fn state(&self, name: &str) -> Result<Option<String>, Error> {
        let mut command = self.command("status");
        let output = run(command.args(["--json", "--name", name]))?;
        if !output.status.success() {
            let complaint = complaint(&output);
            let unknown = complaint.contains("not found");
            return if unknown {
                Ok(None)
            } else {
                Err(Error::Command("status", complaint))
            };
        }
        let told: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|_| Error::Command("status", "its answer is no JSON".into()))?;
        let state = told.get("state").and_then(|state| state.as_str());
        Ok(Some(state.unwrap_or("unknown").into()))
    }
}

/// Runs a command to its end.
pub(super) fn run(command: &mut Command) -> Result<Output, Error> {
    command
        .output()
        .map_err(|source| Error::Unusable(command.get_program().into(), source.to_string()))
}

/// What a command said was wrong: its last line of error, without the word.
pub(super) fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let named = lines.clone().find_map(|line| {
        line.strip_prefix("Error: ")
            .or_else(|| line.strip_prefix("error: "))
    });
    let said = named.or_else(|| lines.next_back()).unwrap_or_default();
    if said.is_empty() {
        return format!("it ended with {}", output.status);
    }
    // What a guest says ends up at the operator's terminal.
    said.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// What `smolvm` gets of this process's environment: where things are, how images are pulled, and how it talks.
fn named_variables() -> Vec<(OsString, OsString)> {
    let wanted = |name: &OsStr| {
        let name = name.to_string_lossy();
        VARIABLES.contains(&&*name) || name.starts_with("XDG_") || name.starts_with("LC_")
    };
    std::env::vars_os()
        .filter(|(name, _)| wanted(name))
        .collect()
}

const VARIABLES: [&str; 20] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "TERM",
    "LANG",
    "NO_COLOR",
    "LD_LIBRARY_PATH",
    "SMOLVM_LIB_DIR",
    "SMOLVM_AGENT_ROOTFS",
    "SMOLVM_DATA_DIR",
    "DOCKER_CONFIG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "https_proxy",
    "no_proxy",
];
