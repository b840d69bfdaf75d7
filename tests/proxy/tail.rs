//! `egress tail`: requests as they come, over restarts of the sidecar and for who reads slowly.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use http::Request;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::harness::agent::{read_head, send_http1};
use crate::harness::command::{Done, egress, finish};
use crate::harness::rig::Rig;
use crate::harness::scripted::Scripted;
use crate::harness::sidecar::{EGRESS, NOBODY, as_nobody};
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1], connect_to: 'UPSTREAM'}
- {host: plain.test, connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn a_request_is_printed_when_it_has_ended_and_one_that_is_not_wanted_is_not() {
    let rig = Rig::new(ROUTES).await;
    let admin = rig.sidecar.admin_socket();
    let mut all = Tail::of(&admin, &[]);
    assert!(all.line().await.starts_with("TIME "));
    let mut denied = Tail::of(&admin, &["--denied"]);
    assert!(denied.line().await.starts_with("TIME "));
    let mut host = Tail::of(&admin, &["--host", "api.test", "--verdict", "denied"]);
    assert!(host.line().await.starts_with("TIME "));

    rig.agent.get("https://plain.test/a").await.assert_served();
    assert!(rig.agent.connect("other.test:443").await.is_err());
    let answer = rig.agent.get("https://api.test/v2").await;
    assert_eq!(answer.error_code().as_deref(), Some("path_not_allowed"));
    for ending in [
        "allowed 200 CONNECT plain.test:443                     tunnel",
        "allowed 200 GET     plain.test:443                   /a",
    ] {
        let line = all.line().await;
        assert!(squeezed(&line).ends_with(&squeezed(ending)), "{line}");
    }
    let line = denied.line().await;
    assert!(line.contains("CONNECT other.test:443"), "{line}");
    assert!(line.contains("host_not_allowed"), "{line}");
    for tail in [&mut denied, &mut host] {
        let line = tail.line().await;
        assert!(line.contains("GET     api.test:443"), "{line}");
        assert!(line.contains("path_not_allowed"), "{line}");
    }
}

#[tokio::test]
async fn what_ended_since_then_is_there_and_a_restart_loses_nothing_that_came_after() {
    let dir = tempfile::tempdir().expect("a directory");
    let admin = dir.path().join("admin.sock");
    let address = format!("unix:{}", admin.display());
    let rig = Rig::with(ROUTES, |builder| builder.admin(&address)).await;
    rig.agent.get("https://api.test/v2").await;
    let mut tail = Tail::of(&admin, &["--denied", "--since", "5m", "--json"]);
    assert_eq!(tail.object().await["path"], "/v2");
    rig.agent.get("https://api.test/v3").await;
    let row = tail.object().await;
    assert_eq!(row["path"], "/v3");
    assert_eq!(row["code"], "path_not_allowed");

    rig.sidecar.terminate().await;
    let gone = tail.said().await;
    assert!(gone.starts_with("warning: the sidecar on unix:"), "{gone}");
    let rig = Rig::with(ROUTES, |builder| builder.admin(&address)).await;
    rig.agent.get("https://api.test/v4").await;
    assert_eq!(tail.object().await["path"], "/v4");
    // Said once, however many attempts there were.
    assert_eq!(tail.said().await, "note: the sidecar is back");

    tail.interrupt().await;
}

#[tokio::test]
async fn who_reads_slowly_holds_nothing_up_and_learns_how_many_requests_were_missed() {
    const REQUESTS: u64 = 3000;
    let rig = Rig::new(ROUTES).await;
    let mut tail = Tail::of(
        &rig.sidecar.admin_socket(),
        &["--since", "1h", "--host", "api.test", "--json"],
    );
    let mut agent = rig.agent.http1("api.test:443", "api.test").await;
    assert_eq!(tail.object().await["code"], "tunnel");
    // From here on nobody reads, and each request is answered all the same.
    for number in 0..REQUESTS {
        let request = Request::get(format!("https://api.test/v2/{number}")).body(Bytes::new());
        let answer = send_http1(&mut agent, request.expect("a request")).await;
        assert_eq!(answer.error_code().as_deref(), Some("path_not_allowed"));
    }
    let (mut rows, mut missed) = (0, 0);
    while rows + missed < REQUESTS {
        let object = tail.object().await;
        match object["gap"].as_u64() {
            Some(gap) => missed += gap,
            None => {
                let expected = format!("/v2/{}", rows + missed);
                assert_eq!(object["path"], expected.as_str());
                rows += 1;
            }
        }
    }
    assert_eq!(rows + missed, REQUESTS);
    assert!(missed > 0, "all {rows} were kept somewhere");
    let said = tail.said().await;
    assert!(said.contains("requests are missing here"), "{said}");
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_it_without_a_word() {
    let rig = Rig::new(ROUTES).await;
    let mut tail = Tail::of(&rig.sidecar.admin_socket(), &[]);
    tail.line().await;
    let Tail {
        mut child,
        out,
        mut err,
    } = tail;
    // And before anything else has come.
    drop(out);
    let status = within("end of tail", child.wait()).await;
    assert_eq!(status.expect("a status").code(), Some(0));
    assert_eq!(err.next_line().await.expect("text"), None);
}

#[tokio::test]
async fn what_is_no_sidecar_or_not_there_is_told_once_with_a_hint() {
    let dir = tempfile::tempdir().expect("a directory");
    let none = format!("unix:{}", dir.path().join("none.sock").display());
    refused(
        &egress(["tail", "--admin", &none]).await,
        "cannot ask the sidecar on unix:",
        "is it running",
    );
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    for (answer, problem, hint) in [
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "does not tell requests as they come",
            "older than this command",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n".to_owned(),
            "is no sidecar's admin socket",
            "--admin",
        ),
        (
            format!("{events}event: hello\ndata: {{\"version\": 2}}\n\n"),
            "in version 2",
            "that the sidecar was started with",
        ),
        (
            format!("{events}event: hello\ndata: nonsense\n\n"),
            "is no sidecar's admin socket",
            "--admin",
        ),
        (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "as many watch",
            "end another",
        ),
    ] {
        let foreign = Scripted::start(None, move |_, mut wire| {
            let answer = answer.clone();
            async move {
                read_head(&mut wire).await;
                _ = wire.write_all(answer.as_bytes()).await;
                // Whoever asked is to leave first.
                read_head(&mut wire).await;
            }
        })
        .await;
        let said = egress(["tail", "--admin", &foreign.addr().to_string()]).await;
        refused(&said, problem, hint);
    }
}

#[tokio::test]
async fn a_line_without_end_is_not_kept() {
    let foreign = Scripted::start(None, |_, mut wire| async move {
        read_head(&mut wire).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        _ = wire.write_all(head.as_bytes()).await;
        while wire.write_all(&[b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let said = egress(["tail", "--admin", &foreign.addr().to_string()]).await;
    refused(&said, "is no sidecar's admin socket", "--admin");
}

#[tokio::test]
async fn a_socket_of_another_user_is_told_with_a_hint() {
    let dir = tempfile::tempdir().expect("a directory");
    let rig = Rig::with(ROUTES, |builder| {
        builder.admin(&format!("unix:{}", dir.path().join("admin.sock").display()))
    })
    .await;
    let mode = |path: &Path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("it is ours");
    };
    mode(dir.path(), 0o755);
    let socket = dir.path().join("admin.sock");
    mode(&socket, 0);
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            // A copy that nobody can reach, wherever the tests were built.
            let binary = dir.path().join("egress");
            let copied = Command::new("cp").arg(EGRESS).arg(&binary).status().await;
            assert!(copied.is_ok_and(|status| status.success()));
            std::os::unix::fs::chown(&binary, Some(NOBODY), None).expect("root may");
            let [program, arguments @ ..] = &as_nobody()[..] else {
                panic!("no program")
            };
            let mut command = Command::new(program);
            command.args(arguments).arg(binary);
            command
        }
        false => Command::new(EGRESS),
    };
    command.arg("tail").arg("--admin").env_clear();
    let said = finish(command.arg(format!("unix:{}", socket.display()))).await;
    refused(&said, "Permission denied", "another user's");
    drop(rig);
}

#[track_caller]
fn refused(said: &Done, problem: &str, hint: &str) {
    assert_eq!(said.code, Some(3), "{said:?}");
    assert_eq!(said.stdout, "", "{said:?}");
    let lines: Vec<&str> = said.stderr.lines().collect();
    let [error, told] = lines[..] else {
        panic!("{said:?}");
    };
    assert!(error.starts_with("error: "), "{said:?}");
    assert!(error.contains(problem), "{said:?}");
    assert!(told.starts_with("hint: "), "{said:?}");
    assert!(told.contains(hint), "{said:?}");
}

/// A running `egress tail`. It is killed when it is dropped.
struct Tail {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Tail {
    fn of(admin: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(EGRESS)
            .args(["tail", "--admin", &format!("unix:{}", admin.display())])
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary runs");
        let out = child.stdout.take().expect("a piped stdout");
        let err = child.stderr.take().expect("a piped stderr");
        Self {
            child,
            out: BufReader::new(out).lines(),
            err: BufReader::new(err).lines(),
        }
    }

    async fn line(&mut self) -> String {
        let line = within("line of tail", self.out.next_line()).await;
        line.expect("text").expect("a line")
    }

    async fn object(&mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    }

    /// The next line on stderr.
    async fn said(&mut self) -> String {
        let line = within("word of tail", self.err.next_line()).await;
        line.expect("text").expect("a line")
    }

    async fn interrupt(mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(Pid::from_raw).expect("it runs");
        kill_process(pid, Signal::INT).expect("it runs");
        let status = within("end of tail", self.child.wait()).await;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status.expect("a status"));
        assert_eq!(signal, Some(Signal::INT.as_raw()));
        let rest = self.err.next_line().await.expect("text");
        assert_eq!(rest, None, "it ends without a word");
    }
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
