//! What is found, what is not, and that pieces make no difference.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use proptest::prelude::*;

use super::{Masker, Pattern, SHORTEST, is_base64};

const TOKEN: &str = "ghp_q+7/Zx<k1>=w9~T!";

/// Every form by itself, and nothing clever: what the search has to equal.
fn naive(pattern: &Pattern, text: &[u8]) -> Vec<u8> {
    let mut masked = text.to_vec();
    for form in &pattern.forms {
        for start in 0..text.len() {
            if text[start..].starts_with(&form.bytes) {
                let mut end = start + form.bytes.len();
                end += usize::from(form.edge && text.get(end).is_some_and(|byte| is_base64(*byte)));
                masked[start..end].fill(b'*');
            }
        }
    }
    masked
}

/// The text in pieces of these lengths, the rest in one: before it is known to be the last, or after.
fn in_pieces(mut masker: Masker, text: &[u8], lengths: &[usize]) -> Vec<u8> {
    let longest = masker.pattern.longest();
    let (mut masked, mut rest) = (Vec::new(), text);
    let mut push = |masked: &mut Vec<u8>, piece: &[u8]| {
        masked.extend(masker.push(Bytes::copy_from_slice(piece)).flatten());
        masker.held()
    };
    for length in lengths {
        let (piece, after) = rest.split_at(rest.len().min(*length));
        let held = push(&mut masked, piece);
        rest = after;
        assert!(held < longest, "{held} held back");
        assert_eq!(masked.len() + held, text.len() - rest.len());
    }
    if lengths.len().is_multiple_of(2) {
        push(&mut masked, std::mem::take(&mut rest));
    }
    masked.extend(masker.finish_with(Bytes::copy_from_slice(rest)));
    masked
}

fn pattern(token: &str) -> Arc<Pattern> {
    Arc::new(Pattern::new([token]).expect("a long token"))
}

