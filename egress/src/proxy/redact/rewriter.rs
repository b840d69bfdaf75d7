//! A body on its way through the mask: bytes as they are, or gzip that is read, masked and framed anew. Pure: pieces in,
//! pieces out, and never more of them than are asked for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;

use super::gzip::{Corrupt, Reader, Writer};
use crate::redact::{Masker, Pattern};

/// What one gzip answer costs in memory: its window, its tables and a piece of text, in bytes.
pub(super) const DECODER: usize = 64 * 1024;
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
    Gzip(Box<Gzip>),
}

struct Gzip {
    input: Bytes,
    reader: Reader,
    text: Box<[u8]>,
    /// `None` after the end.
    writer: Option<Writer>,
    is_empty: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Rewriter {
    /// For a body without a coding.
    pub fn plain(masker: Masker) -> Self {
        Self::new(Way::Plain(Bytes::new()), masker)
    }

    /// For a body in gzip. It comes out in gzip again, without compression. `permit` is kept for as long.
    pub fn gzip(masker: Masker, permit: impl Into<Option<OwnedSemaphorePermit>>) -> Self {
        let gzip = Gzip {
            input: Bytes::new(),
            reader: Reader::default(),
            text: vec![0; PIECE].into(),
            writer: Some(Writer::default()),
            is_empty: true,
            _permit: permit.into(),
        };
        Self::new(Way::Gzip(Box::new(gzip)), masker)
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
            Way::Gzip(gzip) => {
                gzip.is_empty &= piece.is_empty();
                gzip.input = piece;
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
    /// [`Corrupt`] gzip.
    pub fn pull(&mut self) -> Result<Option<Bytes>, Corrupt> {
        let piece = match &mut self.way {
            Way::Plain(ready) => {
                let mut piece = std::mem::take(ready);
                if piece.is_empty() && self.is_last {
                    piece = self.masker.finish();
                }
                (!piece.is_empty()).then_some(piece)
            }
            Way::Gzip(gzip) => gzip.pull(&mut self.masker, self.is_last)?,
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
            Way::Gzip(_) => 0,
        }
    }

    /// Whether nothing comes out any more.
    pub fn has_ended(&self) -> bool {
        self.is_last
            && match &self.way {
                Way::Plain(_) => self.held() == 0,
                Way::Gzip(gzip) => gzip.writer.is_none() || gzip.is_empty,
            }
    }
}

impl Gzip {
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
        let writer = self.writer.take().unwrap_or_default();
        Ok(Some(writer.finish(&masker.finish())))
    }
}

impl fmt::Debug for Rewriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
