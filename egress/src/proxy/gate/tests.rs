//! The gate's tests: framing alone, hostile transfer codings, and the gate in front of the real hyper.

mod frames;
mod framing;
mod http2;
mod resting;
mod serving;
mod smuggler;
mod timing;

use super::fault::Fault;
use super::framing::{Bounds, Framing, Phase};

/// All that can be seen of how a stream of bytes was judged.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Outcome {
    /// Where the messages end.
    ends: Vec<usize>,
    /// How many bytes were accepted.
    accepted: usize,
    phase: Phase,
    /// What the end of the stream is judged to be.
    finish: Result<(), Fault>,
}

/// Feeds the pieces as the gate does: what is not accepted is shown again with the next piece behind it.
fn judge<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut framing = Framing::new(BOUNDS);
    let mut held = Vec::new();
    let (mut accepted, mut ends) = (0, Vec::new());
    'pieces: for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match framing.advance(&held) {
                Ok(0) => break,
                Ok(taken) => {
                    accepted += taken;
                    held.drain(..taken);
                    if matches!(framing.phase(), Phase::Head | Phase::Tunnel) {
                        ends.push(accepted);
                    }
                }
                Err(_) => break 'pieces,
            }
        }
    }
    Outcome {
        ends,
        accepted,
        phase: framing.phase(),
        finish: framing.finish(held.len()),
    }
}

const BOUNDS: Bounds = Bounds {
    head: 1024,
    fields: 10,
};
