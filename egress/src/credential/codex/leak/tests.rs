//! What the check must find, and what it must not take for a leak.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use serde_json::json;

use super::*;

const NONE: Explained<'static> = Explained {
    constants: &[],
    kept: &[],
};

fn found(host: &Value, output: &str) -> Option<&'static str> {
    find(host, output, &NONE)
}

/// A text whose base64 differs from its base64url.
const SECRET: &str = "rt_>>>???~~~ab";

fn host() -> Value {
    json!({"tokens": {"refresh_token": SECRET}})
}

#[test]
fn a_token_is_found_as_it_is() {
    let output = format!("{{\"x\":\"before{SECRET}after\"}}");
    assert_eq!(found(&host(), &output), Some("the refresh token"));
}

#[test]
fn a_token_is_found_in_every_encoding_at_every_place() {
    for length in 0..7 {
        for tail in ["", "?", "??", "}}}}"] {
            let text = format!("{}{SECRET}{tail}", "~".repeat(length));
            let forms = [
                BASE64_STANDARD.encode(&text),
                BASE64_STANDARD_NO_PAD.encode(&text),
                BASE64_URL_SAFE.encode(&text),
                BASE64_URL_SAFE_NO_PAD.encode(&text),
            ];
            assert_ne!(forms[0], forms[2]);
            for form in forms {
                assert!(found(&host(), &form).is_some(), "{length} {tail:?} {form}");
            }
        }
    }
}

#[test]
fn a_text_that_json_escapes_is_found_plain_and_encoded() {
    let host = json!({"note": "say \"friend\"\n\u{1}"});
    let quoted = json!({"x": ["say \"friend\"\n\u{1}"]}).to_string();
    assert_eq!(found(&host, &quoted), Some("a text"));
    let encoded = BASE64_URL_SAFE_NO_PAD.encode(&quoted);
    assert_eq!(found(&host, &encoded), Some("a text"));
}

#[test]
fn the_payload_and_the_signature_of_a_token_are_found_alone() {
    let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"exp":5,"email":"jane@corp.example"}"#);
    let token = format!("eyJhbGciOiJSUzI1NiJ9.{payload}.c2lnbmF0dXJl");
    for (field, what) in [
        ("access_token", "the access token"),
        ("id_token", "the id token"),
        ("refresh_token", "the refresh token"),
    ] {
        let host = json!({"tokens": {field: token}});
        assert_eq!(found(&host, &payload), Some(what));
        assert_eq!(found(&host, "xc2lnbmF0dXJlx"), Some(what));
        assert_eq!(found(&host, "eyJhbGciOiJSUzI1NiJ9"), None, "the header");
    }
}

#[test]
fn a_text_within_a_claim_is_found() {
    let claims = json!({"a": [{"b": "jane@corp.example"}]}).to_string();
    let token = format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
    let inner = BASE64_URL_SAFE_NO_PAD.encode(json!({"inner": token}).to_string());
    for token in [token, format!("e30.{inner}.c2ln")] {
        for host in [
            json!({"tokens": {"id_token": token}}),
            json!({"agent_identity": {"jwt": token}}),
        ] {
            assert_eq!(found(&host, "to jane@corp.example"), Some("a text"));
        }
    }
}

#[test]
fn other_texts_and_misplaced_tokens_are_found() {
    let leaf = "acme-corp-42";
    for host in [
        json!({"x": leaf}),
        json!({"x": [[{"y": leaf}]]}),
        json!({"tokens": leaf}),
        json!({"tokens": {"login_owner_id": leaf}}),
        json!({"tokens": {"access_token": [leaf]}}),
        json!({"OPENAI_API_KEY": {"x": leaf}}),
        json!([leaf]),
        json!(leaf),
    ] {
        assert_eq!(found(&host, "acme-corp-42"), Some("a text"), "{host}");
    }
    let key = json!({"OPENAI_API_KEY": "sk-12345"});
    assert_eq!(found(&key, "sk-12345"), Some("the API key"));
}

#[test]
fn a_kept_field_does_not_excuse_a_token() {
    let kept = ["the-secret".to_owned()];
    let explained = Explained {
        constants: &[],
        kept: &kept,
    };
    let host = json!({"tokens": {"access_token": "the-secret", "account_id": "the-secret"}});
    let what = find(&host, "the-secret", &explained);
    assert_eq!(what, Some("the access token"));
}

#[test]
fn kept_texts_and_our_own_are_no_leak_and_neither_are_parts_of_them() {
    let kept = ["account-1234567".to_owned()];
    let explained = Explained {
        constants: &["https://api.openai.com/auth", "placeholder"],
        kept: &kept,
    };
    let output = "account-1234567 https://api.openai.com/auth placeholder";
    let token = "e30.e30.placeholder";
    let host = json!({
        "tokens": {"account_id": "account-1234567", "access_token": token},
        "owner": "account-1234567",
        "short": "account-",
        "issuer": "https://api.openai.com",
    });
    assert_eq!(find(&host, output, &explained), None);
    let more = json!({"owner": "account-12345678"});
    assert_eq!(find(&more, "account-12345678", &explained), Some("a text"));
}

#[test]
fn short_texts_appear_by_chance() {
    let host = json!({"tokens": {"access_token": "", "refresh_token": "abcdefg"}, "x": "1234567"});
    assert_eq!(found(&host, "abcdefg 1234567"), None);
}

#[test]
fn a_text_that_is_not_there_is_not_found() {
    assert_eq!(found(&host(), "rt_>>>???~~~a"), None);
    assert_eq!(found(&Value::Null, ""), None);
}
