//! Faults of the sidecar's own surroundings: disks, descriptors, signals, sudden death (row 48). It stays up, says so, and
//! loses nothing that it had.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::harness::agent::Agent;
use crate::harness::command;
use crate::harness::pki::Pki;
use crate::harness::rig::{REAL, Rig, file};
use crate::harness::sidecar::{EGRESS, Sidecar};
use crate::harness::upstream::{Upstream, text};
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn row_48_a_log_that_nobody_takes_costs_no_request_and_is_counted() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let broken: [(&str, &str, Option<OwnedFd>); 3] = [
        ("a full disk", "exec 2>/dev/full", None),
        ("a closed descriptor", "exec 2>&-", None),
        (
            "a pipe without a reader",
            "exec 2>&9 9>&-",
            Some(writer.into()),
        ),
    ];
    drop(reader);
    for (what, script, descriptor) in broken {
        let rig = Rig::with(ROUTES, |builder| {
            let builder = builder.after(script);
            match descriptor {
                Some(writer) => builder.hand(9, writer),
                None => builder,
            }
        })
        .await;
        for _ in 0..20 {
            rig.agent.get("https://api.test/").await.assert_served();
            let refusal = rig.agent.connect("never.test:443").await;
            refusal
                .expect_err("no route")
                .assert_refused(403, "host_not_allowed");
        }
        let mut http2 = rig.agent.http2("api.test:443", "api.test").await;
        let get = || {
            http::Request::get("https://api.test/")
                .body(bytes::Bytes::new())
                .expect("a request")
        };
        crate::harness::agent::send_http2(&mut http2, get())
            .await
            .assert_served();
        rig.sidecar.sighup();
        crate::harness::agent::send_http2(&mut http2, get())
            .await
            .assert_served();
        // The standard library puts /dev/null in the place of a closed one.
        if what == "a closed descriptor" {
            assert_eq!(lost(&rig.sidecar).await, 0);
        }
        within(what, async {
            while what != "a closed descriptor" && lost(&rig.sidecar).await <= 60 {}
        })
        .await;
        assert_eq!(rig.upstream.seen().len(), 22, "{what}");
        let (status, _) = rig.sidecar.terminate().await;
        assert_eq!(status.code(), Some(0), "{what}");
    }
}

#[tokio::test]
async fn row_48_what_a_full_disk_did_not_take_of_the_log_is_told_once_there_is_room() {
    // What is mounted is seen by the sidecar alone, but for those who go by way of it.
    let place = tempfile::tempdir().expect("a directory");
    let script = format!(
        "mount -t tmpfs -o size=16k none {0} && head -c 12k /dev/zero >{0}/ballast && exec 2>>{0}/log",
        place.path().display()
    );
    let rig = Rig::with(ROUTES, |builder| builder.mounting(&script)).await;
    let inside = format!(
        "/proc/{}/root{}",
        rig.sidecar.pid().as_raw_nonzero(),
        place.path().display()
    );
    let inside = Path::new(&inside);
    within("a full disk", async {
        while lost(&rig.sidecar).await < 3 {
            rig.agent.get("https://api.test/").await.assert_served();
        }
    })
    .await;
    fs::remove_file(inside.join("ballast")).expect("room");
    rig.agent.get("https://api.test/").await.assert_served();
    let read = || fs::read_to_string(inside.join("log")).expect("a log");
    let (told, missing) = within("a word on what is missing", async {
        loop {
            let missing = lost(&rig.sidecar).await;
            let log = read();
            let told = log.lines().find(|line| line.contains(MISSING));
            if let Some(told) = told {
                return (told.to_owned(), missing);
            }
        }
    })
    .await;
    let told: serde_json::Value = serde_json::from_str(&told).expect("a record");
    assert_eq!(told["lost"], missing, "{told}");
    assert_eq!(lost(&rig.sidecar).await, missing);
    let log = read();
    // At most the one record that was being written is torn.
    let torn = log
        .lines()
        .filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err());
    assert!(torn.count() <= 1, "{log}");
    drop(rig);
}

