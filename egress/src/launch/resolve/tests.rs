//! What cannot be had is told at once and without a value; what can be had is read once.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;
use crate::launch::login::tests::write_login;

const VALUE: &str = "v4lue-that-nobody-may-see";

fn slot(number: usize, reference: TokenRef, host: &str) -> RenderedSlot {
    RenderedSlot {
        name: format!("EGRESS_TOKEN_{number}").parse().unwrap(),
        reference,
        hosts: vec![host.into()],
    }
}

fn slots(references: impl IntoIterator<Item = TokenRef>) -> Vec<RenderedSlot> {
    let references = references.into_iter().enumerate();
    references
        .map(|(number, reference)| slot(number, reference, &format!("h{number}.example")))
        .collect()
}

fn command(argv: &[&str]) -> TokenRef {
    TokenRef::Command(argv.iter().map(|text| (*text).into()).collect())
}

fn sh(script: &str) -> TokenRef {
    command(&["sh", "-c", script])
}

fn run(slots: &[RenderedSlot], env: &[(&str, &str)]) -> Result<Handed, Unresolved> {
    let env = |name: &str| {
        let pair = env.iter().find(|(key, _)| *key == name);
        pair.map(|(_, value)| OsString::from(value))
    };
    let host = Host {
        env: &env,
        now: SystemTime::now(),
    };
    let limits = Limits {
        time: Duration::from_millis(500),
        bytes: 1024,
    };
    within(limits, slots, &host)
}

fn value(reference: TokenRef, env: &[(&str, &str)]) -> String {
    let handed = run(&slots([reference]), env).unwrap();
    let slot = "EGRESS_TOKEN_0".parse().unwrap();
    handed.get(&slot).unwrap().expose().into()
}

fn refused(reference: TokenRef, env: &[(&str, &str)]) -> (String, String) {
    let unresolved = run(&slots([reference]), env).unwrap_err();
    let text = format!("{unresolved} {unresolved:?}");
    assert!(!text.contains(VALUE) && !text.contains("v4lue"), "{text}");
    let [unmet] = unresolved.iter().collect::<Vec<_>>()[..] else {
        panic!("{unresolved}");
    };
    (unmet.to_string(), unmet.hint().into())
}

#[test]
fn everything_that_is_missing_is_told_at_once_with_slot_hosts_and_hint() {
    let list = [
        slot(0, TokenRef::Variable("GH_PAT".into()), "api.github.com"),
        slot(1, TokenRef::File("/nowhere/token".into()), "a.example"),
        slot(2, command(&["no-such-program", VALUE]), "b.example"),
        slot(3, TokenRef::CodexHost, "chatgpt.com"),
        slot(4, TokenRef::Variable("GH_PAT".into()), "uploads.github.com"),
        slot(5, TokenRef::Variable("GOOD".into()), "c.example"),
    ];
    let unresolved = run(&list, &[("GOOD", VALUE)]).unwrap_err();
    let told: Vec<String> = unresolved.iter().map(ToString::to_string).collect();
    let expected = [
        "GH_PAT: is not set; it fills slot EGRESS_TOKEN_0 and EGRESS_TOKEN_4 for api.github.com, uploads.github.com",
        "file:/nowhere/token: cannot be read: No such file or directory (os error 2); it fills slot EGRESS_TOKEN_1 for a.example",
        "cmd:no-such-program ...: cannot be run: No such file or directory (os error 2); it fills slot EGRESS_TOKEN_2 for b.example",
        "the host's Codex login: the Codex login cannot be located: HOME is not set; it fills slot EGRESS_TOKEN_3 for chatgpt.com",
    ];
    assert_eq!(told, expected);
    assert!(unresolved.iter().all(|unmet| !unmet.hint().is_empty()));
    assert!(!unresolved.to_string().contains(VALUE));
}

#[test]
fn a_value_that_no_header_takes_is_named_and_not_shown() {
    for bad in [
        "",
        "v4lue\n",
        "a\0v4lue",
        "v4lue v4lue",
        "v4lu\u{e9}",
        "Bearer v4lue",
    ] {
        let (told, _) = refused(TokenRef::Variable("T".into()), &[("T", bad)]);
        assert!(told.starts_with("T: "), "{told}");
    }
    let bytes = |_: &str| Some(OsString::from_vec(b"v4lue\xff".into()));
    let host = Host {
        env: &bytes,
        now: SystemTime::now(),
    };
    let list = slots([TokenRef::Variable("T".into())]);
    assert!(resolve(&list, &host).is_err());
}

#[test]
fn a_token_that_has_expired_is_named() {
    let expired = "eyJhbGciOiJub25lIn0.eyJleHAiOjF9.v4lue";
    let (told, hint) = refused(TokenRef::Variable("T".into()), &[("T", expired)]);
    assert!(
        told.contains("has expired") && hint.contains("renew"),
        "{told} {hint}"
    );
}

#[test]
fn a_program_that_fails_is_named_with_its_exit_code_and_nothing_that_it_printed() {
    let (told, _) = refused(sh(&format!("echo {VALUE}; exit 7")), &[]);
    assert!(
        told.starts_with("cmd:sh ...: ends with exit code 7;"),
        "{told}"
    );
    let (told, _) = refused(sh(&format!("echo {VALUE}; kill -9 $$")), &[]);
    assert!(told.contains("is ended by signal 9"), "{told}");
    let (told, _) = refused(sh(""), &[]);
    assert!(told.contains("is empty"), "{told}");
    let (told, _) = refused(command(&[]), &[]);
    assert!(told.contains("names no program"), "{told}");
}

