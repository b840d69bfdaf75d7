//! Slots that fail at the start and later, clocks that jump, and what the log shows of secrets and of hostile bytes
//! (rows 41 and 46).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Request;
use rcgen::{CertificateParams, SanType};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::agent::{Agent, Answer, send_http2};
use crate::harness::command;
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::{REAL, Rig, file};
use crate::harness::scripted::{Scripted, request, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Upstream, text};
use crate::harness::within;
use crate::proxy::refusals::jwt;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_5, connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
";

/// What can stand where a token's file stood, and what is said of it.
const WRONG: &[(&str, &str)] = &[
    ("nothing", "No such file or directory"),
    ("an empty file", "is empty"),
    ("a line break alone", "is empty"),
    ("two lines", "cannot stand in a header"),
    ("binary", "cannot stand in a header"),
    ("not UTF-8", "cannot stand in a header"),
    ("too large", "larger than 65536 bytes"),
    ("a directory", "is a directory"),
    ("a FIFO", "not a regular file"),
    ("a device", "not a regular file"),
    ("a link to nowhere", "No such file or directory"),
    ("a link to itself", "Too many levels of symbolic links"),
    ("a scheme in front", "its scheme's name"),
    ("an expired token", "has expired"),
];

/// Puts it there by a rename, so that there is no moment in between.
fn put(path: &Path, kind: &str) {
    let next = path.with_extension("next");
    match kind {
        "nothing" => return fs::remove_file(path).expect("a file"),
        "an empty file" => fs::write(&next, ""),
        "a line break alone" => fs::write(&next, "\n"),
        "two lines" => fs::write(&next, format!("{REAL}\n{REAL}\n")),
        "binary" => fs::write(&next, "to\0ken\x1b[2J"),
        "not UTF-8" => fs::write(&next, [b'a', 0xff, 0xfe]),
        "too large" => fs::write(&next, "a".repeat(65_537)),
        "a directory" => {
            fs::remove_file(path).expect("a file");
            fs::create_dir(&next)
        }
        "a FIFO" => {
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, &next, FileType::Fifo, mode, 0).map_err(Into::into)
        }
        "a device" => std::os::unix::fs::symlink("/dev/zero", &next),
        "a link to nowhere" => std::os::unix::fs::symlink("/nonexistent/token", &next),
        "a link to itself" => std::os::unix::fs::symlink(path, &next),
        "a scheme in front" => fs::write(&next, format!("Bearer {REAL}")),
        "an expired token" => fs::write(&next, jwt(seconds() - 60)),
        good => fs::write(&next, good),
    }
    .expect("a file");
    if path.is_dir() {
        fs::remove_dir(path).expect("an empty directory");
    }
    fs::rename(&next, path).expect("a rename");
}

#[tokio::test]
async fn row_46_a_slot_that_is_missing_or_unusable_is_named_and_nothing_starts() {
    let dir = tempfile::tempdir().expect("a directory");
    let routes = "routes:\n  - {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_5}\n";
    let refused = async |slot: Option<PathBuf>, reason: &str| {
        let mut builder = Sidecar::with_routes(&Pki::new(), routes);
        if let Some(slot) = &slot {
            builder = builder.env("EGRESS_TOKEN_5_FILE", slot.display().to_string());
        }
        let Err(failure) = builder.try_start().await else {
            panic!("{reason}: it started without its slot");
        };
        assert_eq!(failure.status.code(), Some(2), "{failure:?}");
        for part in ["EGRESS_TOKEN_5", "api.test", reason] {
            assert!(failure.log.contains(part), "{part}: {}", failure.log);
        }
        assert!(!failure.log.contains(REAL), "{}", failure.log);
    };
    refused(None, "is not set").await;
    for (kind, reason) in WRONG {
        let path = dir.path().join("token");
        fs::write(&path, REAL).expect("a file");
        put(&path, kind);
        refused(Some(path.clone()), reason).await;
        if path.is_dir() {
            fs::remove_dir(&path).expect("an empty directory");
        } else {
            _ = fs::remove_file(&path);
        }
    }
}

