//! Heads, bodies and frames, without a connection.

mod codings;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use crc32fast::hash;
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderValue, LOCATION};
use http::{Method, Response, StatusCode, response};
use miniz_oxide::deflate::compress_to_vec;
use proptest::prelude::*;

use super::codec::{Corrupt, Encode as _};
use super::coding::Coding;
use super::frames::{Frames, Malformed};
use super::gzip::Writer;
use super::rewriter::Rewriter;
use super::{Redaction, codec, decoders};
use crate::proxy::reject::Cause;
use crate::redact::{Masker, Pattern};

const TOKEN: &str = "token-of-the-host-0123456789";
const STARS: &str = "****************************";

fn pattern() -> Arc<Pattern> {
    Arc::new(Pattern::new([TOKEN]).expect("a long token"))
}

fn redaction() -> Redaction {
    Redaction {
        pattern: Some(pattern()),
        ..Redaction::default()
    }
}

fn gzip() -> Rewriter {
    coded(Coding::Gzip)
}

fn coded(coding: Coding) -> Rewriter {
    let codec = codec(coding).expect("memory").expect("a coding");
    Rewriter::coded(Masker::new(pattern()), codec, None)
}

fn head(status: u16, headers: &[(&'static str, &str)]) -> response::Parts {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(()).expect("a valid head").into_parts().0
}

/// gzip of another encoder, with every optional field of its header.
fn member(text: &[u8], flags: u8) -> Vec<u8> {
    let mut gzip = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 2, 3];
    if flags & 4 != 0 {
        gzip.extend([3, 0, b'a', 0, b'c']);
    }
    for _ in 0..(flags & 24).count_ones() {
        gzip.extend(b"a name\0");
    }
    if flags & 2 != 0 {
        gzip.extend([9, 9]);
    }
    gzip.extend(compress_to_vec(text, 6));
    gzip.extend(hash(text).to_le_bytes());
    gzip.extend((text.len() as u32).to_le_bytes());
    gzip
}

fn pieces(bytes: &[u8], lengths: &[usize]) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for length in lengths.iter().chain([&bytes.len()]) {
        let (piece, after) = rest.split_at(rest.len().min(*length));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = after;
    }
    pieces
}

fn rewritten(mut rewriter: Rewriter, pieces: Vec<Bytes>) -> Result<Vec<u8>, Corrupt> {
    let mut out = Vec::new();
    for piece in pieces {
        rewriter.push(piece);
        while let Some(piece) = rewriter.pull()? {
            assert!(!piece.is_empty() && piece.len() < 20_000, "a bounded piece");
            out.extend(piece);
        }
        assert!(!rewriter.has_ended());
    }
    rewriter.finish();
    while let Some(piece) = rewriter.pull()? {
        out.extend(piece);
    }
    assert!(rewriter.has_ended() && rewriter.held() == 0);
    Ok(out)
}

fn unzip(gzip: Vec<u8>) -> Result<Vec<u8>, Corrupt> {
    read(Coding::Gzip, gzip)
}

fn read(coding: Coding, bytes: Vec<u8>) -> Result<Vec<u8>, Corrupt> {
    let (mut reader, _) = codec(coding).expect("memory").expect("a coding");
    let (mut input, mut out, mut text) = (Bytes::from(bytes), Vec::new(), [0; 1000]);
    loop {
        match reader.read(&mut input, &mut text)? {
            0 if reader.is_whole() => return Ok(out),
            0 => return Err(Corrupt),
            length => out.extend(&text[..length]),
        }
    }
}

#[test]
fn a_head_loses_the_credential_in_values_names_and_reason() {
    let mut redaction = redaction();
    let location = format!("/next?token={TOKEN}&a={TOKEN}");
    let mut head = head(
        302,
        &[("location", &location), (TOKEN, "1"), ("x-other", "2")],
    );
    let reason = hyper::ext::ReasonPhrase::from_static(b"token-of-the-host-0123456789");
    head.extensions.insert(reason);
    let rewriter = redaction
        .rewrite(&Method::GET, &mut head, &decoders(0))
        .expect("readable");
    assert!(rewriter.is_some());
    assert_eq!(
        head.headers[LOCATION],
        format!("/next?token={STARS}&a={STARS}")
    );
    assert!(!head.headers.contains_key(TOKEN) && head.headers.contains_key("x-other"));
    assert!(head.extensions.get::<hyper::ext::ReasonPhrase>().is_none());
    assert_eq!(redaction.places.load(Ordering::Relaxed), 3);
}

