//! What a credential looks like when somebody says it back, and how to take it out of a stream of bytes. Pure.
//!
//! A [`Pattern`] holds the forms of one credential and finds them; a [`Masker`] writes `*` over them in bytes that come in
//! pieces. Lengths hold, so whatever frames the bytes holds too. Nothing here knows of HTTP.

mod forms;
mod masker;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use zeroize::Zeroizing;

use self::forms::Form;

pub use self::forms::SHORTEST;
pub use self::masker::Masker;

/// The forms of a credential, ready to be searched for. Its memory is wiped, and `Debug` shows nothing of it.
///
/// All forms are long, so the search need not look at every byte: with a window of `m` bytes, no longer than the shortest
/// form, each occurrence holds a gram of 4 bytes that begins at a multiple of `m - 3`. Only the grams at those places are
/// looked up, and where one is known the forms that have it there are compared.
pub struct Pattern {
    forms: Vec<Form>,
    longest: usize,
    window: usize,
    /// Every gram that begins in the first `stride` bytes of a form: gram, form and offset in one number, in order.
    grams: Zeroizing<Vec<u64>>,
    /// A bit for each hash of a gram.
    filter: Box<Zeroizing<[u64; WORDS]>>,
    /// Whether a form may hold this byte.
    inner: Box<Zeroizing<[bool; 256]>>,
}

