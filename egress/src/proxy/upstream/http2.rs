//! An HTTP/2 connection to an upstream that many requests share, and how many of them it takes at once.
//!
//! A request opens its stream itself, and waits for the answer in its own task. One task drives the connection. There is no
//! other, but for an upload that goes on when its answer has begun.

mod answer;
mod driver;
mod exchange;
mod upload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use tokio::sync::OwnedSemaphorePermit;

pub(super) use self::answer::Received;

use self::answer::without_its_words;
use self::driver::drive;
use self::exchange::exchange;
use super::super::body::Upload;
use super::super::limits::{Limits, MAX_UPSTREAM_STREAMS};
use super::dial;
use super::pool::Failed;

/// An HTTP/2 connection and the streams on it.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    requests: SendRequest<Bytes>,
    link: Arc<Link>,
    since: Instant,
    peer: Option<SocketAddr>,
    pub(super) kept: Option<Arc<OwnedSemaphorePermit>>,
}

/// What the streams of a connection and its driver tell each other.
#[derive(Debug, Default)]
struct Link {
    streams: AtomicUsize,
    /// A request waits to be written.
    asks: AtomicBool,
    /// A stream has made headway since the driver last looked.
    moves: AtomicBool,
    /// The upstream is gone without a word, and the driver gave the connection up.
    is_dead: AtomicBool,
    /// The upstream abuses the connection: it is to end, with all that is on it.
    is_forsaken: AtomicBool,
}

/// One stream's share of an HTTP/2 connection. It ends with the answer and with the upload, whichever is later: an upstream
/// may answer early, and the stream is open for as long as either side is.
#[derive(Clone, Debug)]
pub(super) struct Stream(Arc<Counted>);

#[derive(Debug)]
struct Counted(Arc<Link>);

impl Shared {
    /// Has a connection driven for as long as anybody uses it.
    pub(super) async fn start(
        limits: &Limits,
        stream: dial::Stream,
        peer: Option<SocketAddr>,
    ) -> Result<Self, h2::Error> {
        let (requests, connection) = limits.http2_client().handshake(stream).await?;
        let link = Arc::<Link>::default();
        tokio::spawn(drive(connection, link.clone()));
        Ok(Self {
            requests,
            link,
            since: Instant::now(),
            peer,
            kept: None,
        })
    }

    /// The address of the other end.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// One more stream, whether there is room for it or not.
    pub(super) fn stream(&self) -> Stream {
        self.link.streams.fetch_add(1, Ordering::Relaxed);
        Stream(Arc::new(Counted(self.link.clone())))
    }

    /// Whether there is room for one more stream. Beyond what the upstream allows, h2 would have requests wait in silence until
    /// others end, which may be another agent's and never do.
    pub(super) fn has_room(&self) -> bool {
        let open = self.link.streams.load(Ordering::Relaxed);
        let allowed = self.requests.current_max_send_streams();
        open < allowed.min(MAX_UPSTREAM_STREAMS)
    }

    /// Whether it takes no more requests: it has ended, or is about to (RFC 9113, section 6.8).
    pub(super) fn is_closed(&mut self) -> bool {
        self.link.is_forsaken.load(Ordering::Relaxed) || self.check().is_err()
    }

    /// Marks it as used.
    pub(super) fn touch(&mut self) {
        self.since = Instant::now();
    }

    /// Whether it has had no stream for so long.
    pub(super) fn idle_for(&mut self, idle: Duration) -> bool {
        if self.link.streams.load(Ordering::Relaxed) > 0 {
            self.touch();
        }
        self.since.elapsed() >= idle
    }

    /// Sends a request on a stream of its own, and waits for the head of the answer. Dropped before that, it resets the stream.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Upload>,
        stream: &Stream,
    ) -> Result<Response<Received>, Failed> {
        // Asked first, because h2 does not give back what it cannot take.
        if let Err(error) = self.check() {
            return Err(Failed {
                error: without_its_words(error).into(),
                unsent: Some(request),
            });
        }
        let exchange = exchange(&mut self.requests, request, stream);
        exchange.await.map_err(|fault| Failed {
            error: fault.into(),
            unsent: None,
        })
    }

    fn check(&mut self) -> Result<(), h2::Error> {
        // Nobody is waited for: only a sender that has sent may have to, and this one gave its place to a clone.
        match self
            .requests
            .poll_ready(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(ready) => ready,
            Poll::Pending => Ok(()),
        }
    }
}

impl Stream {
    fn link(&self) -> &Arc<Link> {
        let Counted(link) = &*self.0;
        link
    }

    /// Tells the driver that the upstream is there.
    fn moves(&self) {
        self.link().moves.store(true, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