#[test]
fn without_a_credential_nothing_is_touched() {
    let mut head = head(200, &[("content-encoding", "deflate"), ("x-a", TOKEN)]);
    let rewriter = Redaction::default().rewrite(&Method::GET, &mut head, &decoders(0));
    assert!(rewriter.expect("not looked at").is_none());
    assert_eq!(head.headers["x-a"], TOKEN);
}

#[test]
fn what_cannot_be_read_is_refused_unless_there_is_no_body() {
    let refusal = |method: Method, status, coding| {
        let mut head = head(status, &[("content-encoding", coding)]);
        let rewriter = redaction().rewrite(&method, &mut head, &decoders(1 << 20));
        rewriter
            .map(|rewriter| assert!(rewriter.is_some(), "it is masked"))
            .map_err(|reject| reject.cause())
    };
    for coding in ["deflate", "gzip, gzip", "br, zstd", "compress"] {
        assert_eq!(
            refusal(Method::GET, 200, coding),
            Err(Cause::UpstreamCoding),
            "{coding}"
        );
        assert_eq!(refusal(Method::HEAD, 200, coding), Ok(()));
        assert_eq!(refusal(Method::GET, 304, coding), Ok(()));
        assert_eq!(refusal(Method::GET, 204, coding), Ok(()));
    }
    for coding in ["identity", "gzip", "br", "zstd"] {
        let part = refusal(Method::GET, 206, coding);
        assert_eq!(part, Err(Cause::UpstreamCoding), "{coding}");
        assert_eq!(refusal(Method::HEAD, 206, coding), Ok(()));
    }
    assert_eq!(refusal(Method::GET, 200, "gzip"), Ok(()));
}

#[test]
fn a_gzip_answer_is_framed_anew_and_one_that_is_not_stays_as_it_is() {
    let headers = [
        ("content-length", "30"),
        ("accept-ranges", "bytes"),
        ("etag", "\"1\""),
        ("content-md5", "x"),
        ("repr-digest", "x"),
    ];
    let mut plain = head(200, &headers);
    redaction()
        .rewrite(&Method::GET, &mut plain, &decoders(0))
        .expect("readable");
    assert_eq!(plain.headers.len(), 4);
    assert!(!plain.headers.contains_key(ACCEPT_RANGES));
    let mut gzip = head(200, &headers);
    gzip.headers
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    redaction()
        .rewrite(&Method::GET, &mut gzip, &decoders(1 << 20))
        .expect("readable");
    assert!(!gzip.headers.contains_key(CONTENT_LENGTH));
    assert_eq!(gzip.headers[ETAG], "W/\"1\"");
    assert_eq!(gzip.headers.len(), 2);
}

