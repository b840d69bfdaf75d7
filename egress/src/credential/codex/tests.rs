//! Every broken form of a login, and that none of them shows what the file holds.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proptest::prelude::proptest;
use serde_json::json;

use super::login::{AUTH_CLAIM, Mode, PLAN, REFUSED_MODES};
use super::*;
use crate::credential::jwt;

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn token(payload: &str) -> String {
    let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
    format!("SECRETHEADER.{payload}.SECRETSIGNATURE")
}

fn expiring(exp: &str) -> String {
    token(&format!(r#"{{"SECRET":"SECRET","exp":{exp}}}"#))
}

fn login() -> Value {
    json!({
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": null,
        "tokens": {
            "id_token": "SECRET-id",
            "access_token": expiring("1800000001"),
            "refresh_token": "SECRET-refresh",
            "account_id": "a1b2c3d4",
        },
        "last_refresh": "2026-01-02T03:04:05Z",
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut login = login();
    change(&mut login);
    login
}

fn with_token(token: impl Into<Value>) -> Value {
    let token = token.into();
    with(|login| login["tokens"]["access_token"] = token)
}

fn read_text(text: &[u8]) -> Result<HostLogin, Error> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("auth.json");
    fs::write(&path, text).unwrap();
    HostFile::read(&path)?.login(now())
}

fn problem_of(text: &[u8]) -> String {
    let error = read_text(text).unwrap_err();
    let shown = error.to_string();
    assert!(shown.contains("/auth.json: "), "names the file: {shown}");
    assert!(error.hint().contains("`codex login --device-auth`"));
    for text in [&shown, &format!("{error:?} {error:#?}")] {
        assert!(!text.contains("SECRET"), "{text}");
        assert!(
            !text.contains("U0VDUkVU") && !text.contains("eyJ"),
            "{text}"
        );
    }
    error.problem().to_string()
}

fn problem(login: &Value) -> String {
    problem_of(login.to_string().as_bytes())
}

#[test]
fn a_missing_file_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("auth.json");
    let error = HostFile::read(&path).err().unwrap();
    let expected = format!("Codex login {}: the file is missing", path.display());
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.problem().code(), "missing");
    assert_eq!(error.path(), path);
}

#[test]
fn what_cannot_be_read_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("auth.json");
    fs::create_dir(&directory).unwrap();
    let error = HostFile::read(&directory).err().unwrap();
    let text = error.problem().to_string();
    assert_eq!(text, "the file is unreadable: not a regular file");
    assert!(error.hint().contains("`codex login --device-auth`"));

    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = HostFile::read(&file.join("auth.json")).err().unwrap();
    assert_eq!(error.problem().code(), "unreadable");
}

#[test]
fn a_fifo_is_refused_without_waiting_for_its_writer() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("auth.json");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let error = HostFile::read(&path).err().unwrap();
    assert_eq!(error.problem().code(), "unreadable");
}

#[test]
fn a_file_of_absurd_size_is_refused() {
    let mut text = login().to_string();
    let bound = usize::try_from(MAX_BYTES).unwrap();
    text.push_str(&" ".repeat(bound - text.len()));
    read_text(text.as_bytes()).unwrap();
    text.push(' ');
    assert_eq!(problem_of(text.as_bytes()), "the file is larger than 1 MiB");
}

#[test]
fn what_is_no_json_object_is_refused() {
    assert_eq!(problem_of(b""), "not JSON (line 1, column 0)");
    assert_eq!(problem_of(b"SECRET"), "not JSON (line 1, column 1)");
    let half = login().to_string();
    let half = half.get(..half.len() / 2).unwrap();
    assert!(problem_of(half.as_bytes()).starts_with("not JSON (line 1,"));
    assert!(problem_of(b"{\"a\": \"\xff\"}").starts_with("not JSON"));
    for other in ["[]", "null", "\"SECRET\"", "5"] {
        assert_eq!(problem_of(other.as_bytes()), "not a JSON object", "{other}");
    }
}

#[test]
fn an_api_key_login_is_refused_in_each_of_its_spellings() {
    let text = "an API-key login, not a ChatGPT login";
    for mode in ["apikey", "api_key"] {
        assert_eq!(problem(&with(|l| l["auth_mode"] = mode.into())), text);
    }
    let key = json!({"OPENAI_API_KEY": "sk-SECRET"});
    assert_eq!(problem(&key), text);
    let key = json!({"auth_mode": null, "OPENAI_API_KEY": "sk-SECRET", "tokens": null});
    assert_eq!(problem(&key), text);
}

