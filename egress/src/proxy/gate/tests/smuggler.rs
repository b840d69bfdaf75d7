//! Mutations of a Transfer-Encoding line, from a public collection (tests/data/te_gadgets.LICENSE).

use serde::Deserialize;

use super::judge;

/// A mutated line is refused, or it is plainly some other header to everybody. It never changes the framing.
#[test]
fn no_mutated_transfer_encoding_stands_beside_a_length() {
    let mut refused = 0;
    let gadgets = gadgets();
    for (id, gadget) in &gadgets {
        let head = [
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n",
            &gadget[..],
            b"\r\n\r\n",
        ]
        .concat();
        let request = [&head[..], b"0\r\n\r\n"].concat();
        let outcome = judge([request.as_slice()]);
        assert_eq!(judge(request.chunks(1)), outcome, "{id}");
        if outcome.finish.is_err() {
            refused += 1;
            assert_eq!(outcome.accepted, 0, "{id}");
            continue;
        }
        // Accepted: then the length alone was the framing, and no name in the head is one that a peer could take for
        // the coding after trimming white space or controls.
        assert_eq!(outcome.ends, [head.len() + 5], "{id}");
        for line in head.split(|&byte| byte == b'\n') {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            let letters: Vec<u8> = name.iter().copied().filter(u8::is_ascii_graphic).collect();
            assert!(
                !letters.eq_ignore_ascii_case(b"transfer-encoding"),
                "{id}: {}",
                line.escape_ascii()
            );
        }
    }
    assert!(gadgets.len() > 150, "{}", gadgets.len());
    assert!(
        refused * 10 > gadgets.len() * 7,
        "{refused} of {}",
        gadgets.len()
    );
}

/// Alone, a line frames a chunked body only if it says so in so many letters.
#[test]
fn only_the_plain_coding_makes_a_chunked_body() {
    for (id, gadget) in gadgets() {
        let head = [b"POST / HTTP/1.1\r\nHost: a\r\n", &gadget[..], b"\r\n\r\n"].concat();
        let outcome = judge([[&head[..], b"3\r\nabc\r\n0\r\n\r\n"].concat().as_slice()]);
        if outcome.finish.is_ok() {
            let lines = String::from_utf8(gadget).unwrap().to_ascii_lowercase();
            let plain = |line: &str| {
                line.strip_prefix("transfer-encoding:")
                    .is_some_and(|value| value.trim_matches([' ', '\t']) == "chunked")
            };
            assert_eq!(
                lines.split("\r\n").filter(|line| plain(line)).count(),
                1,
                "{id}"
            );
        }
    }
}

fn gadgets() -> Vec<(String, Vec<u8>)> {
    #[derive(Deserialize)]
    struct Row {
        id: String,
        gadget_latin1: String,
    }
    include_str!("../../../../../tests/data/te_gadgets.jsonl")
        .lines()
        .map(|line| {
            let row: Row = serde_json::from_str(line).unwrap();
            let bytes = row
                .gadget_latin1
                .chars()
                .map(|char| u8::try_from(char).unwrap());
            (row.id, bytes.collect())
        })
        .collect()
}
