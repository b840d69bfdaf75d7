//! Signals that ask a launcher to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that ask this process to end. At a terminal the keys go to the agent as well, and are its own.
pub(in crate::cli) struct Stops {
    terminate: Signal,
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Stops {
    pub(in crate::cli) fn new() -> io::Result<Self> {
        // One that came while its handler is being put in place would be lost.
        crate::os::holding_signals(|| {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                hangup: signal(SignalKind::hangup())?,
                interrupt: signal(SignalKind::interrupt())?,
                quit: signal(SignalKind::quit())?,
            })
        })
    }

    /// Works until the first one, whose number is the error. It goes before what came of the work at the same time.
    pub(in crate::cli) async fn before<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, i32> {
        tokio::select! {
            biased;
            number = self.next() => Err(number),
            done = work => Ok(done),
        }
    }

    /// The number of one that came already.
    pub(in crate::cli) async fn came(&mut self) -> Option<i32> {
        // The runtime looks for signals when its tasks stand back.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            number = self.next() => Some(number),
            () = std::future::ready(()) => None,
        }
    }

    /// The number of the next one.
    pub(in crate::cli) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.hangup.recv() => libc::SIGHUP,
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.quit.recv() => libc::SIGQUIT,
        }
    }
}
