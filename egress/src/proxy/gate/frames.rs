//! HTTP/2 as a row of frame headers (RFC 9113, section 4.1), and a budget for those that cost more than they bring.
//!
//! It is a pure state machine: bytes and the time in, how far they may go and a verdict out. Nine bytes of each frame are
//! looked at and its payload is skipped, so bulk data costs next to nothing. What the frames mean is hyper's business.

use std::time::Instant;

use super::fault::{Fault, Flood};
use super::streams::Streams;

/// What an agent sends on an HTTP/2 connection.
///
/// A header block that spans several frames is let through when it is whole, so that nobody keeps half of one decoded, and
/// each call ends at the end of a block, so that requests are decoded one at a time.
#[derive(Debug)]
pub struct Frames {
    heads: Heads,
    preface_left: usize,
    /// Bytes of the header block under way, where its first frame did not end it.
    block: Option<usize>,
    max_block: usize,
    /// In the frame that ends a header block.
    ends_block: bool,
    in_head: bool,
    blocks: u64,
    budget: Budget,
    streams: Streams,
}

/// How far bytes were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Bytes that were looked at. Fewer than there are where a header block ended.
    pub looked_at: usize,
    /// Bytes that may be let through.
    pub free: Free,
}

/// Which bytes may be let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Free {
    /// All that were looked at, in this call and before.
    All,
    /// All of the calls before and so many of this one; the rest is the beginning of a header block.
    First(usize),
    /// None that are not let through yet: a header block goes on.
    None,
}

impl Frames {
    /// The beginning of a connection, on which a header block has at most `max_block` bytes.
    pub fn new(max_block: usize, now: Instant) -> Self {
        Self {
            heads: Heads::default(),
            preface_left: PREFACE,
            block: None,
            max_block,
            ends_block: false,
            in_head: true,
            blocks: 0,
            budget: Budget::new(now),
            streams: Streams::default(),
        }
    }

    /// Looks at what the agent sent, up to the end of a header block at most.
    ///
    /// # Errors
    ///
    /// [`Fault::Flood`] where the budget is used up, and [`Fault::HeadTooLarge`]. Both are final.
    pub fn advance(&mut self, bytes: &[u8], now: Instant) -> Result<Seen, Fault> {
        let preface = self.preface_left.min(bytes.len());
        self.preface_left -= preface;
        let mut rest = bytes.get(preface..).unwrap_or_default();
        let mut free = match self.block {
            Some(_) => Free::None,
            None => Free::All,
        };
        loop {
            let before = rest.len();
            let head = self.heads.next(&mut rest);
            if let Some(block) = &mut self.block {
                *block += before - rest.len();
                if *block > self.max_block {
                    return Err(Fault::HeadTooLarge);
                }
            }
            // Looked for first: a frame without a payload ends where its head does.
            let ended = match &head {
                Some(head) => {
                    let looked_at = bytes.len() - rest.len();
                    self.enter(head, looked_at, &mut free, now)?;
                    self.ends_block && head.length == 0
                }
                None => self.ends_block && self.heads.payload_left == 0,
            };
            if ended {
                self.ends_block = false;
                self.in_head = false;
                self.block = None;
                self.blocks += 1;
                return Ok(Seen {
                    looked_at: bytes.len() - rest.len(),
                    free: Free::All,
                });
            }
            if rest.is_empty() {
                return Ok(Seen {
                    looked_at: bytes.len(),
                    free,
                });
            }
        }
    }

    /// Whether the beginning of the connection or a header block is under way.
    pub fn awaits_head(&self) -> bool {
        self.preface_left > 0 || self.in_head
    }

    /// Whether every request was answered to its end.
    pub fn all_answered(&self) -> bool {
        self.streams.all_answered()
    }

    /// How many header blocks have ended.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Accounts for what the sidecar wrote: answers are what the agent's frames are for.
    ///
    /// # Errors
    ///
    /// [`Fault::Flood`], where the agent had too many streams reset.
    pub fn wrote(&mut self, head: &FrameHead, now: Instant) -> Result<(), Fault> {
        self.streams.wrote(head);
        self.budget.answered(head, now)
    }

    fn enter(
        &mut self,
        head: &FrameHead,
        looked_at: usize,
        free: &mut Free,
        now: Instant,
    ) -> Result<(), Fault> {
        self.budget.spend(head, now)?;
        if self.streams.received(head) > MAX_PINNED {
            return Err(Fault::Flood(Flood::Scattered));
        }
        let is_block = matches!(head.kind, HEADERS | PUSH_PROMISE)
            || (head.kind == CONTINUATION && self.block.is_some());
        self.in_head = is_block;
        self.ends_block = is_block && head.flags & END_HEADERS != 0;
        if !is_block {
            // Within a block it is an error, which hyper answers.
            self.block = None;
            *free = Free::All;
        } else if self.block.is_none() && !self.ends_block {
            self.block = Some(0);
            *free = Free::First(looked_at);
        }
        Ok(())
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// Finds the heads of frames in bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Heads {
    have: [u8; 9],
    length: usize,
    payload_left: usize,
}

impl Heads {
    /// Skips to the next head, and takes it off `bytes`. `None` where they end before it is whole, or with a payload.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<FrameHead> {
        let skipped = self.payload_left.min(bytes.len());
        self.payload_left -= skipped;
        *bytes = bytes.get(skipped..).unwrap_or_default();
        if skipped > 0 && self.payload_left == 0 {
            // The end of a payload is worth a look, before the next head is.
            return None;
        }
        while let Some((first, rest)) = bytes.split_first() {
            *bytes = rest;
            if let Some(place) = self.have.get_mut(self.length) {
                *place = *first;
            }
            self.length += 1;
            if self.length == self.have.len() {
                self.length = 0;
                let [a, b, c, kind, flags, stream @ ..] = self.have;
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                self.payload_left = length;
                return Some(FrameHead {
                    length,
                    kind,
                    flags,
                    // The first bit is to be ignored (RFC 9113, section 4.1).
                    stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
                });
            }
        }
        None
    }

