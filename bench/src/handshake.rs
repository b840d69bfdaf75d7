//! A new tunnel for each request, to one host or each to a host of its own.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::tally::{Tally, Window, WindowArgs, usage};
use crate::target::{Connection, Target, TargetArgs};

/// Longer than any peer takes to mint a leaf.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    window: WindowArgs,
    /// Tunnels at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    connections: usize,
    /// Take turns among h0.many.test, h1.many.test and so on
    #[arg(long, value_name = "N")]
    hosts: Option<u64>,
    /// Open one tunnel to each of c0.cold.test, c1.cold.test and so on instead, without a warm-up
    #[arg(long, value_name = "HOSTS")]
    cold: Option<u64>,
}

struct Load {
    target: Target,
    tally: Tally,
    hosts: Option<u64>,
    /// How many tunnels were begun.
    begun: Cell<u64>,
}

pub(crate) async fn measure(args: Args) -> anyhow::Result<()> {
    let (target, tally) = (Target::new(args.target)?, Tally::default());
    let load = Rc::new(Load {
        target,
        tally,
        hosts: args.hosts,
        begun: Cell::new(0),
    });
    let tree = load.target.measured.as_ref();
    let mut tasks = JoinSet::new();
    if let Some(hosts) = args.cold {
        let (before, begin) = (usage(tree), Instant::now());
        for _ in 0..args.connections {
            tasks.spawn_local(open_cold(Rc::clone(&load), hosts));
        }
        tasks.join_all().await;
        load.tally
            .report(begin.elapsed(), before, usage(tree))
            .print();
        return Ok(());
    }
    let window = Window::from_now(&args.window);
    for _ in 0..args.connections {
        tasks.spawn_local(open_same(Rc::clone(&load), window));
    }
    window.report(tree, &load.tally).await;
    Ok(())
}

async fn open_cold(load: Rc<Load>, hosts: u64) {
    loop {
        let number = load.next();
        if number >= hosts {
            return;
        }
        let begin = Instant::now();
        if let Some(connection) = load
            .ask(load.target.open_to(&format!("c{number}.cold.test")))
            .await
        {
            load.tally.took_since(begin);
            connection.close().await;
        }
    }
}

async fn open_same(load: Rc<Load>, window: Window) {
    while !window.is_over() {
        let begin = Instant::now();
        let opening = async {
            match load.hosts {
                None => load.target.open().await,
                Some(hosts) => {
                    load.target
                        .open_to(&format!("h{}.many.test", load.next() % hosts))
                        .await
                }
            }
        };
        if let Some(connection) = load.ask(opening).await {
            if window.contains(begin) {
                load.tally.took_since(begin);
            }
            connection.close().await;
        }
    }
}

impl Load {
    fn next(&self) -> u64 {
        self.begun.replace(self.begun.get() + 1)
    }

    /// One request on the tunnel that `opening` yields, which is over before the connection is closed.
    async fn ask(
        &self,
        opening: impl Future<Output = io::Result<Connection>>,
    ) -> Option<Connection> {
        let asking = async {
            let mut connection = opening.await?;
            connection.get("/1k").await?;
            io::Result::Ok(connection)
        };
        let error = match timeout(PATIENCE, asking).await {
            Ok(Ok(connection)) => return Some(connection),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        self.tally.failed(&error);
        sleep(Duration::from_millis(5)).await;
        None
    }
}
