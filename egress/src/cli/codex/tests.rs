//! The commands as an operator sees them: exit codes, what stands on which stream, and no secret on either.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{CommandFactory as _, Parser};
use serde_json::Value;
use tempfile::TempDir;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Codex,
}

const NOW: u64 = 1_800_000_000;

struct Seen {
    code: u8,
    out: String,
    err: String,
}

/// A host whose CODEX_HOME is a directory of its own.
struct Host(TempDir);

impl Host {
    fn new(login: &str) -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::write(host.auth_file(), login).unwrap();
        host
    }

    fn auth_file(&self) -> PathBuf {
        self.0.path().join("auth.json")
    }

    fn names(&self) -> Vec<OsString> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    fn run(&self, args: &[&str]) -> Seen {
        let home = |name: &str| (name == "CODEX_HOME").then(|| self.0.path().into());
        run(args, &home)
    }
}

fn run(args: &[&str], env: &dyn Fn(&str) -> Option<OsString>) -> Seen {
    let cli = Cli::try_parse_from([&["codex"], args].concat()).unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = Surroundings { env, now }.run(&cli.command, &mut out, &mut err);
    let (out, err) = (
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    );
    for text in [&out, &err] {
        assert!(!text.contains("SECRET"), "{text}");
    }
    Seen { code, out, err }
}

fn login(mode: &str, exp: u64) -> String {
    let claims = json!({
        "exp": exp,
        "email": "SECRET@corp.example",
        "https://api.openai.com/auth": {"chatgpt_plan_type": "pro"},
    });
    let payload = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
    let token = format!("SECRETHEADER.{payload}.SECRETSIGNATURE");
    json!({
        "auth_mode": mode,
        "tokens": {
            "access_token": token,
            "id_token": token,
            "refresh_token": "SECRET-refresh",
            "account_id": "a1b2c3d4-0000-4000-8000-1234567890ab",
        },
    })
    .to_string()
}

const FRESH: u64 = NOW + 4 * 86_400 + 3 * 3_600;

#[test]
fn a_broken_login_exits_with_1_and_tells_what_to_do() {
    let cases = [
        ("{", "not JSON (line 1, column 1)", "not_json"),
        ("{}", "no tokens in it", "no_tokens"),
        (
            &login("apikey", FRESH),
            "an API-key login, not a ChatGPT login",
            "api_key",
        ),
        (
            &login("chatgpt", NOW),
            "the access_token expired at 2027-01-15T08:00:00Z",
            "expired",
        ),
    ];
    for (text, problem, code) in cases {
        let host = Host::new(text);
        let path = host.auth_file();
        let expected = format!(
            "error: Codex login {}: {problem}\nhint: log in on the host with `codex login --device-auth`\n",
            path.display()
        );
        let seen = host.run(&["status"]);
        assert_eq!((seen.code, seen.out.as_str()), (1, ""));
        assert_eq!(seen.err, expected);

        let seen = host.run(&["status", "--json"]);
        let json: Value = serde_json::from_str(&seen.out).unwrap();
        assert_eq!((seen.code, &json["state"]), (1, &Value::from(code)));
        assert_eq!(seen.err, expected);

        let dummy = host.0.path().join("dummy");
        for output in ["-", dummy.to_str().unwrap()] {
            let seen = host.run(&["dummy-auth", "-o", output]);
            assert_eq!((seen.code, seen.out.as_str()), (1, ""));
            assert_eq!(seen.err, expected);
        }
        assert_eq!(host.names(), ["auth.json"], "nothing was written");
    }
}

#[test]
fn a_missing_login_exits_with_1() {
    let seen = Host::new("").run(&["status", "--auth-file", "/nonexistent/auth.json"]);
    assert_eq!(seen.code, 1);
    assert!(
        seen.err
            .starts_with("error: Codex login /nonexistent/auth.json: the file is missing")
    );
}

#[test]
fn an_environment_without_a_home_is_a_configuration_error() {
    let seen = run(&["status"], &|_| None);
    assert_eq!(seen.code, 2);
    assert!(seen.err.contains("\nhint: set HOME"), "{}", seen.err);
}

#[test]
fn the_login_of_the_host_is_not_overwritten() {
    let text = login("chatgpt", FRESH);
    let host = Host::new(&text);
    let link = host.0.path().join("link");
    symlink(host.auth_file(), &link).unwrap();
    for path in [&host.auth_file(), &link] {
        let seen = host.run(&["dummy-auth", "-o", path.to_str().unwrap()]);
        assert_eq!(seen.code, 2, "{}", seen.err);
        assert!(seen.err.contains("holds a login that is not a dummy"));
    }
    assert_eq!(fs::read_to_string(host.auth_file()).unwrap(), text);
    assert_eq!(host.names(), ["auth.json", "link"]);
}

