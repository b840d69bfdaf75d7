//! Server-sent events as they arrive in pieces (WHATWG HTML, "Interpreting an event stream"), as far as a sidecar sends them:
//! lines end with LF. Pure.

/// An event with some data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its kind.
    pub(super) name: String,
    /// The place to go on from.
    pub(super) id: String,
    /// What it says.
    pub(super) data: String,
}

/// Makes events of pieces.
#[derive(Debug, Default)]
pub(super) struct Parser {
    waiting: Vec<u8>,
    /// How much of `waiting` was read.
    read: usize,
    event: Event,
}

/// An event is longer than a sidecar makes any.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Parser {
    /// Takes a piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.waiting.drain(..self.read);
        self.read = 0;
        self.waiting.extend_from_slice(piece);
    }

    /// The next event, where it is there whole.
    ///
    /// # Errors
    ///
    /// [`TooLong`], also for one that is not there whole.
    pub(super) fn next(&mut self) -> Result<Option<Event>, TooLong> {
        loop {
            let waiting = self.waiting.get(self.read..).unwrap_or_default();
            let Some(length) = memchr::memchr(b'\n', waiting) else {
                return match waiting.len() > LONGEST {
                    true => Err(TooLong),
                    false => Ok(None),
                };
            };
            let line = String::from_utf8_lossy(waiting.get(..length).unwrap_or_default());
            if line.is_empty() {
                self.read += 1;
                let event = std::mem::take(&mut self.event);
                match event.data.is_empty() {
                    true => continue,
                    false => return Ok(Some(event)),
                }
            }
            // A line that begins with a colon is a comment: its field has no name.
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            let event = &mut self.event;
            match field {
                "event" => event.name = value.to_owned(),
                "id" => event.id = value.to_owned(),
                "data" => event.data.push_str(value),
                _ => {}
            }
            if event.name.len() + event.id.len() + event.data.len() > LONGEST {
                return Err(TooLong);
            }
            self.read += length + 1;
        }
    }
}

/// A row takes 2.5 KiB, and twice that where its texts are all of what JSON escapes.
const LONGEST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::{Event, LONGEST, Parser, TooLong};

    const STREAM: &str = ": hello\nevent: a\nid: 1-1\ndata: {\"x\": 1}\n\n:\n\nretry: 5\nevent:b\ndata:c\ndata: d\n\ndata: open";

    #[test]
    fn events_are_the_same_in_whichever_pieces_they_arrive() {
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for piece in STREAM.as_bytes().chunks(size) {
                parser.push(piece);
                while let Some(event) = parser.next().expect("short events") {
                    events.push((event.name, event.id, event.data));
                }
            }
            let owned = |texts: [&str; 3]| texts.map(str::to_owned).into();
            assert_eq!(
                events,
                [owned(["a", "1-1", "{\"x\": 1}"]), owned(["b", "", "cd"])]
            );
        }
    }

    #[test]
    fn neither_a_line_nor_an_event_without_end_is_kept() {
        let mut parser = Parser::default();
        parser.push(&vec![b'x'; LONGEST + 1]);
        assert_eq!(parser.next(), Err(TooLong));

        let mut parser = Parser::default();
        let mut pushed = 0;
        let ended = loop {
            parser.push(b"data: 0123456789\n");
            pushed += 10;
            match parser.next() {
                Ok(None) => {}
                ended => break ended,
            }
        };
        assert_eq!(ended, Err::<Option<Event>, _>(TooLong));
        assert!(pushed <= LONGEST + 10);
    }
}
