//! `egress demo`: the whole thing at work on loopback, told as it happens, and a self-test on the way.
//!
//! The sidecar is this binary's own `serve` in a child process. Every line tells what one of the three sides really
//! sent or received; where that is not what the demo claims, it says so, and the exit code is 1.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use aws_lc_rs::rand;
use tokio::signal::unix::{SignalKind, signal};

use self::agent::Agent;
use self::screen::Screen;
use self::sidecar::Sidecar;
use self::story::Story;
use self::upstream::Upstream;
use super::Failure;

mod agent;
mod screen;
mod sidecar;
mod story;
mod upstream;

/// Arguments of `egress demo`: none.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress demo

It needs neither root nor a network nor anything installed, and leaves no file and no process
behind.

Exit status: 0 every step came out as claimed, 1 one did not, 3 it could not run.")]
pub struct Args {}

/// Runs the demo. Exit code 1 where a step does not come out as claimed.
pub fn run(_: &Args) -> Result<ExitCode, Failure> {
    // One thread, the main one: the kernel ties the sidecar to the thread that starts it (prctl(2), PR_SET_PDEATHSIG).
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    runtime.block_on(async {
        let interrupted = interrupted().map_err(Failure::runtime)?;
        // Whichever ends first drops the other, and with it the sidecar and its directory.
        tokio::select! {
            told = tell() => told,
            code = interrupted => Ok(code),
        }
    })
}

/// Resolves at the first signal that asks the process to end, to the exit code that shells give it.
fn interrupted() -> std::io::Result<impl Future<Output = ExitCode>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => ExitCode::from(130),
            _ = terminate.recv() => ExitCode::from(143),
            _ = hangup.recv() => ExitCode::from(129),
        }
    })
}

async fn tell() -> Result<ExitCode, Failure> {
    let token = random_token()?;
    let mut screen = Screen::of_stdout(&token);
    let upstream = Upstream::start(story::HOST, &token).await?;
    let routes = story::routes(upstream.address(), &[story::V1]);
    let mut sidecar = Sidecar::start(&routes, upstream.ca_pem(), &token).await?;
    let agent = Agent::new(sidecar.address(), &sidecar.ca_cert())?;
    let mut story = Story {
        screen: &mut screen,
        upstream,
        sidecar: &mut sidecar,
        agent,
        token: &token,
    };
    let told = story.tell().await;
    drop(story);
    let code = match told {
        Ok(()) => {
            screen.title("Every step came out as claimed. Next, with a token of your own:");
            NEXT.lines().for_each(|line| screen.text(line));
            ExitCode::SUCCESS
        }
        Err(Unlike(what)) => {
            screen.alarm(&format!("NOT AS CLAIMED: {what}"));
            screen.title("What egress logged");
            let log = sidecar.kill_and_read().await;
            log.iter().for_each(|line| screen.text(line));
            ExitCode::FAILURE
        }
    };
    screen.finish()?;
    Ok(code)
}

/// What can be typed as it stands. A test does.
const NEXT: &str = "\
echo '{routes: [{host: api.github.com, path_allowlist: [/user],
  auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}]}' >routes.yaml
egress check routes.yaml
egress explain -r routes.yaml GET https://api.github.com/user
EGRESS_TOKEN_0=$(gh auth token) egress serve --ca-dir ./keys &
curl -x 127.0.0.1:8080 --cacert keys/ca-cert.pem https://api.github.com/user";

/// A token that nobody else has. It is worth nothing outside this run, so it is no `Secret`: the demo searches for it,
/// compares it, and lets the screen mask it.
fn random_token() -> Result<String, Failure> {
    let mut bytes = [0; 20];
    rand::fill(&mut bytes).map_err(|_| Failure::runtime(anyhow!("no random bytes")))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("demo-{digits}"))
}

/// A step that did not come out as claimed, and how.
#[derive(Debug)]
struct Unlike(String);

/// Goes on where a claim holds.
fn claim(holds: bool, otherwise: impl Into<String>) -> Result<(), Unlike> {
    if holds {
        Ok(())
    } else {
        Err(Unlike(otherwise.into()))
    }
}

/// Waits for what loopback does in milliseconds, and takes its absence for a fault.
async fn within<T>(what: &str, event: impl Future<Output = T>) -> Result<T, Unlike> {
    let waited = tokio::time::timeout(DEADLINE, event).await;
    waited.map_err(|_| Unlike(format!("no {what} within {} seconds", DEADLINE.as_secs())))
}

const DEADLINE: Duration = Duration::from_secs(10);
