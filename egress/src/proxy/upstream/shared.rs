//! An HTTP/2 connection to an upstream that many requests share, and how many of them it takes at once.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::OwnedSemaphorePermit;

use super::super::body::Upload;
use super::super::limits::MAX_UPSTREAM_STREAMS;
use super::dial;

/// An HTTP/2 connection and the streams on it.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) sender: http2::SendRequest<Upload>,
    driver: Arc<Driver>,
    streams: Arc<AtomicUsize>,
    since: Instant,
    pub(super) kept: Option<Arc<OwnedSemaphorePermit>>,
}

/// hyper's half that makes requests into streams, and knows what the upstream allows.
type Driven = http2::Connection<TokioIo<dial::Stream>, Upload, TokioExecutor>;

/// `None` once it has ended: what is still in its queue is only then given back.
struct Driver(Mutex<Option<Driven>>);

/// One stream's share of an HTTP/2 connection. It ends with the answer and with the upload, whichever is later: an upstream
/// may answer early, and the stream is open for as long as either side is.
#[derive(Clone, Debug)]
pub struct Stream {
    _counted: Arc<Counted>,
}

#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Has the connection driven for as long as anybody uses it.
    pub(super) fn start(sender: http2::SendRequest<Upload>, connection: Driven) -> Self {
        let driver = Arc::new(Driver(Mutex::new(Some(connection))));
        let driven = driver.clone();
        tokio::spawn(std::future::poll_fn(move |cx| driven.poll(cx)));
        Self {
            sender,
            driver,
            streams: Arc::default(),
            since: Instant::now(),
            kept: None,
        }
    }

    /// One more stream, whether there is room for it or not.
    pub(super) fn stream(&self) -> Stream {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Stream {
            _counted: Arc::new(Counted(self.streams.clone())),
        }
    }

    /// Whether there is room for one more stream. Beyond what the upstream allows, h2 would have requests wait in silence until
    /// others end, which may be another agent's and never do.
    pub(super) fn has_room(&self) -> bool {
        let open = self.streams.load(Ordering::Relaxed);
        open < self.driver.allows().min(MAX_UPSTREAM_STREAMS)
    }

    /// Marks it as used.
    pub(super) fn touch(&mut self) {
        self.since = Instant::now();
    }

    /// Whether it has had no stream for so long.
    pub(super) fn idle_for(&mut self, idle: Duration) -> bool {
        if self.streams.load(Ordering::Relaxed) > 0 {
            self.touch();
        }
        self.since.elapsed() >= idle
    }
}

impl Driver {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut driven = self.lock();
        if let Some(connection) = &mut *driven {
            // Why it ended each request says for itself.
            _ = ready!(Pin::new(connection).poll(cx));
        }
        *driven = None;
        Poll::Ready(())
    }

    /// How many streams the upstream allows at once.
    fn allows(&self) -> usize {
        let driven = self.lock();
        driven.as_ref().map_or(0, Driven::current_max_send_streams)
    }

    /// Nobody holds it for longer than a step takes.
    fn lock(&self) -> MutexGuard<'_, Option<Driven>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}
