//! What is under way on an HTTP/2 connection, by the heads of the frames of both sides: which requests have no whole answer
//! yet, and how much of the read buffers their waiting bodies pin.

use std::collections::BTreeMap;

use super::frames::{DATA, END_STREAM, FrameHead, HEADERS, RST_STREAM, WINDOW_UPDATE};

/// The streams that the agent began and that have not ended on both sides.
///
/// h2 keeps a piece of a body as a slice of the buffer that it was read in, and the slice keeps all of the buffer. So a
/// byte of DATA between other frames costs as much as those: a window of 256 KiB could pin megabytes.
#[derive(Debug)]
pub(super) struct Streams {
    /// `None` once there were too many at a time to keep count of.
    open: Option<BTreeMap<u32, Stream>>,
    last: u32,
    /// Bytes of other frames since the last DATA, which the next one pins.
    gap: usize,
    /// What all streams pin beside their data.
    pinned: usize,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// The request has not ended.
    asks: bool,
    /// The answer has not ended.
    owes: bool,
    pinned: usize,
}

/// More than hyper lets an agent have. What it refuses stays in only until the refusal is written.
const MOST: usize = 4096;

impl Default for Streams {
    fn default() -> Self {
        Self {
            open: Some(BTreeMap::new()),
            last: 0,
            gap: 0,
            pinned: 0,
        }
    }
}

impl Streams {
    /// Accounts for a frame of the agent's. How many bytes beside their data the bodies may pin now.
    pub(super) fn received(&mut self, head: &FrameHead) -> usize {
        let gap = match head.kind {
            DATA if head.length > 0 => std::mem::take(&mut self.gap),
            DATA => 0,
            _ => {
                self.gap = (self.gap + 9 + head.length).min(READ_BUFFER);
                0
            }
        };
        let Some(open) = &mut self.open else {
            self.pinned += gap;
            return self.pinned;
        };
        let ends = head.flags & END_STREAM != 0;
        match head.kind {
            // Trailers come on a stream that there was before; the numbers of new ones grow (RFC 9113, section 5.1.1).
            HEADERS if head.stream > self.last => {
                self.last = head.stream;
                let stream = Stream {
                    asks: !ends,
                    owes: true,
                    pinned: 0,
                };
                open.insert(head.stream, stream);
            }
            HEADERS | DATA => {
                if let Some(stream) = open.get_mut(&head.stream) {
                    stream.pinned += gap;
                    self.pinned += gap;
                    stream.asks &= !ends;
                }
            }
            _ => {}
        }
        let is_full = open.len() > MOST;
        self.end(head);
        if is_full {
            self.open = None;
        }
        self.pinned
    }

    /// Accounts for a frame of the sidecar's.
    pub(super) fn wrote(&mut self, head: &FrameHead) {
        let stream = self
            .open
            .as_mut()
            .and_then(|open| open.get_mut(&head.stream));
        let Some(stream) = stream else {
            return;
        };
        match head.kind {
            HEADERS | DATA => stream.owes &= head.flags & END_STREAM == 0,
            // Half a window was taken, in the order in which it came. What waits now waits within the other half, so
            // that twice the bound is the most that there can be.
            WINDOW_UPDATE => self.pinned -= std::mem::take(&mut stream.pinned),
            _ => {}
        }
        self.end(head);
    }

    /// Forgets the frame's stream where it has ended on both sides.
    fn end(&mut self, head: &FrameHead) {
        let Some(open) = &mut self.open else {
            return;
        };
        let has_ended = |stream: &Stream| !stream.asks && !stream.owes;
        if head.kind == RST_STREAM || open.get(&head.stream).is_some_and(has_ended) {
            let pinned = open.remove(&head.stream).map_or(0, |stream| stream.pinned);
            self.pinned -= pinned;
        }
    }

    /// Whether nothing is owed.
    pub(super) fn all_answered(&self) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|open| open.values().all(|stream| !stream.owes))
    }
}

