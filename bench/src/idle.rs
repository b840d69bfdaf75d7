//! The memory that open tunnels or WebSockets take while nothing moves in them.

use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use tokio::time::sleep;

use crate::process::Usage;
use crate::tally::{Held, Tally, usage};
use crate::target::{Target, TargetArgs};

/// From the last request until the memory is read: buffers that go at once are gone.
const REST: Duration = Duration::from_millis(500);

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    connections: usize,
    /// Open WebSockets, instead of tunnels that had one request each
    #[arg(long)]
    websockets: bool,
}

pub(crate) async fn measure(args: Args) -> anyhow::Result<()> {
    let (target, tally) = (Target::new(args.target)?, Tally::default());
    let tree = target.measured.as_ref();
    let (before, begin) = (usage(tree), Instant::now());
    let (mut tunnels, mut websockets) = (Vec::new(), Vec::new());
    for _ in 0..args.connections {
        let from = Instant::now();
        let opened = match args.websockets {
            true => target
                .websocket("/ws?ms=3600000")
                .await
                .map(|socket| websockets.push(socket)),
            false => {
                async {
                    let mut connection = target.open().await?;
                    connection.get("/1k").await?;
                    tunnels.push(connection);
                    Ok(())
                }
                .await
            }
        };
        match opened {
            Ok(()) => tally.took_since(from),
            Err(error) => tally.failed(&error),
        }
    }
    let lasted = begin.elapsed();
    sleep(REST).await;
    let after = usage(tree);
    let held = held(before, after, tunnels.len() + websockets.len());
    tally.report(lasted, before, after).with_held(held).print();
    Ok(())
}

fn held(before: Usage, after: Usage, count: usize) -> Held {
    let kb = (after.pss_mb - before.pss_mb) * 1024.0;
    Held {
        idle_rss_mb: before.rss_mb,
        idle_pss_mb: before.pss_mb,
        kb_each: kb / count.max(1) as f64,
    }
}
