//! The gate: a strict HTTP/1.1 framing check between a client's stream and hyper's lenient server.
//!
//! hyper serves requests that other parsers read differently (a length with a transfer coding, bare LF, two codings,
//! white space after a chunk size): the raw material of request smuggling. The gate hands hyper a head only once it
//! is complete and valid, and never a byte past the message that hyper is reading. What a message means is decided
//! elsewhere; this module must not look at hosts, paths or credentials.
//!
//! It relies on two traits of hyper's server with `half_close`, which [`server`] sets and the tests hold it to: a
//! read means that hyper waits for a head or a body, never that a request is still being answered; and each poll
//! of the connection ends with a flush, unless a write is blocked.

mod chunked;
mod clock;
pub mod fault;
pub mod frames;
pub mod framing;
mod head;
pub mod http2;
mod streams;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::server::conn::http1;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use self::clock::{Awaited, Clock};
use self::fault::Fault;
use self::framing::{Bounds, Framing, Phase};

/// A client's stream, of which only well-framed HTTP/1.1 requests can be read. Writes pass through.
///
/// To the reader a fault in a head is the end of the stream, so that answers in flight are finished; the owner of the
/// connection finds it with [`Gate::refusal`] and says so with [`Gate::answer_and_close`]. A fault in a body is a read
/// error which carries it ([`Fault::find`]).
///
/// After the head of a CONNECT or a WebSocket request nothing more is read; [`Gate::into_inner`] gives the stream and
/// what came with the head. If the request is refused instead, the next read is the end of the stream: bytes that
/// were meant for a tunnel are never taken for a request.
#[derive(Debug)]
pub struct Gate<T> {
    io: T,
    framing: Framing,
    limits: Limits,
    clock: Clock,
    /// Bytes that were read and not yet handed on: part of a head, or what followed a message. Without a buffer
    /// when empty, as it nearly always is.
    held: BytesMut,
    /// How many of the held bytes are accepted; they wait for room in the reader's buffer.
    accepted: usize,
    silence: Silence,
    writes: Writes,
    /// hyper read from the stream since the last flush, so the client wakes it. What was held for it says nothing of the stream.
    awaited: bool,
    rests: Rests,
}

/// Whether hyper has waited for a while for another request, with nothing in its hands: all that it keeps for the connection
/// may be dropped until there is one.
#[derive(Clone, Debug, Default)]
pub struct Rests(Arc<AtomicBool>);

impl Rests {
    /// Whether it is so.
    pub fn now(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, rests: bool) {
        self.0.store(rests, Ordering::Relaxed);
    }
}

/// The bounds on what a client may send, and how slowly.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes in a request head.
    pub max_head: usize,
    /// Header lines in a head, and trailer lines in a body.
    pub max_fields: usize,
    /// From the first byte of a head to its last. The first head's time begins with the connection.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Between two reads of a body. The time in which nobody wants to read it does not count.
    pub body_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head: 64 * 1024,
            max_fields: 100,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            body_idle: Duration::from_secs(60),
        }
    }
}

/// hyper's server with the settings that the gate relies on. Others may be added; these must stay:
///
/// - `half_close`: otherwise hyper reads ahead while it answers, and takes the end that the gate reports after a bad
///   head for the client's leaving, which cuts off the answer. (The gate watches for clients that leave.)
/// - `header_read_timeout(None)`: the gate keeps the time.
/// - `max_buf_size`: at least a head; it bounds how far past a message the gate can read.
/// - `pipeline_flush` stays off: it skips the flushes in which the gate watches for clients that leave.
pub fn server(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(limits.max_head.max(8192));
    // hyper keeps 100 on the stack; any explicit number costs it an allocation per request.
    if limits.max_fields > 100 {
        builder.max_headers(limits.max_fields);
    }
    builder
}

impl<T> Gate<T> {
    /// Stands before `io`, from which nothing has been read.
    pub fn new(io: T, limits: Limits) -> Self {
        Self {
            io,
            framing: Framing::new(Bounds {
                head: limits.max_head,
                fields: limits.max_fields,
            }),
            limits,
            clock: Clock::new(limits.head),
            held: BytesMut::new(),
            accepted: 0,
            silence: Silence::No,
            writes: Writes::Flushed,
            awaited: false,
            rests: Rests::default(),
        }
    }

