//! The frame counter by itself: what is too much, what pays for it, and that the packets make no difference.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::proxy::gate::fault::{Fault, Flood};
use crate::proxy::gate::frames::{Frames, Free, Heads};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const MOST: usize = 1000;

pub(super) fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length.get(1..).unwrap().to_vec();
    frame.extend([kind, flags, 0, 0, 0, 1]);
    frame.extend(payload);
    frame
}

/// Frames that have seen the preface.
fn begun(now: Instant) -> Frames {
    let mut frames = Frames::new(MOST, now);
    let seen = frames.advance(PREFACE, now).unwrap();
    assert_eq!((seen.looked_at, seen.free), (PREFACE.len(), Free::All));
    frames
}

/// How many of these frames are taken, and what is said to the next.
fn until_refused(frames: &mut Frames, frame: &[u8], now: Instant) -> (u32, Fault) {
    for taken in 0..100_000 {
        if let Err(fault) = frames.advance(frame, now) {
            // To a gate this is the end. Here the next frame is to begin where one does.
            frames.advance(&frame[9..], now).unwrap();
            return (taken, fault);
        }
    }
    panic!("it goes on for ever");
}

#[test]
fn each_kind_of_frame_that_brings_nothing_has_an_end() {
    let now = Instant::now();
    for (frame, most, flood) in [
        (frame(SETTINGS, 0, &[0; 6]), 1000, Flood::Settings),
        (frame(SETTINGS, 1, &[]), 1000, Flood::Settings),
        (frame(PING, 0, &[0; 8]), 1000, Flood::Ping),
        (frame(PRIORITY, 0, &[0; 5]), 1000, Flood::Priority),
        (
            frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
            1000,
            Flood::WindowUpdate,
        ),
        (frame(CONTINUATION, 0, &[]), 1000, Flood::Continuation),
        (frame(DATA, 0, &[]), 90, Flood::EmptyData),
        (frame(0x77, 0, &[0; 100]), 1000, Flood::Other),
        (frame(RST_STREAM, 0, &[0; 4]), 200, Flood::Reset),
    ] {
        let refused = until_refused(&mut begun(now), &frame, now);
        assert_eq!(refused, (most, Fault::Flood(flood)));
    }
}

#[test]
fn requests_and_data_are_never_too_many() {
    let now = Instant::now();
    let mut frames = begun(now);
    for kind in [
        frame(HEADERS, END_HEADERS, b"abc"),
        frame(DATA, 0, b"abc"),
        frame(DATA, END_STREAM, b""),
    ] {
        for _ in 0..5000 {
            assert_eq!(frames.advance(&kind, now).unwrap().looked_at, kind.len());
        }
    }
}

#[test]
fn bodies_pay_by_their_bytes() {
    let now = Instant::now();
    let mut frames = begun(now);
    let ping = frame(PING, 0, &[0; 8]);
    until_refused(&mut frames, &ping, now);
    for _ in 0..100 {
        frames.advance(&frame(DATA, 0, b"x"), now).unwrap();
    }
    assert_eq!(until_refused(&mut frames, &ping, now).0, 0);
    frames.advance(&frame(DATA, 0, &[0; 16_384]), now).unwrap();
    assert_eq!(until_refused(&mut frames, &ping, now).0, 16);
}

#[test]
fn a_body_that_is_scattered_among_other_frames_has_an_end() {
    let now = Instant::now();
    for (other, most) in [
        (frame(0x77, 0, &[0; 4000]), 130),
        (frame(SETTINGS, 0, &[0; 4002]), 130),
        (frame(HEADERS, END_HEADERS, &[0; 16_000]), 64),
    ] {
        let mut frames = begun(now);
        frames
            .advance(&frame(HEADERS, END_HEADERS, b"abc"), now)
            .unwrap();
        let pair = [other, frame(DATA, 0, &[0; 300])].concat();
        let taken = (0..1000).find(|_| {
            let mut rest = pair.as_slice();
            loop {
                match frames.advance(rest, now) {
                    Err(fault) => {
                        assert_eq!(fault, Fault::Flood(Flood::Scattered));
                        return true;
                    }
                    Ok(seen) if seen.looked_at == rest.len() => return false,
                    Ok(seen) => rest = &rest[seen.looked_at..],
                }
            }
        });
        assert_eq!(taken, Some(most));
    }
}

