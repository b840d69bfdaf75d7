//! Where credentials come from, what is wrong with one, and that a value is never shown (threat model, rows 40, 41, 46).

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::command;
use crate::harness::pki::Pki;
use crate::harness::rig::{REAL, Rig};
use crate::harness::sidecar::Sidecar;
use crate::harness::within;

use super::refusals::jwt;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn every_unusable_slot_is_named_at_once_and_no_value_is_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    let expired = jwt(seconds - 60);
    let value = "shown-never-4411";
    let slots: Vec<(&str, String, &str)> = vec![
        ("MISSING", String::new(), "is not set"),
        ("EMPTY", String::new(), "is empty"),
        (
            "LINE_BREAK",
            format!("{value}\nX-Injected: 1"),
            "cannot stand in a header",
        ),
        ("CARRIAGE", format!("{value}\r"), "cannot stand in a header"),
        (
            "SPACE",
            format!("{value} {value}"),
            "cannot stand in a header",
        ),
        (
            "UMLAUT",
            format!("{value}\u{e4}"),
            "cannot stand in a header",
        ),
        ("SCHEME", format!("Bearer {value}"), "its scheme's name"),
        ("SCHEME_B", format!("basic {value}"), "its scheme's name"),
        ("BOTH", value.into(), "both as a value and as a file"),
        ("EXPIRED", expired.clone(), "has expired"),
        ("GONE", String::new(), "cannot be read"),
        ("BLANK", String::new(), "is empty"),
        ("TWO_LINES", String::new(), "cannot stand in a header"),
        ("DIRECTORY", String::new(), "cannot be read"),
    ];
    let routes: String = slots
        .iter()
        .enumerate()
        .map(|(n, (name, _, _))| {
            format!("- {{host: h{n}.test, auth_scheme: Bearer, token_env: {name}}}\n")
        })
        .collect();
    let mut builder = Sidecar::with_routes(&Pki::new(), format!("routes:\n{routes}"));
    for (name, value, _) in &slots {
        builder = match *name {
            "MISSING" => builder,
            "GONE" => builder.env("GONE_FILE", dir.path().join("none").display().to_string()),
            "BLANK" => builder.env("BLANK_FILE", file("empty", "\n")),
            "TWO_LINES" => builder.env(
                "TWO_LINES_FILE",
                file("two", &format!("{value}x\n{value}\n")),
            ),
            "DIRECTORY" => builder.env("DIRECTORY_FILE", dir.path().display().to_string()),
            "BOTH" => builder
                .slot(name, value)
                .env("BOTH_FILE", file("both", "x")),
            _ => builder.slot(name, value),
        };
    }
    let Err(failure) = builder.try_start().await else {
        panic!("it started")
    };
    assert_eq!(failure.status.code(), Some(2), "{failure:?}");
    for (n, (name, _, reason)) in slots.iter().enumerate() {
        let told = failure
            .log
            .lines()
            .any(|line| line.contains(&format!("{name} ")) && line.contains(reason));
        assert!(told, "{name} {reason}: {}", failure.log);
        assert!(
            failure.log.contains(&format!("h{n}.test")),
            "{name}: {}",
            failure.log
        );
    }
    for secret in [value, &expired] {
        assert!(!failure.log.contains(secret), "{}", failure.log);
    }
}

