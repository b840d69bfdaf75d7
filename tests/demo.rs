//! `egress demo`: what it shows, what it says when something is wrong, and that nothing of it stays behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::sidecar::EGRESS;
use crate::harness::within;

#[tokio::test]
async fn a_sidecar_that_dies_is_not_taken_for_a_success() {
    let (dir, child, sidecar) = interrupted_demo().await;
    kill_process(sidecar, Signal::KILL).expect("the sidecar is there");
    let output = ended(child).await;
    let shown = text(&output.stdout);
    assert!(matches!(output.status.code(), Some(1 | 3)), "{output:?}");
    assert!(!shown.contains("as claimed. Next"), "{shown}");
    assert!(
        shown.contains("NOT AS CLAIMED") || text(&output.stderr).starts_with("error: "),
        "{output:?}"
    );
    nothing_is_left(dir.path());
}

#[tokio::test]
async fn an_interrupt_takes_the_sidecar_and_the_directory_with_it() {
    let (dir, child, _sidecar) = interrupted_demo().await;
    kill_process(pid(&child), Signal::INT).expect("the demo runs");
    let output = ended(child).await;
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    nothing_is_left(dir.path());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_killed_demo_leaves_no_sidecar() {
    let (dir, child, sidecar) = interrupted_demo().await;
    kill_process(pid(&child), Signal::KILL).expect("the demo runs");
    ended(child).await;
    // What the kernel sent it at its parent's death is taken once it goes on.
    kill_process(sidecar, Signal::CONT).expect("the sidecar is there");
    within("end of the sidecar", async {
        while sidecar_in(dir.path()).is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_an_error_with_a_hint() {
    let output = ended(start(demo().env("TMPDIR", "/nonexistent/dir"))).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("/nonexistent/dir"), "{stderr}");
    assert!(stderr.contains("hint: set TMPDIR"), "{stderr}");
}

#[tokio::test]
async fn a_full_standard_output_is_an_error() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let child = demo().stdout(full).stderr(Stdio::piped()).spawn();
    let output = ended(child.expect("egress runs")).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stderr).contains("standard output"));
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_fault_and_no_panic() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut child = start(demo().env("TMPDIR", dir.path()));
    let mut lines = BufReader::new(child.stdout.take().expect("a piped stdout")).lines();
    let first = within("first line", lines.next_line()).await;
    let first = first.expect("readable output").expect("a line");
    assert!(first.contains("agent --(placeholder)--> egress"), "{first}");
    drop(lines);
    let output = ended(child).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    nothing_is_left(dir.path());
}

#[tokio::test]
async fn each_step_shows_what_each_side_saw() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = demo();
    // What an operator's shell may hold must not reach it: proxies, and settings of a sidecar.
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:1");
    }
    command
        .env("EGRESS_UPSTREAM_PROXY", "http://127.0.0.1:1")
        .env("EGRESS_TOKEN_0", "an-operators-token")
        .env("EGRESS_ROUTES", "/nonexistent/routes.yaml")
        .env("EGRESS_LOG", "off")
        .env("TMPDIR", dir.path());
    let output = ended(start(&mut command)).await;
    let shown = succeeded(&output);
    in_order(
        &shown,
        &[
            "agent --(placeholder)--> egress --(real token)--> upstream",
            "agent sends    GET https://api.example.com/v1/models",
            "authorization: Bearer placeholder; x-api-key: placeholder",
            "upstream gets  GET https://api.example.com/v1/models (HTTP/2.0)",
            "authorization: Bearer ************",
            "; no x-api-key",
            "agent gets     200 OK",
            "agent sends    GET https://api.example.com/admin/keys",
            "agent gets     403 path_not_allowed; the upstream gets nothing",
            "agent sends    CONNECT paste.example.net:443",
            "agent gets     403 host_not_allowed; the upstream gets nothing",
            "agent sends    GET https://api.example.com/v2/models",
            "agent gets     403 path_not_allowed; the upstream gets nothing",
            "egress logs    reloaded, added: api.example.com",
            "agent sends    GET https://api.example.com/v2/models",
            "agent gets     200 OK",
            "upstream sends data: event 1 of 3    agent gets  data: event 1 of 3",
            "upstream sends data: event 2 of 3    agent gets  data: event 2 of 3",
            "upstream sends data: event 3 of 3    agent gets  data: event 3 of 3",
            "upstream got   3 requests, 3 with the token",
            "agent got      7 answers, the token 0 times",
            "0 with the token",
            "Every step came out as claimed.",
        ],
    );
    assert!(!shown.contains('\x1b'), "no colour off a terminal: {shown}");
    let wide = shown.lines().find(|line| line.len() > 80);
    assert_eq!(wide, None, "a line is wider than 80 columns");
    assert!(!masked_token(&shown).is_empty());
    nothing_is_left(dir.path());
}