#[test]
fn time_and_answers_pay_for_more() {
    let start = Instant::now();
    let (ping, reset) = (frame(PING, 0, &[0; 8]), frame(RST_STREAM, 0, &[0; 4]));
    let mut frames = begun(start);
    until_refused(&mut frames, &ping, start);
    until_refused(&mut frames, &reset, start);
    let later = start + Duration::from_secs(2);
    assert_eq!(until_refused(&mut frames, &ping, later).0, 200);
    assert_eq!(until_refused(&mut frames, &reset, later).0, 40);
    // Two frames of an answer, whose one head pays for a reset too.
    let answer = [frame(HEADERS, END_HEADERS, b"x"), frame(DATA, 1, b"x")].concat();
    let (mut heads, mut bytes) = (Heads::default(), answer.as_slice());
    while !bytes.is_empty() {
        if let Some(head) = heads.next(&mut bytes) {
            frames.wrote(&head, later).unwrap();
        }
    }
    assert!(heads.is_between());
    assert_eq!(until_refused(&mut frames, &ping, later).0, 8);
    assert_eq!(until_refused(&mut frames, &reset, later).0, 1);
    // What is filled up does not run over.
    let much_later = start + Duration::from_secs(86_400);
    assert_eq!(until_refused(&mut frames, &ping, much_later).0, 1000);
}

#[test]
fn resets_that_the_agent_provokes_are_its_own() {
    let now = Instant::now();
    let mut frames = begun(now);
    let reset = frame(RST_STREAM, 0, &[0; 4]);
    let refused = (0..1000).find_map(|count| {
        let head = Heads::default().next(&mut reset.as_slice()).unwrap();
        Some((count, frames.wrote(&head, now).err()?))
    });
    assert_eq!(refused, Some((200, Fault::Flood(Flood::Reset))));
}

#[test]
fn half_a_header_block_is_not_let_through() {
    let now = Instant::now();
    let mut frames = begun(now);
    let first = [frame(PING, 0, &[0; 8]), frame(HEADERS, 0, b"abc")].concat();
    let seen = frames.advance(&first, now).unwrap();
    assert_eq!(
        (seen.looked_at, seen.free),
        (first.len(), Free::First(17 + 9))
    );
    let more = frame(CONTINUATION, 0, b"def");
    assert_eq!(frames.advance(&more, now).unwrap().free, Free::None);
    assert!(frames.awaits_head());
    let last = frame(CONTINUATION, END_HEADERS, b"ghi");
    let both = [last.clone(), frame(DATA, 0, b"x")].concat();
    let seen = frames.advance(&both, now).unwrap();
    assert_eq!((seen.looked_at, seen.free), (last.len(), Free::All));
    assert!(!frames.awaits_head());
    assert_eq!(frames.blocks(), 1);
}

#[test]
fn the_bound_of_a_header_block_is_exact() {
    let now = Instant::now();
    for (length, is_too_large) in [(MOST - 9 - 9, false), (MOST - 9 - 8, true)] {
        let mut frames = begun(now);
        let block = [
            frame(HEADERS, 0, &vec![0; length]),
            frame(CONTINUATION, 0, &[]),
            frame(CONTINUATION, END_HEADERS, &[]),
        ]
        .concat();
        let refused = frames.advance(&block, now).err();
        assert_eq!(refused, is_too_large.then_some(Fault::HeadTooLarge));
    }
}

/// What a gate would do with these pieces: how many bytes it lets through in the end, and how many blocks there were.
fn outcome(pieces: &[&[u8]]) -> Result<(usize, u64), Fault> {
    let now = Instant::now();
    let mut frames = Frames::new(MOST, now);
    let (mut looked_at, mut passed) = (0, 0);
    for mut piece in pieces.iter().copied() {
        while !piece.is_empty() {
            let seen = frames.advance(piece, now)?;
            match seen.free {
                Free::All => passed = looked_at + seen.looked_at,
                Free::First(count) => passed = looked_at + count,
                Free::None => {}
            }
            looked_at += seen.looked_at;
            piece = &piece[seen.looked_at..];
        }
    }
    Ok((passed, frames.blocks()))
}

proptest! {
    #[test]
    fn however_the_bytes_come_the_verdict_is_the_same(
        kinds in prop::collection::vec((0u8..11, 0u8..8, 0usize..200, 1usize..60), 0..60),
        cuts in prop::collection::vec(0usize..4000, 0..40),
        garbage in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = PREFACE.to_vec();
        for (kind, flags, length, times) in kinds {
            bytes.extend(frame(kind, flags, &vec![kind; length]).repeat(times));
        }
        bytes.extend(garbage);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let whole = outcome(&[&bytes]);
        prop_assert_eq!(outcome(&pieces), whole);
        prop_assert_eq!(outcome(&single), whole);
    }
}
