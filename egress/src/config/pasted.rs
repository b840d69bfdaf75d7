//! Tokens that somebody pasted into a file where a name belongs. A fault quotes the file, and must not repeat them.
//!
//! What a token looks like is a guess: it is for words that no one would choose, and a short or plain token goes unseen.

use std::borrow::Cow;

/// The shortest that is taken for one, in bytes. The well-known issuers' are 36 and more.
const LEAST: usize = 20;

/// The text with what looks like a token in it blotted out, byte for byte, so that places in it stay what they are.
pub(super) fn blotted(text: &str) -> Cow<'_, str> {
    let mut blotted = Cow::Borrowed(text);
    for (start, word) in words(text, |byte| is_letter(byte) || matches!(byte, b'_' | b'-')) {
        if is_token(word) {
            blot(blotted.to_mut(), start, word.len());
            continue;
        }
        for (inner, run) in words(word, is_letter).filter(|(_, run)| is_token(run)) {
            blot(blotted.to_mut(), start + inner, run.len());
        }
    }
    blotted
}

/// Whether a whole word looks like a token: long, and either in both cases with digits, or digits among letters without a
/// break.
pub(crate) fn is_token(word: &str) -> bool {
    let has = |class: fn(&u8) -> bool| word.bytes().any(|byte| class(&byte));
    let digits = has(u8::is_ascii_digit);
    let (upper, lower) = (has(u8::is_ascii_uppercase), has(u8::is_ascii_lowercase));
    let unbroken = word.bytes().all(is_letter);
    word.len() >= LEAST && digits && ((upper && lower) || (unbroken && (upper || lower)))
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// The longest runs of such bytes, each with its place.
fn words(text: &str, within: impl Fn(u8) -> bool) -> impl Iterator<Item = (usize, &str)> {
    // They are ASCII, so that every cut is between characters.
    text.split(move |c: char| !u8::try_from(c).is_ok_and(&within))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr().addr() - text.as_ptr().addr(), word))
}

fn blot(text: &mut String, start: usize, length: usize) {
    text.replace_range(start..start + length, &"*".repeat(length));
}

#[cfg(test)]
mod tests {
    use super::blotted;

    #[test]
    fn tokens_are_blotted_out_and_nothing_that_people_write() {
        for (text, expected) in [
            (
                "x: ghp_0123456789abcdefghijABCD é",
                "x: **************************** é",
            ),
            ("'sk-proj-a1B2-c3D4_e5F6'", "'**********************'"),
            ("da39a3ee5e6b4b0d3255", "********************"),
            ("bearer-da39a3ee5e6b4b0d3255", "bearer-********************"),
        ] {
            assert_eq!(blotted(text), expected);
        }
        for text in [
            "EGRESS_TOKEN_OF_A_VERY_LONG_NAME_0",
            "BOT_BOTTLE_CODEX_HOST_ACCESS_TOKEN",
            "my-service-2-of-eu-west-1.example.com",
            "/backend-api/codex/responses/v1/and-so-on",
            "forward_host_credentials",
            "abcdefghijklmnopqrstuvwxyz",
            "01234567890123456789",
            "Ünïcödé1ÜnïcödéÜnïcödé",
        ] {
            assert_eq!(blotted(text), text);
        }
    }
}