#[test]
fn an_unsupported_mode_is_refused_and_named_only_where_codex_knows_it() {
    for mode in REFUSED_MODES {
        let text = problem(&with(|login| login["auth_mode"] = mode.into()));
        assert_eq!(text, format!("unsupported auth_mode ({mode})"));
    }
    let odd = [
        json!("SECRET"),
        json!(""),
        json!("ChatGPT"),
        json!(7),
        json!(["chatgpt"]),
    ];
    for mode in odd {
        let text = problem(&with(|login| login["auth_mode"] = mode));
        assert_eq!(text, "unsupported auth_mode (not a known one)");
    }
}

#[test]
fn a_login_without_tokens_is_refused() {
    for tokens in [json!(null), json!("SECRET"), json!(["SECRET"]), json!(5)] {
        let login = with(|login| login["tokens"] = tokens);
        assert_eq!(problem(&login), "no tokens in it");
    }
    assert_eq!(problem(&json!({})), "no tokens in it");
    let empty_key = json!({"OPENAI_API_KEY": ""});
    assert_eq!(problem(&empty_key), "no tokens in it");
}

#[test]
fn a_login_without_an_access_token_is_refused() {
    for token in [json!(null), json!(""), json!(5), json!(["SECRET"])] {
        assert_eq!(problem(&with_token(token)), "no access_token in it");
    }
    let login = with(|login| login["tokens"] = json!({"refresh_token": "SECRET"}));
    assert_eq!(problem(&login), "no access_token in it");
}

#[test]
fn an_access_token_that_is_no_jwt_is_refused() {
    let good = expiring("1800000001");
    for token in [
        "SECRET-opaque".to_owned(),
        "SECRET.SECRET".to_owned(),
        format!("{good}\r\nx-header: SECRET"),
        format!(" {good}"),
        token("[1800000001]"),
        token("SECRET"),
    ] {
        assert_eq!(problem(&with_token(token)), "the access_token is not a JWT");
    }
}

#[test]
fn an_access_token_without_a_usable_exp_is_refused() {
    let none = token(r#"{"SECRET":"SECRET"}"#);
    assert_eq!(problem(&with_token(none)), "the access_token has no exp");
    for exp in ["\"1900000000\"", "null", "true", "1e300", "1800000001000"] {
        let text = problem(&with_token(expiring(exp)));
        let expected = "the access_token's exp is not a time in seconds";
        assert_eq!(text, expected, "{exp}");
    }
}

#[test]
fn an_expired_access_token_is_refused_with_its_time() {
    for (exp, when) in [
        ("1800000000", "2027-01-15T08:00:00Z"),
        ("1800000000.9", "2027-01-15T08:00:00Z"),
        ("1799999999", "2027-01-15T07:59:59Z"),
        ("0", "1970-01-01T00:00:00Z"),
        ("-5", "1970-01-01T00:00:00Z"),
    ] {
        let text = problem(&with_token(expiring(exp)));
        assert_eq!(text, format!("the access_token expired at {when}"));
    }
}

#[test]
fn every_problem_has_a_code_of_its_own() {
    let exp = jwt::expiry(&expiring("5")).unwrap();
    let problems = [
        Problem::Missing,
        Problem::Unreadable(io::Error::other("x")),
        Problem::TooLarge,
        Problem::NotJson { line: 1, column: 1 },
        Problem::NotAnObject,
        Problem::ApiKey,
        Problem::UnsupportedMode(None),
        Problem::NoTokens,
        Problem::NoAccessToken,
        Problem::NotAJwt,
        Problem::NoExp,
        Problem::OddExp,
        Problem::Expired(exp),
    ];
    let codes: HashSet<_> = problems.iter().map(Problem::code).collect();
    let texts: HashSet<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!((codes.len(), texts.len()), (problems.len(), problems.len()));
}

#[test]
fn a_good_login_gives_the_access_token_and_shows_none() {
    let login = read_text(login().to_string().as_bytes()).unwrap();
    assert_eq!(login.access_token().expose(), expiring("1800000001"));
    assert_eq!(login.expiry().unix_seconds(), NOW + 1);
    assert_eq!(login.mode(), Mode::ChatGpt);
    assert_eq!(login.mode().warning(), None);
    assert_eq!(login.account_id(), Some("a1b2c3d4"));
    assert_eq!(login.plan(), None);
    let shown = format!("{login:?}");
    assert!(
        !shown.contains("SECRET") && !shown.contains("eyJ"),
        "{shown}"
    );
}

#[test]
fn the_other_modes_are_accepted_and_user_is_warned_about() {
    let mode = |mode: Value| {
        let login = with(|login| login["auth_mode"] = mode);
        read_text(login.to_string().as_bytes()).unwrap().mode()
    };
    assert_eq!(mode("chatgptAuthTokens".into()), Mode::ChatGptAuthTokens);
    assert_eq!(mode(Value::Null), Mode::Unstated);
    assert_eq!(mode("user".into()), Mode::User);
    assert!(Mode::User.warning().unwrap().contains("`user`"));

    let mut login = with(|login| login["OPENAI_API_KEY"] = "sk-SECRET".into());
    login.as_object_mut().unwrap().remove("auth_mode");
    let login = read_text(login.to_string().as_bytes()).unwrap();
    assert_eq!(login.mode(), Mode::Unstated);
}

#[test]
fn the_plan_is_shown_only_where_it_is_a_plain_word() {
    let plan = |plan: &str| {
        let claims = json!({"exp": NOW + 1, AUTH_CLAIM: {PLAN: plan}});
        let login = with_token(token(&claims.to_string()));
        let login = read_text(login.to_string().as_bytes()).unwrap();
        login.plan().map(str::to_owned)
    };
    assert_eq!(plan("self_serve-2").as_deref(), Some("self_serve-2"));
    for odd in ["", "\u{1b}[2J", "two words", &"x".repeat(33)] {
        assert_eq!(plan(odd), None, "{odd:?}");
    }
}

#[test]
fn a_symlinked_login_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let (real, link) = (root.path().join("dotfile"), root.path().join("auth.json"));
    fs::write(&real, login().to_string()).unwrap();
    symlink(&real, &link).unwrap();
    HostFile::read(&link).unwrap().login(now()).unwrap();
}

