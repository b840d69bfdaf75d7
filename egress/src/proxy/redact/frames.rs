//! The frames of a WebSocket on their way through the mask (RFC 6455, section 5). A mask is as long as what it covers, so
//! no frame's head changes.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pause::Pause;
use crate::redact::{Masker, Pattern};

/// Masks the payloads of a server's frames, across the frames of a message.
pub struct Frames {
    pattern: Arc<Pattern>,
    places: Arc<AtomicU64>,
    masker: Masker,
    stage: Stage,
    /// What is to be written, in order.
    queue: VecDeque<Part>,
    /// Masked payload that the queue has places for.
    payload: BytesMut,
    /// Bytes of the queue that are no payload of a message.
    waiting: usize,
}

enum Stage {
    /// In a frame's head, of which this much has come.
    Head(Vec<u8>),
    /// In a frame of a message.
    Message { left: u64, is_last: bool },
    /// In a control frame.
    Control { left: usize, payload: Vec<u8> },
}

enum Part {
    Bytes(Vec<u8>),
    Payload(usize),
}

/// What a server must not send, or nobody sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A mask, which is for clients, or bits of an extension that was not negotiated.
    #[error("the upstream sent a frame with a mask or with bits of an extension")]
    Bits,
    /// A control frame of more than 125 bytes or in several frames.
    #[error("the upstream sent a control frame that is too long or no whole one")]
    Control,
    /// Frames without end between two parts of a message.
    #[error("the upstream sent too many control frames within a message")]
    Waiting,
}

impl Frames {
    /// For the frames behind a 101 without extensions. `places` counts what is masked.
    pub fn new(pattern: Arc<Pattern>, places: Arc<AtomicU64>) -> Self {
        Self {
            masker: Masker::new(pattern.clone()),
            pattern,
            places,
            stage: Stage::Head(Vec::new()),
            queue: VecDeque::new(),
            payload: BytesMut::new(),
            waiting: 0,
        }
    }

    /// Takes the next bytes, and adds all to `out` that no further ones can change.
    ///
    /// # Errors
    ///
    /// [`Malformed`]; the connection is to be ended.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        while let Some((first, rest)) = bytes.split_first() {
            bytes = match &mut self.stage {
                Stage::Head(known) => {
                    known.push(*first);
                    if let Some(next) = after_head(known)? {
                        let head = std::mem::take(known);
                        self.stage = next;
                        self.write(head);
                    }
                    rest
                }
                Stage::Message { left, .. } => {
                    let length = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    let (payload, rest) = bytes.split_at(length);
                    *left -= length as u64;
                    match self.queue.back_mut() {
                        Some(Part::Payload(last)) => *last += length,
                        _ => self.queue.push_back(Part::Payload(length)),
                    }
                    for masked in self.masker.push(Bytes::copy_from_slice(payload)) {
                        self.payload.extend_from_slice(&masked);
                    }
                    rest
                }
                Stage::Control { left, payload } => {
                    payload.push(*first);
                    *left -= 1;
                    rest
                }
            };
            self.end_frame();
            self.write_ready(out);
            if self.waiting > MOST_WAITING {
                return Err(Malformed::Waiting);
            }
        }
        Ok(())
    }

    /// Whether something is held back that [`release`](Self::release) would give out.
    pub fn holds(&self) -> bool {
        self.masker.held() > 0
    }

    /// Adds to `out` what was held back, where nothing comes for now.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        self.payload.extend_from_slice(&self.masker.release());
        self.write_ready(out);
    }

    /// Adds to `out` what was held back, at the end of all bytes. A frame of which a part is missing that has to be seen
    /// before it can pass is dropped.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.payload.extend_from_slice(&self.masker.finish());
        self.write_ready(out);
    }

    /// Goes on to the next frame, where this one has no byte left.
    fn end_frame(&mut self) {
        match &mut self.stage {
            Stage::Message { left: 0, is_last } => {
                if *is_last {
                    self.payload.extend_from_slice(&self.masker.finish());
                }
            }
            Stage::Control { left: 0, payload } => {
                let mut payload = std::mem::take(payload);
                if let Some((masked, found)) = self.pattern.masked(&payload) {
                    payload = masked;
                    self.places.fetch_add(found, Ordering::Relaxed);
                }
                self.write(payload);
            }
            _ => return,
        }
        self.stage = Stage::Head(Vec::new());
    }

    fn write(&mut self, mut bytes: Vec<u8>) {
        self.waiting += bytes.len();
        match self.queue.back_mut() {
            Some(Part::Bytes(last)) => last.append(&mut bytes),
            _ => self.queue.push_back(Part::Bytes(bytes)),
        }
    }

    /// Writes the queue up to the first payload that is held back.
    fn write_ready(&mut self, out: &mut Vec<u8>) {
        self.places
            .fetch_add(self.masker.take_places(), Ordering::Relaxed);
        while let Some(part) = self.queue.front_mut() {
            match part {
                Part::Bytes(bytes) => {
                    self.waiting -= bytes.len();
                    out.append(bytes);
                }
                Part::Payload(left) => {
                    let length = self.payload.len().min(*left);
                    out.extend_from_slice(&self.payload.split_to(length));
                    *left -= length;
                    if *left > 0 {
                        return;
                    }
                }
            }
            self.queue.pop_front();
        }
    }
}

