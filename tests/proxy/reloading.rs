//! A reload beside running requests: what has begun is finished, what comes is decided anew, and nothing permitted fails
//! (threat model, rows 44, 45 and 48).

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::harness::agent::{exchange, read_until};
use crate::harness::command::{self, Done};
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::{Rig, file};
use crate::harness::upstream::{self, Upstream};
use crate::harness::wire;
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: gone.test, connect_to: 'UPSTREAM'}
";

const LESS: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn a_request_under_way_ends_under_the_policy_that_it_began_with() {
    let (rig, release) = gated().await;
    let mut http1 = rig
        .agent
        .tunnel("gone.test:443", "gone.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    let get = "GET /slow HTTP/1.1\r\nHost: gone.test\r\n\r\n";
    http1
        .write_all(get.as_bytes())
        .await
        .expect("the sidecar reads");
    let mut http2 = RawHttp2::open(&rig.agent, "gone.test").await;
    let fields: [(&str, &[u8]); 4] = [
        (":method", b"GET"),
        (":scheme", b"https"),
        (":authority", b"gone.test"),
        (":path", b"/slow2"),
    ];
    let stream = http2.begin(&fields).await;
    rig.upstream
        .arrival("both requests", |seen| seen.path() == "/slow")
        .await;
    rig.upstream
        .arrival("both requests", |seen| seen.path() == "/slow2")
        .await;

    rig.sidecar.write_routes(&file(LESS, &rig.upstream));
    assert_eq!(reload(&rig).await.code, Some(0));
    assert!(rig.agent.connect("gone.test:443").await.is_err());
    release.notify_waiters();
    // The old ones have their answers, and their tunnels end behind them.
    assert_eq!(http2.end(stream).await.status, Some(200));
    http2.closed().await;
    let raw = exchange(&mut http1, get.as_bytes()).await;
    let [served] = &wire::answers(&raw)[..] else {
        panic!("{}", String::from_utf8_lossy(&raw))
    };
    served.assert_served();
    assert_eq!(rig.upstream.at("/slow").len(), 1);
}

#[tokio::test]
async fn the_tunnels_of_a_removed_route_are_closed_at_once_and_others_live() {
    let rig = Rig::new(ROUTES).await;
    let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut used = rig
        .agent
        .tunnel("gone.test:443", "gone.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    used.write_all(get("gone.test").as_bytes())
        .await
        .expect("the sidecar reads");
    read_until(&mut used, "fine").await;
    let mut unused = rig
        .agent
        .tunnel("gone.test:443", "gone.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    let mut half = rig
        .agent
        .tunnel("gone.test:443", "gone.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    half.write_all(b"GET / HTTP/1.1\r\nHo")
        .await
        .expect("the sidecar reads");
    let mut http2 = RawHttp2::open(&rig.agent, "gone.test").await;
    let mut silent = rig.agent.connect("gone.test:443").await.expect("a tunnel");
    let mut kept = rig
        .agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    kept.write_all(get("api.test").as_bytes())
        .await
        .expect("the sidecar reads");
    read_until(&mut kept, "fine").await;

    rig.sidecar.write_routes(&file(LESS, &rig.upstream));
    assert_eq!(reload(&rig).await.code, Some(0));
    // Far below every idle and head timeout, so it is the reload that closes them.
    tokio::time::timeout(Duration::from_secs(5), async {
        let mut rest = Vec::new();
        used.read_to_end(&mut rest).await.expect("a clean end");
        unused.read_to_end(&mut rest).await.expect("a clean end");
        http2.closed().await;
        _ = half.read_to_end(&mut rest).await;
        _ = silent.read_to_end(&mut rest).await;
    })
    .await
    .expect("the tunnels are closed");
    kept.write_all(get("api.test").as_bytes())
        .await
        .expect("the sidecar reads");
    assert!(
        read_until(&mut kept, "fine")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    assert_eq!(
        rig.upstream
            .seen()
            .iter()
            .filter(|seen| seen.host == "gone.test")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_request_in_an_open_tunnel_is_decided_under_the_new_policy() {
    let rig = Rig::new(ROUTES).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n");
    let mut tunnel = rig
        .agent
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    tunnel
        .write_all(get("/a").as_bytes())
        .await
        .expect("the sidecar reads");
    read_until(&mut tunnel, "fine").await;
    rig.sidecar.write_routes(&file(
        &ROUTES.replace("api.test,", "api.test, path_allowlist: [/b],"),
        &rig.upstream,
    ));
    assert_eq!(reload(&rig).await.code, Some(0));
    tunnel
        .write_all(get("/a").as_bytes())
        .await
        .expect("the sidecar reads");
    assert!(
        read_until(&mut tunnel, "}}\n")
            .await
            .starts_with("HTTP/1.1 403 ")
    );
    tunnel
        .write_all(get("/b").as_bytes())
        .await
        .expect("the sidecar reads");
    assert!(
        read_until(&mut tunnel, "fine")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    assert_eq!(rig.upstream.at("/a").len(), 1);
}

#[tokio::test]
async fn a_failing_reload_tells_its_faults_and_the_old_routes_stay() {
    let rig = Rig::new(ROUTES).await;
    let good = file(ROUTES, &rig.upstream);
    for bad in [
        "",
        "routes:\n- host: a.test\n  nonsense: 1\n",
        "routes:\n- host: api.test\n- host: api.test\n",
        "routes: {",
    ] {
        rig.sidecar.write_routes(bad);
        let done = reload(&rig).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(
            done.stderr.contains("routes.yaml") && done.stderr.contains("stay in force"),
            "{done:?}"
        );
        rig.agent.get("https://gone.test/").await.assert_served();
    }
    fs::remove_file(rig.sidecar.routes_file()).expect("the file goes");
    assert_eq!(reload(&rig).await.code, Some(1));
    let status = rig.sidecar.status().await;
    assert!(
        status["last_reload_fault"]
            .as_str()
            .expect("a fault")
            .contains("does not exist"),
        "{status}"
    );
    assert_eq!(status["counters"]["reload_failures"], 5);
    assert_eq!(status["routes"], 2);
    rig.sidecar.write_routes(&good);
    let done = reload(&rig).await;
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (Some(0), "nothing changed\n"),
        "{done:?}"
    );
    assert!(rig.sidecar.status().await["last_reload_fault"].is_null());
}

#[tokio::test]
async fn a_command_without_a_sidecar_says_so() {
    for command in ["reload", "status"] {
        let done = command::egress([command, "--admin", "unix:/nonexistent/admin.sock"]).await;
        assert_eq!(done.code, Some(3), "{done:?}");
        assert!(
            done.stderr.contains("/nonexistent/admin.sock") && done.stderr.contains("hint: "),
            "{done:?}"
        );
    }
}

async fn reload(rig: &Rig) -> Done {
    let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
    command::egress(["reload", "--admin", &admin]).await
}

/// An upstream that answers `/slow...` only once it is told to.
async fn gated() -> (Rig, Arc<Notify>) {
    let pki = Pki::new();
    let release = Arc::new(Notify::new());
    let gate = release.clone();
    let upstream = Upstream::tls(&pki).start(move |call| {
        let gate = gate.clone();
        async move {
            if call.seen.path().starts_with("/slow") {
                within("release", gate.notified()).await;
            }
            upstream::text(200, "fine")
        }
    });
    (
        Rig::around(&pki, upstream.await, ROUTES, |builder| builder).await,
        release,
    )
}

#[tokio::test]
async fn the_reload_of_a_large_file_stands_back_for_requests_and_no_other_thread_does() {
    let rig = Rig::new(ROUTES).await;
    let mut routes = String::from(ROUTES);
    for number in 0..2000 {
        let comment = "a".repeat(600);
        routes.push_str(&format!("- {{host: h{number}.test}} # {comment}\n"));
    }
    assert!(routes.len() > 1 << 20, "a large file");
    rig.sidecar.write_routes(&file(&routes, &rig.upstream));
    rig.sidecar.sighup();
    let threads = within("the thread of the reload", async {
        loop {
            let threads = niceness(rig.sidecar.pid());
            if threads.contains(&("reload".into(), 15)) {
                return threads;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let standing_back = threads.iter().filter(|(_, nice)| *nice != 0).count();
    assert_eq!(standing_back, 1, "{threads:?}");
    rig.agent
        .get("https://api.test/meanwhile")
        .await
        .assert_served();
    rig.sidecar.logged("reloaded").await;
    rig.agent.get("https://api.test/then").await.assert_served();
}

/// The name and the nice value of each thread of a process (proc_pid_stat(5)).
fn niceness(process: Pid) -> Vec<(String, i32)> {
    let tasks = format!("/proc/{}/task", process.as_raw_nonzero());
    let tasks = fs::read_dir(tasks).expect("the sidecar runs");
    // A thread may end meanwhile.
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let read = |stat: String| {
        let (before, after) = stat.rsplit_once(") ")?;
        let name = before.split_once('(')?.1;
        // The fields after the name begin with the third one; the nice value is the 19th.
        let nice = after.split(' ').nth(19 - 3)?.parse().ok()?;
        Some((name.to_owned(), nice))
    };
    stats.filter_map(read).collect()
}
