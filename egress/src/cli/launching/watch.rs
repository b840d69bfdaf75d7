//! The time from an agent's start to its end: signals, the host's login and the sidecar are seen to meanwhile, and at the
//! end the place is cleared, whatever ended it.

use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::stops::Stops;
use crate::cli::Failure;
use crate::launch::agent::{Agent, HomeFile};
use crate::launch::follow::{Change, Follower};
use crate::launch::prepare::Prepared;
use crate::launch::sidecar::Sidecar;

/// Where an agent is at work.
pub(in crate::cli) trait AtWork {
    /// What the sidecar needs. It is cleared away when it is dropped.
    type Rest;
    /// Waits for the end of its command: the code in the way of a shell.
    async fn ended(&mut self) -> Result<i32, Failure>;
    /// Passes a signal on to it.
    async fn signal(&self, number: i32);
    /// Whether the keys of the launcher's terminal reach it by themselves.
    fn has_keys(&self) -> bool;
    /// Replaces a file of its home.
    async fn write(&self, file: &HomeFile) -> Result<(), Failure>;
    /// Ends what is left of the agent, and clears the place away, but for what the sidecar needs until its own end.
    async fn close(self) -> Result<Self::Rest, Failure>;
}

/// Waits for an agent's end, and clears away. Returns the code of its command.
pub(in crate::cli) async fn watch<P: AtWork>(
    mut place: P,
    mut sidecar: Sidecar,
    prepared: &Prepared,
    agent: &Agent,
    stops: &mut Stops,
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
            ended = sidecar.ended() => break Err(super::sidecar_ended(&ended)),
            Some(change) = changes.recv() => follow(change, &place, &mut sidecar, prepared, agent).await,
            number = stops.next() => match number {
                // A key at the terminal reaches the command by itself.
                libc::SIGINT | libc::SIGQUIT if place.has_keys() => {}
                libc::SIGINT | libc::SIGQUIT => place.signal(number).await,
                // Whoever insists is obeyed.
                _ if stopped > 0 => break Ok(stopped),
                _ => {
                    place.signal(number).await;
                    deadline.as_mut().reset(Instant::now() + STOPPING);
                    stopped = 128 + number;
                }
            },
            () = &mut deadline => break Ok(stopped),
        }
    };
    let closed = place.close().await;
    // It has rows of its audit file to write yet.
    super::tell_refusals(&sidecar.stop().await);
    let code = result?;
    closed?;
    Ok(code)
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

/// Longer than any agent works.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// How long an agent that is asked to end may take.
const STOPPING: Duration = Duration::from_secs(10);