#[tokio::test]
async fn a_value_is_nowhere_to_be_seen() {
    let rig = Rig::with(ROUTES, |builder| {
        builder
            .arg("--log")
            .arg("trace")
            .slot("EGRESS_TOKEN_9", "not-yet-named-8123")
    })
    .await;
    rig.agent.get("https://api.test/").await.assert_served();
    assert_eq!(
        rig.upstream.only().all("authorization"),
        [format!("Bearer {REAL}")]
    );
    let refusal = rig
        .agent
        .connect("evil.test:443")
        .await
        .expect_err("no route");
    let status = rig.sidecar.status().await.to_string();
    let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
    let text = command::egress(["status", "--admin", &admin]).await.stdout;
    assert!(text.contains("EGRESS_TOKEN_0: ok"), "{text}");
    let proc = format!("/proc/{}", rig.sidecar.pid().as_raw_nonzero());
    // Only root may look at all: the process is not dumpable.
    let environ = fs::read(format!("{proc}/environ"));
    let cmdline = fs::read(format!("{proc}/cmdline")).expect("a running process");
    match &environ {
        Ok(environ) => {
            let environ = String::from_utf8_lossy(environ);
            assert!(
                environ.contains("EGRESS_TOKEN_0="),
                "the block was read: {environ:?}"
            );
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
    let (_, log) = rig.sidecar.terminate().await;
    assert!(log.contains("EGRESS_TOKEN_0"), "{log}");
    let places = [
        ("log", log),
        ("status", status),
        ("status text", text),
        ("refusal", format!("{refusal:?}")),
        (
            "environ",
            String::from_utf8_lossy(&environ.unwrap_or_default()).into_owned(),
        ),
        ("cmdline", String::from_utf8_lossy(&cmdline).into_owned()),
    ];
    for (place, content) in places {
        for secret in [REAL, "not-yet-named-8123"] {
            assert!(!content.contains(secret), "{place}: {content}");
        }
    }
}

#[tokio::test]
async fn the_process_cannot_be_dumped() {
    let rig = Rig::new(ROUTES).await;
    let proc = format!("/proc/{}", rig.sidecar.pid().as_raw_nonzero());
    let limits = fs::read_to_string(format!("{proc}/limits")).expect("a running process");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    use std::os::unix::fs::MetadataExt as _;
    // The files of a process that is not dumpable belong to root (proc(5)). As root that says nothing; the status does.
    assert_eq!(
        fs::metadata(format!("{proc}/environ"))
            .expect("a process")
            .uid(),
        0
    );
    let measures = rig.sidecar.status().await["confinement"].clone();
    assert!(
        measures
            .as_array()
            .expect("a list")
            .iter()
            .all(|measure| measure["state"] == "on"),
        "{measures}"
    );
}

#[tokio::test]
async fn a_slot_file_is_read_without_its_last_line_break_and_again_when_it_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    for ending in ["\n", "\r\n", ""] {
        fs::write(&file, format!("value-one{ending}")).expect("a file");
        let path = file.display().to_string();
        let routes = ROUTES.replace("TOKEN_0", "TOKEN_5");
        let rig = Rig::with(&routes, |builder| builder.env("EGRESS_TOKEN_5_FILE", path)).await;
        rig.agent.get("https://api.test/").await.assert_served();
        assert_eq!(
            rig.upstream.only().all("authorization"),
            ["Bearer value-one"]
        );
        if ending != "\n" {
            continue;
        }
        // As Kubernetes does it, by a rename, and without a signal.
        let next = dir.path().join("next");
        fs::write(&next, "value-two\n").expect("a file");
        fs::rename(&next, &file).expect("a rename");
        within("the new value", async {
            loop {
                rig.agent.get("https://api.test/").await.assert_served();
                let last = rig.upstream.seen().pop().expect("a request");
                if last.all("authorization") == ["Bearer value-two"] {
                    return;
                }
                assert_eq!(last.all("authorization"), ["Bearer value-one"]);
            }
        })
        .await;
        rig.sidecar.logged("rotated").await;
        rig.agent.get("https://api.test/").await.assert_served();
        let last = rig.upstream.seen().pop().expect("a request");
        assert_eq!(
            last.all("authorization"),
            ["Bearer value-two"],
            "there is no way back"
        );
    }
}

#[tokio::test]
async fn a_reload_can_use_a_slot_file_that_no_route_named_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    let path = file.display().to_string();
    let rig = Rig::with(ROUTES, |builder| {
        builder
            .env("EGRESS_TOKEN_7_FILE", &path)
            .arg("--no-name-constraints")
    })
    .await;
    let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
    let old = fs::read_to_string(rig.sidecar.routes_file()).expect("the routes");
    let upstream = rig.upstream.addr();
    rig.sidecar.write_routes(&format!("{old}- {{host: new.test, auth_scheme: token, token_env: EGRESS_TOKEN_7, connect_to: '{upstream}'}}\n"));
    // Not there yet: the whole reload fails.
    let done = command::egress(["reload", "--admin", &admin]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("EGRESS_TOKEN_7"), "{done:?}");
    assert!(rig.agent.connect("new.test:443").await.is_err());
    fs::write(&file, "later-value\n").expect("a file");
    let done = command::egress(["reload", "--admin", &admin]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("added: new.test"), "{done:?}");
    assert!(done.stdout.contains("EGRESS_TOKEN_7"), "{done:?}");
    rig.agent.get("https://new.test/").await.assert_served();
    assert_eq!(
        rig.upstream.only().all("authorization"),
        ["token later-value"]
    );
}
