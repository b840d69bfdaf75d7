//! Where one HTTP/1.1 request ends and the next begins, decided strictly and once (RFC 9112, 2 to 7).
//!
//! Pure: bytes in, a count or a fault out; no I/O, no clock, no allocation. The outcome depends on the bytes only,
//! never on how they were cut into reads. What it accepts is a strict subset of what hyper and httparse accept, so
//! the two cannot disagree about where a message ends.

use super::chunked::{Chunked, Progress};
use super::fault::Fault;
use super::head::{After, Head};

/// Tracks the framing of one connection's requests.
#[derive(Debug)]
pub struct Framing {
    state: State,
    bounds: Bounds,
}

/// The bounds on a head.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes in a head, request line and final empty line included.
    pub head: usize,
    /// Header lines in a head; also trailer lines in a body.
    pub fields: usize,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// A head, or the gap before one.
    Head,
    /// The body of a request whose head was accepted.
    Body,
    /// A tunnel: the last head asked for one, so the bytes are not HTTP to us. Final.
    Tunnel,
    /// Nothing: a fault was found. Final.
    Failed(Fault),
}

impl Framing {
    /// Starts before the first request.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            state: State::Head(Head::default()),
            bounds,
        }
    }

    /// Judges `input`, which begins with the first byte not accepted so far, and returns how many bytes of it are
    /// accepted: they belong to one valid message and may go to the parser behind the gate.
    ///
    /// A head is accepted whole or not at all: until it is complete the count is 0, and the next call has to show
    /// the same bytes again with more behind them (they are not scanned again). The count stops at the end of a
    /// message, so that the next call begins with the next head. In a tunnel it is 0.
    ///
    /// # Errors
    /// A fault is final: every later call returns it again. Bytes of a body that precede it are accepted first.
    pub fn advance(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let mut accepted = 0;
        if let State::Head(head) = &mut self.state {
            match head.advance(input, self.bounds) {
                Ok(None) => return Ok(0),
                Ok(Some((length, after))) => {
                    accepted = length;
                    self.state = State::after(after);
                }
                Err(fault) => {
                    self.fail(fault);
                    return Err(fault);
                }
            }
        }
        let (taken, fault) = self.body(input.get(accepted..).unwrap_or_default());
        match fault {
            Some(fault) if accepted + taken == 0 => Err(fault),
            _ => Ok(accepted + taken),
        }
    }

    /// Judges the end of the stream, with `pending` bytes shown and not accepted.
    ///
    /// # Errors
    /// The stream ended inside a message, or had failed before.
    pub fn finish(&mut self, pending: usize) -> Result<(), Fault> {
        let fault = match self.phase() {
            Phase::Head if pending == 0 => return Ok(()),
            Phase::Tunnel => return Ok(()),
            Phase::Head => Fault::TruncatedHead,
            Phase::Body => Fault::TruncatedBody,
            Phase::Failed(fault) => fault,
        };
        self.fail(fault);
        Err(fault)
    }

    /// Gives up: the first fault stays.
    pub fn fail(&mut self, fault: Fault) {
        if !matches!(self.state, State::Failed(_)) {
            self.state = State::Failed(fault);
        }
    }

    /// What the next byte belongs to.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Head(_) => Phase::Head,
            State::Sized(_) | State::Chunked(_) => Phase::Body,
            State::Tunnel => Phase::Tunnel,
            State::Failed(fault) => Phase::Failed(fault),
        }
    }

    fn body(&mut self, input: &[u8]) -> (usize, Option<Fault>) {
        match &mut self.state {
            State::Head(_) | State::Tunnel => (0, None),
            State::Failed(fault) => (0, Some(*fault)),
            State::Sized(left) => {
                let taken = input
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left = left.saturating_sub(taken as u64);
                if *left == 0 {
                    self.state = State::Head(Head::default());
                }
                (taken, None)
            }
            State::Chunked(chunked) => {
                let (taken, progress) = chunked.advance(input, self.bounds.fields);
                match progress {
                    Progress::Open => (taken, None),
                    Progress::End => {
                        self.state = State::Head(Head::default());
                        (taken, None)
                    }
                    Progress::Fault(fault) => {
                        self.fail(fault);
                        (taken, Some(fault))
                    }
                }
            }
        }
    }
}

#[derive(Debug)]
enum State {
    Head(Head),
    Sized(u64),
    Chunked(Chunked),
    Tunnel,
    Failed(Fault),
}

impl State {
    fn after(after: After) -> Self {
        match after {
            After::Nothing => Self::Head(Head::default()),
            After::Sized(length) => Self::Sized(length),
            After::Chunked => Self::Chunked(Chunked::default()),
            After::Tunnel => Self::Tunnel,
        }
    }
}