#[test]
fn the_document_is_wiped() {
    let mut value = json!({"a": ["SECRET", {"b": "SECRET"}], "c": "SECRET", "d": 5});
    wipe(&mut value);
    assert_eq!(value, json!({"a": ["", {"b": ""}], "c": "", "d": 5}));
}

#[test]
fn the_login_is_looked_for_where_codex_keeps_it() {
    let find = |variables: &[(&str, &str)]| {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        locate(|name| variables.get(name).map(OsString::from)).map_err(|error| error.to_string())
    };
    let lost = "the Codex login cannot be located: HOME is not set".to_owned();
    for variables in [
        &[][..],
        &[("HOME", "")],
        &[("CODEX_HOME", "")],
        &[("CODEX_HOME", "~/x"), ("HOME", "")],
    ] {
        assert_eq!(find(variables), Err(lost.clone()), "{variables:?}");
    }
    for (codex_home, expected) in [
        ("", "/h/.codex/auth.json"),
        ("/c", "/c/auth.json"),
        ("~", "/h/auth.json"),
        ("~/x/y", "/h/x/y/auth.json"),
        ("~jane/x", "~jane/x/auth.json"),
        ("relative", "relative/auth.json"),
    ] {
        let found = find(&[("CODEX_HOME", codex_home), ("HOME", "/h")]);
        assert_eq!(found, Ok(PathBuf::from(expected)));
    }
    let unset = find(&[("HOME", "/h")]);
    assert_eq!(unset, Ok(PathBuf::from("/h/.codex/auth.json")));
    let elsewhere = find(&[("CODEX_HOME", "/c")]);
    assert_eq!(elsewhere, Ok(PathBuf::from("/c/auth.json")));
}

proptest! {
    #[test]
    fn no_content_panics_or_shows(text in "[ -~]{0,40}", mode in ".{0,12}", token in "[A-Za-z0-9_.-]{0,60}") {
        let _ = read_text(text.as_bytes());
        let marked = format!("SECRET{mode}");
        let login = json!({"auth_mode": marked, "tokens": {"access_token": token}});
        problem(&login);
        let login = with_token(format!("SECRET{token}"));
        problem(&login);
    }
}
