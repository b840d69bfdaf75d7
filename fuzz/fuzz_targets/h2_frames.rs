//! The gate before HTTP/2: the same verdict in any pieces, and against a counter of our own: what brings nothing ends, and
//! of a header block nothing passes before all of it.
//!
//! Input: a number of cuts, the cuts, and the stream behind the preface.

#![no_main]

use std::time::Instant;

use egress::proxy::gate::fault::{Fault, Flood};
use egress::proxy::gate::frames::{Frames, Free};
use egress_fuzz::pieces;
use libfuzzer_sys::fuzz_target;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LONGEST_BLOCK: usize = 1000;

fuzz_target!(|input: &[u8]| {
    let (mut cut, stream) = pieces(input);
    cut.insert(0, PREFACE);
    let whole = [PREFACE, stream].concat();
    let now = Instant::now();
    let outcome = judge(&[&whole], now);
    assert_eq!(judge(&cut, now), outcome, "cuts change the verdict");
    assert_eq!(
        judge(&whole.chunks(1).collect::<Vec<_>>(), now),
        outcome,
        "bytes one by one change the verdict"
    );

    let naive = naive(stream);
    match outcome {
        Ok((passed, blocks)) => {
            assert_eq!(blocks, naive.blocks);
            assert_eq!(passed, PREFACE.len() + naive.free, "half a header block");
            assert!(
                naive.control <= 1000 && naive.resets <= 200 && naive.empty <= 90,
                "a flood that passes"
            );
        }
        Err(Fault::HeadTooLarge) => assert!(naive.longest_block > LONGEST_BLOCK),
        // Of what is counted here, bodies can pin no more than came.
        Err(Fault::Flood(Flood::Scattered)) => assert!(whole.len() > 512 * 1024),
        Err(Fault::Flood(_)) => assert!(
            naive.most_control > 1000 || naive.most_resets > 200 || naive.empty > 90
        ),
        Err(fault) => panic!("another fault: {fault:?}"),
    }
});

/// How many bytes pass, and how many header blocks there were.
fn judge(pieces: &[&[u8]], now: Instant) -> Result<(usize, u64), Fault> {
    let mut frames = Frames::new(LONGEST_BLOCK, now);
    let (mut looked_at, mut passed) = (0, 0);
    for mut piece in pieces.iter().copied() {
        while !piece.is_empty() {
            let seen = frames.advance(piece, now)?;
            assert!(seen.looked_at > 0 && seen.looked_at <= piece.len());
            match seen.free {
                Free::All => passed = looked_at + seen.looked_at,
                Free::First(count) => {
                    assert!(count <= seen.looked_at);
                    passed = looked_at + count;
                }
                Free::None => {}
            }
            looked_at += seen.looked_at;
            piece = &piece[seen.looked_at..];
        }
    }
    Ok((passed, frames.blocks()))
}

#[derive(Default)]
struct Counted {
    blocks: u64,
    free: usize,
    /// Of the budget, at the end and at the worst.
    control: i64,
    resets: i64,
    most_control: i64,
    most_resets: i64,
    empty: u32,
    longest_block: usize,
}

/// Frame by frame (RFC 9113, section 4.1), with the whole stream at hand.
fn naive(stream: &[u8]) -> Counted {
    let mut counted = Counted::default();
    let (mut at, mut block) = (0, None);
    while let Some(&[a, b, c, kind, flags, ..]) = stream.get(at..).filter(|rest| rest.len() >= 9) {
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let end = at + 9 + length;
        let opens = matches!(kind, 1 | 5);
        let goes_on = kind == 9 && block.is_some();
        match (kind, length, flags & 1) {
            (1, ..) => {}
            (0, 1.., _) => {
                let paid = i64::try_from(length / 1024).expect("a frame");
                counted.control = (counted.control - paid).max(0);
            }
            (0, 0, 1) => {}
            (0, 0, _) => counted.empty += 1,
            (3, ..) => counted.resets += 1,
            _ => counted.control += 1,
        }
        counted.most_control = counted.most_control.max(counted.control);
        counted.most_resets = counted.most_resets.max(counted.resets);
        if opens || goes_on {
            let ends = flags & 4 != 0;
            if block.is_none() && !ends {
                counted.free = at + 9;
            }
            let begin: usize = *block.get_or_insert(at);
            if !(ends && begin == at) {
                counted.longest_block = counted.longest_block.max(end.min(stream.len()) - begin);
            }
            if ends && end <= stream.len() {
                counted.blocks += 1;
                counted.free = end;
                block = None;
            } else if ends && begin == at {
                counted.free = stream.len();
            }
        } else {
            block = None;
            counted.free = end.min(stream.len());
        }
        at = end.min(stream.len());
        if end > stream.len() {
            return counted;
        }
    }
    if block.is_none() {
        counted.free = stream.len();
    }
    counted
}
