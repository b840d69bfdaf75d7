//! Looks for secrets in what others can see: any twelve bytes of one, in each form in which bytes are commonly written.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use regex::bytes::{Regex, RegexBuilder};

/// Fewer would be found by chance, and tell nobody a secret.
const PIECE: usize = 12;

/// Secrets to look for.
pub(super) struct Needles(Vec<(&'static str, Regex)>);

impl Needles {
    pub(super) fn of<'a>(secrets: impl IntoIterator<Item = (&'static str, &'a [u8])>) -> Self {
        let needle = |(name, secret): (_, &[u8])| {
            assert!(
                secret.len() >= PIECE,
                "{name} is too short to be looked for"
            );
            let forms = secret.windows(PIECE).flat_map(forms);
            let forms: Vec<String> = forms.map(|form| literal(&form)).collect();
            let pattern = format!("(?-u){}", forms.join("|"));
            let built = RegexBuilder::new(&pattern).size_limit(1 << 26).build();
            (name, built.expect("an alternation of literals"))
        };
        Self(secrets.into_iter().map(needle).collect())
    }

    /// The secrets of which there is a piece, each with what is around it.
    pub(super) fn found_in(&self, hay: &[u8]) -> Vec<(&'static str, String)> {
        let found = self.0.iter().filter_map(|(name, needle)| {
            let hit = needle.find(hay)?;
            let begin = hit.start().saturating_sub(100);
            let end = hay.len().min(hit.end() + 100);
            Some((
                *name,
                String::from_utf8_lossy(&hay[begin..end]).into_owned(),
            ))
        });
        found.collect()
    }
}

/// A piece of a secret as it may be written.
fn forms(piece: &[u8]) -> Vec<Vec<u8>> {
    let each = |write: fn(&u8) -> String, between: &str| {
        let bytes: Vec<String> = piece.iter().map(write).collect();
        bytes.join(between).into_bytes()
    };
    let mut forms = vec![
        piece.to_vec(),
        piece.iter().rev().copied().collect(),
        each(|byte| format!("{byte:02x}"), ""),
        each(|byte| format!("{byte:02X}"), ""),
        each(|byte| format!("{byte:02x}"), " "),
        each(|byte| format!("{byte:02x}"), ":"),
        each(|byte| format!("%{byte:02x}"), ""),
        each(|byte| format!("%{byte:02X}"), ""),
        each(|byte| format!("\\u{byte:04x}"), ""),
        each(|byte| format!("\\x{byte:02x}"), ""),
        // As Rust and JSON write a list of bytes.
        each(u8::to_string, ", "),
        each(u8::to_string, ","),
    ];
    for before in 0..3 {
        let padded = [&[0; 2][..before], piece].concat();
        // Characters in which bits of the neighbours are do not count.
        let (begin, end) = ((8 * before).div_ceil(6), 8 * padded.len() / 6);
        for engine in [&BASE64_STANDARD_NO_PAD, &BASE64_URL_SAFE_NO_PAD] {
            forms.push(engine.encode(&padded).as_bytes()[begin..end].to_vec());
        }
    }
    forms
}

fn literal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

#[test]
fn a_leak_is_found_in_every_form_at_every_place_and_by_a_piece() {
    let secret = b"s3cr3t-\xffT0ken/of+the=host";
    let needles = Needles::of([("planted", &secret[..])]);
    let other = b"what is no secret at all, and of some length";
    assert!(needles.found_in(other).is_empty());
    let written = |write: fn(&u8) -> String| secret.iter().map(write).collect::<String>();
    let mut leaks = vec![
        secret.to_vec(),
        secret[5..5 + PIECE].to_vec(),
        secret.iter().rev().copied().collect(),
        written(|byte| format!("{byte:02x}")).into_bytes(),
        written(|byte| format!("{byte:02X}")).into_bytes(),
        written(|byte| format!("%{byte:02X}")).into_bytes(),
        written(|byte| format!("\\u{byte:04x}")).into_bytes(),
        format!("{secret:?}").into_bytes(),
    ];
    for before in ["", "u", "us", "user:"] {
        let pair = [before.as_bytes(), secret, b"!"].concat();
        leaks.push(BASE64_STANDARD_NO_PAD.encode(&pair).into_bytes());
        leaks.push(BASE64_URL_SAFE_NO_PAD.encode(&pair).into_bytes());
    }
    for leak in leaks {
        let hay = [&other[..], &leak, other].concat();
        let shown = String::from_utf8_lossy(&hay).into_owned();
        assert_eq!(needles.found_in(&hay).len(), 1, "{shown}");
    }
    let short = [&other[..], &secret[..PIECE - 1], other].concat();
    assert!(needles.found_in(&short).is_empty());
}
