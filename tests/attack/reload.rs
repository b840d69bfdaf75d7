//! Reloads in a storm, of files that cannot be read, and what a revocation ends (rows 44 and 45).

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::Request;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::agent::{Tunnel, read_until, send_http1, send_http2};
use crate::harness::command;
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::{Rig, file};
use crate::harness::upstream::{self, Upstream};
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/fresh, /kept, /streams, /old], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: gone.test, connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn row_44_under_a_storm_of_reloads_no_permitted_request_fails_and_no_other_gets_through() {
    let rig = Rig::new(ROUTES).await;
    let (over, served, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let goes_on = || !over.load(Ordering::Relaxed);
    let post = |path: &str| {
        Request::post(format!("https://api.test{path}"))
            .body(Bytes::from_static(b"body"))
            .expect("a request")
    };
    let fresh = async {
        while goes_on() {
            rig.agent
                .get("https://api.test/fresh")
                .await
                .assert_served();
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    let kept = async {
        let mut http1 = rig.agent.http1("api.test:443", "api.test").await;
        while goes_on() {
            send_http1(&mut http1, post("/kept")).await.assert_served();
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    let streams = async {
        let mut http2 = rig.agent.http2("api.test:443", "api.test").await;
        while goes_on() {
            send_http2(&mut http2, post("/streams"))
                .await
                .assert_served();
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    let forbidden = async {
        let mut http2 = rig.agent.http2("api.test:443", "api.test").await;
        for turn in (1..).take_while(|_| goes_on()) {
            // Hundreds of refused uploads on one connection are a flood, which another test is about.
            if turn % 100 == 0 {
                http2 = rig.agent.http2("api.test:443", "api.test").await;
            }
            let refusal = send_http2(&mut http2, post("/forbidden")).await;
            refusal.assert_refused(403, "path_not_allowed");
            let refusal = rig.agent.connect("never.test:443").await;
            refusal
                .expect_err("no route")
                .assert_refused(403, "host_not_allowed");
            refused.fetch_add(2, Ordering::Relaxed);
        }
    };
    let storm = async {
        let enough = || served.load(Ordering::Relaxed) > 50 && refused.load(Ordering::Relaxed) > 20;
        for round in (0..).take_while(|round| *round < 500 || !enough()) {
            // Another route comes and goes; every third time the route in use is itself another one, and now and then the
            // file is broken.
            let mut routes = match round % 2 {
                0 => ROUTES.to_owned(),
                _ => ROUTES.lines().next().expect("a line").to_owned() + "\n",
            };
            routes = routes.replace(
                "api.test,",
                &format!("api.test, description: 'round {}',", round / 3),
            );
            if round % 7 == 6 {
                routes.push_str("- {host: never.test, no_such_key: 1}\n");
            }
            rig.sidecar.write_routes(&file(&routes, &rig.upstream));
            rig.sidecar.sighup();
            // A few at once, and then one that is known to be in force.
            if round % 20 == 19 {
                let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
                command::egress(["reload", "--admin", &admin]).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(fresh, kept, streams, forbidden, storm);
    let status = rig.sidecar.status().await;
    let counter = |name: &str| status["counters"][name].as_u64().expect("a counter");
    assert!(counter("reloads") > 20, "{status}");
    assert!(counter("reload_failures") > 0, "{status}");
    let served = served.load(Ordering::Relaxed);
    let seen = rig.upstream.seen();
    assert_eq!(seen.len() as u64, served, "nothing was sent twice");
    assert!(
        seen.iter()
            .all(|seen| seen.path() != "/forbidden" && seen.host == "api.test")
    );
}

/// What can stand where the routes file stood, and what is said of it.
const WRONG: &[(&str, &str)] = &[
    ("nothing", "does not exist"),
    ("an empty file", "is empty"),
    ("a directory", "is a directory"),
    ("a FIFO", "not a regular file"),
    ("a device", "not a regular file"),
    ("a socket", "not a regular file"),
    ("a link to itself", "too many levels of symbolic links"),
    ("binary", "not UTF-8, in line 2"),
    ("too large", "larger than 16777216 bytes"),
    ("very deep", "routes.yaml"),
    ("an endless alias", "routes.yaml"),
    ("a route for all but the credential", "EGRESS_TOKEN_9"),
];

#[tokio::test]
async fn row_44_what_is_no_routes_file_changes_nothing_and_holds_nothing_up() {
    let rig = Rig::new(ROUTES).await;
    let path = rig.sidecar.routes_file();
    let good = fs::read_to_string(&path).expect("the routes");
    let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
    for (turn, (kind, reason)) in WRONG.iter().enumerate() {
        put(&path, kind);
        // By the signal, then by the command that says what came of it.
        rig.sidecar.sighup();
        let lines = rig.sidecar.logged_times("stay in force", turn + 1).await;
        assert!(
            lines[turn].contains("\"level\":\"ERROR\""),
            "{kind}: {}",
            lines[turn]
        );
        let done = within(kind, command::egress(["reload", "--admin", &admin])).await;
        assert_eq!(done.code, Some(1), "{kind}: {done:?}");
        assert!(done.stderr.contains(reason), "{kind}: {done:?}");
        let status = rig.sidecar.status().await;
        let fault = status["last_reload_fault"].as_str().expect("a fault");
        assert!(fault.contains(reason), "{kind}: {status}");
        assert_eq!(status["routes"], 2, "{kind}");
        rig.agent.get("https://gone.test/").await.assert_served();
        rig.agent
            .get("https://api.test/never")
            .await
            .assert_refused(403, "path_not_allowed");
    }
    let log = rig.sidecar.log();
    for (kind, reason) in WRONG {
        assert!(log.contains(reason), "{kind}: {reason}: {log}");
    }
    if path.is_dir() {
        fs::remove_dir(&path).expect("an empty directory");
    }
    rig.sidecar.write_routes(&good);
    let done = command::egress(["reload", "--admin", &admin]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(rig.sidecar.status().await["last_reload_fault"].is_null());
    assert_eq!(rig.upstream.seen().len(), WRONG.len());
}

fn put(path: &Path, kind: &str) {
    let next = path.with_extension("next");
    let link = |to: &Path| std::os::unix::fs::symlink(to, &next);
    if path.is_dir() {
        fs::remove_dir(path).expect("an empty directory");
    }
    match kind {
        "nothing" => return fs::remove_file(path).expect("a file"),
        "an empty file" => fs::write(&next, ""),
        "a directory" => {
            fs::remove_file(path).expect("a file");
            fs::create_dir(&next)
        }
        "a FIFO" => {
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, &next, FileType::Fifo, mode, 0).map_err(Into::into)
        }
        "a device" => link(Path::new("/dev/zero")),
        "a socket" => std::os::unix::net::UnixListener::bind(&next).map(drop),
        "a link to itself" => link(path),
        "binary" => fs::write(&next, b"routes:\n  - host: \xff\xfe\n"),
        // Sparse: it costs no disk.
        "too large" => fs::File::create(&next).and_then(|file| file.set_len(1 << 40)),
        "very deep" => fs::write(&next, format!("routes: {}", "[".repeat(100_000))),
        "an endless alias" => {
            let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
            for n in 1..20 {
                let before = format!("*a{}, ", n - 1).repeat(9);
                text.push_str(&format!("a{n}: &a{n} [{before}]\n"));
            }
            fs::write(&next, format!("{text}routes: *a19\n"))
        }
        _ => fs::write(
            &next,
            "routes:\n- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_9}\n",
        ),
    }
    .expect("a file");
    fs::rename(&next, path).expect("a rename");
}

/// One host with a credential of a file, and one that is passed through: everything that outlives a request is open on each.
#[tokio::test]
async fn row_45_a_revoked_route_or_credential_ends_all_that_rests_on_it_and_nothing_else() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |call| {
            if call.seen.path() == "/socket" {
                return call.websocket(async |mut socket| {
                    use futures_util::StreamExt as _;
                    while socket.next().await.is_some() {}
                });
            }
            upstream::text(200, "fine")
        })
        .await;
    let dir = tempfile::tempdir().expect("a directory");
    let slot = dir.path().join("token");
    fs::write(&slot, "first-value").expect("a file");
    let kept = "\
- {host: kept.test, connect_to: 'UPSTREAM'}
- {host: slot.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_5, connect_to: 'UPSTREAM'}
";
    let all = format!(
        "{kept}- {{host: gone.test, connect_to: 'UPSTREAM'}}\n- {{host: raw.test, tls: passthrough, connect_to: 'UPSTREAM'}}\n"
    );
    let path = slot.display().to_string();
    let rig = Rig::around(&pki, upstream, &all, |builder| {
        builder.env("EGRESS_TOKEN_5_FILE", path)
    })
    .await;
    let mut raw = rig.agent.connect("raw.test:443").await.expect("a tunnel");
    let mut hosts = Vec::new();
    for host in ["kept.test", "slot.test", "gone.test"] {
        hosts.push(Open::to(&rig, host).await);
    }
    let [mut kept_open, mut slot_open, mut gone_open] =
        <[Open; 3]>::try_from(hosts).ok().expect("three");
    let before = rig.upstream.seen().len();

    // The credential alone: what was opened with it ends, and the tunnel, which is only the agent's, goes on.
    fs::write(&slot, "second-value").expect("a file");
    rig.sidecar.sighup();
    slot_open.websocket_ends().await;
    rig.upstream.end_of(slot_open.pooled).await;
    slot_open.is_served().await;
    let last = rig.upstream.seen().pop().expect("a request");
    assert_eq!(last.all("authorization"), ["Bearer second-value"]);
    gone_open.is_served().await;

    // The routes: nothing more is asked of the upstream for them.
    rig.sidecar.write_routes(&file(kept, &rig.upstream));
    rig.sidecar.sighup();
    gone_open.websocket_ends().await;
    gone_open.tunnels_end().await;
    rig.upstream.end_of(gone_open.pooled).await;
    let mut rest = Vec::new();
    _ = within("end of the passthrough", raw.read_to_end(&mut rest)).await;
    for host in ["gone.test", "raw.test"] {
        let refusal = rig.agent.connect(&format!("{host}:443")).await;
        refusal
            .expect_err("no route")
            .assert_refused(403, "host_not_allowed");
    }
    rig.sidecar.logged_times("\"code\":\"revoked\"", 2).await;

    kept_open.is_served().await;
    slot_open.is_served().await;
    assert!(rig.upstream.is_open(kept_open.pooled));
    assert_eq!(rig.upstream.seen().len(), before + 4);
}

/// What stays open behind requests to one host.
struct Open {
    host: &'static str,
    http1: Tunnel,
    http2: RawHttp2,
    websocket: Tunnel,
    /// The upstream connection that the requests share.
    pooled: u64,
}

impl Open {
    async fn to(rig: &Rig, host: &'static str) -> Self {
        let authority = format!("{host}:443");
        let tunnel = async || {
            rig.agent
                .tunnel(&authority, host, &["http/1.1"])
                .await
                .expect("a tunnel")
        };
        let mut websocket = tunnel().await;
        let handshake = format!(
            "GET /socket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        websocket
            .write_all(handshake.as_bytes())
            .await
            .expect("the sidecar reads");
        let head = read_until(&mut websocket, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let mut open = Self {
            host,
            http1: tunnel().await,
            http2: RawHttp2::open(&rig.agent, host).await,
            websocket,
            pooled: 0,
        };
        open.is_served().await;
        open.pooled = rig.upstream.seen().pop().expect("a request").connection;
        open
    }

    async fn is_served(&mut self) {
        let get = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.http1
            .write_all(get.as_bytes())
            .await
            .expect("the sidecar reads");
        let answer = read_until(&mut self.http1, "fine").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 "),
            "{}: {answer}",
            self.host
        );
    }

    async fn websocket_ends(&mut self) {
        let mut rest = Vec::new();
        // An end or a reset: both are one.
        _ = within(
            "end of the WebSocket",
            self.websocket.read_to_end(&mut rest),
        )
        .await;
    }

    async fn tunnels_end(&mut self) {
        let mut rest = Vec::new();
        _ = within("end of the tunnel", self.http1.read_to_end(&mut rest)).await;
        self.http2.closed().await;
    }
}