#[tokio::test]
async fn the_readme_shows_what_it_prints() {
    let readme = include_str!("../README.md");
    let (_, shown) = readme
        .split_once("<!-- demo output: begin -->\n```\n")
        .expect("the beginning of the output");
    let (shown, _) = shown
        .split_once("```\n<!-- demo output: end -->")
        .expect("its end");
    let printed = succeeded(&ended(start(&mut demo())).await);
    assert_eq!(masked(&printed), masked(shown));
}

#[tokio::test]
async fn it_needs_no_environment() {
    succeeded(&ended(start(demo().env_clear())).await);
}

#[tokio::test]
async fn two_at_once_have_a_token_and_a_directory_each() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = demo();
    command.env("TMPDIR", dir.path());
    let (one, other) = (start(&mut command), start(&mut command));
    let (one, other) = tokio::join!(ended(one), ended(other));
    let (one, other) = (succeeded(&one), succeeded(&other));
    assert_ne!(masked_token(&one), masked_token(&other));
    nothing_is_left(dir.path());
}

#[tokio::test]
async fn the_commands_that_it_ends_with_can_be_typed() {
    let shown = succeeded(&ended(start(&mut demo())).await);
    let (_, next) = shown
        .split_once("with a token of your own:\n")
        .expect("the next commands");
    let (before, serve) = next
        .split_once("  EGRESS_TOKEN_0=")
        .expect("a command to serve");
    assert!(serve.contains(" egress serve --ca-dir ./keys "), "{serve}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bin = Path::new(EGRESS).parent().expect("a directory");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-e", "-c", before])
        .current_dir(dir.path())
        .env("PATH", format!("{}:{path}", bin.display()));
    let output = ended(start(&mut shell)).await;
    let said = succeeded(&output);
    assert!(said.contains("routes.yaml: ok"), "{said}");
    assert!(said.contains("EGRESS_TOKEN_0"), "{said}");
}

fn demo() -> Command {
    let mut command = Command::new(EGRESS);
    command.arg("demo");
    command
}

fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs")
}

async fn ended(child: Child) -> Output {
    let output = within("end of the command", child.wait_with_output()).await;
    output.expect("readable output")
}

/// A demo whose sidecar was stopped as soon as it was there, so that neither can come to its end.
async fn interrupted_demo() -> (TempDir, Child, Pid) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let child = start(demo().env("TMPDIR", dir.path()));
    let sidecar = within("sidecar of the demo", async {
        loop {
            match sidecar_in(dir.path()) {
                Some(pid) => break pid,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    kill_process(sidecar, Signal::STOP).expect("the sidecar is there");
    (dir, child, sidecar)
}

fn nothing_is_left(dir: &Path) {
    let left: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    assert_eq!(sidecar_in(dir), None);
}

/// The process that has a file in `dir` among its arguments.
fn sidecar_in(dir: &Path) -> Option<Pid> {
    let dir = dir.to_str().expect("a plain path");
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if text(&arguments).contains(dir) {
            return Pid::from_raw(number);
        }
    }
    None
}

fn pid(child: &Child) -> Pid {
    let pid = child.id().expect("a running child");
    Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("a process id")
}

fn succeeded(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout)
}

/// An output without what is another one each time: ports, and what is shown of the token.
fn masked(output: &str) -> String {
    let token = format!("************{}", masked_token(output));
    let mut text = output.replace(&token, "TOKEN");
    let ports: BTreeSet<String> = output
        .split("127.0.0.1:")
        .skip(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect())
        // The last command names the port of a sidecar that one starts oneself.
        .filter(|port| port != "8080")
        .collect();
    for port in ports {
        text = text.replace(&format!("127.0.0.1:{port}"), "127.0.0.1:PORT");
    }
    text
}

/// The four characters that are shown of the token.
fn masked_token(shown: &str) -> String {
    let (_, token) = shown
        .split_once("Bearer ************")
        .expect("a masked token");
    let token: String = token.chars().take_while(|c| *c != ';').collect();
    assert_eq!(token.len(), 4, "{token}");
    token
}

fn in_order(shown: &str, parts: &[&str]) {
    let mut rest = shown;
    for part in parts {
        rest = match rest.split_once(part) {
            Some((_, rest)) => rest,
            None => panic!("{part:?} is not there, or not in its place:\n{shown}"),
        };
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