    /// Tells when the connection [rests](Rests). It does not before hyper has looked for a request.
    pub fn rests(&mut self) -> Rests {
        self.rests.set(false);
        self.rests.clone()
    }

    /// The fault for which the client was cut off without an answer: one in a head, which no service has seen.
    pub fn refusal(&self) -> Option<Fault> {
        self.fault().filter(|fault| !fault.in_body())
    }

    /// The fault that ended the reading, in a head or in a body.
    pub fn fault(&self) -> Option<Fault> {
        match self.framing.phase() {
            Phase::Failed(fault) => Some(fault),
            Phase::Head | Phase::Body | Phase::Tunnel => None,
        }
    }

    /// The stream, and the bytes that were read from it and not handed on: the first ones of a tunnel.
    pub fn into_inner(self) -> (T, Bytes) {
        (self.io, self.held.freeze())
    }

    /// The stream beneath, to look at (its peer, its TLS session), not to read from.
    pub fn stream(&self) -> &T {
        &self.io
    }

    fn next_is_end(&self) -> bool {
        self.silence == Silence::Expired
            || matches!(self.framing.phase(), Phase::Tunnel | Phase::Failed(_))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Gate<T> {
    /// Writes a whole raw response, says goodbye, and waits a moment for the client to do the same.
    ///
    /// # Errors
    /// The client is gone, or does not take the answer in time.
    pub async fn answer_and_close(mut self, response: &[u8]) -> io::Result<()> {
        let Self { io, .. } = &mut self;
        let said = async {
            io.write_all(response).await?;
            io.shutdown().await
        };
        tokio::time::timeout(LINGER, said).await??;
        // Closing with unread bytes in the kernel resets the connection, and a reset can overtake the answer
        // (RFC 9112, 9.6). So some of what the client still sends is read and dropped.
        let drained = async {
            let mut scratch = [0; 1024];
            for _ in 0..MAX_LINGER_READS {
                if matches!(io.read(&mut scratch).await, Ok(0) | Err(_)) {
                    return;
                }
            }
        };
        // It has the answer: how it says goodbye is no longer of interest.
        let _ = tokio::time::timeout(LINGER, drained).await;
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gate<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.awaited = true;
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.release(out) {
                this.awaited = false;
                return Poll::Ready(Ok(()));
            }
            if this.next_is_end() {
                return this.end();
            }
            if this.silence == Silence::Left {
                return this.end_of_stream();
            }
            let before = out.filled().len();
            match Pin::new(&mut this.io).poll_read(cx, out) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    ready!(this.poll_deadline(cx));
                    continue;
                }
            }
            let fresh = out.filled().get(before..).unwrap_or_default();
            if fresh.is_empty() {
                return this.end_of_stream();
            }
            let kept = before + this.judge(fresh);
            out.set_filled(kept);
            if kept > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + Unpin> Gate<T> {
    /// Judges bytes where they were read, in hyper's own buffer, and returns how many may stay there. The rest is held.
    /// Most heads and all of a body are thus never copied.
    fn judge(&mut self, fresh: &[u8]) -> usize {
        let accepted = if self.held.is_empty() {
            // A fault is kept in the framing, and met again when the loop comes to `next_is_end`.
            self.framing.advance(fresh).unwrap_or(0)
        } else {
            0
        };
        if accepted > 0 {
            self.arrived();
        }
        self.held
            .extend_from_slice(fresh.get(accepted..).unwrap_or_default());
        accepted
    }

    /// Hands held bytes on, as far as they are accepted and there is room. False if there are none.
    fn release(&mut self, out: &mut ReadBuf<'_>) -> bool {
        if self.accepted == 0 && !self.held.is_empty() {
            self.accepted = self.framing.advance(&self.held).unwrap_or(0);
        }
        let count = self.accepted.min(out.remaining());
        let Some(bytes) = self.held.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return false;
        };
        out.put_slice(bytes);
        self.held.advance(count);
        self.accepted -= count;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        self.arrived();
        true
    }

    fn arrived(&mut self) {
        self.clock.arrived();
        self.rests.set(false);
    }

    /// Ready when the client has been waited for too long; the reason is then on record.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (awaited, bound) = match self.framing.phase() {
            Phase::Body => (Awaited::Body, self.limits.body_idle),
            _ if !self.held.is_empty() || self.clock.awaits_first_head() => {
                (Awaited::Head, self.limits.head)
            }
            // What hyper could not write yet is still in its hands.
            _ if self.rests.now() || self.writes != Writes::Flushed => {
                (Awaited::Request, self.limits.idle)
            }
            _ => (Awaited::Next, REST.min(self.limits.idle)),
        };
        ready!(self.clock.poll(cx, awaited, bound));
        match awaited {
            Awaited::Next => {
                self.rests.set(true);
                return self.poll_deadline(cx);
            }
            Awaited::Body => self.framing.fail(Fault::BodyTimeout),
            Awaited::Head if !self.held.is_empty() => self.framing.fail(Fault::HeadTimeout),
            // Who never began a request is owed no answer: connections are opened in advance and left unused.
            Awaited::Head | Awaited::Request => self.silence = Silence::Expired,
        }
        Poll::Ready(())
    }

    /// The client sends nothing more: clean between two requests, a fault elsewhere.
    fn end_of_stream(&mut self) -> Poll<io::Result<()>> {
        match self.framing.finish(self.held.len()) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => self.end(),
        }
    }

    /// What the reader sees when the gate lets nothing more through.
    fn end(&mut self) -> Poll<io::Result<()>> {
        self.clock.stop();
        if let Some(fault) = self.fault().filter(|fault| fault.in_body()) {
            return Poll::Ready(Err(fault.into()));
        }
        // At the end of the stream hyper drops what it has not flushed, if the owner asked for no shutdown. An answer
        // that was complete before its request's body was can still be in there.
        if self.writes == Writes::Unflushed {
            self.writes = Writes::EndAwaitsFlush;
        }
        match self.writes {
            Writes::Flushed => Poll::Ready(Ok(())),
            Writes::Unflushed | Writes::EndAwaitsFlush => Poll::Pending,
        }
    }

    /// Waits until there is something to read for hyper, which is not there while the connection [rests](Rests).
    pub async fn wake(&mut self) {
        std::future::poll_fn(|cx| self.poll_wake(cx)).await;
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.held.is_empty() || self.silence != Silence::No {
            return Poll::Ready(());
        }
        match self.peek(cx) {
            // An end or an error is met again by hyper.
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => self.poll_deadline(cx),
        }
    }

    /// Reads a little, and holds it. How much that was; 0 at the end of the stream.
    fn peek(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [const { MaybeUninit::uninit() }; WATCH_BYTES];
        let mut read = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        self.held.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// While hyper answers, it does not read, so a client that leaves has to be noticed here: else its request would
    /// be worked on to the end, upstream and all.
    fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.framing.phase() != Phase::Head || !self.held.is_empty() {
            return Ok(());
        }
        match self.silence {
            Silence::No => {}
            Silence::Expired => return Ok(()),
            Silence::Left => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
        let Poll::Ready(count) = self.peek(cx)? else {
            return Ok(());
        };
        if count == 0 {
            // Not an error yet. The client may have had its whole answer: then hyper reads next, and closes in peace.
            self.silence = Silence::Left;
        }
        // What was read here can no longer wake a hyper that has begun to wait for it.
        cx.waker().wake_by_ref();
        Ok(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.writes.begin();
        Pin::new(&mut this.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.writes.begin();
        Pin::new(&mut this.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        if mem::replace(&mut this.writes, Writes::Flushed) == Writes::EndAwaitsFlush {
            cx.waker().wake_by_ref();
        }
        if !mem::take(&mut this.awaited) {
            this.watch(cx)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An owner who let hyper shut the stream down still has to answer the bad head.
        if self.refusal().is_some() {
            return self.poll_flush(cx);
        }
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// Why a client sends nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Silence {
    No,
    /// It began no request within the bound.
    Expired,
    /// It closed its side while hyper did not read.
    Left,
}

/// What became of the reader's last write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Writes {
    Flushed,
    Unflushed,
    /// The end of the stream is held back until the flush.
    EndAwaitsFlush,
}

impl Writes {
    fn begin(&mut self) {
        if *self == Self::Flushed {
            *self = Self::Unflushed;
        }
    }
}

/// How long hyper waits for another request before all that it keeps is given back. A busy connection never comes to it.
const REST: Duration = Duration::from_millis(200);

const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER_READS: usize = 256;

/// Enough for the start of a pipelined request; after it the watch rests.
const WATCH_BYTES: usize = 512;
