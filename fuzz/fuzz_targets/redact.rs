//! The mask over a credential that an upstream says back: the same in any pieces, as long as what it covers, over every
//! form, and over nothing else.
//!
//! Input: a number of cuts, the cuts, a secret, a line feed, and the stream, in which a byte from 0x80 on stands for a
//! form of the secret.

#![no_main]

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use egress::redact::{Masker, Pattern, SHORTEST};
use egress_fuzz::pieces;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (cut, whole) = pieces(input);
    let mut parts = whole.splitn(2, |&byte| byte == b'\n');
    let (Some(secret), Some(text)) = (parts.next(), parts.next()) else {
        return;
    };
    // What a header can carry.
    let Ok(secret) = std::str::from_utf8(secret) else {
        return;
    };
    if secret.len() > 200 || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return;
    }
    let Some(pattern) = Pattern::new([secret]) else {
        return assert!(secret.len() < SHORTEST);
    };
    let pattern = Arc::new(pattern);
    let forms = forms(secret);
    let stream: Vec<u8> = text.iter().flat_map(|&byte| piece(byte, &forms)).collect();

    // Of the whole text, every form that is known is gone, and what is no form's neighbour is as it was.
    let masked = pattern.masked(&stream).map_or_else(
        || stream.clone(),
        |(masked, places)| {
            assert!(places > 0);
            masked
        },
    );
    assert_eq!(masked.len(), stream.len());
    for (old, new) in stream.iter().zip(&masked) {
        assert!(old == new || *new == b'*');
    }
    for form in forms.iter().filter(|form| !form.contains(&b'*')) {
        let found = masked.windows(form.len()).any(|window| window == form);
        assert!(!found, "{} is left", form.escape_ascii());
    }
    if forms.iter().all(|form| {
        !stream
            .windows(SHORTEST)
            .any(|window| form.windows(SHORTEST).any(|part| part == window))
    }) {
        let known = pattern.masked(&stream).is_none();
        assert!(
            known || secret.bytes().any(|byte| !byte.is_ascii_alphanumeric()),
            "masked without a reason"
        );
    }

    // The same stream in pieces.
    let lengths: Vec<usize> = cut.iter().map(|piece| piece.len()).collect();
    for lengths in [&lengths[..], &[1; 64], &[7, 1, 100, 3]] {
        let mut masker = Masker::new(pattern.clone());
        let (mut out, mut rest) = (Vec::new(), &stream[..]);
        for length in lengths.iter().copied().chain([usize::MAX]) {
            let (now, later) = rest.split_at(length.min(rest.len()));
            out.extend(masker.push(Bytes::copy_from_slice(now)).flatten());
            rest = later;
            assert!(
                masker.held() < pattern.longest(),
                "{} bytes held back",
                masker.held()
            );
            assert_eq!(out.len() + masker.held(), stream.len() - rest.len());
        }
        out.extend_from_slice(&masker.finish());
        assert!(
            out == masked,
            "{}\n{}",
            out.escape_ascii(),
            masked.escape_ascii()
        );
    }
    // With a pause after each piece what is given out is never given out again, nor is more of it shown than the stream has.
    let mut masker = Masker::new(pattern.clone());
    let (mut out, mut rest) = (Vec::new(), &stream[..]);
    for length in lengths.iter().copied().chain([usize::MAX]) {
        let (now, later) = rest.split_at(length.min(rest.len()));
        out.extend(masker.push(Bytes::copy_from_slice(now)).flatten());
        out.extend_from_slice(&masker.release());
        rest = later;
        assert_eq!((masker.held(), out.len()), (0, stream.len() - rest.len()));
    }
    out.extend_from_slice(&masker.finish());
    assert_eq!(out.len(), stream.len());
    for ((old, masked), paused) in stream.iter().zip(&masked).zip(&out) {
        assert!(paused == masked || paused == old);
    }
    // Where it is cut tells nothing: another secret of the same bytes, in another order, has the same pieces come out.
    let other: String = secret.chars().rev().collect();
    let other = Arc::new(Pattern::new([other.as_str()]).expect("as long"));
    if other.longest() == pattern.longest() && other.masked(&stream).is_none() && masked == stream {
        let [one, another] = [pattern, other].map(|pattern| {
            let mut masker = Masker::new(pattern);
            let mut rest = &stream[..];
            let mut seen = Vec::new();
            for length in lengths.iter().copied().chain([usize::MAX]) {
                let (now, later) = rest.split_at(length.min(rest.len()));
                let piece = Bytes::copy_from_slice(now);
                seen.push(masker.push(piece).collect::<Vec<_>>());
                rest = later;
            }
            seen
        });
        assert_eq!(one, another);
    }
});

fn piece(byte: u8, forms: &[Vec<u8>]) -> Vec<u8> {
    match byte.checked_sub(0x80) {
        Some(number) => {
            let form = &forms[usize::from(number) % forms.len()];
            // Whole half of the time, else without its end.
            let cut = usize::from(number) / forms.len() % 4;
            form[..form.len() - cut.min(form.len())].to_vec()
        }
        None => vec![byte],
    }
}

/// The forms that other programs make.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let each = |write: fn(u8) -> String| {
        bytes
            .iter()
            .map(|&byte| write(byte))
            .collect::<String>()
            .into_bytes()
    };
    let json = serde_json::to_string(secret).expect("text");
    let mut forms = vec![
        bytes.to_vec(),
        each(|byte| format!("{byte:02x}")),
        each(|byte| format!("{byte:02X}")),
        each(|byte| format!("%{byte:02x}")),
        each(|byte| format!("%{byte:02X}")),
        each(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).into()
            }
            byte => format!("%{byte:02X}"),
        }),
        json[1..json.len() - 1].as_bytes().to_vec(),
    ];
    // The characters of base64 that the secret alone decides, behind 0, 1 and 2 bytes.
    for lead in 0..3 {
        let long = [&b"xx"[..lead], bytes].concat();
        let (begin, end) = ((8 * lead).div_ceil(6), 8 * long.len() / 6);
        for encoded in [
            BASE64_STANDARD_NO_PAD.encode(&long),
            BASE64_URL_SAFE_NO_PAD.encode(&long),
        ] {
            forms.push(encoded.as_bytes()[begin..end].to_vec());
        }
    }
    forms
}
