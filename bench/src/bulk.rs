//! Large bodies, down or up, counted by the bytes that move.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::tally::{Tally, Window, WindowArgs};
use crate::target::{Request, Target, TargetArgs, Upload};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    window: WindowArgs,
    /// Bodies at once, each in a tunnel of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: usize,
    /// Of a body, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256_000_000)]
    size: u64,
    /// Upload instead of download
    #[arg(long)]
    up: bool,
}

struct Load {
    target: Target,
    tally: Tally,
    size: u64,
    up: bool,
}

pub(crate) async fn measure(args: Args) -> anyhow::Result<()> {
    let (target, tally) = (Target::new(args.target)?, Tally::default());
    let load = Rc::new(Load {
        target,
        tally,
        size: args.size,
        up: args.up,
    });
    let window = Window::from_now(&args.window);
    for _ in 0..args.connections {
        let load = Rc::clone(&load);
        spawn_local(async move {
            while !window.is_over() {
                if let Err(error) = load.keep_moving(window).await {
                    load.tally.failed(&error);
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
    }
    window
        .report(load.target.measured.as_ref(), &load.tally)
        .await;
    Ok(())
}

impl Load {
    /// One body after another, until something fails.
    async fn keep_moving(&self, window: Window) -> io::Result<()> {
        let mut connection = self.target.open().await?;
        let (path, bytes) = (format!("/{}", self.size), &self.tally.bytes);
        while !window.is_over() {
            let begin = Instant::now();
            let request = match self.up {
                true => Request {
                    path: "/sink",
                    upload: Some(Upload {
                        size: self.size,
                        sent: bytes,
                    }),
                },
                false => Request {
                    path: &path,
                    upload: None,
                },
            };
            let received = |piece: &[u8]| {
                if !self.up {
                    bytes.set(bytes.get() + piece.len() as u64);
                }
            };
            connection.exchange(&request, received).await?;
            if window.contains(begin) {
                self.tally.took_since(begin);
            }
        }
        Ok(())
    }
}
