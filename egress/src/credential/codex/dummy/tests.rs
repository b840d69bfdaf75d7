//! Every row of the table, and that nothing else gets through.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use proptest::collection::{btree_map, vec};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};
use proptest::sample::select;

use super::*;

const EXP: u64 = 4_102_444_800;

fn exp() -> Expiry {
    jwt::expiry(&token(&json!({"exp": EXP}))).unwrap()
}

fn token(claims: &Value) -> String {
    let payload = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("eyJhbGciOiJSUzI1NiJ9.{payload}.c2lnbmF0dXJlLW9m")
}

fn host(access: &Value, id: &Value) -> Value {
    json!({
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": "sk-proj-host-key",
        "tokens": {
            "id_token": token(id),
            "access_token": token(access),
            "refresh_token": "rt_host_refresh_token",
            "account_id": "a1b2c3d4-0000-4000-8000-123456789abc",
            "login_owner_id": "owner-9876543210",
            "oauth_provenance": {"issuer": "https://auth.openai.com", "client_id": "app_Xyz123456"},
        },
        "last_refresh": "2026-01-02T03:04:05.678901Z",
        "agent_identity": {"key": "agent-private-key", "more": ["agent-text-1"]},
    })
}

fn build(host: &Value) -> Value {
    serde_json::from_str(Dummy::build(host, exp()).unwrap().as_str()).unwrap()
}

fn claims_of(dummy: &Value, name: &str) -> Value {
    let token = dummy["tokens"][name].as_str().unwrap();
    let mut segments = token.split('.');
    let mut json = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(segments.next().unwrap());
        serde_json::from_slice::<Value>(&bytes.unwrap()).unwrap()
    };
    assert_eq!(json(), json!({"alg": "none", "typ": "JWT"}));
    let claims = json();
    assert_eq!(segments.collect::<Vec<_>>(), ["placeholder"]);
    claims
}

fn redacted(claims: &Value) -> Value {
    let dummy = build(&host(claims, &json!({})));
    let redacted = claims_of(&dummy, "access_token");
    let swapped = build(&host(&json!({}), claims));
    assert_eq!(claims_of(&swapped, "id_token"), redacted, "both alike");
    redacted
}

#[test]
fn a_token_in_a_kept_field_is_refused_and_nothing_written() {
    let mut host = host(&json!({}), &json!({}));
    host["tokens"]["account_id"] = "rt_host_refresh_token".into();
    let leak = Dummy::build(&host, exp()).unwrap_err();
    assert_eq!(
        leak.to_string(),
        "the dummy login would contain the refresh token of the host's login; nothing was written"
    );
    let aud = json!({"aud": ["see sk-proj-host-key"]});
    let host = self::host(&aud, &json!({}));
    let leak = Dummy::build(&host, exp()).unwrap_err();
    assert!(leak.to_string().contains("the API key"), "{leak}");
}

#[test]
fn unknown_fields_are_dropped() {
    let dummy = build(&host(&json!({}), &json!({})));
    let names = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&dummy),
        ["OPENAI_API_KEY", "auth_mode", "last_refresh", "tokens"]
    );
    assert_eq!(
        names(&dummy["tokens"]),
        ["access_token", "account_id", "id_token", "refresh_token"]
    );
}

#[test]
fn the_fields_of_the_file_follow_the_table() {
    let dummy = build(&host(&json!({}), &json!({})));
    assert_eq!(dummy["auth_mode"], "chatgpt");
    assert_eq!(dummy["OPENAI_API_KEY"], Value::Null);
    assert_eq!(dummy["tokens"]["refresh_token"], "bot-bottle-placeholder");
    let account = "a1b2c3d4-0000-4000-8000-123456789abc";
    assert_eq!(dummy["tokens"]["account_id"], account);
    assert_eq!(dummy["last_refresh"], "2026-01-02T03:04:05.678901Z");
}

#[test]
fn the_mode_is_one_that_takes_tokens() {
    let mode = |mode: Value| {
        let mut host = host(&json!({}), &json!({}));
        host["auth_mode"] = mode;
        build(&host)["auth_mode"].clone()
    };
    assert_eq!(mode("chatgptAuthTokens".into()), "chatgptAuthTokens");
    for other in [json!("user"), json!("agentIdentity"), json!(7), Value::Null] {
        assert_eq!(mode(other), "chatgpt");
    }
}

