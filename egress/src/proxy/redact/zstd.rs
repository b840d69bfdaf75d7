//! Zstandard, read and written piece by piece (RFC 8878).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::codec::{Corrupt, Decode, Encode};

/// The most that a reader takes, in bytes: its window, a block before and behind it, and 160 KB of tables.
pub const MOST: usize = WINDOW + 1024 * 1024;
/// What a decoder has to admit, and a sender may use at most (section 3.1.1.1.2).
const WINDOW: usize = 1 << WINDOW_LOG;
const WINDOW_LOG: u32 = 23;

/// Reads any number of frames, and passes over those that are to be skipped.
pub struct Reader {
    context: DCtx<'static>,
    is_whole: bool,
    /// Whether there may be more output without more input.
    is_full: bool,
}

impl Reader {
    /// # Errors
    ///
    /// [`Corrupt`] without memory.
    pub fn new() -> Result<Self, Corrupt> {
        let mut context = DCtx::try_create().ok_or(Corrupt)?;
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
            .map_err(|_| Corrupt)?;
        Ok(Self {
            context,
            is_whole: true,
            is_full: false,
        })
    }
}

impl Decode for Reader {
    fn read(&mut self, input: &mut Bytes, out: &mut [u8]) -> Result<usize, Corrupt> {
        // Without either, the library counts a call that led to nothing.
        while self.is_full || !input.is_empty() {
            let mut from = InBuffer::around(input);
            let mut to = OutBuffer::around(&mut *out);
            let missing = self
                .context
                .decompress_stream(&mut to, &mut from)
                .map_err(|_| Corrupt)?;
            let (consumed, written) = (from.pos(), to.pos());
            input.advance(consumed);
            self.is_whole = missing == 0;
            self.is_full = !self.is_whole && written == out.len();
            if written > 0 {
                return Ok(written);
            }
        }
        Ok(0)
    }

    fn is_whole(&self) -> bool {
        self.is_whole
    }
}

/// Writes one frame of raw blocks (section 3.1.1.2.2).
#[derive(Default)]
pub struct Writer {
    begun: bool,
}

impl Encode for Writer {
    fn add(&mut self, text: &[u8], out: &mut BytesMut) {
        if !std::mem::replace(&mut self.begun, true) {
            // The magic number; no length, no checksum, no dictionary; a window of 128 KiB (section 3.1.1.1).
            out.put_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3]);
        }
        for block in text.chunks(BLOCK) {
            // One bit: not the last one. Two bits: raw.
            let [low, middle, high, _] = ((block.len() as u32) << 3).to_le_bytes();
            out.put_slice(&[low, middle, high]);
            out.put_slice(block);
        }
    }

    fn end(&mut self, out: &mut BytesMut) {
        out.put_slice(&[1, 0, 0]);
    }
}

/// No block is larger than this, nor than the window (section 3.1.1.2.4).
const BLOCK: usize = 1 << 16;