#[tokio::test]
async fn row_46_a_slot_that_goes_wrong_sends_nothing_until_it_is_right_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    fs::write(&path, "value-0\n").expect("a file");
    let slot = path.display().to_string();
    let rig = Rig::with(ROUTES, |builder| builder.env("EGRESS_TOKEN_5_FILE", &slot)).await;
    let rig = &rig;
    let get = async || rig.agent.get("https://api.test/").await;
    get().await.assert_served();
    let mut sent = vec!["Bearer value-0".to_owned()];
    for (turn, (kind, reason)) in WRONG.iter().enumerate() {
        put(&path, kind);
        let told = reload(rig, 1).await;
        assert!(
            told.contains("unusable: EGRESS_TOKEN_5") && told.contains(reason),
            "{told}"
        );
        let code = match *kind {
            "an expired token" => "credential_expired",
            _ => "credential_missing",
        };
        let refusal = get().await;
        refusal.assert_refused(400, code);
        // Not even where it is, which is the host's affair.
        assert!(!format!("{refusal:?}").contains(&slot), "{refusal:?}");
        let status = rig.sidecar.status().await;
        let state = status["slots"][0]["state"].as_str().expect("a state");
        assert!(state.contains(reason), "{kind}: {status}");
        assert_eq!(status["healthy"], false, "{kind}");
        rig.agent.get("https://bare.test/").await.assert_served();

        let good = format!("value-{}", turn + 1);
        put(&path, &good);
        reload(rig, 0).await;
        get().await.assert_served();
        sent.push(format!("Bearer {good}"));
    }
    let seen = rig.upstream.seen();
    let seen = seen.iter().filter(|seen| seen.host == "api.test");
    let seen: Vec<_> = seen
        .map(|seen| seen.all("authorization").concat())
        .collect();
    assert_eq!(seen, sent);
    let log = rig.sidecar.log();
    assert!(
        log.contains("EGRESS_TOKEN_5") && !log.contains("value-"),
        "{log}"
    );
}

/// Nobody tells it: a file is looked at every two seconds, and nothing else can hold that up.
#[tokio::test]
async fn row_46_a_slot_file_that_goes_is_missed_and_one_that_comes_back_is_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    fs::write(&path, "first-value-of-the-file\n").expect("a file");
    let slot = path.display().to_string();
    let rig = Rig::with(ROUTES, |builder| builder.env("EGRESS_TOKEN_5_FILE", &slot)).await;
    rig.agent.get("https://api.test/").await.assert_served();
    put(&path, "a FIFO");
    let refusal = until(&rig, "refusal", |answer| answer.status != 200).await;
    refusal.assert_refused(400, "credential_missing");
    let line = rig.sidecar.logged("the slot's value is gone").await;
    assert!(
        line.contains("EGRESS_TOKEN_5") && line.contains("not a regular file"),
        "{line}"
    );
    let served = rig.upstream.seen().len();
    rig.agent
        .get("https://api.test/")
        .await
        .assert_refused(400, "credential_missing");
    assert_eq!(rig.upstream.seen().len(), served);
    assert!(reload(&rig, 1).await.contains("unusable: EGRESS_TOKEN_5"));

    put(&path, "second-value-of-the-file");
    until(&rig, "the new value", |answer| answer.status == 200).await;
    let last = rig.upstream.seen().pop().expect("a request");
    assert_eq!(
        last.all("authorization"),
        ["Bearer second-value-of-the-file"]
    );
}