#[test]
fn an_account_or_a_refresh_time_of_another_kind_is_dropped() {
    for odd in [
        json!(null),
        json!(7),
        json!(""),
        json!("two\nlines"),
        json!({}),
    ] {
        let mut host = host(&json!({}), &json!({}));
        host["tokens"]["account_id"] = odd.clone();
        host["last_refresh"] = odd;
        let dummy = build(&host);
        assert_eq!(dummy["tokens"]["account_id"], Value::Null);
        assert_eq!(dummy["last_refresh"], Value::Null);
    }
}

#[test]
fn a_token_that_is_absent_or_no_jwt_gives_the_least_payload() {
    let least = json!({"exp": EXP, "sub": "bot-bottle-placeholder"});
    let array = format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode("[1]"));
    for odd in [
        json!("opaque-token"),
        json!(array),
        json!(null),
        json!(5),
        json!(""),
    ] {
        let mut host = host(&json!({}), &json!({}));
        host["tokens"]["id_token"] = odd.clone();
        host["tokens"]["access_token"] = odd;
        let dummy = build(&host);
        assert_eq!(claims_of(&dummy, "id_token"), least);
        assert_eq!(claims_of(&dummy, "access_token"), least);
    }
    let dummy = build(&json!({}));
    assert_eq!(claims_of(&dummy, "id_token"), least);
}

#[test]
fn exp_is_the_one_given_in_both_tokens() {
    let dummy = build(&host(&json!({"exp": 5}), &json!({"exp": 6.5})));
    assert_eq!(claims_of(&dummy, "access_token")["exp"], EXP);
    assert_eq!(claims_of(&dummy, "id_token")["exp"], EXP);
}

#[test]
fn times_are_kept_where_they_are_numbers() {
    let times =
        json!({"iat": 1, "nbf": 2, "auth_time": 3.5, "pwd_auth_time": 1_700_000_000_000_u64});
    let mut expected = times.clone();
    expected["exp"] = EXP.into();
    expected["sub"] = "bot-bottle-placeholder".into();
    assert_eq!(redacted(&times), expected);
    let odd = json!({"iat": "1700000000", "nbf": true, "auth_time": null, "pwd_auth_time": [1]});
    assert_eq!(redacted(&odd).as_object().unwrap().len(), 2);
}

#[test]
fn lists_of_words_are_kept() {
    let claims = json!({
        "aud": ["https://api.openai.com/v1", {"secret": "hidden-text-1"}],
        "scp": ["openid", "offline_access", 7],
        "amr": "not-a-list",
    });
    let redacted = redacted(&claims);
    assert_eq!(redacted["aud"], json!(["https://api.openai.com/v1"]));
    assert_eq!(redacted["scp"], json!(["openid", "offline_access"]));
    assert_eq!(redacted.get("amr"), None);
}

#[test]
fn sub_and_email_are_ours() {
    let claims =
        json!({"sub": "auth0|jane", "email": "jane@corp.example", "email_verified": false});
    let redacted = redacted(&claims);
    assert_eq!(redacted["sub"], "bot-bottle-placeholder");
    assert_eq!(redacted["email"], "bot-bottle@example.invalid");
    assert_eq!(redacted["email_verified"], false);
    let bare = self::redacted(&json!({"email": 5}));
    assert_eq!(bare["email"], "bot-bottle@example.invalid");
    assert_eq!(bare["email_verified"], true);
}

#[test]
fn the_profile_is_the_email_and_the_flag() {
    let claim = |flag: Value| {
        let profile =
            json!({"email": "jane@corp.example", "email_verified": flag, "x": "dropped-text"});
        redacted(&json!({PROFILE_CLAIM: profile}))[PROFILE_CLAIM].clone()
    };
    let expected = |flag| json!({"email": "bot-bottle@example.invalid", "email_verified": flag});
    assert_eq!(claim(json!(false)), expected(false));
    assert_eq!(claim(json!("yes")), expected(true));
    assert_eq!(
        redacted(&json!({PROFILE_CLAIM: true})).get(PROFILE_CLAIM),
        None
    );
}

