//! The forms in which a text may be said back: as it is, escaped for an address, for JSON or for HTML, in base64 at each
//! of the three alignments, in hex.

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use zeroize::Zeroizing;

/// The fewest bytes of a text that is searched for. Fewer are found in ordinary text.
pub const SHORTEST: usize = 8;

/// One form.
pub(super) struct Form {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// Whether the character behind it may hold the text's last bits.
    pub(super) edge: bool,
}

/// Adds the forms of a text, but for those that are there already.
pub(super) fn add(text: &[u8], forms: &mut Vec<Form>) {
    if text.len() < SHORTEST {
        return;
    }
    let mut add = |bytes: Zeroizing<Vec<u8>>, edge| {
        if !forms.iter().any(|form| *form.bytes == *bytes) {
            forms.push(Form { bytes, edge });
        }
    };
    let plain = Zeroizing::new(text.to_vec());
    escape(&plain, |bytes| add(bytes, false));
    for case in [Case::Lower, Case::Upper] {
        add(rewrite(text, |byte, out| percent(byte, case, out)), false);
        add(rewrite(text, |byte, out| hex(byte, case, out)), false);
    }
    for alphabet in [STANDARD, URL_SAFE] {
        for lead in 0..3 {
            let (bytes, edge) = base64_within(text, lead, &alphabet);
            escape(&bytes, |bytes| add(bytes, edge));
        }
    }
}

/// The characters that base64 has for a text behind `lead` bytes (modulo 3) that nobody knows, as far as the text alone
/// decides on them; and whether one more holds its last bits, beside others.
///
/// The first character may hold bits of what stands before: two or four bits of the text's first byte stay readable.
fn base64_within(text: &[u8], lead: usize, alphabet: &Alphabet) -> (Zeroizing<Vec<u8>>, bool) {
    let mut padded = Zeroizing::new(vec![0; lead + text.len()]);
    if let Some(rest) = padded.get_mut(lead..) {
        rest.copy_from_slice(text);
    }
    let encoded = Zeroizing::new(GeneralPurpose::new(alphabet, NO_PAD).encode(&*padded));
    let (begin, end) = ((8 * lead).div_ceil(6), 8 * padded.len());
    let decided = encoded.as_bytes().get(begin..end / 6).unwrap_or_default();
    (Zeroizing::new(decided.to_vec()), end % 6 != 0)
}

/// Gives a text as it is, and as the common encoders of addresses, JSON and HTML write it.
fn escape(text: &[u8], mut give: impl FnMut(Zeroizing<Vec<u8>>)) {
    // RFC 3986, and its segments of a path; Python's quote; Go's PathEscape; JavaScript's two; forms; gRPC.
    for kept in [
        "-._~",
        "-._~!$&'()*+,;=:@",
        "-._~/",
        "-._~$&+=:@",
        "-._~!*'()",
        "-._~!*'();/?:@&=+$,#",
        "-._*",
        "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~",
    ] {
        for case in [Case::Upper, Case::Lower] {
            give(rewrite(text, |byte, out| match byte {
                byte if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) => {
                    out.push(byte)
                }
                byte => percent(byte, case, out),
            }));
        }
    }
    // Most writers of JSON; PHP's; Go's; Gson; .NET's. Scripts in pages: Go's; Django's.
    for (slash, escaped, case) in [
        ("/", "", Case::Lower),
        (r"\/", "", Case::Lower),
        ("/", "<>&", Case::Lower),
        ("/", "<>&'=", Case::Lower),
        ("/", "<>&'+`\"", Case::Upper),
        (r"\/", "<>&'+`\"", Case::Lower),
        ("/", "<>&'=-;`\"\\", Case::Upper),
    ] {
        give(rewrite(text, |byte, out| match byte {
            byte if escaped.as_bytes().contains(&byte) => {
                out.extend_from_slice(br"\u00");
                hex(byte, case, out);
            }
            b'/' => out.extend_from_slice(slash.as_bytes()),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            byte => out.push(byte),
        }));
    }
    // Most writers of HTML; Python's; Go's; mustache.js; Handlebars.
    for (double, single, plus, equals, slash) in [
        ("&quot;", "&#39;", "+", "=", "/"),
        ("&quot;", "&#x27;", "+", "=", "/"),
        ("&#34;", "&#39;", "&#43;", "=", "/"),
        ("&quot;", "&#39;", "+", "&#x3D;", "&#x2F;"),
        ("&quot;", "&#x27;", "+", "&#x3D;", "/"),
    ] {
        give(rewrite(text, |byte, out| match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(double.as_bytes()),
            b'\'' => out.extend_from_slice(single.as_bytes()),
            b'+' => out.extend_from_slice(plus.as_bytes()),
            b'=' => out.extend_from_slice(equals.as_bytes()),
            b'/' => out.extend_from_slice(slash.as_bytes()),
            byte => out.push(byte),
        }));
    }
    give(Zeroizing::new(text.to_vec()));
}

#[derive(Clone, Copy)]
enum Case {
    Lower,
    Upper,
}

fn percent(byte: u8, case: Case, out: &mut Vec<u8>) {
    out.push(b'%');
    hex(byte, case, out);
}

fn hex(byte: u8, case: Case, out: &mut Vec<u8>) {
    for half in [byte >> 4, byte & 15] {
        out.push(match (half, case) {
            (0..=9, _) => b'0' + half,
            (_, Case::Lower) => b'a' + half - 10,
            (_, Case::Upper) => b'A' + half - 10,
        });
    }
}

/// Rewrites a text byte by byte. The room is taken at once: a vector that grows leaves copies behind.
fn rewrite(text: &[u8], write: impl Fn(u8, &mut Vec<u8>)) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() * LONGEST_ESCAPE));
    for byte in text {
        write(*byte, &mut out);
    }
    out
}

/// `&quot;` and `\u0022` have six characters.
const LONGEST_ESCAPE: usize = 6;