#[test]
fn decoders_are_counted_and_given_back() {
    let decoders = decoders(2 * Coding::Gzip.cost());
    let begin = || {
        let mut head = head(200, &[("content-encoding", "gzip")]);
        redaction().rewrite(&Method::GET, &mut head, &decoders)
    };
    let (first, _second) = (begin().expect("a permit"), begin().expect("a permit"));
    assert_eq!(
        begin().map_err(|reject| reject.cause()).err(),
        Some(Cause::Decoders)
    );
    assert_eq!(Cause::Decoders.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(first);
    begin().expect("the permit that was given back");
}

#[test]
fn gzip_of_every_shape_is_read() {
    let text = b"some text, some text, some text".repeat(1000);
    for flags in 0..32 {
        assert_eq!(unzip(member(&text, flags)), Ok(text.clone()), "{flags}");
    }
    let two = [member(b"one ", 0), member(b"", 8), member(b"two", 0)].concat();
    assert_eq!(unzip(two), Ok(b"one two".to_vec()));
}

#[test]
fn what_is_no_whole_gzip_is_an_error() {
    let whole = member(b"some text", 8);
    for end in 1..whole.len() {
        assert_eq!(unzip(whole[..end].to_vec()), Err(Corrupt), "cut at {end}");
        let mut body = pieces(&whole[..end], &[]);
        body.push(Bytes::new());
        assert_eq!(rewritten(gzip(), body), Err(Corrupt));
    }
    for at in [0, 1, 2, whole.len() - 1, whole.len() - 5, whole.len() - 12] {
        let mut broken = whole.clone();
        broken[at] ^= 0x55;
        assert_eq!(unzip(broken), Err(Corrupt), "broken at {at}");
    }
    assert_eq!(unzip([&whole[..], b"more"].concat()), Err(Corrupt));
    let mut reserved = whole;
    reserved[3] |= 0x80;
    assert_eq!(unzip(reserved), Err(Corrupt));
    let endless = [
        &[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0][..],
        &vec![b'a'; 200_000],
    ]
    .concat();
    assert_eq!(unzip(endless), Err(Corrupt));
}

#[test]
fn each_event_of_a_gzip_stream_comes_out_with_the_piece_that_brought_it() {
    let mut compressor = miniz_oxide::deflate::core::CompressorOxide::default();
    compressor.set_format_and_level(miniz_oxide::DataFormat::Raw, 6);
    let mut rewriter = gzip();
    rewriter.push(Bytes::from_static(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]));
    assert_eq!(rewriter.pull(), Ok(None));
    let mut all = Vec::new();
    for number in 0..9 {
        let event = format!("data: {number} {TOKEN}\n\n");
        let mut piece = vec![0; 1000];
        let flush = miniz_oxide::MZFlush::Sync;
        let done = miniz_oxide::deflate::stream::deflate(
            &mut compressor,
            event.as_bytes(),
            &mut piece,
            flush,
        );
        piece.truncate(done.bytes_written);
        rewriter.push(piece.into());
        while let Some(piece) = rewriter.pull().expect("gzip") {
            all.extend(piece);
        }
        let expected = format!("data: {number} {STARS}\n\n");
        assert!(
            all.ends_with(expected.as_bytes()),
            "{number}: {:?}",
            String::from_utf8_lossy(&all)
        );
    }
}

#[test]
fn a_bomb_comes_out_in_pieces() {
    let bomb = member(&vec![0; 50_000_000], 0);
    assert!(bomb.len() < 100_000);
    // `rewritten` looks at the size of each piece.
    let out = rewritten(gzip(), vec![bomb.into()]).expect("gzip");
    assert_eq!(unzip(out).expect("gzip").len(), 50_000_000);
}

#[test]
fn an_empty_body_stays_empty() {
    for rewriter in [Rewriter::plain(Masker::new(pattern())), gzip()] {
        assert_eq!(rewritten(rewriter, vec![]), Ok(vec![]));
    }
}

/// One frame of a server.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..65_536 => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

fn masked_frames(bytes: &[u8], lengths: &[usize]) -> Result<Vec<u8>, Malformed> {
    let (mut frames, mut out) = (Frames::new(pattern(), Arc::default()), Vec::new());
    for piece in pieces(bytes, lengths) {
        frames.push(&piece, &mut out)?;
    }
    frames.finish(&mut out);
    Ok(out)
}

#[test]
fn frames_are_masked_across_a_message_and_not_beyond_it() {
    let (front, back) = TOKEN.split_at(9);
    let long = vec![b'a'; 70_000];
    let said = [
        frame(0x81, format!("is {TOKEN}!").as_bytes()),
        frame(0x01, format!("is {front}").as_bytes()),
        frame(0x89, format!("{TOKEN} ping").as_bytes()),
        frame(0x00, b""),
        frame(0x80, format!("{back}!").as_bytes()),
        frame(0x82, front.as_bytes()),
        frame(0x82, back.as_bytes()),
        frame(0x82, &long),
        frame(0x81, b""),
        frame(0x88, &[&[3, 232][..], TOKEN.as_bytes()].concat()),
    ];
    let expected = [
        frame(0x81, format!("is {STARS}!").as_bytes()),
        frame(0x01, b"is *********"),
        frame(0x89, format!("{STARS} ping").as_bytes()),
        frame(0x00, b""),
        frame(0x80, b"*******************!"),
        frame(0x82, front.as_bytes()),
        frame(0x82, back.as_bytes()),
        frame(0x82, &long),
        frame(0x81, b""),
        frame(0x88, &[&[3, 232][..], STARS.as_bytes()].concat()),
    ];
    let (said, expected) = (said.concat(), expected.concat());
    for length in [1, 2, 3, 7, 30, 100_000] {
        let lengths = vec![length; said.len() / length];
        assert!(
            masked_frames(&said, &lengths).as_ref() == Ok(&expected),
            "{length}"
        );
    }
}

