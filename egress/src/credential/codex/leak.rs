//! The last look before a dummy is written: does a text of the host's login appear in it after all?
//!
//! It knows nothing of how the dummy is made, so that a hole in the allowlist does not go through here as well. Texts
//! are looked for as they are, as JSON writes them, and in base64 and base64url at each of the three places in a group
//! that they can begin at, which finds them inside a longer text that was encoded as a whole.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Document;
use crate::credential::jwt;

/// Looks for the texts of `host` in `output`, and names the first kind that is there without a reason.
///
/// Texts of fewer than 8 characters are passed over: they appear by chance.
pub(super) fn find(host: &Value, output: &str, explained: &Explained<'_>) -> Option<&'static str> {
    let found = |leaf: &Leaf<'_>| {
        leaf.text.chars().count() >= MIN_CHARACTERS
            && !explained.covers(leaf)
            && appears(leaf.text, output)
    };
    let mut leak = None;
    each_leaf(host, &mut |leaf| {
        if leak.is_none() && found(&leaf) {
            leak = Some(leaf.what);
        }
    });
    leak
}

/// The texts that have a reason to be in the output.
pub(super) struct Explained<'a> {
    /// Texts of ours.
    pub(super) constants: &'a [&'a str],
    /// Texts of the host that the allowlist keeps.
    pub(super) kept: &'a [String],
}

impl Explained<'_> {
    /// A part of what is there anyway gives nothing away. But a token is never there with reason, not even where a
    /// kept field repeats it.
    fn covers(&self, leaf: &Leaf<'_>) -> bool {
        let ours = self.constants.iter().any(|text| text.contains(leaf.text));
        ours || (!leaf.is_token && self.kept.iter().any(|text| text.contains(leaf.text)))
    }
}

struct Leaf<'a> {
    text: &'a str,
    what: &'static str,
    is_token: bool,
}

/// Calls `take` for the tokens and the API key first, then for every other text, each time also for the payload and the
/// signature of what looks like a JWT, and for the texts within such a payload.
fn each_leaf(host: &Value, take: &mut dyn FnMut(Leaf<'_>)) {
    let tokens = host.get("tokens");
    let token = |name: &str| tokens.and_then(|tokens| tokens.get(name));
    let secrets = [
        (token("access_token"), "the access token"),
        (token("refresh_token"), "the refresh token"),
        (token("id_token"), "the id token"),
        (host.get("OPENAI_API_KEY"), "the API key"),
    ];
    for (value, what) in secrets {
        if let Some(text) = value.and_then(Value::as_str) {
            each_part(text, what, true, take);
        }
    }
    match host {
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    ("OPENAI_API_KEY", Value::String(_)) => {}
                    ("tokens", Value::Object(tokens)) => each_other_token(tokens, take),
                    _ => each_text(value, take),
                }
            }
        }
        other => each_text(other, take),
    }
}

fn each_other_token(tokens: &Map<String, Value>, take: &mut dyn FnMut(Leaf<'_>)) {
    for (name, value) in tokens {
        let is_secret = matches!(name.as_str(), "access_token" | "refresh_token" | "id_token");
        if !(is_secret && value.is_string()) {
            each_text(value, take);
        }
    }
}

fn each_text(value: &Value, take: &mut dyn FnMut(Leaf<'_>)) {
    match value {
        Value::String(text) => each_part(text, "a text", false, take),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, take)),
        Value::Object(members) => members.values().for_each(|value| each_text(value, take)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn each_part(text: &str, what: &'static str, is_token: bool, take: &mut dyn FnMut(Leaf<'_>)) {
    let mut leaf = |text| {
        take(Leaf {
            text,
            what,
            is_token,
        });
    };
    leaf(text);
    let Some(payload) = jwt::payload(text) else {
        return;
    };
    // The header is left out: it says how a token is signed, and is the same in a million of them.
    text.split('.').skip(1).for_each(leaf);
    if let Ok(claims) = serde_json::from_slice(&payload) {
        each_text(&Document(claims).0, take);
    }
}

/// Whether a text stands in the output: as it is, as JSON writes it, or within base64 or base64url.
pub(crate) fn appears(text: &str, output: &str) -> bool {
    let quoted = Zeroizing::new(serde_json::to_string(text).unwrap_or_default());
    let escaped = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(&quoted);
    [text, escaped].into_iter().any(|form| {
        output.contains(form)
            || (0..3).any(|offset| {
                let (standard, url_safe) = encoded_at(form, offset);
                output.contains(standard.as_str()) || output.contains(url_safe.as_str())
            })
    })
}

/// The characters that `text` alone decides when it is encoded as a part of something longer, beginning at byte
/// `offset` of a group of three. Those that share bits with a neighbour are cut off, and with them the padding.
fn encoded_at(text: &str, offset: usize) -> (Zeroizing<String>, Zeroizing<String>) {
    let mut bytes = Zeroizing::new(Vec::with_capacity(offset + text.len()));
    bytes.resize(offset, 0);
    bytes.extend_from_slice(text.as_bytes());
    let first = (offset * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    let inner = |encoded: String| {
        let encoded = Zeroizing::new(encoded);
        Zeroizing::new(encoded.get(first..end).unwrap_or_default().to_owned())
    };
    (
        inner(BASE64_STANDARD_NO_PAD.encode(&bytes)),
        inner(BASE64_URL_SAFE_NO_PAD.encode(&bytes)),
    )
}

const MIN_CHARACTERS: usize = 8;

#[cfg(test)]
mod tests;
