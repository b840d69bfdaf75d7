//! The one timer of a gate, and what it waits for.
//!
//! A deadline that moves later costs nothing: the timer is left to ring at the earlier time and is set again then.
//! So a busy keep-alive connection touches the runtime's timer wheel about once per idle bound, not once per request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// What a gate is waiting for the client to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Awaited {
    /// The rest of a head; at a connection's start also its first byte.
    Head,
    /// The first byte of another request, which may be near.
    Next,
    /// The first byte of another request, after it did not come at once.
    Request,
    /// More of a body.
    Body,
}

/// A deadline for what is awaited.
#[derive(Debug)]
pub(super) struct Clock {
    armed: Option<(Awaited, Instant)>,
    /// Boxed and made on the first wait, so that a gate which never waits stays small.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    /// Starts with a deadline for the first head.
    pub(super) fn new(first_head: Duration) -> Self {
        Self {
            armed: Some((Awaited::Head, Instant::now() + first_head)),
            sleep: None,
        }
    }

    /// What was awaited came. The next wait begins when it is next polled.
    pub(super) fn arrived(&mut self) {
        self.armed = None;
    }

    /// Whether nothing has been waited for but the first head.
    pub(super) fn awaits_first_head(&self) -> bool {
        matches!(self.armed, Some((Awaited::Head, _)))
    }

    /// Gives the timer back: nothing will be awaited any more.
    pub(super) fn stop(&mut self) {
        self.armed = None;
        self.sleep = None;
    }

    /// Ready when `awaited` has been waited for `bound`, counted from the first poll that awaited it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        awaited: Awaited,
        bound: Duration,
    ) -> Poll<()> {
        let due = match self.armed {
            Some((armed, due)) if armed == awaited => due,
            _ => Instant::now() + bound,
        };
        self.armed = Some((awaited, due));
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}