/// What h2 reads into at a time; a longer frame gets a buffer of its own size.
const READ_BUFFER: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::super::frames::Heads;
    use super::*;

    fn head(kind: u8, flags: u8, stream: u32) -> FrameHead {
        let [a, b, c, d] = stream.to_be_bytes();
        let bytes = [0, 0, 0, kind, flags, a, b, c, d];
        Heads::default().next(&mut &bytes[..]).expect("a head")
    }

    #[test]
    fn a_stream_is_open_until_its_answer_ends_or_either_side_resets_it() {
        let ends: [fn(&mut Streams, u32); 4] = [
            |streams, id| streams.wrote(&head(DATA, END_STREAM, id)),
            |streams, id| streams.wrote(&head(HEADERS, END_STREAM, id)),
            |streams, id| streams.wrote(&head(RST_STREAM, 0, id)),
            |streams, id| _ = streams.received(&head(RST_STREAM, 0, id)),
        ];
        for end in ends {
            let mut streams = Streams::default();
            assert!(streams.all_answered());
            for id in [1, 5] {
                streams.received(&head(HEADERS, END_STREAM, id));
                streams.wrote(&head(HEADERS, 0, id));
                streams.wrote(&head(DATA, 0, id));
            }
            // The first bit is none of the number.
            end(&mut streams, 0x8000_0001);
            assert!(!streams.all_answered());
            end(&mut streams, 5);
            assert!(streams.all_answered());
            // Trailers that come late open nothing.
            streams.received(&head(HEADERS, END_STREAM, 5));
            assert!(streams.all_answered());
        }
    }

    #[test]
    fn who_opens_more_than_is_counted_is_never_taken_for_idle() {
        let mut streams = Streams::default();
        for id in 1..=4097 {
            streams.received(&head(HEADERS, 0, id));
        }
        for id in 1..=4097 {
            streams.wrote(&head(RST_STREAM, 0, id));
        }
        assert!(!streams.all_answered());
    }

    fn sized(length: u32, kind: u8, stream: u32) -> FrameHead {
        let [_, a, b, c] = length.to_be_bytes();
        let bytes = [
            a,
            b,
            c,
            kind,
            0,
            0,
            0,
            0,
            u8::try_from(stream).expect("few"),
        ];
        Heads::default().next(&mut &bytes[..]).expect("a head")
    }

    #[test]
    fn data_pins_what_came_before_it_until_its_stream_ends_or_it_is_taken() {
        let ends: [fn(&mut Streams); 4] = [
            |streams| _ = streams.received(&head(RST_STREAM, 0, 1)),
            |streams| streams.wrote(&head(RST_STREAM, 0, 1)),
            |streams| streams.wrote(&head(WINDOW_UPDATE, 0, 1)),
            |streams| {
                streams.wrote(&head(DATA, END_STREAM, 1));
                // The upload outlives its answer.
                assert!(streams.pinned > 0 && streams.all_answered());
                streams.received(&head(DATA, END_STREAM, 1));
            },
        ];
        for end in ends {
            let mut streams = Streams::default();
            streams.received(&head(HEADERS, 0, 1));
            streams.received(&sized(1000, 0x77, 0));
            assert_eq!(streams.received(&sized(1, DATA, 1)), 9 + 1009);
            assert_eq!(streams.received(&sized(16_384, DATA, 1)), 9 + 1009);
            streams.received(&sized(1 << 20, 0x77, 0));
            assert_eq!(streams.received(&sized(1, DATA, 1)), 9 + 1009 + READ_BUFFER);
            end(&mut streams);
            assert_eq!(streams.pinned, 0);
        }
        // Nobody keeps what belongs to no stream.
        let mut streams = Streams::default();
        streams.received(&sized(1000, 0x77, 0));
        assert_eq!(streams.received(&sized(1, DATA, 1)), 0);
    }
}