#[test]
fn the_auth_claim_follows_the_table() {
    let auth = json!({
        "chatgpt_plan_type": "pro",
        "chatgpt_account_id": "acct-in-claim",
        "chatgpt_user_id": "user-secret-1",
        "user_id": "user-secret-2",
        "localhost": true,
        "groups": ["group-name-1"],
        "organizations": [{"id": "org-secret-1", "title": "Personal"}],
        "nested": {"deep": {"er": "nested-text-1"}},
        "chatgpt_subscription_active_until": "2026-12-31T00:00:00Z",
        "seats": 5,
        "nothing": null,
    });
    let expected = json!({
        "chatgpt_plan_type": "pro",
        "chatgpt_account_id": "acct-in-claim",
        "chatgpt_user_id": "bot-bottle-placeholder",
        "user_id": "bot-bottle-placeholder",
        "localhost": true,
        "groups": [],
        "organizations": [],
        "nested": {},
        "chatgpt_subscription_active_until": "bot-bottle-placeholder",
    });
    assert_eq!(redacted(&json!({AUTH_CLAIM: auth}))[AUTH_CLAIM], expected);
}

#[test]
fn what_the_auth_claim_lacks_is_filled_in() {
    for auth in [
        json!({}),
        json!({"chatgpt_plan_type": "", "chatgpt_account_id": 5, "user_id": []}),
    ] {
        let filled = json!({
            "chatgpt_plan_type": "unknown",
            "chatgpt_account_id": "a1b2c3d4-0000-4000-8000-123456789abc",
            "chatgpt_user_id": "bot-bottle-placeholder",
            "user_id": "bot-bottle-placeholder",
        });
        let mut host = host(&json!({AUTH_CLAIM: auth}), &json!({}));
        assert_eq!(claims_of(&build(&host), "access_token")[AUTH_CLAIM], filled);
        host["tokens"]["account_id"] = Value::Null;
        let claims = claims_of(&build(&host), "access_token");
        let account = &claims[AUTH_CLAIM]["chatgpt_account_id"];
        assert_eq!(account, "bot-bottle-placeholder");
    }
    assert_eq!(redacted(&json!({AUTH_CLAIM: "text"})).get(AUTH_CLAIM), None);
}

#[test]
fn of_other_claims_only_booleans_are_kept() {
    let claims = json!({
        "iss": "https://auth.openai.com",
        "jti": "token-id-12345",
        "client_id": "app_Xyz123456",
        "session": {"id": "session-text-1"},
        "list": ["list-text-12"],
        "n": 5,
        "null": null,
        "sl": true,
        "off": false,
    });
    let expected = json!({"exp": EXP, "sub": "bot-bottle-placeholder", "sl": true, "off": false});
    assert_eq!(redacted(&claims), expected);
}

#[test]
fn what_the_host_shares_with_the_dummy_raises_no_false_alarm() {
    let claims = json!({
        "aud": ["https://api.openai.com/v1"],
        "iss": "https://api.openai.com",
        "scope_text": "offline_access",
        "scp": ["offline_access"],
        "account": "a1b2c3d4-0000-4000-8000-123456789abc",
        AUTH_CLAIM: {"chatgpt_plan_type": "enterprise", "localhost_login": true},
        "plan_copy": "enterprise",
        "flag_name": "localhost_login",
        "verified_by": "email_verified",
    });
    let mut host = host(&claims, &claims);
    host["grant"] = "refresh_token".into();
    host["seen"] = "2026-01-02T03:04:05.678901Z".into();
    host["mode"] = "chatgptAuthTokens".into();
    host["kind"] = "placeholder".into();
    build(&host);
}

#[test]
fn every_long_text_of_our_own_is_named_as_such() {
    let text = Dummy::build(
        &host(
            &json!({"email": 1, PROFILE_CLAIM: {}, AUTH_CLAIM: {}, "pwd_auth_time": 1}),
            &json!({}),
        ),
        exp(),
    )
    .unwrap();
    let dummy: Value = serde_json::from_str(text.as_str()).unwrap();
    let mut names = Vec::new();
    each_name(&dummy, &mut names);
    each_name(&claims_of(&dummy, "access_token"), &mut names);
    for name in names.iter().filter(|name| name.len() >= 8) {
        assert!(CONSTANTS.contains(&name.as_str()), "{name}");
    }
}

fn each_name(value: &Value, names: &mut Vec<String>) {
    if let Value::Object(members) = value {
        for (name, value) in members {
            names.push(name.clone());
            each_name(value, names);
        }
    }
}

#[test]
fn the_same_login_gives_the_same_bytes() {
    let host = host(&json!({"b": true, "a": true}), &json!({}));
    assert_eq!(Dummy::build(&host, exp()), Dummy::build(&host, exp()));
}