fn percent(text: &str, lower: bool) -> String {
    let byte = |byte: u8| match lower {
        true => format!("%{byte:02x}"),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The token as encoders that are not ours write it.
fn said_back(token: &str) -> Vec<String> {
    let json = serde_json::to_string(token).expect("text");
    let mut forms = vec![
        token.to_owned(),
        json.trim_matches('"').to_owned(),
        json.trim_matches('"').replace('/', "\\/"),
        percent(token, true),
        percent(token, false),
        token.bytes().map(|byte| format!("{byte:02x}")).collect(),
        token.bytes().map(|byte| format!("{byte:02X}")).collect(),
        // encodeURIComponent, and Python's quote.
        "ghp_q%2B7%2FZx%3Ck1%3E%3Dw9~T!".to_owned(),
        "ghp_q%2B7/Zx%3Ck1%3E%3Dw9~T%21".to_owned(),
        "ghp_q%2b7%2fzx".replace("zx", "Zx%3ck1%3e%3dw9~T%21"),
        // A segment of a path; encodeURI.
        "ghp_q+7%2FZx%3Ck1%3E=w9~T!".to_owned(),
        "ghp_q+7/Zx%3Ck1%3E=w9~T!".to_owned(),
        // Django's scripts, and Go's; mustache.js and Handlebars.
        r"ghp_q+7/Zx\u003Ck1\u003E\u003Dw9~T!".to_owned(),
        r"ghp_q\u002b7\/Zx\u003ck1\u003e=w9~T!".to_owned(),
        "ghp_q+7&#x2F;Zx&lt;k1&gt;&#x3D;w9~T!".to_owned(),
        "ghp_q+7/Zx&lt;k1&gt;&#x3D;w9~T!".to_owned(),
        // Go's JSON, and its HTML.
        r"ghp_q+7/Zx\u003ck1\u003e=w9~T!".to_owned(),
        "ghp_q&#43;7/Zx&lt;k1&gt;=w9~T!".to_owned(),
        "ghp_q+7/Zx&lt;k1&gt;=w9~T!".to_owned(),
    ];
    for before in ["", "a", "ab", "user:"] {
        forms.push(BASE64_STANDARD.encode(format!("{before}{token}")));
        forms.push(BASE64_URL_SAFE_NO_PAD.encode(format!("{before}{token}, and more")));
        let wide = BASE64_STANDARD_NO_PAD.encode(format!("{before}{token}"));
        forms.push(wide.replace('+', "%2B").replace('/', "%2F"));
        forms.push(wide.replace('/', "\\/"));
    }
    forms
}

#[test]
fn each_form_is_masked_with_its_neighbours_left_alone() {
    let pattern = pattern(TOKEN);
    for form in said_back(TOKEN) {
        let text = format!("<{form}>");
        let (masked, places) = pattern.masked(text.as_bytes()).expect(&form);
        let masked = String::from_utf8(masked).expect("ASCII");
        assert_eq!(masked.len(), text.len(), "{form}");
        assert_eq!(places, 1, "{form}: {masked}");
        assert!(masked.starts_with('<') && masked.ends_with('>'), "{masked}");
        // What is left of base64: the characters before the token, and the one that it shares with them.
        let left: String = masked.trim_matches(['<', '>', '=']).replace('*', "");
        let around = BASE64_URL_SAFE_NO_PAD.encode("user:, and more");
        assert!(left.len() <= around.len() + 1, "{form}: {masked}");
        assert_eq!(naive(&pattern, text.as_bytes()), masked.as_bytes());
    }
    // The last bits of the token in a character that it shares with nobody.
    let (masked, _) = pattern
        .masked(BASE64_STANDARD.encode(TOKEN).as_bytes())
        .expect("found");
    assert_eq!(masked, b"***************************=");
}

#[test]
fn what_was_sent_is_masked_beside_the_value() {
    let sent = BASE64_STANDARD.encode("x-access-token:secret-of-the-host");
    let pattern = Pattern::new(["secret-of-the-host", &sent]).expect("long texts");
    for text in [
        sent.clone(),
        percent(&sent, false),
        BASE64_STANDARD.encode(format!("Basic {sent}")),
    ] {
        let (masked, _) = pattern.masked(text.as_bytes()).expect("found");
        let left = masked.iter().filter(|byte| **byte != b'*').count();
        assert!(left <= 10, "{}", String::from_utf8_lossy(&masked));
    }
}

#[test]
fn ordinary_text_and_parts_of_a_token_pass() {
    let pattern = pattern("ghp_0123456789abcdefghij");
    for text in [
        "ghp_0123456789abcdefghi",
        "ghp_0123456789abcdefghi_j",
        "hp_0123456789abcdefghij",
        "********",
    ] {
        assert!(pattern.masked(text.as_bytes()).is_none(), "{text}");
        assert_eq!(
            in_pieces(Masker::new(pattern.clone()), text.as_bytes(), &[5, 9]),
            text.as_bytes()
        );
    }
}

#[test]
fn a_short_value_has_no_pattern() {
    assert!(Pattern::new(["1234567"]).is_none());
    assert_eq!(SHORTEST, "12345678".len());
    assert!(Pattern::new(["12345678"]).is_some());
    // What was sent may be long enough where the value is not.
    let sent = BASE64_STANDARD.encode("user:1234567");
    let pattern = Pattern::new(["1234567", &sent]).expect("a long text");
    assert!(pattern.masked(sent.as_bytes()).is_some());
    assert!(pattern.masked(b"1234567").is_none());
}

#[test]
fn a_form_cut_anywhere_is_masked() {
    let pattern = pattern(TOKEN);
    for form in said_back(TOKEN) {
        let text = format!("before {form} after");
        let whole = naive(&pattern, text.as_bytes());
        for cut in 0..=text.len() {
            assert_eq!(
                in_pieces(Masker::new(pattern.clone()), text.as_bytes(), &[cut]),
                whole
            );
            let ones = vec![1; text.len()];
            assert_eq!(
                in_pieces(Masker::new(pattern.clone()), text.as_bytes(), &ones),
                whole
            );
        }
    }
}

fn push(masker: &mut Masker, piece: &str) -> Vec<String> {
    let pieces = masker.push(Bytes::copy_from_slice(piece.as_bytes()));
    pieces
        .map(|piece| String::from_utf8(piece.into()).expect("text"))
        .collect()
}

#[test]
fn only_the_end_of_a_word_is_held_back() {
    let mut masker = Masker::new(pattern("ghp_0123456789abcdefghij"));
    for (piece, passed) in [
        ("data: {}\n\n", &["data: {}\n\n"][..]),
        ("a prompt? ", &["a prompt? "]),
        ("x ghp_0123", &["x "]),
        ("4!", &["ghp_01234", "!"]),
        ("ghp_0123456789abcdefghi", &[]),
        ("j", &[]),
        ("\"}\n", &["************************", "\"}\n"]),
    ] {
        assert_eq!(push(&mut masker, piece), passed, "{piece}");
    }
    assert_eq!(
        (masker.held(), masker.take_places(), masker.take_places()),
        (0, 1, 0)
    );
}

#[test]
fn a_guess_that_is_right_is_held_back_like_any_other() {
    let token = "ghp_0123456789abcdefghij";
    for length in 1..token.len() {
        let right = &token[..length];
        let wrong = format!("{}x", &token[..length - 1]);
        let [right, wrong] = [right, &wrong].map(|guess| {
            let mut masker = Masker::new(pattern(token));
            let mut seen = push(&mut masker, &format!("a file that ends in {guess}"));
            seen.extend(push(&mut masker, "\n"));
            seen.iter().map(String::len).collect::<Vec<_>>()
        });
        assert_eq!(right, wrong, "{length} bytes are right");
    }
}

#[test]
fn what_was_released_is_not_given_out_again_and_the_rest_of_it_is_masked() {
    let token = "ghp_0123456789abcdefghij";
    for cut in 0..=token.len() {
        let mut masker = Masker::new(pattern(token));
        let (begin, end) = token.split_at(cut);
        let mut seen = push(&mut masker, &format!("is {begin}")).concat();
        let released = masker.release();
        seen += std::str::from_utf8(&released).expect("text");
        assert_eq!(masker.held(), 0);
        assert!(masker.release().is_empty());
        seen += &push(&mut masker, &format!("{end} and")).concat();
        seen += std::str::from_utf8(&masker.finish()).expect("text");
        let left = if cut == token.len() { "" } else { begin };
        let stars = "*".repeat(token.len() - left.len());
        assert_eq!(seen, format!("is {left}{stars} and"));
        assert_eq!(masker.take_places(), 1);
    }
}

#[test]
fn what_passes_untouched_is_not_copied() {
    let mut masker = Masker::new(pattern(TOKEN));
    let piece = Bytes::from(vec![b'.'; 100_000]);
    let passed: Vec<_> = masker.push(piece.clone()).collect();
    assert_eq!(
        passed
            .iter()
            .map(|piece| piece.as_ptr())
            .collect::<Vec<_>>(),
        [piece.as_ptr()]
    );
    // The end of a word before it makes no difference but for the seam.
    assert!(masker.push(Bytes::from_static(b"word")).next().is_none());
    let passed: Vec<_> = masker.push(piece.clone()).collect();
    assert_eq!(passed[0], "word");
    assert_eq!(passed[1].as_ptr(), piece.as_ptr());
}

#[test]
fn a_name_of_a_header_has_no_capitals() {
    let pattern = pattern("Ghp_0123456789ABCdefghij");
    assert!(pattern.is_in_name(b"x-ghp_0123456789abcdefghij-y"));
    assert!(!pattern.is_in_name(b"x-ghp_0123456789abcdefghi"));
}

#[test]
fn debug_shows_nothing() {
    let pattern = pattern(TOKEN);
    assert_eq!(
        format!("{pattern:?} {:?}", Masker::new(pattern.clone())),
        "[redacted] [redacted]"
    );
}

proptest! {
    /// Texts of few letters, so that the forms begin everywhere, overlap and break off.
    #[test]
    fn pieces_make_no_difference(
        token in "[ab/]{8,40}|[!-~]{8,300}",
        planted in prop::collection::vec((0_usize..60, 0_usize..2000, "[ab/ ]{0,9}"), 0..9),
        lengths in prop::collection::vec(0_usize..50, 0..60),
    ) {
        let pattern = pattern(&token);
        let mut text = Vec::new();
        for (number, length, between) in planted {
            let form = &pattern.forms[number % pattern.forms.len()].bytes;
            // Whole half of the time, else cut off.
            text.extend(&form[..form.len().min(length)]);
            text.extend(between.as_bytes());
        }
        let masked = naive(&pattern, &text);
        prop_assert_eq!(&in_pieces(Masker::new(pattern.clone()), &text, &lengths), &masked);
        let at_once = pattern.masked(&text).map_or(text, |(masked, _)| masked);
        prop_assert_eq!(at_once, masked);
    }

    #[test]
    fn no_bytes_panic(
        token in "[!-~]{8,30}",
        text in prop::collection::vec(any::<u8>(), 0..500),
        lengths in prop::collection::vec(0_usize..50, 0..20),
    ) {
        in_pieces(Masker::new(pattern(&token)), &text, &lengths);
    }

    /// Where pieces are cut, and how long something is held back, is the same for two credentials that are as long and of the
    /// same kinds of bytes, one of which the text is full of.
    #[test]
    fn what_comes_out_when_tells_nothing_of_the_credential(
        token in "[a-z]{8,60}",
        planted in prop::collection::vec((0_usize..2000, "[a-z. ]{0,9}"), 0..9),
        lengths in prop::collection::vec((0_usize..50, any::<bool>()), 0..60),
    ) {
        let other: String = token.bytes().map(|byte| char::from(b'a' + b'z' - byte)).collect();
        let mut text = Vec::new();
        for (length, between) in planted {
            // Never a whole one, whose mask everybody sees.
            text.extend(&token.as_bytes()[..length % token.len()]);
            text.extend(b"!");
            text.extend(between.as_bytes());
        }
        let [one, another] = [&token, &other].map(|token| {
            let mut masker = Masker::new(pattern(token));
            let (mut seen, mut rest) = (Vec::new(), &text[..]);
            for (length, pauses) in &lengths {
                let (piece, after) = rest.split_at(rest.len().min(*length));
                seen.push(masker.push(Bytes::copy_from_slice(piece)).collect::<Vec<_>>());
                if *pauses {
                    seen.push(vec![masker.release()]);
                }
                rest = after;
            }
            seen.push(masker.push(Bytes::copy_from_slice(rest)).collect());
            seen.push(vec![masker.finish()]);
            seen
        });
        prop_assert_eq!(one, another);
    }
}
