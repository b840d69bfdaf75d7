//! The gate before HTTP/2: it counts frames, holds a header block back until it is whole, and keeps the time for it. After
//! a GOAWAY it ends a connection on which nothing is under way.
//!
//! hyper bounds streams, windows and headers itself. What it has no bound for are frames that cost an answer or a look and
//! bring nothing: 2,000 SETTINGS or PING were taken one after the other without a word.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::fault::Fault;
use super::frames::{CALM, Frames, Free, GOAWAY, Heads};

/// A client's stream of HTTP/2.
#[derive(Debug)]
pub struct Http2Gate<T> {
    io: T,
    frames: Frames,
    written: Heads,
    head: Duration,
    /// Bytes that were read and not yet let through, how many of them were looked at, and how many may go.
    held: BytesMut,
    looked_at: usize,
    free: usize,
    pause: bool,
    timer: Option<Timer>,
    /// Since the sidecar said goodbye: until when a request may still be on its way.
    farewell: Option<Pin<Box<Sleep>>>,
    fault: Arc<OnceLock<Fault>>,
}

/// How long requests may come after a GOAWAY that were sent before it was seen: a round trip (RFC 9113, section 6.8), and
/// more where the agent is slow. hyper waits for an answer to a PING, which an agent that stands still does not give.
const FAREWELL: Duration = Duration::from_secs(1);

/// The deadline of a header block, and how many had ended when it was set.
#[derive(Debug)]
struct Timer {
    blocks: u64,
    sleep: Pin<Box<Sleep>>,
}

/// What a client may take its time with.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Bytes of a header block as it is sent, where it spans several frames.
    pub max_block: usize,
    /// For the beginning of the connection, and for a header block.
    pub head: Duration,
}

impl<T> Http2Gate<T> {
    /// Stands before `io`, from which nothing has been read.
    pub fn new(io: T, patience: Patience) -> Self {
        Self {
            io,
            frames: Frames::new(patience.max_block, Instant::now()),
            written: Heads::default(),
            head: patience.head,
            held: BytesMut::new(),
            looked_at: 0,
            free: 0,
            pause: false,
            timer: None,
            farewell: None,
            fault: Arc::default(),
        }
    }

    /// Why the client was cut off, once it has been.
    pub fn fault(&self) -> Arc<OnceLock<Fault>> {
        self.fault.clone()
    }

    /// Hands on what is held, as far as it may go and there is room. False where there is nothing.
    fn release(&mut self, out: &mut ReadBuf<'_>) -> bool {
        let count = self.free.min(out.remaining());
        let Some(bytes) = self.held.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return false;
        };
        out.put_slice(bytes);
        self.held.advance(count);
        self.free -= count;
        self.looked_at -= count;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        true
    }

    /// Looks at held bytes that were not looked at yet. False where there are none.
    fn look(&mut self) -> Result<bool, Fault> {
        let fresh = self.held.get(self.looked_at..).unwrap_or_default();
        if fresh.is_empty() {
            return Ok(false);
        }
        let blocks = self.frames.blocks();
        let seen = self.frames.advance(fresh, Instant::now())?;
        match seen.free {
            Free::All => self.free = self.looked_at + seen.looked_at,
            Free::First(count) => self.free = self.looked_at + count,
            Free::None => {}
        }
        self.looked_at += seen.looked_at;
        self.pause = self.frames.blocks() > blocks;
        Ok(true)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Http2Gate<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(fault) = this.fault.get() {
            return Poll::Ready(Err((*fault).into()));
        }
        loop {
            if this.release(out) {
                return Poll::Ready(Ok(()));
            }
            if std::mem::take(&mut this.pause) {
                // hyper takes the request up before the next one is decoded. Else a hundred that were sent at once would be
                // there at once, each with as many fields as fit in its head.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match this.look() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(fault) => return Poll::Ready(Err(this.refuse(cx, fault))),
            }
            let before = out.filled().len();
            match Pin::new(&mut this.io).poll_read(cx, out) {
                Poll::Ready(read) => read?,
                // hyper takes it for the agent's own end, and closes what has no streams.
                Poll::Pending if this.poll_end(cx).is_ready() => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(this.poll_deadline(cx));
                    return Poll::Ready(Err(this.refuse(cx, Fault::HeadTimeout)));
                }
            }
            let fresh = out.filled().get(before..).unwrap_or_default();
            if fresh.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let passed = match this.judge(fresh) {
                Ok(passed) => passed,
                Err(fault) => {
                    out.set_filled(before);
                    return Poll::Ready(Err(this.refuse(cx, fault)));
                }
            };
            out.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Http2Gate<T> {
    /// Looks at bytes where they were read, in hyper's own buffer, and returns how many may stay there. The rest is held.
    /// All of a body is thus never copied.
    fn judge(&mut self, fresh: &[u8]) -> Result<usize, Fault> {
        if !self.held.is_empty() {
            self.held.extend_from_slice(fresh);
            return Ok(0);
        }
        let blocks = self.frames.blocks();
        let seen = self.frames.advance(fresh, Instant::now())?;
        let passed = match seen.free {
            Free::All => seen.looked_at,
            Free::First(count) => count,
            Free::None => 0,
        };
        self.held
            .extend_from_slice(fresh.get(passed..).unwrap_or_default());
        self.looked_at = seen.looked_at - passed;
        self.pause = self.frames.blocks() > blocks;
        Ok(passed)
    }

    /// Says goodbye where that is possible, between two frames and without waiting, and fails.
    fn refuse(&mut self, cx: &mut Context<'_>, fault: Fault) -> io::Error {
        if self.written.is_between() {
            _ = Pin::new(&mut self.io).poll_write(cx, &CALM);
            _ = Pin::new(&mut self.io).poll_flush(cx);
        }
        _ = self.fault.set(fault);
        fault.into()
    }

    /// Ready when nothing is under way, and nothing comes any more.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.farewell {
            Some(farewell) if self.frames.all_answered() => farewell.as_mut().poll(cx),
            _ => Poll::Pending,
        }
    }

    /// Ready when a header block has been waited for too long.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.frames.awaits_head() {
            return Poll::Pending;
        }
        let blocks = self.frames.blocks();
        let timer = match &mut self.timer {
            Some(timer) if timer.blocks == blocks => timer,
            other => other.insert(Timer {
                blocks,
                sleep: Box::pin(sleep(self.head)),
            }),
        };
        timer.sleep.as_mut().poll(cx)
    }

    /// Accounts for what was written: the first `count` bytes of these.
    fn wrote<'b>(
        &mut self,
        cx: &mut Context<'_>,
        count: usize,
        slices: impl Iterator<Item = &'b [u8]>,
    ) -> io::Result<usize> {
        let mut left = count;
        for slice in slices {
            let mut bytes = slice.get(..left).unwrap_or(slice);
            left -= bytes.len();
            while !bytes.is_empty() {
                let Some(head) = self.written.next(&mut bytes) else {
                    continue;
                };
                if let Err(fault) = self.frames.wrote(&head, Instant::now()) {
                    return Err(self.refuse(cx, fault));
                }
                if head.kind == GOAWAY && self.farewell.is_none() {
                    self.farewell = Some(Box::pin(sleep(FAREWELL)));
                }
            }
        }
        if self.farewell.is_some() && self.frames.all_answered() {
            // hyper reads before it writes, and would not look again.
            cx.waker().wake_by_ref();
        }
        Ok(count)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Http2Gate<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, bytes))?;
        Poll::Ready(this.wrote(cx, count, std::iter::once(bytes)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, slices))?;
        Poll::Ready(this.wrote(cx, count, slices.iter().map(|slice| &**slice)))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