#[test]
fn what_cannot_be_written_exits_with_3() {
    let host = Host::new(&login("chatgpt", FRESH));
    let below_a_file = host.auth_file().join("dummy");
    let seen = host.run(&["dummy-auth", "-o", below_a_file.to_str().unwrap()]);
    assert_eq!(seen.code, 3, "{}", seen.err);
    assert!(seen.err.starts_with("error: directory "), "{}", seen.err);

    let open = host.0.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    let dummy = open.join("auth.json");
    let seen = host.run(&["dummy-auth", "-o", dummy.to_str().unwrap()]);
    assert_eq!(seen.code, 3);
    assert!(seen.err.contains("writable by every user"), "{}", seen.err);
    assert!(!dummy.exists());
}

#[test]
fn a_login_that_repeats_a_secret_where_it_is_kept_exits_with_3() {
    let mut json: Value = serde_json::from_str(&login("chatgpt", FRESH)).unwrap();
    json["tokens"]["account_id"] = "SECRET-refresh".into();
    let host = Host::new(&json.to_string());
    let dummy = host.0.path().join("dummy");
    let seen = host.run(&["dummy-auth", "-o", dummy.to_str().unwrap()]);
    assert_eq!(seen.code, 3);
    assert!(seen.err.contains("the refresh token"), "{}", seen.err);
    assert_eq!(host.names(), ["auth.json"]);
}

#[test]
fn the_output_must_be_named() {
    let error = Cli::try_parse_from(["codex", "dummy-auth"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    Cli::command().debug_assert();
}

#[test]
fn the_status_shows_the_state_and_no_secret() {
    let host = Host::new(&login("chatgpt", FRESH));
    let seen = host.run(&["status"]);
    let expected = format!(
        "file     {}\nmode     chatgpt\naccount  a1b2...90ab\nplan     pro\nexpires  2027-01-19T11:00:00Z (in 4 d 3 h)\n",
        host.auth_file().display()
    );
    assert_eq!(
        (seen.code, seen.out, seen.err),
        (0, expected, String::new())
    );

    let seen = host.run(&["status", "--json"]);
    let json: Value = serde_json::from_str(&seen.out).unwrap();
    let expected = json!({
        "file": host.auth_file(),
        "state": "ok",
        "mode": "chatgpt",
        "account": "a1b2...90ab",
        "plan": "pro",
        "expires_at": "2027-01-19T11:00:00Z",
        "seconds_left": FRESH - NOW,
    });
    assert_eq!((seen.code, json), (0, expected));
}

#[test]
fn a_login_of_the_old_mode_is_warned_about() {
    let host = Host::new(&login("user", FRESH));
    for args in [&["status"][..], &["dummy-auth", "-o", "-"]] {
        let seen = host.run(args);
        assert_eq!(seen.code, 0);
        assert!(
            seen.err
                .starts_with("warning: the login's auth_mode is `user`")
        );
    }
}

#[test]
fn the_dummy_goes_to_a_file_or_to_stdout() {
    let host = Host::new(&login("chatgpt", FRESH));
    let path = host.0.path().join("agent/.codex/auth.json");
    let to_file = host.run(&["dummy-auth", "-o", path.to_str().unwrap()]);
    assert_eq!(
        (to_file.code, to_file.out.as_str(), to_file.err.as_str()),
        (0, "", "")
    );
    let to_stdout = host.run(&["dummy-auth", "-o", "-"]);
    assert_eq!(to_stdout.code, 0);
    assert_eq!(fs::read_to_string(&path).unwrap(), to_stdout.out);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // A second run replaces the first dummy, as it must when the host's token has rotated.
    let again = host.run(&["dummy-auth", "-o", path.to_str().unwrap()]);
    assert_eq!(again.code, 0, "{}", again.err);
}

#[test]
fn help_has_examples() {
    for command in ["status", "dummy-auth"] {
        let help = Cli::try_parse_from(["codex", command, "--help"]).unwrap_err();
        assert!(
            help.to_string().contains("Examples:\n  egress codex"),
            "{help}"
        );
    }
}

#[test]
fn an_account_is_never_shown_in_full() {
    assert_eq!(masked("0123456789abcdef"), "0123...cdef");
    for odd in [
        "",
        "short",
        "0123456789abcde",
        "0123\u{1b}[2J0123456789",
        "ääääääääääääää",
    ] {
        assert_eq!(masked(odd), "present", "{odd:?}");
    }
}

#[test]
fn time_left_has_two_units() {
    let cases = [
        (5, "5 s"),
        (65, "1 min 5 s"),
        (3_660, "1 h 1 min"),
        (90_000, "1 d 1 h"),
    ];
    for (seconds, text) in cases {
        assert_eq!(roughly(Duration::from_secs(seconds)), text);
    }
}
