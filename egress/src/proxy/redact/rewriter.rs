//! A body on its way through the mask: bytes as they are, or a coding that is read, masked and framed anew. Pure: pieces in,
//! pieces out, and never more of them than are asked for.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;

use super::codec::{Corrupt, Decode, Encode};
use super::grpc::Messages;
use crate::redact::{Masker, Pattern};

/// The most bytes that a piece of input is decoded to at once.
const PIECE: usize = 16 * 1024;

/// Masks one body. Pieces go in by [`push`](Self::push) and come out by [`pull`](Self::pull), until that has none.
pub struct Rewriter {
    way: Way,
    masker: Masker,
    ready: VecDeque<Bytes>,
    is_last: bool,
    trailers: Option<(Arc<Pattern>, Arc<AtomicU64>)>,
}

enum Way {
    Plain(Option<Messages>),
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
        Self::new(Way::Plain(None), masker)
    }

    /// For messages of gRPC. None of them waits for the next one.
    pub fn messages(masker: Masker) -> Self {
        Self::new(Way::Plain(Some(Messages::default())), masker)
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
            ready: VecDeque::new(),
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
            Way::Plain(messages) => {
                let is_whole = messages
                    .as_mut()
                    .is_some_and(|messages| messages.end_with(&piece));
                self.ready.extend(self.masker.push(piece));
                if is_whole {
                    self.release();
                }
            }
            Way::Coded(coded) => {
                coded.is_empty &= piece.is_empty();
                coded.input = piece;
            }
        }
    }

    /// Takes the last piece in. Nothing of it has to be held back, so that most answers come out as they came, in one.
    pub fn push_last(&mut self, piece: Bytes) {
        match &mut self.way {
            Way::Plain(_) => {
                let text = self.masker.finish_with(piece);
                self.ready.extend((!text.is_empty()).then_some(text));
            }
            Way::Coded(_) => self.push(piece),
        }
        self.finish();
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
        let ready = self.ready.pop_front();
        let piece = match &mut self.way {
            _ if ready.is_some() => ready,
            Way::Plain(_) if self.is_last => {
                Some(self.masker.finish()).filter(|piece| !piece.is_empty())
            }
            Way::Plain(_) => None,
            Way::Coded(coded) => coded.pull(&mut self.masker, self.is_last)?,
        };
        if let Some((_, places)) = &self.trailers {
            places.fetch_add(self.masker.take_places(), Ordering::Relaxed);
        }
        Ok(piece)
    }

    /// Whether something is held back that [`release`](Self::release) would give out.
    pub fn holds(&self) -> bool {
        self.masker.held() > 0
    }

    /// Gives out what is held back, where nothing comes for now.
    pub fn release(&mut self) {
        let text = self.masker.release();
        self.ready.extend(match &mut self.way {
            _ if text.is_empty() => None,
            Way::Plain(_) => Some(text),
            Way::Coded(coded) => coded.writer.as_mut().map(|writer| writer.write(&text)),
        });
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
            Way::Plain(_) => self.ready.iter().map(Bytes::len).sum::<usize>() + self.masker.held(),
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
            let mut piece = BytesMut::new();
            for masked in masker.push(Bytes::copy_from_slice(text)) {
                writer.add(&masked, &mut piece);
            }
            if !piece.is_empty() {
                return Ok(Some(piece.freeze()));
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
