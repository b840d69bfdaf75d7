//! What a credential looks like when somebody says it back, and how to take it out of a stream of bytes. Pure.
//!
//! A [`Pattern`] holds the forms of one credential and finds them; a [`Masker`] writes `*` over them in bytes that come in
//! pieces. Lengths hold, so whatever frames the bytes holds too. Nothing here knows of HTTP.

mod forms;
mod masker;

use std::fmt;

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
    /// Whether a form begins with this byte.
    firsts: Box<Zeroizing<[bool; 256]>>,
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
        let mut firsts = Box::new(Zeroizing::new([false; 256]));
        for (number, form) in forms.iter().enumerate() {
            for (offset, bytes) in form.bytes.windows(GRAM).take(stride).enumerate() {
                let Some(gram) = gram_of(bytes) else { continue };
                grams.push(u64::from(gram) << 32 | (number as u64) << 16 | offset as u64);
                let (word, bit) = place_of(gram);
                if let Some(word) = filter.get_mut(word) {
                    *word |= bit;
                }
            }
            let first = form.bytes.first().copied().map(usize::from);
            if let Some(begins) = first.and_then(|first| firsts.get_mut(first)) {
                *begins = true;
            }
        }
        grams.sort_unstable();
        Some(Self {
            forms,
            longest,
            window,
            grams,
            filter,
            firsts,
        })
    }

    /// The length of the longest form, in bytes. A [`Masker`] never holds as many bytes back.
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
            cover.add(place.start, place.reach(text));
        }
        cover.apply(&mut masked);
        Some((masked, cover.places))
    }

    /// Finds every whole form in a text, in order, and returns where the longest unfinished one begins: the longest end of the
    /// text that is the beginning of a form, or the text's length.
    fn scan(&self, text: &[u8], found: &mut Vec<Place>) -> usize {
        let mut open = text.len();
        let stride = self.window - GRAM + 1;
        for (number, piece) in text.chunks(stride).enumerate() {
            let Some(gram) = gram_of(piece) else { break };
            if self.may_have(gram) {
                self.compare(text, number * stride, gram, found, &mut open);
            }
        }
        // An unfinished form that is shorter than the window may have no gram at a place that was looked at.
        let tail = text.len().saturating_sub(self.window - 1);
        for (start, byte) in text.iter().enumerate().take(open).skip(tail) {
            if self.firsts.get(usize::from(*byte)) == Some(&true)
                && let Some(rest) = text.get(start..)
                && gram_of(rest).is_none_or(|gram| self.may_have(gram))
                && self.forms.iter().any(|form| form.bytes.starts_with(rest))
            {
                open = start;
                break;
            }
        }
        found.sort_unstable_by_key(|place| (place.start, place.end));
        open
    }

    fn may_have(&self, gram: u32) -> bool {
        let (word, bit) = place_of(gram);
        self.filter.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Compares the forms that have a gram where the text has it.
    #[cold]
    fn compare(&self, text: &[u8], at: usize, gram: u32, found: &mut Vec<Place>, open: &mut usize) {
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
            } else if form.bytes.starts_with(rest) {
                *open = start.min(*open);
            }
        }
    }

    /// Whether a text is a part of a form.
    fn is_part(&self, text: &[u8]) -> bool {
        let mut forms = self.forms.iter();
        forms.any(|form| {
            form.bytes
                .windows(text.len().max(1))
                .any(|part| part == text)
        })
    }

    /// How many bytes at the beginning of a text are the end of a form.
    fn ended_by(&self, text: &[u8]) -> usize {
        let ends = |form: &Form, length: usize| match text.get(..length) {
            Some(beginning) => form.bytes.ends_with(beginning),
            None => false,
        };
        let longest = |form| (1..self.longest).rev().find(|length| ends(form, *length));
        self.forms.iter().filter_map(longest).max().unwrap_or(0)
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

    /// Adds a range. They come in the order of their beginnings.
    fn add(&mut self, start: usize, end: usize) {
        if start >= self.reach && start < end {
            self.places += 1;
        }
        self.ranges.push((start, end));
        self.reach = self.reach.max(end);
    }

    fn apply(&self, text: &mut [u8]) {
        let length = text.len();
        for (start, end) in &self.ranges {
            if let Some(range) = text.get_mut(*start..length.min(*end)) {
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