    /// Whether all that was seen so far is a number of whole frames.
    pub fn is_between(&self) -> bool {
        self.payload_left == 0 && self.length == 0
    }
}

/// What an agent may send that brings nothing: two buckets, which time fills slowly and answers fill fast, and
/// one that nothing fills.
#[derive(Debug)]
struct Budget {
    control: u32,
    resets: u32,
    empty: u32,
    filled: Instant,
}

/// Frames at once that are neither requests nor data, and how many more each second. A client that tunes its windows sends
/// two for each frame of an answer, and gRPC's adds a PING.
const CONTROL: u32 = 1000;
const CONTROL_A_SECOND: u32 = 100;
const CONTROL_A_FRAME: u32 = 4;
/// Bytes of a body that pay for one: by bytes, since a byte a frame is no better than none.
const DATA_FOR_A_FRAME: usize = 1024;
/// Streams that end by a reset, from either side. A browser that leaves a page gives up a hundred at once.
const RESETS: u32 = 200;
const RESETS_A_SECOND: u32 = 20;
/// Frames of DATA without a byte in a connection's life. h2 takes a hundred, and would say no more than that it ended.
const EMPTY: u32 = 90;

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            control: CONTROL,
            resets: RESETS,
            empty: EMPTY,
            filled: now,
        }
    }

    fn spend(&mut self, head: &FrameHead, now: Instant) -> Result<(), Fault> {
        let flood = match head.kind {
            HEADERS => return Ok(()),
            DATA if head.length > 0 => {
                let paid = u32::try_from(head.length / DATA_FOR_A_FRAME).unwrap_or(CONTROL);
                self.control = self.control.saturating_add(paid).min(CONTROL);
                return Ok(());
            }
            DATA if head.flags & END_STREAM != 0 => return Ok(()),
            DATA => return self.empty(),
            PRIORITY => Flood::Priority,
            RST_STREAM => return self.reset(now),
            SETTINGS => Flood::Settings,
            PING => Flood::Ping,
            WINDOW_UPDATE => Flood::WindowUpdate,
            CONTINUATION => Flood::Continuation,
            _ => Flood::Other,
        };
        self.fill(now);
        match self.control.checked_sub(1) {
            Some(left) => self.control = left,
            None => return Err(Fault::Flood(flood)),
        }
        Ok(())
    }

    fn answered(&mut self, head: &FrameHead, now: Instant) -> Result<(), Fault> {
        match head.kind {
            HEADERS => self.resets = (self.resets + 1).min(RESETS),
            RST_STREAM => self.reset(now)?,
            _ => {}
        }
        if matches!(head.kind, DATA | HEADERS) {
            self.control = (self.control + CONTROL_A_FRAME).min(CONTROL);
        }
        Ok(())
    }

    fn reset(&mut self, now: Instant) -> Result<(), Fault> {
        self.fill(now);
        match self.resets.checked_sub(1) {
            Some(left) => self.resets = left,
            None => return Err(Fault::Flood(Flood::Reset)),
        }
        Ok(())
    }

    fn empty(&mut self) -> Result<(), Fault> {
        match self.empty.checked_sub(1) {
            Some(left) => self.empty = left,
            None => return Err(Fault::Flood(Flood::EmptyData)),
        }
        Ok(())
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs();
        if passed > 0 {
            let more = |a_second: u32| {
                u32::try_from(passed.saturating_mul(a_second.into())).unwrap_or(u32::MAX)
            };
            let (control, resets) = (more(CONTROL_A_SECOND), more(RESETS_A_SECOND));
            self.control = self.control.saturating_add(control).min(CONTROL);
            self.resets = self.resets.saturating_add(resets).min(RESETS);
            self.filled = now;
        }
    }
}

/// Bytes beside their data that bodies may pin on a connection. A hundred requests at once with heads of 5 KiB stay below.
pub(in crate::proxy) const MAX_PINNED: usize = 512 * 1024;

/// `PRI * HTTP/2.0 ...` (RFC 9113, section 3.4), which hyper checks.
const PREFACE: usize = 24;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A GOAWAY with `ENHANCE_YOUR_CALM` (RFC 9113, section 7). Every stream may have been worked on.
pub(super) const CALM: [u8; 17] = [
    0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xb,
];
