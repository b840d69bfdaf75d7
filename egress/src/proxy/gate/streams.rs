//! Which requests on an HTTP/2 connection have no whole answer yet, by the heads of the frames of both sides.

use std::collections::BTreeSet;

use super::frames::{DATA, END_STREAM, FrameHead, HEADERS, RST_STREAM};

/// The streams that the agent began and that are not answered to their end.
#[derive(Debug)]
pub(super) struct Streams {
    /// `None` once there were too many at a time to keep count of.
    open: Option<BTreeSet<u32>>,
    last: u32,
}

/// More than hyper lets an agent have. What it refuses stays in only until the refusal is written.
const MOST: usize = 4096;

impl Default for Streams {
    fn default() -> Self {
        Self {
            open: Some(BTreeSet::new()),
            last: 0,
        }
    }
}

impl Streams {
    /// Accounts for a frame of the agent's.
    pub(super) fn received(&mut self, head: &FrameHead) {
        let Some(open) = &mut self.open else {
            return;
        };
        match head.kind {
            // Trailers come on a stream that there was before; the numbers of new ones grow (RFC 9113, section 5.1.1).
            HEADERS if head.stream > self.last => {
                self.last = head.stream;
                open.insert(head.stream);
            }
            RST_STREAM => _ = open.remove(&head.stream),
            _ => {}
        }
        if open.len() > MOST {
            self.open = None;
        }
    }

    /// Accounts for a frame of the sidecar's.
    pub(super) fn wrote(&mut self, head: &FrameHead) {
        let ends = match head.kind {
            HEADERS | DATA => head.flags & END_STREAM != 0,
            RST_STREAM => true,
            _ => false,
        };
        if let (true, Some(open)) = (ends, &mut self.open) {
            open.remove(&head.stream);
        }
    }

    /// Whether nothing is owed.
    pub(super) fn all_answered(&self) -> bool {
        self.open.as_ref().is_some_and(BTreeSet::is_empty)
    }
}

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
            |streams, id| streams.received(&head(RST_STREAM, 0, id)),
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
}