/// A collector that hangs, or a terminal that was stopped: the pipe is full and stays so.
#[tokio::test]
async fn row_48_a_log_whose_reader_stands_still_holds_nothing_up() {
    for reads_again in [true, false] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let rig = Rig::with(ROUTES, |builder| {
            let builder = builder.after("exec 2>&9 9>&-").arg("--log=trace");
            builder.hand(9, OwnedFd::from(writer))
        })
        .await;
        let mut http2 = rig.agent.http2("api.test:443", "api.test").await;
        let mut sent = 0;
        within("a full queue", async {
            while lost(&rig.sidecar).await == 0 {
                for _ in 0..20 {
                    let get = http::Request::get("https://api.test/").body(bytes::Bytes::new());
                    let get = get.expect("a request");
                    crate::harness::agent::send_http2(&mut http2, get)
                        .await
                        .assert_served();
                    sent += 1;
                }
            }
        })
        .await;
        assert_eq!(rig.upstream.seen().len(), sent);
        if !reads_again {
            let Rig { sidecar, .. } = rig;
            let (status, _) = sidecar.terminate().await;
            assert_eq!(status.code(), Some(0));
            drop(reader);
            continue;
        }
        // Later all that had room is there, whole and in order, and what is missing is told in its place.
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut tell = Some(tell);
        let reading = tokio::task::spawn_blocking(move || {
            let mut lines = Vec::new();
            for line in BufReader::new(reader).lines() {
                let line = line.expect("a readable pipe");
                if line.contains(MISSING)
                    && let Some(tell) = tell.take()
                {
                    _ = tell.send(());
                }
                lines.push(serde_json::from_str(&line).expect("a record"));
            }
            lines
        });
        within("a word on what is missing", told)
            .await
            .expect("a reader");
        let missing = lost(&rig.sidecar).await;
        let Rig { sidecar, .. } = rig;
        let (status, _) = sidecar.terminate().await;
        assert_eq!(status.code(), Some(0));
        let lines: Vec<serde_json::Value> = within("the end", reading).await.expect("no panic");
        let gaps = lines.iter().filter(|line| line["message"] == MISSING);
        let told: u64 = gaps
            .map(|gap| gap["lost"].as_u64().expect("a number"))
            .sum();
        assert_eq!(told, missing);
        let at = |message: &str| {
            let place = lines.iter().position(|line| line["message"] == message);
            place.unwrap_or_else(|| panic!("{message:?} is not logged"))
        };
        let gap = at(MISSING);
        assert!(at("ready") < gap);
        assert!(gap < at("stopped"));
    }
}

/// What the log says of records that it could not take.
const MISSING: &str = "records of the log could not be written";

async fn lost(sidecar: &Sidecar) -> u64 {
    let status = sidecar.status().await;
    let lost = &status["counters"]["log_records_lost"];
    lost.as_u64().expect("a counter")
}

#[tokio::test]
async fn row_48_a_full_disk_under_the_ca_is_told_and_leaves_no_half_of_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca");
    fs::create_dir(&ca).expect("a directory");
    let done = async |fill: &str, arguments: &str| {
        let script = format!(
            "mount -t tmpfs -o size=16k,mode=700 none \"$1\" && {fill} && {EGRESS} {arguments} --no-name-constraints \
             --ca-dir \"$1\"; code=$?; ls -A \"$1\"; exit $code"
        );
        let mut shell = Command::new("unshare");
        let shell = shell
            .args(["--mount", "/bin/sh", "-c", &script, "sh"])
            .arg(&ca);
        command::finish(shell).await
    };
    // Full from the start, and full again where a good pair is to be replaced.
    let full = "{ head -c 32k /dev/zero >\"$1/ballast\" 2>/dev/null; true; }";
    let first = done(full, "ca init").await;
    assert_eq!(first.code, Some(3), "{first:?}");
    assert!(
        first.stderr.contains("No space left on device"),
        "{first:?}"
    );
    assert!(
        first.stderr.contains(&ca.display().to_string()),
        "{first:?}"
    );
    assert!(
        !first.stdout.lines().any(|name| name.starts_with("ca-")),
        "{first:?}"
    );

    let before = format!(
        "{EGRESS} ca init --no-name-constraints --ca-dir \"$1\" >/dev/null && cat \"$1\"/ca-*.pem >/tmp/$$.pem \
         && {full} && trap 'cat \"$1\"/ca-*.pem | cmp - /tmp/$$.pem && echo same; rm /tmp/$$.pem' EXIT"
    );
    let second = done(&before, "ca init --renew").await;
    assert_eq!(second.code, Some(3), "{second:?}");
    assert!(
        second.stderr.contains("No space left on device"),
        "{second:?}"
    );
    assert!(second.stdout.ends_with("same\n"), "{second:?}");
}

