//! `eload` drives a proxy that ends TLS, a TLS server or a reverse proxy, and measures what that takes.
//!
//! One subcommand a measurement, and each prints one line of JSON. Which programs are measured, in what order and how often
//! is not decided here but by the scripts beside this crate.

mod bulk;
mod certificates;
mod delay;
mod handshake;
mod http1;
mod http2;
mod idle;
mod limits;
mod process;
mod rps;
mod tally;
mod target;
mod tls;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

/// Drives and measures a proxy that ends TLS
#[derive(Debug, Parser)]
#[command(name = "eload", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the certificates of a run: the proxy's root, the upstream's root, and a leaf of each
    Certs {
        /// Where to
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Be the upstream
    Serve(upstream::Args),
    /// Start a program, and print its process id and the milliseconds until it accepts
    Spawn(process::SpawnArgs),
    /// Measure what this processor can do at best, without any proxy
    Limits {
        /// The directory that `certs` wrote
        #[arg(long, value_name = "DIR")]
        certs: PathBuf,
    },
    /// Requests on tunnels that stay open
    Rps(rps::Args),
    /// A new tunnel for each request
    Handshake(handshake::Args),
    /// Large bodies
    Bulk(bulk::Args),
    /// The one-way delay of server-sent events
    Sse(delay::Args),
    /// The one-way delay of WebSocket messages
    Ws(delay::Args),
    /// The memory that open tunnels or WebSockets take
    Idle(idle::Args),
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Certs { dir } => certificates::write(&dir),
            Command::Limits { certs } => limits::print(&certs),
            Command::Spawn(args) => process::spawn(&args),
            Command::Serve(args) => on_one_thread(upstream::serve(args)),
            Command::Rps(args) => on_one_thread(rps::measure(args)),
            Command::Handshake(args) => on_one_thread(handshake::measure(args)),
            Command::Bulk(args) => on_one_thread(bulk::measure(args)),
            Command::Sse(args) => on_one_thread(delay::measure(args, delay::Kind::Events)),
            Command::Ws(args) => on_one_thread(delay::measure(args, delay::Kind::WebSockets)),
            Command::Idle(args) => on_one_thread(idle::measure(args)),
        }
    }
}

/// The load shares its processor with the upstream, so more threads would only take turns.
fn on_one_thread(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
