//! The one-way delay of events: the upstream writes the time into each, and it is read off here. Both are on one machine, so
//! the clock is one.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::str;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use futures_util::StreamExt as _;
use tokio::task::spawn_local;
use tokio_tungstenite::WebSocketStream;

use crate::tally::{Tally, Window, WindowArgs};
use crate::target::{Connection, Request, Target, TargetArgs, Tls};
use crate::upstream::nanoseconds;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    window: WindowArgs,
    /// Streams at once, each in a tunnel of its own
    #[arg(long, value_name = "N", default_value_t = 8)]
    connections: usize,
    /// Between two events of a stream, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5)]
    every: u64,
}

/// What carries the events.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Server-sent events.
    Events,
    /// WebSocket messages.
    WebSockets,
}

struct Load {
    target: Target,
    tally: Tally,
    every: u64,
    window: Cell<Option<Window>>,
}

/// A tunnel that has not asked for its events yet, or an open WebSocket.
enum Stream {
    Events(Connection),
    WebSocket(Box<WebSocketStream<Tls>>),
}

pub(crate) async fn measure(args: Args, kind: Kind) -> anyhow::Result<()> {
    let target = Target::new(args.target)?;
    let load = Rc::new(Load {
        target,
        tally: Tally::default(),
        every: args.every,
        window: Cell::new(None),
    });
    let mut streams = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        streams.push(load.open(kind).await?);
    }
    let window = Window::from_now(&args.window);
    load.window.set(Some(window));
    for stream in streams {
        let load = Rc::clone(&load);
        spawn_local(async move {
            let ended = match stream {
                Stream::Events(connection) => load.read_events(connection).await,
                Stream::WebSocket(socket) => load.read_messages(*socket).await,
            };
            load.tally.failed(
                &ended
                    .err()
                    .unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()),
            );
        });
    }
    window
        .report(load.target.measured.as_ref(), &load.tally)
        .await;
    Ok(())
}

impl Load {
    async fn open(&self, kind: Kind) -> io::Result<Stream> {
        Ok(match kind {
            Kind::Events => Stream::Events(self.target.open().await?),
            Kind::WebSockets => {
                Stream::WebSocket(Box::new(self.target.websocket(&self.path("ws")).await?))
            }
        })
    }

    fn path(&self, resource: &str) -> String {
        format!("/{resource}?ms={}", self.every)
    }

    async fn read_events(&self, mut connection: Connection) -> io::Result<()> {
        let mut line = Vec::new();
        let request = Request {
            path: &self.path("sse"),
            upload: None,
        };
        let read = |piece: &[u8]| {
            for &byte in piece {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                if let Some(sent) = line.strip_prefix(b"data: ") {
                    self.arrived(sent);
                }
                line.clear();
            }
        };
        connection.exchange(&request, read).await
    }

    async fn read_messages(&self, mut socket: WebSocketStream<Tls>) -> io::Result<()> {
        while let Some(message) = socket.next().await {
            self.arrived(&message.map_err(io::Error::other)?.into_data());
        }
        Ok(())
    }

    /// An event that says when it was sent, in digits.
    fn arrived(&self, sent: &[u8]) {
        let sent = str::from_utf8(sent)
            .ok()
            .and_then(|sent| sent.parse::<u64>().ok());
        let (Some(sent), Some(window)) = (sent, self.window.get()) else {
            return;
        };
        let delay = nanoseconds().saturating_sub(sent);
        // By when it was sent: what was sent while the other streams were opened has waited for nobody but us.
        let sent = Instant::now().checked_sub(Duration::from_nanos(delay));
        if sent.is_some_and(|sent| window.contains(sent)) {
            self.tally.took(delay);
        }
    }
}
