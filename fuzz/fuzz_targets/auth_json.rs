//! The agent's login: whatever the host's one holds, each text in the dummy is one of ours or of a field that is kept.
//!
//! Input: the host's document; then, each behind a NUL, the claims of its access token and of its id token.

#![no_main]

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use egress::credential::codex::dummy::Dummy;
use egress::credential::jwt;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const SIGNATURE: &str = "c2lnbmF0dXJlLW9mLXRoZS1ob3N0";

/// As many bytes of a secret are not to be found in the dummy.
const FRAGMENT: usize = 12;

fuzz_target!(|input: &str| {
    let mut parts = input.split('\0');
    let Ok(mut host) = serde_json::from_str::<Value>(parts.next().unwrap_or_default()) else {
        return;
    };
    for (name, claims) in ["access_token", "id_token"].into_iter().zip(parts) {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(claims);
        if let Some(tokens) = host.get_mut("tokens").and_then(Value::as_object_mut) {
            tokens.insert(
                name.to_owned(),
                format!("eyJhbGciOiJSUzI1NiJ9.{payload}.{SIGNATURE}").into(),
            );
        }
    }
    let exp = jwt::expiry("e30.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln").expect("a token that ends");
    if let Some(token) = host["tokens"]["access_token"].as_str() {
        _ = jwt::expiry(token).map(|exp| (exp.to_string(), exp.time()));
    }
    let Ok(dummy) = Dummy::build(&host, exp) else {
        return;
    };
    assert_eq!(Dummy::build(&host, exp).as_ref(), Ok(&dummy));

    let secrets = secrets(&host);
    let kept = kept(&host);
    let mut texts = Vec::new();
    let document: Value = serde_json::from_str(dummy.as_str()).expect("JSON");
    each_text(&document, &mut texts);
    for name in ["access_token", "id_token"] {
        let token = document["tokens"][name].as_str().expect("a token");
        assert_eq!(jwt::expiry(token).as_ref(), Ok(&exp));
        let payload = token.split('.').nth(1).expect("a payload");
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).expect("base64url");
        each_text(&serde_json::from_slice(&payload).expect("JSON"), &mut texts);
        texts.retain(|text| text != token);
    }
    for text in &texts {
        if kept.contains(text.as_str()) {
            // A field that is kept must not repeat a secret as a whole.
            let whole = secrets
                .iter()
                .find(|secret| secret.chars().count() >= 8 && text.contains(secret.as_str()));
            // A part of a word of ours gives nothing away.
            assert!(
                whole.is_none_or(|whole| is_part_of_ours(whole)),
                "a secret in {text:?}"
            );
            continue;
        }
        for secret in &secrets {
            let mut fragments = secret.as_bytes().windows(FRAGMENT);
            let found = fragments.find(|fragment| contains(text.as_bytes(), fragment));
            assert!(
                found.is_none() || is_ours(text),
                "a part of a secret in {text:?}"
            );
        }
        assert!(is_ours(text), "a text without a reason: {text:?}");
    }
});

/// What opens doors: the tokens and the key, and the parts of each token.
fn secrets(host: &Value) -> Vec<String> {
    let tokens = ["access_token", "refresh_token", "id_token"].map(|name| &host["tokens"][name]);
    let texts = tokens
        .into_iter()
        .chain([&host["OPENAI_API_KEY"]])
        .filter_map(Value::as_str);
    let mut secrets = Vec::new();
    for text in texts {
        secrets.push(text.to_owned());
        // What is no token is a text like another: a part of it is no secret of its own.
        if is_token(text) {
            secrets.extend(text.split('.').skip(1).map(str::to_owned));
        }
    }
    secrets
}

/// The texts of the fields that docs/manifests.md says are kept, of whatever document they are in.
fn kept(host: &Value) -> HashSet<String> {
    let mut kept = HashSet::new();
    let mut keep = |value: &Value| kept.extend(value.as_str().map(str::to_owned));
    keep(&host["tokens"]["account_id"]);
    keep(&host["last_refresh"]);
    let claims: Vec<Map<String, Value>> = ["access_token", "id_token"]
        .iter()
        .filter_map(|name| claims(host["tokens"][name].as_str()?))
        .collect();
    for claims in &claims {
        if let Some(auth) = claims
            .get("https://api.openai.com/auth")
            .and_then(Value::as_object)
        {
            for name in ["chatgpt_plan_type", "chatgpt_account_id"] {
                keep(auth.get(name).unwrap_or(&Value::Null));
            }
        }
        for name in ["aud", "scp", "amr"] {
            claims
                .get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .for_each(&mut keep);
        }
    }
    for claims in &claims {
        let auth = claims
            .get("https://api.openai.com/auth")
            .and_then(Value::as_object);
        kept.extend(auth.into_iter().flatten().map(|(name, _)| name.clone()));
        kept.extend(
            claims
                .iter()
                .filter(|(_, value)| value.is_boolean())
                .map(|(name, _)| name.clone()),
        );
    }
    kept
}

fn is_token(text: &str) -> bool {
    let legal = |segment: &str| {
        segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte))
    };
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3
        && !parts[0].is_empty()
        && parts.iter().all(|part| legal(part))
        && payload(text).is_some()
}

fn payload(token: &str) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&base64::alphabet::URL_SAFE, lenient);
    engine.decode(token.split('.').nth(1)?).ok()
}

fn claims(token: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice::<Value>(&payload(token)?)
        .ok()?
        .as_object()
        .cloned()
}

/// Every text, and every key.
fn each_text(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, texts)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            texts.push(name.clone());
            each_text(value, texts);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn contains(text: &[u8], fragment: &[u8]) -> bool {
    text.windows(fragment.len())
        .any(|window| window == fragment)
}

/// A text of the dummy's own.
fn is_ours(text: &str) -> bool {
    OURS.contains(&text)
}

fn is_part_of_ours(text: &str) -> bool {
    OURS.iter().any(|ours| ours.contains(text))
}

const OURS: &[&str] = &[
    "auth_mode",
    "chatgpt",
    "chatgptAuthTokens",
    "OPENAI_API_KEY",
    "tokens",
    "id_token",
    "access_token",
    "refresh_token",
    "account_id",
    "last_refresh",
    "bot-bottle-placeholder",
    "bot-bottle@example.invalid",
    "exp",
    "sub",
    "iat",
    "nbf",
    "auth_time",
    "pwd_auth_time",
    "aud",
    "scp",
    "amr",
    "email",
    "email_verified",
    "https://api.openai.com/profile",
    "https://api.openai.com/auth",
    "chatgpt_plan_type",
    "chatgpt_account_id",
    "user_id",
    "chatgpt_user_id",
    "unknown",
    "placeholder",
];
