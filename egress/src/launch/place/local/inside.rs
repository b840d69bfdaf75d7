//! The box from within: two processes, each this binary again under a name of its own, with the launcher's socket as their
//! standard input.
//!
//! The first enters the namespaces and opens the listeners. The second is the first process of the new PID namespace: it
//! builds the file system, gives up every privilege, starts the command and buries what dies. When either ends, the
//! kernel ends all that is in the box; when the launcher ends, it ends the first.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitOptions};
use tokio::signal::unix::{SignalKind, signal};

use super::layout::HOME;
use super::network::Listeners;
use super::plan::{BoxFile, Failed, FromBox, Plan, Step, ToBox};
use super::{channel, files, privileges};
use crate::launch::home::Home;

/// The name under which the first process runs.
pub(super) const OUTER: &str = "egress-box";

/// The name under which the second one does.
pub(super) const INIT: &str = "egress-init";

/// Runs as a process of a box, where this process's name says so.
pub fn main(name: &str) -> Option<ExitCode> {
    let body = match name {
        OUTER => outer,
        INIT => init,
        _ => return None,
    };
    let launcher = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    let launcher = UnixStream::from(launcher);
    Some(body(&launcher).unwrap_or_else(|failed| {
        // Where this cannot be said either, the launcher is gone.
        _ = channel::send(&launcher, &FromBox::Failed(failed), &[]);
        ExitCode::FAILURE
    }))
}

/// Enters the namespaces, hands over the listeners, and waits for the second process.
fn outer(launcher: &UnixStream) -> Result<ExitCode, Failed> {
    let namespaces = |about| move |error: io::Error| Failed::new(Step::Namespaces, about, &error);
    privileges::enter_namespaces()?;
    die_with_parent().map_err(namespaces("the parent's death signal"))?;
    let listeners = Listeners::open().map_err(|error| {
        let about = "loopback and the sidecar's listeners";
        Failed::new(Step::Network, about, &error)
    })?;
    let handed = listeners.as_array().map(|listener| listener.as_fd());
    channel::send(launcher, &FromBox::Listening, &handed)
        .map_err(|error| Failed::new(Step::Network, "the launcher's socket", &error))?;
    drop(listeners);
    let held = hold_signals().map_err(namespaces("signal handlers"))?;
    let mut child = Command::new("/proc/self/exe")
        .arg0(INIT)
        .env_clear()
        .stdin(OwnedFd::from(
            launcher.try_clone().map_err(namespaces("descriptors"))?,
        ))
        .spawn()
        .map_err(namespaces("the box's first process"))?;
    let status = child.wait().map_err(namespaces("waiting"))?;
    drop(held);
    Ok(code(status).into())
}

/// What a terminal sends to all of its foreground group is the command's alone: this process outlives it.
fn hold_signals() -> io::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let entered = runtime.enter();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::quit(),
        SignalKind::hangup(),
        SignalKind::terminate(),
    ] {
        // The handler stays for as long as the process, whoever listens.
        _ = signal(kind)?;
    }
    drop(entered);
    Ok(runtime)
}

/// Builds the box, starts the command, and serves the launcher until the command ends.
fn init(launcher: &UnixStream) -> Result<ExitCode, Failed> {
    let started = |about| move |error: io::Error| Failed::new(Step::Command, about, &error);
    die_with_parent().map_err(started("the parent's death signal"))?;
    let first = channel::receive(launcher, MOST_PLAN).map_err(started("the launcher's plan"))?;
    let Some((ToBox::Start(mut plan), mut descriptors)) = first else {
        // The launcher is gone.
        return Ok(ExitCode::FAILURE);
    };
    privileges::bound();
    files::build(&plan)?;
    let input = descriptors.pop();
    privileges::give_up(input.as_ref().map(OwnedFd::as_fd))?;
    let home = furnish(std::mem::take(&mut plan.home_files)).map_err(started(HOME))?;
    let child = start(&plan, input)?;
    channel::send(launcher, &FromBox::Started, &[]).map_err(started("the launcher's socket"))?;
    let listening = launcher.try_clone().map_err(started("descriptors"))?;
    let pid = Pid::from_child(&child);
    std::thread::spawn(move || serve(&listening, &home, pid));
    let code = bury(pid).map_err(started("waiting"))?;
    // The launcher may have gone meanwhile, and the box goes in any case.
    _ = channel::send(launcher, &FromBox::Ended(code), &[]);
    Ok(code.into())
}

/// Fills the agent's home, from within the box: an agent that has been in this home before may have left links in it, and
/// from here they lead to nothing of the host's.
fn furnish(files: Vec<BoxFile>) -> io::Result<Home> {
    let home = Home::open(Path::new(HOME), None)?;
    for file in files {
        home.place(&file.into())?;
    }
    Ok(home)
}

fn start(plan: &Plan, stdin: Option<OwnedFd>) -> Result<Child, Failed> {
    let mut words = plan.command.iter();
    let program = words.next().map_or("", String::as_str);
    if plan.terminal.is_none() {
        // In a session of its own there is no terminal to get hold of.
        _ = rustix::process::setsid();
    }
    Command::new(program)
        .args(words)
        .env_clear()
        .envs(plan.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&plan.directory)
        .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
        .spawn()
        .map_err(|error| Failed::new(Step::Command, program, &error))
}

/// Does what the launcher says, until it is gone: then this process ends, and the box with it.
fn serve(launcher: &UnixStream, home: &Home, command: Pid) {
    while let Ok(Some((message, _))) = channel::receive::<ToBox>(launcher, MOST_PLAN) {
        match message {
            // The agent may have made the place unusable, which is its own loss.
            ToBox::Write(file) => _ = home.place(&file.into()),
            ToBox::Signal(number) => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    _ = rustix::process::kill_process(command, signal);
                }
            }
            ToBox::Start(_) => {}
        }
    }
    std::process::exit(1);
}

/// Waits for every process of the box, until the command has ended.
fn bury(command: Pid) -> io::Result<u8> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => {
                return Ok(code(ExitStatus::from_raw(status.as_raw())));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The code with which a shell would tell of this end.
fn code(status: ExitStatus) -> u8 {
    let signalled = || 128 + status.signal().unwrap_or_default();
    u8::try_from(status.code().unwrap_or_else(signalled)).unwrap_or(u8::MAX)
}

fn die_with_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into)
}

/// Bundles of certificates are a quarter of a megabyte; nothing that belongs into an agent's home comes near to this.
const MOST_PLAN: usize = 64 << 20;
