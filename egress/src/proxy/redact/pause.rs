//! When nothing comes for a while, what was held back goes out: its reader may be waiting for it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// How long an upstream may pause within a credential that it says back: longer than bytes take that wait for a window to
/// open again (RFC 9113, section 5.2), since a reader chooses when that happens.
const PAUSE: Duration = Duration::from_secs(1);

/// A timer that runs while nothing comes. It is made at the first wait.
#[derive(Debug, Default)]
pub struct Pause {
    timer: Option<Pin<Box<Sleep>>>,
    runs: bool,
}

impl Pause {
    /// Says that something came.
    pub fn end(&mut self) {
        self.runs = false;
    }

    /// Waits. Ready where nothing came for as long as a pause may be.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
        if !std::mem::replace(&mut self.runs, true) {
            timer.as_mut().reset(Instant::now() + PAUSE);
        }
        ready!(timer.as_mut().poll(cx));
        self.runs = false;
        Poll::Ready(())
    }
}
