//! Start and end of the process: what keeps it from starting, how it says that it is ready, and how it stops.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::process::Command;

use crate::harness::agent::{Agent, exchange, read_until};
use crate::harness::command::{self, Done};
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::{REAL, Rig, file};
use crate::harness::sidecar::{EGRESS, Sidecar};
use crate::harness::upstream::{self, Upstream};
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
";

/// Less than the drain bound of ten seconds, and more than a busy machine needs.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_port_in_use_is_named_and_nothing_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("a bound socket").to_string();
    let done = serve(&["--ca-ephemeral", "--listen", &address]).await;
    assert_failed(&done, &address);
    assert!(done.stderr.contains("--listen"), "{done:?}");
}

#[tokio::test]
async fn a_ca_directory_that_cannot_be_used_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    // Root may write everywhere, but not below a file.
    let below = file.join("ca");
    assert_failed(&serve_with(&below).await, &below.display().to_string());

    let made = |name: &str| {
        let path = dir.path().join(name);
        async move {
            let sidecar = Sidecar::with_routes(&Pki::new(), "routes: []\n")
                .ca_dir(&path)
                .start()
                .await;
            sidecar.terminate().await;
            path
        }
    };
    let (one, two) = (made("one").await, made("two").await);
    let key = one.join("ca-key.pem");
    assert_eq!(
        fs::metadata(&key).expect("a key").permissions().mode() & 0o7777,
        0o600
    );
    for mode in [0o640, 0o604, 0o644, 0o666] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("a mode");
        let done = serve_with(&one).await;
        assert_failed(&done, &key.display().to_string());
        assert!(done.stderr.contains("chmod 600"), "{done:?}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::copy(two.join("ca-cert.pem"), one.join("ca-cert.pem")).expect("a copy");
    let done = serve_with(&one).await;
    assert_failed(&done, &key.display().to_string());
    assert!(done.stderr.contains("does not belong"), "{done:?}");
    fs::remove_file(&key).expect("the key goes");
    assert_failed(&serve_with(&one).await, &key.display().to_string());
    fs::write(
        &key,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    )
    .expect("a file");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert_failed(&serve_with(&one).await, &key.display().to_string());
}

#[tokio::test]
async fn status_tells_what_is_no_admin_socket() {
    let pki = Pki::new();
    let sidecar = Sidecar::with_routes(&pki, "routes: []\n").start().await;
    let proxy = sidecar.addr().to_string();
    let done = command::egress(["status", "--admin", &proxy]).await;
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(
        done.stderr.contains("no sidecar's admin socket"),
        "{done:?}"
    );
}