impl Pattern {
    /// The pattern of texts that are secret: the credential, and what was made of it before it was sent. `None` where none of
    /// them has [`SHORTEST`] bytes: masking it would mask ordinary text.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut forms = Vec::new();
        for text in texts {
            forms::add(text.as_bytes(), &mut forms);
        }
        let longest = forms.iter().map(|form| form.bytes.len()).max()?;
        let shortest = forms.iter().map(|form| form.bytes.len()).min()?;
        let window = shortest.min(MAX_WINDOW);
        let stride = window - GRAM + 1;
        let mut grams = Zeroizing::new(Vec::with_capacity(forms.len() * stride));
        let mut filter = Box::new(Zeroizing::new([0; WORDS]));
        let mut inner = Box::new(Zeroizing::new([false; 256]));
        for (byte, inner) in (0..=u8::MAX).zip(inner.iter_mut()) {
            *inner = is_base64(byte) || byte == b'%';
        }
        for (number, form) in forms.iter().enumerate() {
            for (offset, bytes) in form.bytes.windows(GRAM).take(stride).enumerate() {
                let Some(gram) = gram_of(bytes) else { continue };
                grams.push(u64::from(gram) << 32 | (number as u64) << 16 | offset as u64);
                let (word, bit) = place_of(gram);
                if let Some(word) = filter.get_mut(word) {
                    *word |= bit;
                }
            }
            for byte in form.bytes.iter() {
                if let Some(inner) = inner.get_mut(usize::from(*byte)) {
                    *inner = true;
                }
            }
        }
        grams.sort_unstable();
        Some(Self {
            forms,
            longest,
            window,
            grams,
            filter,
            inner,
        })
    }

    /// The length of the longest form, in bytes. A [`Masker`] holds less back.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The text with every form masked, and how many places that were; `None` where there is none.
    pub fn masked(&self, text: &[u8]) -> Option<(Vec<u8>, u64)> {
        let mut found = Vec::new();
        self.scan(text, &mut found);
        if found.is_empty() {
            return None;
        }
        let mut masked = text.to_vec();
        let mut cover = Cover::default();
        for place in &found {
            cover.add(place.start, place.reach(text), true);
        }
        cover.apply(&mut masked, 0);
        Some((masked, cover.places))
    }

    /// Whether a form is in a header's name, which has lost its capitals.
    pub fn is_in_name(&self, name: &[u8]) -> bool {
        // Nearly every name is shorter than a form. No form is shorter than the window.
        if name.len() < self.window {
            return false;
        }
        let mut forms = self.forms.iter();
        forms.any(|form| {
            let mut parts = name.windows(form.bytes.len());
            parts.any(|part| part.eq_ignore_ascii_case(&form.bytes))
        })
    }

    /// Finds every whole form in a text, in order.
    fn scan(&self, text: &[u8], found: &mut Vec<Place>) {
        let stride = self.window - GRAM + 1;
        let mut at = 0;
        while let Some(gram) = text.get(at..).and_then(gram_of) {
            if self.may_have(gram) {
                self.compare(text, at, gram, found);
            }
            at += stride;
        }
        found.sort_unstable_by_key(|place| (place.start, place.end));
    }

    /// Where the end of a text begins that could belong to a form which is not whole: as many bytes as a form can lack one
    /// of, and no further back than the last byte that no form has.
    ///
    /// It does not matter whether they are the beginning of a form, or even alike. Whoever chooses the text could else see by
    /// what is held back whether a guess at the credential is right so far, and guess it byte by byte.
    fn unfinished(&self, text: &[u8]) -> usize {
        let end = text.iter().rev().take(self.longest - 1);
        text.len() - end.take_while(|byte| self.may_hold(**byte)).count()
    }

    /// Where no form can go on that began before this text: its first byte that no form has, if there is one so near.
    fn seam(&self, text: &[u8]) -> Option<usize> {
        let near = text.get(..self.longest).unwrap_or(text);
        near.iter().position(|byte| !self.may_hold(*byte))
    }

    fn may_hold(&self, byte: u8) -> bool {
        self.inner.get(usize::from(byte)) == Some(&true)
    }

    fn may_have(&self, gram: u32) -> bool {
        let (word, bit) = place_of(gram);
        self.filter.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Compares the forms that have a gram where the text has it.
    #[cold]
    fn compare(&self, text: &[u8], at: usize, gram: u32, found: &mut Vec<Place>) {
        let first = self
            .grams
            .partition_point(|known| (known >> 32) < u64::from(gram));
        let known = self.grams.iter().skip(first);
        for known in known.take_while(|known| *known >> 32 == u64::from(gram)) {
            let offset = usize::from(*known as u16);
            let number = usize::from((known >> 16) as u16);
            let Some(start) = at.checked_sub(offset) else {
                continue;
            };
            let (Some(rest), Some(form)) = (text.get(start..), self.forms.get(number)) else {
                continue;
            };
            if rest.starts_with(&form.bytes) {
                found.push(Place {
                    start,
                    end: start + form.bytes.len(),
                    edge: form.edge,
                });
            }
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where a form stands in a text.
struct Place {
    start: usize,
    end: usize,
    edge: bool,
}

impl Place {
    /// Where the mask ends: behind the character that a base64 form shares with what follows it.
    fn reach(&self, text: &[u8]) -> usize {
        match text.get(self.end) {
            Some(byte) if self.edge && is_base64(*byte) => self.end + 1,
            _ => self.end,
        }
    }
}

/// What is to be masked in a text.
#[derive(Default)]
struct Cover {
    ranges: Vec<(usize, usize)>,
    reach: usize,
    places: u64,
}

impl Cover {
    /// Begins with what was counted already.
    fn from(covered: usize) -> Self {
        Self {
            ranges: vec![(0, covered)],
            reach: covered,
            places: 0,
        }
    }

    /// Adds a range, which counts where it is news. They come in the order of their beginnings.
    fn add(&mut self, start: usize, end: usize, is_news: bool) {
        if is_news && start >= self.reach && start < end {
            self.places += 1;
        }
        self.ranges.push((start, end));
        self.reach = self.reach.max(end);
    }

    /// A part of a text with its mask. It is not copied where it has none.
    fn applied(&self, text: &Bytes, part: Range<usize>) -> Bytes {
        let mut touched = self.ranges.iter();
        if !touched.any(|(start, end)| start < end && *start < part.end && *end > part.start) {
            return text.slice(part);
        }
        let from = part.start;
        let mut masked = text.get(part).unwrap_or_default().to_vec();
        self.apply(&mut masked, from);
        masked.into()
    }

    /// Masks a part that begins at `from`.
    fn apply(&self, part: &mut [u8], from: usize) {
        let length = part.len();
        for (start, end) in &self.ranges {
            let (start, end) = (start.saturating_sub(from), end.saturating_sub(from));
            if let Some(range) = part.get_mut(start.min(length)..end.min(length)) {
                range.fill(b'*');
            }
        }
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// Bytes of a gram.
const GRAM: usize = 4;
/// The most bytes of a form that the search relies on. More would make fewer look-ups and more grams.
const MAX_WINDOW: usize = 128;
/// Size of the filter in words: 8 KiB, which stay in the nearest cache.
const WORDS: usize = 1 << (FILTER_BITS - 6);
const FILTER_BITS: u32 = 16;

fn gram_of(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|gram| u32::from_le_bytes(*gram))
}

/// The word of the filter and the bit in it that a gram's hash names (Knuth's multiplicative one).
fn place_of(gram: u32) -> (usize, u64) {
    let hash = gram.wrapping_mul(0x9E37_79B1) >> (32 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

#[cfg(test)]
mod tests;