/// The clock of the machine is set forward and back under a running sidecar (by libfaketime: there is no other way to set
/// it for one process).
#[tokio::test]
async fn row_46_a_clock_that_jumps_neither_revives_nor_keeps_a_credential() {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    assert!(
        Path::new(library).exists(),
        "{library} is missing: apt-get install libfaketime"
    );
    let dir = tempfile::tempdir().expect("a directory");
    let clock = dir.path().join("clock");
    let set = |offset: &str| {
        let next = dir.path().join("next");
        fs::write(&next, format!("{offset}\n")).expect("a file");
        fs::rename(&next, &clock).expect("a rename");
    };
    set("+0s");
    let token = jwt(seconds() + 3600);
    // Beside the clock, because a sidecar reads nothing but what is beside its own files.
    let slot = dir.path().join("token");
    fs::write(&slot, &token).expect("a file");
    let rig = Rig::with(ROUTES, |builder| {
        builder
            .env("EGRESS_TOKEN_5_FILE", slot.display().to_string())
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", clock.display().to_string())
            .env("FAKETIME_NO_CACHE", "1")
            // What waits goes by the other clock, which nobody sets.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    })
    .await;
    // The agent has the right time, and one tunnel for all of it.
    let mut tunnel = rig.agent.http2("api.test:443", "api.test").await;
    for _ in 0..2 {
        for (offset, is_good) in [
            ("+0s", true),
            ("+3500s", true),
            ("+3700s", false),
            ("+30d", false),
            ("-600s", true),
        ] {
            set(offset);
            let get = Request::get("https://api.test/")
                .body(Bytes::new())
                .expect("a request");
            let answer = send_http2(&mut tunnel, get).await;
            if is_good {
                answer.assert_served();
            } else {
                answer.assert_refused(400, "credential_expired");
                assert_eq!(rig.sidecar.status().await["healthy"], false);
            }
        }
        // In a month the leaf has ended, and its successor is not good yet when the clock is set back.
        set("+30d");
        assert!(
            rig.agent
                .tunnel("api.test:443", "api.test", &["h2"])
                .await
                .is_err()
        );
        set("+0s");
        rig.agent.get("https://api.test/").await.assert_served();
    }
    assert_eq!(rig.upstream.seen().len(), 8);
    rig.sidecar
        .logged_times("\"code\":\"credential_expired\"", 4)
        .await;
}

#[tokio::test]
async fn row_41_no_byte_of_an_agent_or_an_upstream_writes_a_line_or_to_a_terminal() {
    // A line break, a forged record, and what clears a terminal.
    const FORGED: &str = "\r\n{\"level\":\"INFO\",\"verdict\":\"forged\"}\r\n2026 INFO forged\x1b[2J\x1b]0;forged\x07";
    for format in ["json", "text"] {
        let pki = Pki::new();
        // A certificate's names are told in the log, and anybody can have one made.
        let mut params = CertificateParams::default();
        let name = format!("evil{FORGED}.test");
        params.subject_alt_names = vec![SanType::DnsName(name.as_str().try_into().expect("IA5"))];
        let evil = Upstream::with_tls(pki.server_config_with(&params, &["http/1.1"]))
            .start(async |_call| text(200, "never"))
            .await;
        let tls = pki.server_config(&["http/1.1"]);
        let odd = Scripted::start(Some(tls), |_, mut wire| async move {
            request(&mut wire).await;
            say(
                &mut wire,
                format!("HTTP/1.1 200 {FORGED}\r\nX: {FORGED}\r\n\r\n"),
            )
            .await;
        })
        .await;
        let fine = Upstream::tls(&pki)
            .start(async |_call| text(200, "fine"))
            .await;
        let routes = file(
            &format!(
                "- {{host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}}\n\
                 - {{host: evil.test, connect_to: '{}'}}\n- {{host: odd.test, connect_to: '{}'}}\n",
                evil.addr(),
                odd.addr()
            ),
            &fine,
        );
        let builder = Sidecar::with_routes(&pki, routes).slot("EGRESS_TOKEN_0", REAL);
        let sidecar = match format {
            "json" => builder.start().await,
            _ => builder.log_format(None).start().await,
        };
        let agent = Agent::of(&sidecar);
        let path = format!("/path{FORGED}?secret-query-2718");
        let fields: [(&str, &[u8]); 5] = [
            (":method", b"GET"),
            (":scheme", b"https"),
            (":authority", b"api.test"),
            (":path", path.as_bytes()),
            ("authorization", b"Bearer agents-own-9912"),
        ];
        let mut http2 = RawHttp2::open(&agent, "api.test").await;
        http2.request(&fields).await;
        let plain = "/plain?secret-query-3141";
        agent
            .get(&format!("https://api.test{plain}"))
            .await
            .assert_served();
        for host in ["evil.test", "odd.test"] {
            agent.get(&format!("https://{host}/last")).await;
        }
        for outer in [
            format!("CONNECT api.test{FORGED} HTTP/1.1\r\n\r\n"),
            format!("GET http://api.test/{FORGED} HTTP/1.1\r\n\r\n"),
            format!("{FORGED} / HTTP/1.1\r\n\r\n"),
        ] {
            let mut stream = agent.raw().await;
            _ = crate::harness::agent::exchange(&mut stream, outer.as_bytes()).await;
        }
        drop(http2);
        let (status, log) = sidecar.terminate().await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(
            log.contains("evil.test") && log.contains("odd.test"),
            "{log}"
        );
        assert!(!log.contains(['\x1b', '\x07', '\r']), "{log:?}");
        for line in log.lines() {
            match format {
                "json" => {
                    let line: serde_json::Value = serde_json::from_str(line)
                        .unwrap_or_else(|error| panic!("{error}: {line:?}"));
                    assert_ne!(line["verdict"], "forged", "{line}");
                }
                _ => assert!(line.starts_with("20") && line.contains("Z "), "{line:?}"),
            }
        }
        for secret in [REAL, "agents-own-9912", "secret-query"] {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
    }
}

async fn reload(rig: &Rig, code: i32) -> String {
    let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
    let done = within("reload", command::egress(["reload", "--admin", &admin])).await;
    assert_eq!(done.code, Some(code), "{done:?}");
    done.stdout
}

async fn until(rig: &Rig, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    within(what, async {
        loop {
            let answer = rig.agent.get("https://api.test/").await;
            if wanted(&answer) {
                return answer;
            }
        }
    })
    .await
}

fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock").as_secs()
}