#[tokio::test]
async fn an_admin_socket_on_tcp_answers_programs_of_this_machine_and_no_page() {
    let pki = Pki::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("bound").to_string();
    drop(free);
    let builder = Sidecar::with_routes(&pki, "routes: []\n").admin(&address);
    let sidecar = builder.start().await;
    let ask = async |fields: &str| {
        let mut stream = TcpStream::connect(&address).await.expect("a listener");
        let head = format!("POST /reload HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("a reader");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        within("an answer", read).await.expect("text");
        answer
    };
    for fields in [
        "Host: rebound.test:80\r\n".to_owned(),
        "Host: egress\r\n".to_owned(),
        format!("Host: {address}\r\nOrigin: http://{address}\r\n"),
        format!("Host: {address}\r\nOrigin: null\r\n"),
        format!("Host: {address}\r\nSec-Fetch-Site: cross-site\r\n"),
    ] {
        let answer = ask(&fields).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{fields}{answer}");
    }
    assert!(!sidecar.log().contains("reloaded"));
    let answer = ask(&format!("Host: {address}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let done = command::egress(["status", "--admin", &address]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[tokio::test]
async fn two_sidecars_that_start_with_one_ca_directory_agree() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca");
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| upstream::text(200, "fine"))
        .await;
    let start = || {
        let builder = Sidecar::with_routes(&pki, file(ROUTES, &upstream));
        builder.slot("EGRESS_TOKEN_0", REAL).ca_dir(&ca).start()
    };
    let (one, two, three) = tokio::join!(start(), start(), start());
    let mut fingerprints = Vec::new();
    for sidecar in [&one, &two, &three] {
        // The agent trusts the one certificate in the directory.
        Agent::of(sidecar)
            .get("https://api.test/")
            .await
            .assert_served();
        fingerprints.push(sidecar.status().await["ca"].clone());
    }
    assert!(fingerprints[0].is_string());
    assert!(
        fingerprints.iter().all(|print| *print == fingerprints[0]),
        "{fingerprints:?}"
    );
}

#[tokio::test]
async fn the_admin_socket_is_private_and_replaces_a_stale_one_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.sock");
    drop(UnixListener::bind(&path).expect("a socket"));
    let address = format!("unix:{}", path.display());
    // Two `--admin`s are one too many for the harness's own.
    let rig = Rig::new(ROUTES).await;
    let metadata = fs::metadata(rig.sidecar.admin_socket()).expect("a socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    // A stale one is cleared away: with the port in use the start fails after the admin socket was looked at or before,
    // but never because of it.
    let mut fresh = spawn(&[
        "--ca-ephemeral",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        &address,
    ]);
    fresh.ready().await;
    assert_eq!(
        command::egress(["status", "--admin", &address]).await.code,
        Some(0)
    );

    // Somebody answers there, so it is not taken away.
    let done = serve(&[
        "--ca-ephemeral",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        &address,
    ])
    .await;
    assert_failed(&done, &address);
    assert_eq!(
        command::egress(["status", "--admin", &address]).await.code,
        Some(0)
    );
    // Nor is what is no socket.
    let precious = dir.path().join("precious");
    fs::write(&precious, "precious").expect("a file");
    let address = format!("unix:{}", precious.display());
    assert_failed(
        &serve(&[
            "--ca-ephemeral",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            &address,
        ])
        .await,
        &address,
    );
    assert_failed(
        &serve(&["--ca-ephemeral", "--listen", &address]).await,
        &address,
    );
    assert_eq!(fs::read_to_string(&precious).expect("a file"), "precious");
}

#[tokio::test]
async fn a_descriptor_that_is_not_there_is_an_error() {
    let done = serve(&[
        "--ca-ephemeral",
        "--listen",
        "127.0.0.1:0",
        "--ready-fd",
        "77",
    ])
    .await;
    assert_eq!(done.code, Some(2), "{done:?}");
    for part in ["--ready-fd 77", "no such descriptor is open"] {
        assert!(done.stderr.contains(part), "{part}: {done:?}");
    }
}

#[tokio::test]
async fn sigterm_lets_an_answer_end_and_takes_nothing_new() {
    let (rig, sender) = streaming("10").await;
    let mut tunnel = rig
        .agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    tunnel
        .write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
        .await
        .expect("the sidecar reads");
    let mut sender = within("request", sender).await.expect("a sender");
    sender.send_data("first".into()).await.expect("a reader");
    read_until(&mut tunnel, "first").await;
    let address = rig.sidecar.addr();
    rig.sidecar.signal(Signal::TERM);
    rig.sidecar.logged("stopping").await;
    within("closed port", async {
        while TcpStream::connect(address).await.is_ok() {}
    })
    .await;
    sender.send_data("last".into()).await.expect("a reader");
    drop(sender);
    let rest = exchange(&mut tunnel, b"GET /next HTTP/1.1\r\nHost: api.test\r\n\r\n").await;
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(rest.contains("4\r\nlast\r\n0\r\n\r\n"), "{rest:?}");
    // The next request finds the connection closed, or is told why it is not served.
    assert!(!rest.contains("HTTP/1.1 200"), "{rest:?}");
    assert_eq!(rig.upstream.seen().len(), 1);
    let (status, log) = rig.sidecar.exit().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_cut_off_at_the_drain_bound() {
    let (rig, sender) = streaming("1").await;
    let mut tunnel = rig
        .agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    tunnel
        .write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
        .await
        .expect("the sidecar reads");
    let _sender = within("request", sender).await.expect("a sender");
    read_until(&mut tunnel, "\r\n\r\n").await;
    let began = Instant::now();
    let (status, log) = rig.sidecar.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert!(log.contains("drain deadline"), "{log}");
}

#[tokio::test]
async fn a_second_sigint_ends_it_at_once() {
    let (rig, sender) = streaming("600").await;
    let mut tunnel = rig
        .agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    tunnel
        .write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
        .await
        .expect("the sidecar reads");
    let _sender = within("request", sender).await.expect("a sender");
    rig.sidecar.signal(Signal::INT);
    rig.sidecar.logged("stopping").await;
    rig.sidecar.signal(Signal::INT);
    let (status, log) = rig.sidecar.exit().await;
    assert_eq!(status.code(), Some(130), "{log}");
}

#[tokio::test]
async fn what_is_idle_does_not_keep_it() {
    let kinds = [
        "nothing",
        "unused tcp",
        "half a head",
        "silent tunnel",
        "unused tunnel",
        "used tunnel",
        "http2",
    ];
    for kind in kinds {
        let rig = Rig::new(ROUTES).await;
        let open = async || {
            rig.agent
                .tunnel("api.test:443", "api.test", &["http/1.1"])
                .await
                .expect("a tunnel")
        };
        let idle: Box<dyn std::any::Any> = match kind {
            "nothing" => Box::new(()),
            "unused tcp" => Box::new(rig.agent.raw().await),
            "half a head" => {
                let mut stream = rig.agent.raw().await;
                stream
                    .write_all(b"CONNECT api")
                    .await
                    .expect("the sidecar reads");
                Box::new(stream)
            }
            "silent tunnel" => Box::new(rig.agent.connect("api.test:443").await.expect("a tunnel")),
            "unused tunnel" => Box::new(open().await),
            "used tunnel" => {
                let mut tunnel = open().await;
                tunnel
                    .write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
                    .await
                    .expect("the sidecar reads");
                read_until(&mut tunnel, "fine").await;
                Box::new(tunnel)
            }
            _ => Box::new(rig.agent.http2("api.test:443", "api.test").await),
        };
        // One more exchange, so that what came before has been seen.
        rig.agent.get("https://api.test/").await.assert_served();
        let began = Instant::now();
        let (status, log) = rig.sidecar.terminate().await;
        assert_eq!(status.code(), Some(0), "{kind}: {log}");
        assert!(
            began.elapsed() < AT_ONCE,
            "{kind}: {:?} {log}",
            began.elapsed()
        );
        drop(idle);
    }
}

/// An agent that stands still sees no GOAWAY and answers no PING. What it has no request on keeps nothing; an answer that is
/// under way is brought to its end all the same.
#[tokio::test]
async fn an_http2_agent_that_does_not_say_goodbye_keeps_it_for_its_answers_alone() {
    let (rig, sender) = streaming("60").await;
    let fields: [(&str, &[u8]); 4] = [
        (":method", b"GET"),
        (":scheme", b"https"),
        (":authority", b"api.test"),
        (":path", b"/"),
    ];
    let mut busy = RawHttp2::open(&rig.agent, "api.test").await;
    let stream = busy.begin(&fields).await;
    let mut sender = within("request", sender).await.expect("a sender");
    sender.send_data("first, ".into()).await.expect("a reader");
    let mut idle = RawHttp2::open(&rig.agent, "api.test").await;
    // The second answer ends as soon as it has begun.
    assert_eq!(idle.request(&fields).await.status, Some(200));
    rig.sidecar.signal(Signal::TERM);
    idle.closed_on_silence().await;
    // The time for what is idle is over.
    sender.send_data("last".into()).await.expect("a reader");
    drop(sender);
    let ended = busy.end(stream).await;
    assert_eq!(
        (ended.status, ended.body.as_str()),
        (Some(200), "first, last")
    );
    assert!(!ended.broken, "{ended:?}");
    assert_eq!(rig.upstream.seen().len(), 2);
    let (status, log) = rig.sidecar.exit().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("drain deadline"), "{log}");
    drop((busy, idle));
}

/// As in a container. Only root can make it so, and CI is root.
#[tokio::test]
async fn it_runs_and_stops_as_the_first_process_of_a_namespace() {
    assert!(
        rustix::process::geteuid().is_root(),
        "`unshare --pid` needs root: run this test as root"
    );
    let mut first = Spawned::of(
        Command::new("/bin/sh").args([
            "-c",
            "exec 3>&1 1>&2; exec unshare --pid --fork --mount-proc \"$@\"",
            "sh",
            EGRESS,
            "serve",
        ]),
        &["--ca-ephemeral", "--listen", "127.0.0.1:0"],
    );
    first.ready().await;
    let outer = first.child.id().expect("a running child");
    let children =
        fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).expect("a list");
    let inner: i32 = children.trim().parse().expect("one child");
    let status = fs::read_to_string(format!("/proc/{inner}/status")).expect("a process");
    let pids = status
        .lines()
        .find(|line| line.starts_with("NSpid:"))
        .expect("a line");
    assert_eq!(pids.split_whitespace().last(), Some("1"), "{pids}");
    kill_process(Pid::from_raw(inner).expect("a pid"), Signal::TERM).expect("it runs");
    let status = within("exit", first.child.wait()).await.expect("a child");
    assert_eq!(status.code(), Some(0));
}

/// A rig whose upstream streams; the sender of its first answer comes through the channel.
async fn streaming(drain: &str) -> (Rig, tokio::sync::oneshot::Receiver<Sender>) {
    let pki = Pki::new();
    let (give, take) = tokio::sync::oneshot::channel();
    let give = std::sync::Mutex::new(Some(give));
    let upstream = Upstream::tls(&pki).start(move |_call| {
        let (sender, answer) = upstream::event_stream();
        if let Some(give) = give.lock().expect("no holder panicked").take() {
            _ = give.send(sender);
        }
        async move { answer }
    });
    let rig = Rig::around(&pki, upstream.await, ROUTES, |builder| {
        builder.arg("--drain-timeout").arg(drain)
    })
    .await;
    (rig, take)
}

type Sender = http_body_util::channel::Sender<bytes::Bytes, std::convert::Infallible>;

#[track_caller]
fn assert_failed(done: &Done, named: &str) {
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.stderr.contains(named), "{named}: {done:?}");
    assert!(done.stderr.contains("\nhint: "), "{done:?}");
}

