//! A body on its way through the mask: bytes as they are, or a coding that is read, masked and framed anew. Pure: pieces in,
//! pieces out, and never more of them than are asked for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;

use super::codec::{Corrupt, Decode, Encode};
use crate::redact::{Masker, Pattern};

/// The most bytes that a piece of input is decoded to at once.
const PIECE: usize = 16 * 1024;

/// Masks one body. Pieces go in by [`push`](Self::push) and come out by [`pull`](Self::pull), until that has none.
pub struct Rewriter {
    way: Way,
    masker: Masker,
    is_last: bool,
    trailers: Option<(Arc<Pattern>, Arc<AtomicU64>)>,
}

enum Way {
    Plain(Bytes),
    Coded(Box<Coded>),
}

struct Coded {
    input: Bytes,
    reader: Box<dyn Decode>,
    text: Box<[u8]>,
    /// `None` after the end.
    writer: Option<Box<dyn Encode>>,
    is_empty: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Rewriter {
    /// For a body without a coding.
    pub fn plain(masker: Masker) -> Self {
        Self::new(Way::Plain(Bytes::new()), masker)
    }

    /// For a body in a coding. It comes out in one again, without compression. `permit` is kept for as long.
    pub fn coded(
        masker: Masker,
        (reader, writer): (Box<dyn Decode>, Box<dyn Encode>),
        permit: impl Into<Option<OwnedSemaphorePermit>>,
    ) -> Self {
        let coded = Coded {
            input: Bytes::new(),
            reader,
            text: vec![0; PIECE].into(),
            writer: Some(writer),
            is_empty: true,
            _permit: permit.into(),
        };
        Self::new(Way::Coded(Box::new(coded)), masker)
    }

    fn new(way: Way, masker: Masker) -> Self {
        Self {
            way,
            masker,
            is_last: false,
            trailers: None,
        }
    }

    /// Adds to a counter what is masked, and masks trailers by a pattern.
    pub(super) fn counting(mut self, pattern: Arc<Pattern>, places: Arc<AtomicU64>) -> Self {
        self.trailers = Some((pattern, places));
        self
    }

    /// Takes a piece of the body in. There has to be nothing left to pull.
    pub fn push(&mut self, piece: Bytes) {
        match &mut self.way {
            Way::Plain(ready) => *ready = self.masker.push(piece),
            Way::Coded(coded) => {
                coded.is_empty &= piece.is_empty();
                coded.input = piece;
            }
        }
    }

    /// Says that no further piece comes.
    pub fn finish(&mut self) {
        self.is_last = true;
    }

    /// The next piece to be sent; `None` where another one has to be pushed before, or the body has ended.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] bytes.
    pub fn pull(&mut self) -> Result<Option<Bytes>, Corrupt> {
        let piece = match &mut self.way {
            Way::Plain(ready) => {
                let mut piece = std::mem::take(ready);
                if piece.is_empty() && self.is_last {
                    piece = self.masker.finish();
                }
                (!piece.is_empty()).then_some(piece)
            }
            Way::Coded(coded) => coded.pull(&mut self.masker, self.is_last)?,
        };
        if let Some((_, places)) = &self.trailers {
            places.fetch_add(self.masker.take_places(), Ordering::Relaxed);
        }
        Ok(piece)
    }

    /// Masks what follows the body.
    pub fn mask_trailers(&self, trailers: &mut HeaderMap) {
        if let Some((pattern, places)) = &self.trailers {
            places.fetch_add(super::mask_headers(pattern, trailers), Ordering::Relaxed);
        }
    }

    /// Whether the body has as many bytes as before.
    pub fn keeps_length(&self) -> bool {
        matches!(self.way, Way::Plain(_))
    }

    /// Bytes that went in and did not come out yet, where the length is kept.
    pub fn held(&self) -> usize {
        match &self.way {
            Way::Plain(ready) => ready.len() + self.masker.held(),
            Way::Coded(_) => 0,
        }
    }

    /// Whether nothing comes out any more.
    pub fn has_ended(&self) -> bool {
        self.is_last
            && match &self.way {
                Way::Plain(_) => self.held() == 0,
                Way::Coded(coded) => coded.writer.is_none() || coded.is_empty,
            }
    }
}

impl Coded {
    fn pull(&mut self, masker: &mut Masker, is_last: bool) -> Result<Option<Bytes>, Corrupt> {
        let Some(writer) = &mut self.writer else {
            return Ok(None);
        };
        loop {
            let length = self.reader.read(&mut self.input, &mut self.text)?;
            if length == 0 {
                break;
            }
            let text = self.text.get(..length).unwrap_or_default();
            let masked = masker.push(Bytes::copy_from_slice(text));
            if !masked.is_empty() {
                return Ok(Some(writer.write(&masked)));
            }
        }
        if !is_last || self.is_empty {
            return Ok(None);
        }
        if !self.reader.is_whole() {
            return Err(Corrupt);
        }
        let last = writer.finish(&masker.finish());
        self.writer = None;
        Ok(Some(last))
    }
}

impl fmt::Debug for Rewriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
