//! Brotli and Zstandard, from encoders that are not ours.

use std::io::Write as _;
use std::sync::Arc;

use brotli::CompressorWriter;
use bytes::Bytes;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;
use tokio::sync::Semaphore;
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

use super::{STARS, TOKEN, coded, head, pieces, read, redaction, rewritten};
use crate::proxy::redact::codec::Corrupt;
use crate::proxy::redact::coding::Coding;
use crate::proxy::redact::{codec, decoders, reserve_dearest};
use crate::proxy::reject::Cause;

const BOTH: [Coding; 2] = [Coding::Brotli, Coding::Zstd];

/// A server's compressor: each text comes out whole, in a piece of its own; the last piece is the end alone.
fn compressed(coding: Coding, texts: &[&[u8]], window: u32) -> Vec<Bytes> {
    match coding {
        Coding::Brotli => brotli(texts, window),
        _ => zstd(texts, window),
    }
}

fn brotli(texts: &[&[u8]], window: u32) -> Vec<Bytes> {
    let mut compressor = CompressorWriter::new(Vec::new(), 4096, 5, window);
    let mut pieces = Vec::new();
    for text in texts {
        compressor.write_all(text).expect("memory");
        compressor.flush().expect("memory");
        pieces.push(std::mem::take(compressor.get_mut()).into());
    }
    pieces.push(compressor.into_inner().into());
    pieces
}

fn zstd(texts: &[&[u8]], window: u32) -> Vec<Bytes> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::WindowLog(window),
        CParameter::ChecksumFlag(true),
    ] {
        context.set_parameter(parameter).expect("a parameter");
    }
    let mut piece = |text: &[u8], end| {
        let mut out = vec![0; text.len() * 2 + 1000];
        let mut to = OutBuffer::around(&mut out[..]);
        let left = context.compress_stream2(&mut to, &mut InBuffer::around(text), end);
        assert_eq!(left, Ok(0), "all of it");
        let length = to.pos();
        out.truncate(length);
        Bytes::from(out)
    };
    let mut pieces: Vec<_> = texts
        .iter()
        .map(|text| piece(text, ZSTD_EndDirective::ZSTD_e_flush))
        .collect();
    pieces.push(piece(b"", ZSTD_EndDirective::ZSTD_e_end));
    pieces
}

fn whole(coding: Coding, text: &[u8]) -> Vec<u8> {
    compressed(coding, &[text], 20).concat()
}

#[test]
fn each_event_comes_out_with_the_piece_that_brought_it() {
    let events: Vec<_> = (0..9)
        .map(|number| format!("data: {number} {TOKEN}\n\n"))
        .collect();
    let texts: Vec<_> = events.iter().map(|event| event.as_bytes()).collect();
    for coding in BOTH {
        let mut rewriter = coded(coding);
        let mut all = Vec::new();
        let sent = compressed(coding, &texts, 22);
        for (number, piece) in sent.into_iter().take(events.len()).enumerate() {
            rewriter.push(piece);
            while let Some(piece) = rewriter.pull().expect("a coding") {
                all.extend(piece);
            }
            // What is not compressed can be seen as it is.
            let expected = format!("data: {number} {STARS}\n\n");
            assert!(all.ends_with(expected.as_bytes()), "{coding:?} {number}");
        }
    }
}

#[test]
fn a_bomb_comes_out_in_pieces() {
    const LENGTH: usize = 50_000_000;
    for coding in BOTH {
        let bomb = whole(coding, &vec![0; LENGTH]);
        assert!(bomb.len() < 100_000);
        // `rewritten` looks at the size of each piece.
        let out = rewritten(coded(coding), vec![bomb.into()]).expect("a coding");
        assert_eq!(read(coding, out).expect("a coding").len(), LENGTH);
    }
}

#[test]
fn what_is_not_whole_is_an_error() {
    for coding in BOTH {
        let whole = whole(coding, b"some text, and some more text");
        assert!(read(coding, whole.clone()).is_ok());
        for end in 1..whole.len() {
            let cut = whole[..end].to_vec();
            assert_eq!(read(coding, cut.clone()), Err(Corrupt), "{coding:?} {end}");
            let body = vec![cut.into(), Bytes::new()];
            assert_eq!(rewritten(coded(coding), body), Err(Corrupt));
        }
        let garbage = [&whole[..], b"more"].concat();
        assert_eq!(read(coding, garbage), Err(Corrupt), "{coding:?}");
        for late in [&b"m"[..], b"more"] {
            let body = vec![whole.clone().into(), Bytes::from_static(late)];
            assert_eq!(rewritten(coded(coding), body), Err(Corrupt), "{coding:?}");
        }
        let empty = rewritten(coded(coding), vec![Bytes::new()]);
        assert_eq!(empty, Ok(vec![]));
    }
}

#[test]
fn a_sum_that_is_not_the_texts_is_an_error() {
    let mut whole = whole(Coding::Zstd, b"some text");
    *whole.last_mut().expect("a sum") ^= 1;
    assert_eq!(read(Coding::Zstd, whole), Err(Corrupt));
}