/// `egress serve` with a file of no routes, that has to end by itself.
async fn serve(arguments: &[&str]) -> Done {
    let routes = tempfile::NamedTempFile::new().expect("a file");
    fs::write(routes.path(), "routes: []\n").expect("a file");
    let mut command = Command::new(EGRESS);
    command
        .args(["serve", "--routes"])
        .arg(routes.path())
        .args(arguments)
        .env_clear();
    command::finish(&mut command).await
}

async fn serve_with(ca: &Path) -> Done {
    serve(&[
        "--listen",
        "127.0.0.1:0",
        "--ca-dir",
        &ca.display().to_string(),
    ])
    .await
}

/// A sidecar without the harness's own arguments.
struct Spawned {
    child: tokio::process::Child,
    _routes: tempfile::NamedTempFile,
}

fn spawn(arguments: &[&str]) -> Spawned {
    Spawned::of(
        Command::new("/bin/sh").args(["-c", "exec 3>&1 1>&2; exec \"$@\"", "sh", EGRESS, "serve"]),
        arguments,
    )
}

impl Spawned {
    fn of(command: &mut Command, arguments: &[&str]) -> Self {
        let routes = tempfile::NamedTempFile::new().expect("a file");
        fs::write(routes.path(), "routes: []\n").expect("a file");
        let command = command
            .args(["--ready-fd", "3", "--routes"])
            .arg(routes.path())
            .args(arguments);
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Self {
            child: command.kill_on_drop(true).spawn().expect("/bin/sh runs"),
            _routes: routes,
        }
    }

    async fn ready(&mut self) {
        let mut lines = BufReader::new(self.child.stdout.take().expect("a pipe")).lines();
        within("readiness", async {
            while let Some(line) = lines.next_line().await.expect("a readable pipe") {
                if line == "READY=1" {
                    return;
                }
            }
            panic!("it did not start");
        })
        .await;
    }
}
