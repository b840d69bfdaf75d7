//! Requests on tunnels that stay open, each as soon as the answer before it is there.

use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::sleep;

use crate::tally::{Tally, Window, WindowArgs};
use crate::target::{Connection, Target, TargetArgs};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    window: WindowArgs,
    /// Tunnels
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: usize,
    /// Requests at once on each tunnel, with --h2
    #[arg(long, value_name = "N", default_value_t = 1)]
    streams: usize,
    /// Requests at once on all tunnels together, which then take turns
    #[arg(long, value_name = "N")]
    at_once: Option<usize>,
    /// What to ask for
    #[arg(long, default_value = "/1k")]
    path: String,
}

struct Load {
    target: Target,
    tally: Tally,
    path: String,
    streams: usize,
    turns: Semaphore,
}

pub(crate) async fn measure(args: Args) -> anyhow::Result<()> {
    let load = Rc::new(Load {
        target: Target::new(args.target)?,
        tally: Tally::default(),
        path: args.path,
        streams: args.streams,
        turns: Semaphore::new(args.at_once.unwrap_or(Semaphore::MAX_PERMITS)),
    });
    let mut opened = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        opened.push(load.target.open().await?);
    }
    let window = Window::from_now(&args.window);
    for connection in opened {
        spawn_local(keep_asking(Rc::clone(&load), connection, window));
    }
    window
        .report(load.target.measured.as_ref(), &load.tally)
        .await;
    Ok(())
}

/// One tunnel. Where it breaks, the error is counted and another one is opened.
async fn keep_asking(load: Rc<Load>, first: Connection, window: Window) {
    let mut next = Ok(first);
    loop {
        match next {
            Ok(connection) => ask_on(&load, connection, window).await,
            Err(error) => load.tally.failed(&error),
        }
        if window.is_over() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
        next = load.target.open().await;
    }
}

async fn ask_on(load: &Rc<Load>, connection: Connection, window: Window) {
    let mut streams = JoinSet::new();
    for handle in (1..load.streams)
        .filter_map(|_| connection.shared())
        .collect::<Vec<_>>()
    {
        streams.spawn_local(ask(Rc::clone(load), handle, window));
    }
    streams.spawn_local(ask(Rc::clone(load), connection, window));
    streams.join_all().await;
}

async fn ask(load: Rc<Load>, mut connection: Connection, window: Window) {
    while let Ok(_turn) = load.turns.acquire().await {
        let begin = Instant::now();
        match connection.get(&load.path).await {
            Ok(()) if window.contains(begin) => load.tally.took_since(begin),
            Ok(()) => {}
            Err(error) => return load.tally.failed(&error),
        }
    }
}
