//! The time from an agent's start to its end: signals, the host's login and the sidecar are seen to meanwhile, and at the
//! end the place is cleared, whatever ended it.

use std::io;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cli::Failure;
use crate::cli::launching;
use crate::launch::agent::{Agent, HomeFile};
use crate::launch::follow::{Change, Follower};
use crate::launch::prepare::Prepared;
use crate::launch::sidecar::Sidecar;

/// Where an agent is at work.
pub(super) trait AtWork {
    /// Waits for the end of its command: the code in the way of a shell.
    async fn ended(&mut self) -> Result<i32, Failure>;
    /// Passes a signal on to it.
    fn signal(&self, number: i32);
    /// Replaces a file of its home.
    async fn write(&self, file: &HomeFile) -> Result<(), Failure>;
    /// Clears the place away.
    async fn close(self) -> Result<(), Failure>;
}

/// Waits for an agent's end, and clears away. Returns the code of its command.
pub(super) async fn watch<P: AtWork>(
    mut place: P,
    mut sidecar: Sidecar,
    prepared: &Prepared,
    agent: &Agent,
    mut stops: Stops,
) -> Result<i32, Failure> {
    let (tell, mut changes) = mpsc::unbounded_channel();
    let _following = match prepared.handed.codex() {
        Some(codex) => Some(
            Follower::new(&codex.login)
                .spawn(move |change| _ = tell.send(change))
                .context("cannot follow the host's Codex login")
                .map_err(Failure::runtime)?,
        ),
        None => None,
    };
    let mut deadline = pin!(tokio::time::sleep(FOREVER));
    let mut stopped = 0;
    let result = loop {
        tokio::select! {
            ended = place.ended() => break ended,
            ended = sidecar.ended() => break Err(launching::sidecar_ended(&ended)),
            Some(change) = changes.recv() => follow(change, &place, &mut sidecar, prepared, agent).await,
            number = stops.next() => {
                // A command at the terminal got the key as well, and may have a use for it. Whoever insists is obeyed.
                if stopped > 0 {
                    break Ok(stopped);
                }
                if number == libc::SIGTERM || number == libc::SIGHUP || !at_terminal() {
                    place.signal(number);
                    deadline.as_mut().reset(Instant::now() + STOPPING);
                    stopped = 128 + number;
                }
            }
            () = &mut deadline => break Ok(stopped),
        }
    };
    let closed = place.close().await;
    launching::tell_refusals(&sidecar.stop().await);
    let code = result?;
    closed?;
    Ok(if stopped > 0 { stopped } else { code })
}

/// Gives a renewed login to the sidecar, and its dummy to the agent.
async fn follow<P: AtWork>(
    change: Change,
    place: &P,
    sidecar: &mut Sidecar,
    prepared: &Prepared,
    agent: &Agent,
) {
    let login = match change {
        Change::Renewed(login) => login,
        Change::Kept(reason) => {
            eprintln!(
                "warning: the host's Codex login is of no use now, and the last good one is kept: {reason}"
            );
            return;
        }
    };
    let Some(codex) = prepared.handed.codex() else {
        return;
    };
    // A sidecar that has ended is noticed where it is waited for.
    _ = sidecar.hand(&codex.line(&login)).await;
    let file = HomeFile::codex_login(&login);
    // An agent of another kind has no such file.
    if !agent.files.iter().any(|other| other.target == file.target) {
        return;
    }
    if let Err(failure) = place.write(&file).await {
        eprintln!("warning: the agent keeps its old dummy login:");
        failure.report();
    }
}

/// Whether the keys at the terminal reach the agent's command too.
fn at_terminal() -> bool {
    use std::io::IsTerminal as _;
    io::stdin().is_terminal()
}

/// Longer than any agent works.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// How long an agent that is asked to end may take.
const STOPPING: Duration = Duration::from_secs(10);

/// Signals that ask this process to end.
pub(super) struct Stops {
    terminate: Signal,
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Stops {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The number of the next one.
    pub(super) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.hangup.recv() => libc::SIGHUP,
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.quit.recv() => libc::SIGQUIT,
        }
    }
}