#[tokio::test]
async fn row_48_without_descriptors_it_says_so_once_waits_and_serves_again() {
    let rig = Rig::with(ROUTES, |builder| builder.after("ulimit -n 64")).await;
    rig.agent.get("https://api.test/").await.assert_served();
    // More than there are descriptors. The kernel takes them all; the sidecar does not.
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(rig.agent.raw().await);
    }
    let line = rig.sidecar.logged("connections cannot be accepted").await;
    assert!(line.contains("Too many open files"), "{line}");
    assert!(line.contains("\"level\":\"WARN\""), "{line}");
    // One goes, and another takes its place: what was full stays so.
    drop(held.split_off(90));
    // Those that are in are served as far as they need nothing new.
    let get = b"GET /none HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    let inside = &mut held[0];
    inside.write_all(get).await.expect("the sidecar reads");
    let mut answer = String::new();
    let reading = inside.read_to_string(&mut answer);
    within("an answer", reading).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    drop(held);
    rig.agent.get("https://api.test/").await.assert_served();
    rig.sidecar.logged("connections are accepted again").await;
    let log = rig.sidecar.log();
    assert!(
        log.matches("connections cannot be accepted").count() <= 20,
        "{log}"
    );
    assert_eq!(rig.upstream.seen().len(), 2);
    let (status, log) = rig.sidecar.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn row_48_a_sidecar_that_is_killed_comes_back_with_its_ca() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca");
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| text(200, "fine"))
        .await;
    let start = async || {
        let builder = Sidecar::with_routes(&pki, file(ROUTES, &upstream));
        builder
            .slot("EGRESS_TOKEN_0", REAL)
            .ca_dir(&ca)
            .start()
            .await
    };
    let first = start().await;
    let agent = Agent::of(&first);
    agent.get("https://api.test/").await.assert_served();
    let fingerprint = first.status().await["ca"].clone();
    let files = || {
        (
            fs::read(ca.join("ca-key.pem")).expect("a key"),
            fs::read(ca.join("ca-cert.pem")).expect("a certificate"),
        )
    };
    let before = files();
    first.signal(Signal::KILL);
    first.exit().await;
    for _ in 0..3 {
        let next = start().await;
        assert_eq!(next.status().await["ca"], fingerprint);
        Agent::of(&next)
            .get("https://api.test/")
            .await
            .assert_served();
        next.signal(Signal::KILL);
        next.exit().await;
        assert!(files() == before, "the pair has changed");
    }
}

/// Killed at whatever moment, `ca init` leaves the old pair, the new one, or what the next one names and `--renew` mends.
#[tokio::test]
async fn row_48_an_init_that_is_killed_at_any_moment_leaves_nothing_that_is_open_or_beyond_repair()
{
    use std::os::unix::fs::PermissionsExt as _;
    let moments = [
        "",
        "ca",
        "ca/.ca-key.pem.new",
        "ca/.ca-cert.pem.new",
        "ca/ca-key.pem",
        "ca/ca-cert.pem",
    ];
    for moment in moments.iter().cycle().take(24) {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = dir.path().join("ca");
        let init = |more: &[&str]| {
            let mut init = Command::new(EGRESS);
            init.args(["ca", "init", "--no-name-constraints", "--ca-dir"])
                .arg(&ca);
            init.args(more).env_clear();
            init
        };
        let mut child = init(&[])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the binary runs");
        // As soon as it is there, or was: some are there for microseconds.
        while !dir.path().join(moment).exists() && child.try_wait().expect("a child").is_none() {}
        _ = child.start_kill();
        within("end of the command", child.wait())
            .await
            .expect("a child");
        for entry in fs::read_dir(&ca).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let is_key = path.to_string_lossy().contains("key");
            let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o7777;
            assert!(
                mode == if is_key { 0o600 } else { 0o644 } || mode == 0o600,
                "{}: {mode:o}",
                path.display()
            );
        }
        let next = command::finish(&mut init(&[])).await;
        match next.code {
            Some(0) => {}
            _ => {
                assert_eq!(next.code, Some(3), "{next:?}");
                assert!(next.stderr.contains("hint: "), "{next:?}");
                let mended = command::finish(&mut init(&["--renew"])).await;
                assert_eq!(mended.code, Some(0), "{mended:?}");
            }
        }
        assert_eq!(fs::read_dir(&ca).expect("a directory").count(), 2);
    }
}

#[tokio::test]
async fn row_48_a_thousand_open_tunnels_end_with_the_sidecar_in_time() {
    let rig = Rig::with(ROUTES, |builder| {
        builder
            .arg("--drain-timeout=10")
            .arg("--max-per-client=2000")
    })
    .await;
    let mut tunnels = Vec::new();
    for _ in 0..1000 {
        tunnels.push(rig.agent.connect("api.test:443").await.expect("a tunnel"));
    }
    let mut used = Vec::new();
    for _ in 0..20 {
        let mut http1 = rig.agent.http1("api.test:443", "api.test").await;
        let get = http::Request::get("https://api.test/")
            .body(bytes::Bytes::new())
            .expect("a request");
        crate::harness::agent::send_http1(&mut http1, get)
            .await
            .assert_served();
        used.push(http1);
    }
    let open = &rig.sidecar.status().await["counters"]["open_connections"];
    assert!(open.as_u64().expect("a counter") >= 1020, "{open}");
    // The harness waits twice as long as the drain may take; nothing of these needs any of it.
    let (status, log) = rig.sidecar.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("cut off at the drain deadline"), "{log}");
    for tunnel in tunnels {
        let mut tunnel = tunnel.into_std().expect("a socket");
        tunnel.set_nonblocking(false).expect("a socket");
        let mut rest = Vec::new();
        // An end or a reset: it does not wait.
        _ = tunnel.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
    for mut http1 in used {
        assert!(http1.ready().await.is_err(), "a tunnel is still open");
    }
    assert_eq!(rig.upstream.seen().len(), 20);
}