#[test]
fn a_program_that_prints_too_much_is_stopped() {
    let (told, _) = refused(sh(&format!("while :; do echo {VALUE}; done")), &[]);
    assert!(told.contains("prints more than 1024 bytes"), "{told}");
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let began = Instant::now();
    let script = format!(
        "echo {VALUE}; sleep 300 & echo $! > {0}; echo $$ >> {0}; exec >&-; wait",
        pids.display()
    );
    let (told, hint) = refused(sh(&script), &[]);
    assert!(told.contains("does not end in time"), "{told}");
    assert!(hint.contains("terminal"), "{hint}");
    assert!(began.elapsed() < Duration::from_secs(5));
    for pid in std::fs::read_to_string(pids).unwrap().lines() {
        assert_gone(pid);
    }
}

/// Its new parent may need a moment to take the dead child away.
fn assert_gone(pid: &str) {
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    let alive = || std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z "));
    let deadline = Instant::now() + Duration::from_secs(5);
    while alive() {
        assert!(Instant::now() < deadline, "{pid} still runs");
        std::thread::yield_now();
    }
}

#[test]
fn a_child_that_keeps_the_pipe_open_does_not_hold_the_launch() {
    let began = Instant::now();
    let token = value(sh("sleep 2 & echo the-token"), &[]);
    assert_eq!(token, "the-token");
    assert!(began.elapsed() < Duration::from_millis(1500));
}

#[test]
fn a_program_gets_no_shell_and_nothing_on_stdin() {
    assert_eq!(value(command(&["printf", "%s", "$HOME;x"]), &[]), "$HOME;x");
    assert_eq!(value(sh("cat; echo at-end"), &[]), "at-end");
}

#[test]
fn a_file_is_read_without_its_newline_and_from_the_home() {
    let home = tempfile::tempdir().unwrap();
    let home_text = home.path().to_str().unwrap();
    for (text, expected) in [("tok", "tok"), ("tok\n", "tok"), ("tok\r\n", "tok")] {
        std::fs::write(home.path().join("t"), text).unwrap();
        let token = value(TokenRef::File("~/t".into()), &[("HOME", home_text)]);
        assert_eq!(token, expected);
    }
}

#[test]
fn what_is_no_small_regular_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| TokenRef::File(dir.path().join(name));
    std::fs::write(dir.path().join("large"), "x".repeat(1025)).unwrap();
    std::fs::write(dir.path().join("two"), format!("{VALUE}\n\n")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("fifo"), 0o600.into()).unwrap();
    for (name, expected) in [
        ("large", "larger than 1024"),
        ("two", "holds a byte"),
        ("fifo", "not a regular file"),
        ("", "not a regular file"),
    ] {
        let (told, _) = refused(at(name), &[]);
        assert!(told.contains(expected), "{told}");
    }
    let (told, _) = refused(TokenRef::File("~/t".into()), &[]);
    assert!(told.contains("HOME is not set"), "{told}");
}

#[test]
fn each_reference_is_looked_up_once() {
    let dir = tempfile::tempdir().unwrap();
    let count = dir.path().join("count");
    let script = sh(&format!("echo x >> {}; echo tok", count.display()));
    let handed = run(&slots([script.clone(), script]), &[]).unwrap();
    assert_eq!(handed.slots().count(), 2);
    assert_eq!(std::fs::read_to_string(count).unwrap(), "x\n");
}

#[test]
fn a_variable_of_the_sidecars_own_name_is_a_reference_like_any_other() {
    let reference = TokenRef::Variable("EGRESS_TOKEN_9".into());
    assert_eq!(value(reference, &[("EGRESS_TOKEN_9", "tok")]), "tok");
}

#[test]
fn the_hosts_login_gives_its_access_token_and_the_dummy_made_with_it() {
    let home = tempfile::tempdir().unwrap();
    let written = write_login(&home.path().join("auth.json"), 3600, "one");
    let list = slots([TokenRef::CodexHost]);
    let env = [("CODEX_HOME", home.path().to_str().unwrap())];
    let handed = run(&list, &env).unwrap();
    let codex = handed.codex().unwrap();
    assert_eq!(codex.slots, [list[0].name.clone()]);
    assert_eq!(handed.get(&list[0].name).unwrap().expose(), written);
    assert_eq!(codex.login.path(), Path::new(env[0].1).join("auth.json"));
    assert!(!codex.login.dummy().as_str().contains(&written));
    let line = handed.line();
    let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(read["EGRESS_TOKEN_0"], written.as_str());

    write_login(&home.path().join("auth.json"), -1, "two");
    let (told, hint) = {
        let unresolved = run(&list, &env).unwrap_err();
        let unmet = unresolved.iter().next().unwrap();
        (unmet.to_string(), unmet.hint().to_owned())
    };
    assert!(told.contains("the access_token expired"), "{told}");
    assert!(hint.contains("codex login --device-auth"), "{hint}");
}
