//! What the codings that are read and written anew have in common.

use bytes::{Bytes, BytesMut};

/// Reads a body's coding, piece by piece.
pub trait Decode: Send {
    /// Reads from `input`, and returns how many bytes it wrote into `out`. With 0, it needs more input.
    ///
    /// # Errors
    ///
    /// [`Corrupt`]; nothing is to be read after it.
    fn read(&mut self, input: &mut Bytes, out: &mut [u8]) -> Result<usize, Corrupt>;

    /// Whether what was read is whole: nothing of it is unfinished.
    fn is_whole(&self) -> bool;
}

/// Writes a body in a coding, piece by piece, without compressing it: it goes to the agent beside us, and a compressor that
/// sees a secret beside text of somebody's choice tells about the secret by its lengths (BREACH).
pub trait Encode: Send {
    /// Adds the text as blocks that a reader can read to their end.
    fn add(&mut self, text: &[u8], out: &mut BytesMut);

    /// Adds the coding's end. Nothing is to be added after it.
    fn end(&mut self, out: &mut BytesMut);

    /// The text as a piece that a reader can read to its end.
    fn write(&mut self, text: &[u8]) -> Bytes {
        let mut piece = BytesMut::with_capacity(text.len() + AROUND);
        self.add(text, &mut piece);
        piece.freeze()
    }

    /// The last text, and the coding's end. Nothing is to be written after it.
    fn finish(&mut self, text: &[u8]) -> Bytes {
        let mut piece = BytesMut::with_capacity(text.len() + AROUND);
        self.add(text, &mut piece);
        self.end(&mut piece);
        piece.freeze()
    }
}

/// Room for what any coding puts around a piece of one block.
const AROUND: usize = 32;

/// Bytes that are not what their coding says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not whole in its content coding")]
pub struct Corrupt;
