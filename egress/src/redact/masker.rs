//! The mask over a stream that comes in pieces, cut anywhere.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Cover, Pattern, is_base64};

/// Masks a credential in a stream of bytes. What goes in comes out, as long as it was.
///
/// It holds back the end of what it saw as far as that could belong to a form by its length and its kind of bytes, whatever
/// they are: where the pieces that come out are cut tells nothing about the credential.
pub struct Masker {
    pub(super) pattern: Arc<Pattern>,
    /// The end of what came in, as it came.
    held: Zeroizing<Vec<u8>>,
    /// How much of it came out already.
    released: usize,
    /// How much of it belongs to a form that began before it.
    covered: usize,
    /// Whether that form's last bits may be in the next character.
    edge: bool,
    places: u64,
}

impl Masker {
    /// For a stream from its beginning to its end.
    pub fn new(pattern: Arc<Pattern>) -> Self {
        Self {
            pattern,
            held: Zeroizing::default(),
            released: 0,
            covered: 0,
            edge: false,
            places: 0,
        }
    }

    /// Takes the next piece, and returns all that no further piece can change.
    pub fn push(&mut self, mut piece: Bytes) -> impl Iterator<Item = Bytes> + use<> {
        let seam = match self.held.is_empty() {
            true => None,
            false => self.pattern.seam(&piece),
        };
        let before = match seam {
            // Nothing reaches over this place, so that what lies behind it need not be copied.
            Some(end) => {
                let text = self.joined(piece.split_to(end));
                let end = text.len();
                self.mask(text, end)
            }
            None => {
                piece = self.joined(piece);
                Bytes::new()
            }
        };
        let open = self.pattern.unfinished(&piece);
        let pieces = [before, self.mask(piece, open)];
        pieces.into_iter().filter(|piece| !piece.is_empty())
    }

    /// Returns what is held back although further pieces may come: whoever reads may be waiting for it. Should it be the
    /// beginning of a form, the rest of that is masked yet.
    pub fn release(&mut self) -> Bytes {
        let text = Bytes::copy_from_slice(&self.held);
        let (cover, _) = self.cover(&text, text.len());
        self.places += cover.places;
        let masked = cover.applied(&text, self.released..text.len());
        self.released = text.len();
        masked
    }

    /// Returns what was held back, at the stream's end. After it, another stream can begin.
    pub fn finish(&mut self) -> Bytes {
        self.finish_with(Bytes::new())
    }

    /// The same with one more piece.
    pub fn finish_with(&mut self, piece: Bytes) -> Bytes {
        let text = self.joined(piece);
        let end = text.len();
        let masked = self.mask(text, end);
        (self.covered, self.edge) = (0, false);
        masked
    }

    /// Bytes that are held back.
    pub fn held(&self) -> usize {
        self.held.len() - self.released
    }

    /// How many places were masked since the last call.
    pub fn take_places(&mut self) -> u64 {
        std::mem::take(&mut self.places)
    }

    fn joined(&mut self, piece: Bytes) -> Bytes {
        if self.held.is_empty() {
            return piece;
        }
        let joined = [&self.held, &piece[..]].concat();
        self.held = Zeroizing::default();
        joined.into()
    }

    /// Returns a text up to where it is open, but for what came out before, and holds the rest back.
    fn mask(&mut self, text: Bytes, open: usize) -> Bytes {
        let (cover, edge) = self.cover(&text, open);
        self.places += cover.places;
        self.covered = cover.reach.saturating_sub(open);
        self.edge = edge;
        let masked = cover.applied(&text, self.released.min(open)..open);
        self.released = self.released.saturating_sub(open);
        self.held = Zeroizing::new(text.get(open..).unwrap_or_default().to_vec());
        masked
    }

    /// What is to be masked in a text by the forms that begin before it is open, and whether the last of them ends with it.
    fn cover(&self, text: &[u8], open: usize) -> (Cover, bool) {
        let mut found = Vec::new();
        self.pattern.scan(text, &mut found);
        let shared = text.get(self.covered).is_some_and(|byte| is_base64(*byte));
        let mut cover = Cover::from(self.covered + usize::from(self.edge && shared));
        let mut edge = false;
        // The others will be found again, and whole.
        for place in found.iter().filter(|place| place.start < open) {
            let is_news = place.end > self.released;
            cover.add(place.start, place.reach(text), is_news);
            edge |= place.edge && place.end == text.len();
        }
        (cover, edge)
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