/// What follows a frame's head (section 5.2), once all of it has come.
fn after_head(known: &[u8]) -> Result<Option<Stage>, Malformed> {
    let [first, second, more @ ..] = known else {
        return Ok(None);
    };
    let (is_last, opcode, length) = (first & 0x80 != 0, first & 0x0f, second & 0x7f);
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(Malformed::Bits);
    }
    if opcode >= 8 {
        if length > 125 || !is_last {
            return Err(Malformed::Control);
        }
        return Ok(Some(Stage::Control {
            left: usize::from(length),
            payload: Vec::new(),
        }));
    }
    let left = match (length, more) {
        (126, [a, b]) => u64::from(u16::from_be_bytes([*a, *b])),
        (127, more) => match more.first_chunk() {
            Some(length) => u64::from_be_bytes(*length),
            None => return Ok(None),
        },
        (126, _) => return Ok(None),
        (length, _) => u64::from(length),
    };
    Ok(Some(Stage::Message { left, is_last }))
}

/// The most bytes of control frames that wait behind a payload that is held back.
const MOST_WAITING: usize = 64 * 1024;

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A stream whose reader gets masked frames, where there are any to be masked.
#[derive(Debug)]
pub struct Masked<T> {
    io: T,
    frames: Option<Frames>,
    pause: Pause,
    ready: Vec<u8>,
    passed: usize,
    has_ended: bool,
}

impl<T> Masked<T> {
    /// Wraps an upstream's stream.
    pub fn new(io: T, frames: Option<Frames>) -> Self {
        Self {
            io,
            frames,
            pause: Pause::default(),
            ready: Vec::new(),
            passed: 0,
            has_ended: false,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Masked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(frames) = &mut this.frames else {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        };
        while this.passed == this.ready.len() && !this.has_ended {
            this.ready.clear();
            this.passed = 0;
            let mut piece = [0; 8 * 1024];
            let mut piece = ReadBuf::new(&mut piece);
            let polled = Pin::new(&mut this.io).poll_read(cx, &mut piece);
            if polled.is_pending() && frames.holds() {
                ready!(this.pause.poll(cx));
                frames.release(&mut this.ready);
                continue;
            }
            this.pause.end();
            ready!(polled)?;
            if piece.filled().is_empty() {
                this.has_ended = true;
                frames.finish(&mut this.ready);
            } else {
                let pushed = frames.push(piece.filled(), &mut this.ready);
                pushed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
        }
        let rest = this.ready.get(this.passed..).unwrap_or_default();
        let length = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..length).unwrap_or_default());
        this.passed += length;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Masked<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Frames, Pattern};

    #[test]
    fn many_empty_frames_behind_a_word_are_one_piece_of_memory() {
        let pattern = Pattern::new(["token-of-the-host-0123456789"]).expect("a long token");
        let mut frames = Frames::new(Arc::new(pattern), Arc::default());
        let (mut said, mut out) = (b"\x01\x04word".to_vec(), Vec::new());
        said.extend(b"\x00\x00".repeat(30_000));
        frames.push(&said, &mut out).expect("frames");
        assert_eq!((out.len(), frames.queue.len()), (2, 2));
    }
}
