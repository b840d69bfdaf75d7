//! The mask over a stream that comes in pieces, cut anywhere.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Cover, Pattern, is_base64};

/// Masks a credential in a stream of bytes. What goes in comes out, as long as it was.
///
/// It holds back the end of what it saw where that is the beginning of a form, and nothing else.
pub struct Masker {
    pub(super) pattern: Arc<Pattern>,
    held: Zeroizing<Vec<u8>>,
    /// How much of what is held belongs to a form that began before it.
    covered: usize,
    /// Whether that form's last bits may be in the next character.
    edge: bool,
    sides: Sides,
    places: u64,
}

/// What may have been cut off from the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sides {
    /// Nothing.
    Whole,
    /// Its beginning, of which nothing has passed yet, and its end.
    Unopened,
    /// Its end.
    Cut,
}

impl Masker {
    /// For a stream from its beginning to its end.
    pub fn new(pattern: Arc<Pattern>) -> Self {
        Self {
            pattern,
            held: Zeroizing::default(),
            covered: 0,
            edge: false,
            sides: Sides::Whole,
            places: 0,
        }
    }

    /// For a range that somebody chose, who could have chosen it to cut a form in two: at either end of the stream, a part of
    /// a form that has at least [`SHORTEST`](super::SHORTEST) bytes is masked too.
    pub fn of_range(pattern: Arc<Pattern>) -> Self {
        Self {
            sides: Sides::Unopened,
            ..Self::new(pattern)
        }
    }

    /// Takes the next piece, and returns all that no further piece can change. It may be empty.
    pub fn push(&mut self, piece: Bytes) -> Bytes {
        if piece.is_empty() {
            return piece;
        }
        let text = self.joined(piece);
        if self.sides == Sides::Unopened && self.pattern.is_part(&text) {
            self.held = Zeroizing::new(text.into());
            return Bytes::new();
        }
        self.mask(text, false)
    }

    /// Returns what was held back, at the stream's end. After it, another stream can begin.
    pub fn finish(&mut self) -> Bytes {
        let text = self.joined(Bytes::new());
        let masked = self.mask(text, true);
        (self.covered, self.edge) = (0, false);
        masked
    }

    /// Bytes that are held back.
    pub fn held(&self) -> usize {
        self.held.len()
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

    fn mask(&mut self, text: Bytes, last: bool) -> Bytes {
        let mut found = Vec::new();
        let unfinished = self.pattern.scan(&text, &mut found);
        let open = if last { text.len() } else { unfinished };

        let mut cover = Cover::from(self.inherited(&text, last));
        let mut edge = false;
        // The others will be found again, and whole.
        for place in found.iter().filter(|place| place.start < open) {
            cover.add(place.start, place.reach(&text));
            edge |= place.edge && place.end == text.len();
        }
        if last && self.sides == Sides::Cut && text.len() - unfinished >= super::SHORTEST {
            cover.add(unfinished, text.len());
        }
        self.places += cover.places;
        self.covered = cover.reach.saturating_sub(open);
        self.edge = edge;
        self.held = Zeroizing::new(text.get(open..).unwrap_or_default().to_vec());
        if cover.reach == 0 {
            return text.slice(..open);
        }
        let mut masked = text.get(..open).unwrap_or_default().to_vec();
        cover.apply(&mut masked);
        masked.into()
    }

    /// How much of a text's beginning belongs to a form that began before it.
    fn inherited(&mut self, text: &[u8], last: bool) -> usize {
        if self.sides == Sides::Unopened && !text.is_empty() {
            self.sides = Sides::Cut;
            let end = match last && self.pattern.is_part(text) {
                true => text.len(),
                false => self.pattern.ended_by(text),
            };
            if end < super::SHORTEST {
                return 0;
            }
            self.places += 1;
            return end;
        }
        let shared = text.get(self.covered).is_some_and(|byte| is_base64(*byte));
        self.covered + usize::from(self.edge && shared)
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
