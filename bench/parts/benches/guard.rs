//! The program whose instructions `bench/guard` counts: it runs one piece of the hot path for a number of turns.

use std::hint::black_box;
use std::process::ExitCode;

mod hot;
mod inputs;

use hot::{Decide, Inject, Mask, Piece, ReadTarget, Strip};
use inputs::{LONG, SHORT};

/// `guard PIECE TURNS INPUTS` runs a piece, and `guard` lists them.
///
/// Two runs that prepare as many inputs differ in nothing but their turns.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, turns, inputs] = &arguments[..] else {
        PIECES.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let piece = PIECES.iter().find(|(known, _)| known == name);
    let (Some((_, run)), Ok(turns), Ok(inputs)) = (piece, turns.parse(), inputs.parse()) else {
        eprintln!("error: no such piece, or no number of turns and of inputs");
        return ExitCode::from(2);
    };
    run(Turns { turns, inputs });
    ExitCode::SUCCESS
}

type Run = fn(Turns);

const PIECES: [(&str, Run); 11] = [
    ("target/http1", |turns| turns.of(ReadTarget::http1())),
    ("target/http2", |turns| turns.of(ReadTarget::http2())),
    ("decide/10", |turns| turns.of(Decide::among(10))),
    ("decide/1000", |turns| turns.of(Decide::among(1000))),
    ("decide/100000", |turns| turns.of(Decide::among(100_000))),
    ("strip", |turns| turns.of(Strip::new())),
    ("inject", |turns| turns.of(Inject::new())),
    ("mask/json/40", |turns| turns.of(Mask::json(SHORT))),
    ("mask/json/1600", |turns| turns.of(Mask::json(LONG))),
    ("mask/noise/40", |turns| turns.of(Mask::noise(SHORT))),
    ("mask/noise/1600", |turns| turns.of(Mask::noise(LONG))),
];

struct Turns {
    turns: usize,
    inputs: usize,
}

impl Turns {
    fn of<P: Piece>(self, piece: P) {
        let inputs: Vec<_> = (0..self.inputs).map(|turn| piece.input(turn)).collect();
        let mut inputs = inputs.into_iter();
        for input in inputs.by_ref().take(self.turns) {
            black_box(piece.run(black_box(input)));
        }
        // Fewer turns leave more over, and freeing it would count.
        std::mem::forget((piece, inputs));
    }
}