#[test]
fn a_message_waits_for_nothing_and_a_part_of_one_with_a_words_end() {
    let mut frames = Frames::new(pattern(), Arc::default());
    for said in [
        frame(0x81, b"one"),
        frame(0x81, b"token-of"),
        frame(0x89, b""),
        frame(0x01, b"some "),
    ] {
        let mut out = Vec::new();
        frames.push(&said, &mut out).expect("whole frames");
        assert_eq!(out, said);
    }
    let (word, ping) = (frame(0x00, b"some word"), frame(0x89, b"?"));
    let mut out = Vec::new();
    for said in [&word, &ping] {
        frames.push(said, &mut out).expect("whole frames");
    }
    assert_eq!(out, word[..7]);
    assert!(frames.holds());
    frames.release(&mut out);
    assert_eq!(out, [word, ping].concat());
    assert!(!frames.holds());
}

#[test]
fn a_frame_that_breaks_off_is_masked_or_dropped() {
    let close = frame(0x88, &[&[3, 232][..], TOKEN.as_bytes(), b"more"].concat());
    let cut = &close[..close.len() - 2];
    assert_eq!(masked_frames(cut, &[]), Ok(close[..2].to_vec()));
    let text = frame(0x81, format!("{TOKEN} and more").as_bytes());
    let masked = frame(0x81, format!("{STARS} and more").as_bytes());
    let cut = masked.len() - 3;
    assert_eq!(masked_frames(&text[..cut], &[]), Ok(masked[..cut].to_vec()));
}

#[test]
fn a_message_of_grpc_waits_for_nothing() {
    let kind = [("content-type", "application/grpc+proto")];
    let mut head = head(200, &kind);
    let rewriter = redaction().rewrite(&Method::POST, &mut head, &decoders(0));
    let mut rewriter = rewriter.expect("readable").expect("masked");
    let message = [&[0, 0, 0, 0, 4][..], b"word"].concat();
    for cut in 0..message.len() {
        let mut out = Vec::new();
        for piece in pieces(&message, &[cut]) {
            rewriter.push(piece);
            while let Some(piece) = rewriter.pull().expect("no coding") {
                out.extend(piece);
            }
        }
        assert_eq!(out, message, "{cut}");
    }
}

#[test]
fn frames_that_no_server_sends_are_errors() {
    for (frame, malformed) in [
        (&[0x81, 0x80, 0, 0, 0, 0][..], Malformed::Bits),
        (&[0xc1, 0], Malformed::Bits),
        (&[0x09, 0], Malformed::Control),
        (&[0x89, 126, 0, 200], Malformed::Control),
    ] {
        assert_eq!(masked_frames(frame, &[]), Err(malformed), "{frame:?}");
    }
    let pings = frame(0x89, &[0; 125]).repeat(600);
    let stuck = [frame(0x01, b"token-of"), pings.clone()].concat();
    assert_eq!(masked_frames(&stuck, &[]), Err(Malformed::Waiting));
    assert_eq!(masked_frames(&pings, &[]), Ok(pings));
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..9),
        long in 0_usize..200_000,
    ) {
        let mut writer = Writer::default();
        let mut gzip = Vec::new();
        for text in &texts {
            gzip.extend(writer.write(text));
        }
        let long = vec![b'a'; long];
        gzip.extend(writer.finish(&long));
        prop_assert_eq!(unzip(gzip), Ok([texts.concat(), long].concat()));
    }

    #[test]
    fn cuts_make_no_difference(
        around in "[a-z ]{0,40}",
        lengths in prop::collection::vec(0_usize..20, 0..60),
        flags in 0_u8..32,
    ) {
        let (text, masked) = (format!("{around}{TOKEN}{around}"), format!("{around}{STARS}{around}"));
        let plain = Rewriter::plain(Masker::new(pattern()));
        prop_assert_eq!(rewritten(plain, pieces(text.as_bytes(), &lengths)), Ok(masked.clone().into_bytes()));
        let gzip = gzip();
        let out = rewritten(gzip, pieces(&member(text.as_bytes(), flags), &lengths)).expect("gzip");
        prop_assert_eq!(unzip(out), Ok(masked.into_bytes()));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), lengths in prop::collection::vec(0_usize..50, 0..9)) {
        _ = masked_frames(&bytes, &lengths);
        _ = unzip(bytes.clone());
        _ = unzip([&member(b"", 0)[..10], &bytes].concat());
        _ = rewritten(Rewriter::plain(Masker::new(pattern())), pieces(&bytes, &lengths));
    }
}
