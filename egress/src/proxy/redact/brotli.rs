//! Brotli, read and written piece by piece (RFC 7932).

use brotli_decompressor::{
    BrotliDecoderParameter, BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc,
};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::codec::{Corrupt, Decode, Encode};

/// The most that a reader takes, in bytes: the largest window (section 9.1), without the extension for larger ones, and 256
/// trees of each kind in their largest tables (sections 3.3 and 9.2), which are 2.7 MB.
pub const MOST: usize = 20 * 1024 * 1024;

/// Reads one stream.
pub struct Reader {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Before,
    Within,
    After,
}

impl Default for Reader {
    fn default() -> Self {
        let alloc = StandardAlloc::default;
        let mut state = BrotliState::new_strict(alloc(), alloc(), alloc());
        // A window that grows is there twice for a while. The system gives memory to one that is not filled as it is filled.
        let parameter =
            BrotliDecoderParameter::BROTLI_DECODER_PARAM_DISABLE_RING_BUFFER_REALLOCATION;
        state.set_parameter(parameter, 1);
        Self {
            state: Box::new(state),
            stage: Stage::Before,
        }
    }
}

impl Decode for Reader {
    fn read(&mut self, input: &mut Bytes, out: &mut [u8]) -> Result<usize, Corrupt> {
        if self.stage == Stage::After {
            return if input.is_empty() {
                Ok(0)
            } else {
                Err(Corrupt)
            };
        }
        if !input.is_empty() {
            self.stage = Stage::Within;
        }
        let (mut left, mut consumed) = (input.len(), 0);
        let (mut room, mut written, mut total) = (out.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut consumed,
            input,
            &mut room,
            &mut written,
            out,
            &mut total,
            &mut self.state,
        );
        input.advance(consumed.min(input.len()));
        match result {
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess if written == 0 && !input.is_empty() => {
                return Err(Corrupt);
            }
            BrotliResult::ResultSuccess => self.stage = Stage::After,
            BrotliResult::ResultFailure => return Err(Corrupt),
        }
        Ok(written)
    }

    fn is_whole(&self) -> bool {
        self.stage != Stage::Within
    }
}

/// Writes one stream of meta-blocks that are not compressed (section 9.2).
#[derive(Default)]
pub struct Writer {
    begun: bool,
}

impl Encode for Writer {
    fn add(&mut self, text: &[u8], out: &mut BytesMut) {
        for block in text.chunks(BLOCK) {
            // One bit: not the last one. Two bits: four digits of a length, less one. One bit: not compressed.
            let head = ((block.len() as u32 - 1) << 3) | (1 << 19);
            // Before the first one, a bit for a window of 16 bits (section 9.1).
            let head = head << u32::from(!std::mem::replace(&mut self.begun, true));
            let [low, middle, high, _] = head.to_le_bytes();
            out.put_slice(&[low, middle, high]);
            out.put_slice(block);
        }
    }

    fn end(&mut self, out: &mut BytesMut) {
        // Two bits: the last one, and empty.
        out.put_u8(0b11 << u8::from(!self.begun));
    }
}

/// As much as four digits can say.
const BLOCK: usize = 1 << 16;