#[test]
fn frames_of_zstd_are_one_body_and_some_are_passed_over() {
    let skipped = [&[0x5f, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"hello"].concat();
    let frames = [
        skipped.clone(),
        whole(Coding::Zstd, b"one "),
        skipped.clone(),
        whole(Coding::Zstd, b""),
        whole(Coding::Zstd, b"two"),
        skipped,
    ]
    .concat();
    assert_eq!(read(Coding::Zstd, frames.clone()), Ok(b"one two".to_vec()));
    for length in [1, 2, 7] {
        let lengths = vec![length; frames.len() / length];
        let out = rewritten(coded(Coding::Zstd), pieces(&frames, &lengths)).expect("zstd");
        assert_eq!(read(Coding::Zstd, out), Ok(b"one two".to_vec()));
    }
}

#[test]
fn a_window_beyond_the_bound_is_an_error() {
    for (coding, most) in [(Coding::Brotli, 24), (Coding::Zstd, 23)] {
        let largest = compressed(coding, &[b"text"], most).concat();
        assert_eq!(read(coding, largest), Ok(b"text".to_vec()), "{coding:?}");
    }
    let beyond = compressed(Coding::Zstd, &[b"text"], 24).concat();
    assert_eq!(read(Coding::Zstd, beyond), Err(Corrupt));
    // Seventeen, as larger windows begin, and their 30 bits; then a last and empty meta-block.
    let beyond = vec![0b0001_0001, 0b1101_1110];
    assert_eq!(read(Coding::Brotli, beyond), Err(Corrupt));
}

#[test]
fn memory_is_reserved_for_what_is_asked_and_given_back() {
    let room = |megabytes: usize| decoders(megabytes * 1024 * 1024);
    let asks = |codings: &'static str, decoders: &Arc<Semaphore>| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(codings));
        let before = decoders.available_permits();
        let _reserved = reserve_dearest(&headers, decoders);
        (before - decoders.available_permits()) * super::super::UNIT
    };
    let all = "gzip, deflate, br, zstd";
    assert_eq!(asks(all, &room(40)), Coding::Brotli.cost());
    assert_eq!(asks(all, &room(39)), Coding::Zstd.cost());
    assert_eq!(asks(all, &room(18)), Coding::Zstd.cost());
    assert_eq!(asks(all, &room(17)), 0);
    assert_eq!(asks("br", &room(39)), 0);
    assert_eq!(asks("gzip, br;q=0", &room(64)), 0);

    let decoders = room(40);
    let before = decoders.available_permits();
    let answered = |coding| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(all));
        let mut redaction = redaction();
        redaction.reserved = reserve_dearest(&headers, &decoders);
        let mut head = head(200, &[("content-encoding", coding)]);
        redaction.rewrite(&Method::GET, &mut head, &decoders)
    };
    for (coding, cost) in [
        ("identity", 0),
        ("gzip", Coding::Gzip.cost()),
        ("zstd", Coding::Zstd.cost()),
        ("br", Coding::Brotli.cost()),
    ] {
        let rewriter = answered(coding).expect("what was reserved");
        let taken = before - decoders.available_permits();
        assert_eq!(taken * super::super::UNIT, cost, "{coding}");
        drop(rewriter);
        assert_eq!(decoders.available_permits(), before);
    }
    let _first = answered("br").expect("what was reserved");
    // No more than zstd was asked for, and there is room for one that nobody asked for.
    let _second = answered("br").expect("what is left");
    let refused = answered("br").map_err(|reject| reject.cause());
    assert_eq!(refused.err(), Some(Cause::Decoders));
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..9),
        long in 0_usize..200_000,
    ) {
        for coding in BOTH {
            let (_, mut writer) = codec(coding).expect("memory").expect("a coding");
            let mut written = Vec::new();
            for text in &texts {
                written.extend(writer.write(text));
            }
            let long = vec![b'a'; long];
            written.extend(writer.finish(&long));
            prop_assert_eq!(read(coding, written), Ok([texts.concat(), long].concat()));
        }
    }

    #[test]
    fn cuts_make_no_difference(
        around in "[a-z ]{0,40}",
        lengths in prop::collection::vec(0_usize..20, 0..60),
    ) {
        let (text, masked) = (format!("{around}{TOKEN}{around}"), format!("{around}{STARS}{around}"));
        for coding in BOTH {
            let sent = whole(coding, text.as_bytes());
            let out = rewritten(coded(coding), pieces(&sent, &lengths)).expect("a coding");
            prop_assert_eq!(read(coding, out), Ok(masked.clone().into_bytes()));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..300) {
        for coding in BOTH {
            _ = read(coding, bytes.clone());
            let mut broken = whole(coding, &b"some text and more ".repeat(20));
            let at = at % broken.len();
            broken.splice(at.., bytes.iter().copied());
            _ = read(coding, broken);
        }
    }
}