#[test]
fn the_dummy_is_itself_no_login_that_has_expired() {
    let dummy = build(&host(&json!({}), &json!({})));
    for name in ["access_token", "id_token"] {
        let expiry = jwt::expiry(dummy["tokens"][name].as_str().unwrap()).unwrap();
        assert!(!expiry.is_past(UNIX_EPOCH + Duration::from_secs(EXP - 1)));
    }
}

#[test]
fn it_is_written_as_it_was_checked() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("codex/auth.json");
    let dummy = Dummy::build(&host(&json!({}), &json!({})), exp()).unwrap();
    dummy.write(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), dummy.as_str());
}

#[test]
fn a_real_login_is_never_replaced() {
    let root = tempfile::tempdir().unwrap();
    let (path, link) = (root.path().join("auth.json"), root.path().join("link"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let dummy = Dummy::build(&host(&json!({}), &json!({})), exp()).unwrap();
    for login in [
        host(&json!({}), &json!({})),
        json!({"tokens": {"access_token": "x", "refresh_token": ""}}),
        json!({"tokens": {"refresh_token": "x"}}),
        json!({"OPENAI_API_KEY": "x"}),
    ] {
        fs::write(&path, login.to_string()).unwrap();
        for path in [&path, &link] {
            let error = dummy.write(path).unwrap_err();
            assert!(matches!(error, WriteError::RealLogin(_)), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), login.to_string());
    }
}

#[test]
fn a_dummy_and_a_logged_out_file_are_replaced() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("auth.json");
    let dummy = Dummy::build(&host(&json!({}), &json!({})), exp()).unwrap();
    let older = Dummy::build(&host(&json!({"a": true}), &json!({})), exp()).unwrap();
    let logged_out = r#"{"OPENAI_API_KEY": null, "tokens": null}"#;
    for there in [older.as_str(), logged_out, "{half"] {
        fs::write(&path, there).unwrap();
        dummy.write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), dummy.as_str());
    }
}

/// Texts that cannot be taken for anything of ours: each begins with a mark.
fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => "SECRET[A-Za-z0-9+/\"\\\\\u{e9}\n-]{6,20}".prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<u32>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

fn tree(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(select(names), inner, 0..6).prop_map(|members| {
                Value::Object(
                    members
                        .into_iter()
                        .map(|(k, v)| (k.to_owned(), v))
                        .collect(),
                )
            }),
        ]
    })
}

const CLAIMS: &[&str] = &[
    "exp",
    "iat",
    "sub",
    "email",
    "email_verified",
    "user_id",
    "organizations",
    AUTH_CLAIM,
    PROFILE_CLAIM,
    "other_claim",
    "localhost",
];

const FIELDS: &[&str] = &[
    "auth_mode",
    "OPENAI_API_KEY",
    "agent_identity",
    "last_refresh",
    "oauth_provenance",
    "refresh_token",
    "access_token",
    "id_token",
    "login_owner_id",
    "other_field",
];

proptest! {
    /// The table keeps no text of such documents, so none that begins with the mark may come out, however it is packed.
    #[test]
    fn no_text_of_any_host_comes_through(
        document in tree(FIELDS),
        tokens in tree(FIELDS),
        access in tree(CLAIMS),
        id in tree(CLAIMS),
        nest in any::<[bool; 3]>(),
    ) {
        let mut host = match document {
            Value::Object(members) => Value::Object(members),
            other => json!({"other_field": other}),
        };
        host["tokens"] = tokens;
        if nest[0] && !host["tokens"].is_object() {
            host["tokens"] = json!({});
        }
        if host["tokens"].is_object() {
            if nest[1] {
                host["tokens"]["access_token"] = token(&access).into();
            }
            if nest[2] {
                host["tokens"]["id_token"] = token(&id).into();
            }
        }
        let dummy = Dummy::build(&host, exp()).unwrap();
        prop_assert!(!dummy.as_str().contains("SECRET"));
        let parsed: Value = serde_json::from_str(dummy.as_str()).unwrap();
        for name in ["access_token", "id_token"] {
            let claims = claims_of(&parsed, name).to_string();
            prop_assert!(!claims.contains("SECRET"), "{claims}");
        }
    }

    #[test]
    fn no_document_panics(text in ".{0,200}", host in tree(FIELDS)) {
        let _ = Dummy::build(&host, exp());
        let _ = Dummy::build(&json!({"tokens": {"id_token": text}, "x": text}), exp());
    }
}
