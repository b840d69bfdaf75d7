//! The gate: the same verdict in any pieces, one framing to `httparse` as well, and nothing after a refusal.
//!
//! Input: a number of cuts, the cuts, and the stream.

#![no_main]

use std::io::Cursor;

use egress::proxy::gate::fault::Fault;
use egress::proxy::gate::framing::{Bounds, Framing, Phase};
use egress::proxy::gate::{Gate, Limits};
use egress_fuzz::pieces;
use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncReadExt as _;

const BOUNDS: Bounds = Bounds {
    head: 1024,
    fields: 10,
};

fuzz_target!(|input: &[u8]| {
    let (cut, stream) = pieces(input);
    let outcome = judge([stream]);
    assert_eq!(judge(cut), outcome, "cuts change the verdict");
    assert_eq!(
        judge(stream.chunks(1)),
        outcome,
        "bytes one by one change the verdict"
    );

    let accepted = &stream[..outcome.accepted];
    let (ends, open) = messages(accepted);
    assert_eq!(ends, outcome.ends, "another reader sees other messages");
    match outcome.phase {
        Phase::Head | Phase::Tunnel => assert!(!open, "an open message"),
        Phase::Body => assert!(open, "a whole message"),
        Phase::Failed(fault) => assert_eq!(fault.in_body(), open, "{fault:?}"),
    }
    if let Some(released) = released(stream) {
        assert_eq!(
            released, accepted,
            "the gate lets other bytes through than it accepts"
        );
    }
});

/// All that can be seen of how a stream was judged.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    ends: Vec<usize>,
    accepted: usize,
    phase: Phase,
    finish: Result<(), Fault>,
}

fn judge<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut framing = Framing::new(BOUNDS);
    let mut held: Vec<u8> = Vec::new();
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
                Err(fault) => {
                    assert_eq!(framing.phase(), Phase::Failed(fault));
                    assert_eq!(
                        framing.advance(b"GET / HTTP/1.1\r\n\r\n"),
                        Err(fault),
                        "a fault that passes"
                    );
                    assert_eq!(framing.advance(&held), Err(fault));
                    break 'pieces;
                }
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

/// What a reader gets through the gate, where nothing depends on a clock.
fn released(stream: &[u8]) -> Option<Vec<u8>> {
    let limits = Limits {
        max_head: BOUNDS.head,
        max_fields: BOUNDS.fields,
        ..Limits::default()
    };
    let mut gate = Gate::new(Cursor::new(stream.to_vec()), limits);
    let mut released = Vec::new();
    let mut buffer = [0; 100];
    loop {
        match gate.read(&mut buffer).now_or_never()? {
            Ok(0) | Err(_) => return Some(released),
            Ok(count) => released.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Where messages end for somebody else, and whether one is open at the end of the input.
///
/// Each head goes to `httparse`, which hyper uses, in its strictest setting. What makes a framing ambiguous is asserted
/// not to be there.
fn messages(mut input: &[u8]) -> (Vec<usize>, bool) {
    let whole = input.len();
    let mut ends = Vec::new();
    while !input.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; BOUNDS.fields];
        let mut request = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = request.parse(input) else {
            panic!(
                "a head that httparse does not read: {}",
                input.escape_ascii()
            );
        };
        let (head, rest) = input.split_at(length);
        check_lines(head);
        let values = |name: &str| -> Vec<&[u8]> {
            let named = request
                .headers
                .iter()
                .filter(|field| field.name.eq_ignore_ascii_case(name));
            named.map(|field| field.value).collect()
        };
        let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
        assert!(lengths.len() + codings.len() <= 1, "two framings");
        let body = match (lengths.first(), codings.first()) {
            (Some(digits), _) => {
                let digits = std::str::from_utf8(digits).expect("digits");
                assert!(
                    digits.bytes().all(|byte| byte.is_ascii_digit()),
                    "{digits:?}"
                );
                let length: i64 = digits.parse().expect("a number that fits");
                usize::try_from(length)
                    .ok()
                    .filter(|&length| length <= rest.len())
            }
            (None, Some(coding)) => {
                assert!(coding.eq_ignore_ascii_case(b"chunked"));
                assert_eq!(request.version, Some(1), "chunks in HTTP/1.0");
                chunked(rest)
            }
            (None, None) => Some(0),
        };
        let Some(body) = body else {
            return (ends, true);
        };
        let lists = |name, token: &str| {
            let values = values(name)
                .into_iter()
                .map(|value| String::from_utf8_lossy(value).to_ascii_lowercase());
            values
                .flat_map(|value| {
                    value
                        .split(',')
                        .map(|item| item.trim_matches([' ', '\t']).to_owned())
                        .collect::<Vec<_>>()
                })
                .any(|item| item == token)
        };
        let websocket = request.version == Some(1)
            && lists("connection", "upgrade")
            && lists("upgrade", "websocket");
        input = &rest[body..];
        if request.method == Some("CONNECT") || websocket {
            assert_eq!(body, 0, "a tunnel with a body");
            assert!(
                input.is_empty(),
                "bytes of a tunnel are let through as a request"
            );
        }
        ends.push(whole - input.len());
    }
    (ends, false)
}

/// Every line ends with CRLF and holds no other CR or LF, no NUL, and no other name of white space or controls.
fn check_lines(head: &[u8]) {
    let text = head
        .strip_suffix(b"\r\n\r\n")
        .expect("an empty line at the end");
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = if text.ends_with(line)
            && number == text.iter().filter(|&&byte| byte == b'\n').count()
        {
            line
        } else {
            line.strip_suffix(b"\r").expect("a bare LF")
        };
        assert!(
            !line.contains(&b'\r') && !line.contains(&0),
            "{}",
            line.escape_ascii()
        );
        assert!(!line.starts_with(b" ") && !line.starts_with(b"\t"));
        if number == 0 {
            assert_eq!(line.iter().filter(|&&byte| byte == b' ').count(), 2);
            assert!(
                line.iter()
                    .all(|&byte| byte.is_ascii_graphic() || byte == b' ')
            );
        } else {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic));
        }
    }
}

/// The length of a chunked body with its trailers; `None` where it is not whole.
fn chunked(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line_end = at + find(body.get(at..)?, b"\r\n")?;
        let digits = &body[at..line_end];
        assert!(
            digits.iter().all(u8::is_ascii_hexdigit),
            "{}",
            digits.escape_ascii()
        );
        let size = i64::from_str_radix(std::str::from_utf8(digits).expect("digits"), 16)
            .expect("a size that fits");
        match httparse::parse_chunk_size(&body[at..]) {
            Ok(httparse::Status::Complete((index, parsed))) => {
                assert_eq!(
                    (index, parsed),
                    (line_end + 2 - at, size as u64),
                    "another size to httparse"
                );
            }
            other => panic!("no chunk size to httparse: {other:?}"),
        }
        at = line_end + 2;
        if size == 0 {
            break;
        }
        at = at.checked_add(usize::try_from(size).ok()?)?;
        let end = body.get(at..)?;
        if end.len() < 2 {
            assert!(b"\r\n".starts_with(end));
            return None;
        }
        assert!(end.starts_with(b"\r\n"), "a chunk without an end");
        at += 2;
    }
    loop {
        let line = find(body.get(at..)?, b"\r\n")?;
        let text = &body[at..at + line];
        assert!(!text.contains(&b'\n') && !text.contains(&b'\r') && !text.contains(&0));
        at += line + 2;
        if line == 0 {
            return Some(at);
        }
    }
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}
