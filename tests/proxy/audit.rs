//! The audit file: what is in it, what its chain proves, and what becomes of requests while it cannot be written.

use std::path::Path;

use bytes::Bytes;
use http::Request;
use rusqlite::Connection;
use serde_json::Value;

use crate::harness::agent::send_http1;
use crate::harness::command::{self, Done};
use crate::harness::pki::Pki;
use crate::harness::rig::{REAL, Rig, file};
use crate::harness::scrape::ask;
use crate::harness::sidecar::{Builder, EGRESS, Sidecar};
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: plain.test, connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn each_request_has_its_row_and_no_row_has_a_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db");
    let rig = audited(&audit, |builder| builder.arg("--audit-bottle").arg("blue")).await;
    rig.agent
        .get("https://api.test/v1/a?page=private")
        .await
        .assert_served();
    rig.agent.get("https://plain.test/b").await.assert_served();
    rig.agent
        .get("https://api.test/v2")
        .await
        .assert_refused(403, "path_not_allowed");
    assert!(rig.agent.connect("other.test:443").await.is_err());
    let upstream = rig.upstream.addr().to_string();
    rig.sidecar.terminate().await;

    let rows = rows(&audit, &[]).await;
    let told: Vec<String> = rows.iter().map(told).collect();
    assert_eq!(
        told,
        [
            "GET api.test:443 /v1/a allowed ok 200 EGRESS_TOKEN_0",
            "GET plain.test:443 /b allowed ok 200 null",
            "GET api.test:443 /v2 denied path_not_allowed 403 null",
            "CONNECT other.test:443 null denied host_not_allowed 403 null",
        ]
    );
    let [first, second, third, _] = &rows[..] else {
        panic!("{rows:?}")
    };
    assert_eq!(first["scheme"], "https");
    assert_eq!(first["upstream"], upstream.as_str());
    assert_eq!(first["bottle"], "blue");
    assert_eq!(first["query"], Value::Null, "it is kept on demand alone");
    assert_eq!(first["credential"].as_str().map(str::len), Some(12));
    assert_eq!(second["credential"], Value::Null);
    assert_eq!(second["id"], Value::Null, "it was not refused");
    let id = third["id"].as_str().expect("an id");
    let found = self::rows(&audit, &["--id", id]).await;
    assert_eq!(found, std::slice::from_ref(third));
    assert_eq!(third["upstream"], Value::Null);
    for name in ["audit.db", "audit.db-wal"] {
        let bytes = std::fs::read(dir.path().join(name)).unwrap_or_default();
        assert!(!contains(&bytes, REAL.as_bytes()), "{name}");
        assert!(!contains(&bytes, b"private"), "{name}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&audit).expect("a file").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn rows_are_found_by_what_is_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db");
    let rig = audited(&audit, |builder| builder.arg("--audit-query")).await;
    for path in ["/v1/one?q=1", "/v1/two", "/v2"] {
        rig.agent.get(&format!("https://api.test{path}")).await;
    }
    rig.agent.get("https://plain.test/one").await;
    rig.sidecar.terminate().await;
    let paths = async |arguments: &[&str]| -> Vec<String> {
        let rows = rows(&audit, arguments).await;
        rows.iter()
            .map(|row| row["path"].as_str().expect("a path").into())
            .collect()
    };
    assert_eq!(paths(&["--host", "plain.test"]).await, ["/one"]);
    assert_eq!(paths(&["--host", "plain.test:443"]).await, ["/one"]);
    assert_eq!(paths(&["--host", "plain.tes"]).await, [""; 0]);
    assert_eq!(paths(&["--verdict", "denied"]).await, ["/v2"]);
    assert_eq!(paths(&["--code", "path_not_allowed"]).await, ["/v2"]);
    assert_eq!(paths(&["--text", "q=1"]).await, ["/v1/one"]);
    assert_eq!(paths(&["--latest", "1"]).await, ["/one"]);
    assert_eq!(
        paths(&["--since", "1h", "--client", "127.0.0.1"])
            .await
            .len(),
        4
    );
    assert_eq!(paths(&["--until", "1h"]).await, [""; 0]);
    let table = audit_command(&audit, &["--verdict", "denied"]).await;
    assert!(table.stdout.contains("GET     api.test:443"), "{table:?}");
    let csv = audit_command(&audit, &["--csv"]).await;
    assert_eq!(
        csv.stdout.lines().count(),
        1 + 4 + 4,
        "tunnels have rows, too"
    );
}

#[tokio::test]
async fn what_was_changed_taken_out_or_cut_off_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db");
    let rig = audited(&audit, |builder| builder).await;
    for _ in 0..5 {
        rig.agent.get("https://plain.test/").await.assert_served();
    }
    rig.sidecar.terminate().await;
    let whole = verify(&audit, &[]).await;
    assert_eq!(whole.code, Some(0), "{whole:?}");
    let link = whole
        .stdout
        .rsplit_once("link: ")
        .expect("a link")
        .1
        .trim()
        .to_owned();
    let original = std::fs::read(&audit).expect("a file");
    for (change, told) in [
        (
            "UPDATE rows SET path = '/other' WHERE number = 2",
            "row 2 was changed",
        ),
        (
            "UPDATE rows SET query = '' WHERE number = 2",
            "row 2 was changed",
        ),
        ("DELETE FROM rows WHERE number = 3", "row 3 is missing"),
        ("DELETE FROM rows WHERE number = 1", "row 1 is missing"),
        ("UPDATE file SET number = 1", "row 2 is missing"),
        (
            "UPDATE kinds SET host = 'other.test:443'",
            "row 1 was changed",
        ),
        ("UPDATE kinds SET status = 201", "row 1 was changed"),
        (
            "DELETE FROM kinds WHERE kind = (SELECT kind FROM rows WHERE number = 2)",
            "is missing",
        ),
        ("DELETE FROM spans", "row 1 is hidden"),
        ("UPDATE spans SET last = first - 1", "row 1 is hidden"),
    ] {
        std::fs::write(&audit, &original).expect("a file");
        change_with(&audit, change);
        let broken = verify(&audit, &[]).await;
        assert_eq!(broken.code, Some(1), "{change}");
        assert!(broken.stdout.contains(told), "{change}: {broken:?}");
    }
    std::fs::write(&audit, &original).expect("a file");
    assert_eq!(verify(&audit, &["--has", &link]).await.code, Some(0));
    change_with(
        &audit,
        "DELETE FROM rows WHERE number = (SELECT max(number) FROM rows)",
    );
    assert_eq!(verify(&audit, &[]).await.code, Some(0), "nobody can tell");
    assert_eq!(verify(&audit, &["--has", &link]).await.code, Some(1));
}

#[tokio::test]
async fn while_the_file_cannot_be_written_requests_are_refused_where_that_is_demanded_and_else_go_on()
 {
    for demanded in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let audit = dir.path().join("audit.db");
        let rig = audited(&audit, |builder| match demanded {
            true => builder.arg("--audit-required"),
            false => builder,
        })
        .await;
        let mut kept = rig.agent.http1("plain.test:443", "plain.test").await;
        let get = |path: &str| {
            let request = Request::get(format!("https://plain.test{path}"));
            request.body(Bytes::new()).expect("a request")
        };
        let held = Connection::open(&audit).expect("a database");
        held.execute_batch("BEGIN IMMEDIATE").expect("a lock");
        send_http1(&mut kept, get("/held")).await.assert_served();
        rig.sidecar.logged("the audit file cannot be written").await;
        let (ready, _) = ask(&rig.sidecar, "/readyz").await;
        assert_eq!(ready.starts_with("HTTP/1.1 200"), !demanded, "{ready}");
        let (_, status) = ask(&rig.sidecar, "/status").await;
        let status: Value = serde_json::from_str(&status).expect("an object");
        assert_eq!(status["healthy"], !demanded, "{status}");
        let meanwhile = send_http1(&mut kept, get("/meanwhile")).await;
        match demanded {
            true => meanwhile.assert_refused(503, "audit_unavailable"),
            false => meanwhile.assert_served(),
        }
        held.execute_batch("ROLLBACK").expect("no lock");
        rig.sidecar.logged("the audit file is written again").await;
        send_http1(&mut kept, get("/then")).await.assert_served();
        drop(kept);
        rig.sidecar.terminate().await;
        let paths: Vec<Value> = rows(&audit, &[])
            .await
            .iter()
            .map(|row| row["path"].clone())
            .collect();
        // The refusal was written down, too.
        assert_eq!(paths.first(), Some(&"/held".into()), "{paths:?}");
        assert_eq!(paths.last(), Some(&"/then".into()), "{paths:?}");
        assert_eq!(verify(&audit, &[]).await.code, Some(0));
    }
}

#[tokio::test]
async fn the_chain_goes_on_in_the_next_file_and_the_oldest_ones_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db");
    let rig = audited(&audit, |builder| {
        builder.arg("--audit-max-size=1").arg("--audit-keep=2")
    })
    .await;
    for number in 1..=5 {
        rig.agent
            .get(&format!("https://plain.test/{number}"))
            .await
            .assert_served();
        // Its tunnel has a row of its own.
        let moved = dir.path().join(format!("audit.{}.db", 2 * number));
        within("the next file", async {
            while !moved.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        })
        .await;
    }
    rig.sidecar.terminate().await;
    let mut names: Vec<String> = std::fs::read_dir(dir.path())
        .expect("a directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .filter(|name| !name.contains('-'))
        .collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    let whole = verify(&audit, &[]).await;
    assert_eq!(whole.code, Some(0), "{whole:?}");
    assert!(whole.stdout.contains("up to number 10"), "{whole:?}");
    let rows = rows(&audit, &["--latest", "1"]).await;
    assert_eq!(rows.len(), 1);
    std::fs::remove_file(dir.path().join("audit.10.db")).expect("a file");
    assert_eq!(verify(&audit, &[]).await.code, Some(1), "a file is missing");
}

#[tokio::test]
async fn a_file_that_is_no_audit_file_or_is_written_already_keeps_the_sidecar_from_starting() {
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db");
    let rig = audited(&audit, |builder| builder).await;
    let second = try_start(&rig, &audit).await;
    assert!(second.contains("is written by another process"), "{second}");
    assert!(second.contains("hint: "), "{second}");
    for (name, text) in [
        (
            "text.db",
            "these are\n my notes, and they are longer than a head of a database is",
        ),
        ("other.db", ""),
    ] {
        let foreign = dir.path().join(name);
        std::fs::write(&foreign, text).expect("a file");
        if text.is_empty() {
            change_with(&foreign, "CREATE TABLE notes (text)");
        }
        let before = std::fs::read(&foreign).expect("a file");
        let told = try_start(&rig, &foreign).await;
        assert!(told.contains("is no audit file"), "{told}");
        assert_eq!(std::fs::read(&foreign).expect("a file"), before);
        let read = audit_command(&foreign, &[]).await;
        assert_eq!(read.code, Some(3), "{read:?}");
    }
    let missing = audit_command(&dir.path().join("none.db"), &[]).await;
    assert_eq!(missing.code, Some(3), "{missing:?}");
    assert!(missing.stderr.contains("No such file"), "{missing:?}");
    let directory = audit_command(dir.path(), &[]).await;
    let told = (
        directory.code,
        directory.stderr.contains("is no audit file"),
    );
    assert_eq!(told, (Some(3), true), "{directory:?}");
}

#[tokio::test]
async fn a_file_that_was_written_over_is_not_taken_for_written() {
    use std::os::unix::fs::FileExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db");
    let rig = audited(&audit, |builder| builder.arg("--audit-required")).await;
    rig.agent
        .get("https://plain.test/one")
        .await
        .assert_served();
    until_written(&audit, &[]).await;
    let mut kept = rig.agent.http1("plain.test:443", "plain.test").await;
    let get = |path: &str| {
        let request = Request::get(format!("https://plain.test{path}"));
        request.body(Bytes::new()).expect("a request")
    };
    let file = std::fs::File::options().write(true).open(&audit);
    let over = file.expect("a file").write_all_at(&[0x55; 4096], 0);
    over.expect("a write");
    send_http1(&mut kept, get("/two")).await.assert_served();
    rig.sidecar.logged("written by somebody else").await;
    let refused = send_http1(&mut kept, get("/three")).await;
    refused.assert_refused(503, "audit_unavailable");
}

#[tokio::test]
async fn rows_that_wait_at_the_end_are_told_and_a_file_that_was_taken_away_is_begun_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db");
    let rig = audited(&audit, |builder| builder).await;
    rig.agent
        .get("https://plain.test/one")
        .await
        .assert_served();
    // Until its row is there: what waits is written into the next file.
    until_written(&audit, &[]).await;
    for name in ["audit.db", "audit.db-wal", "audit.db-shm"] {
        std::fs::remove_file(dir.path().join(name)).expect("a file");
    }
    rig.agent
        .get("https://plain.test/two")
        .await
        .assert_served();
    rig.sidecar.logged("the audit file was taken away").await;
    until_written(&audit, &[]).await;
    let found = rows(&audit, &[]).await;
    assert_eq!(
        found.first().map(told).as_deref(),
        Some("GET plain.test:443 /two allowed ok 200 null")
    );
    // What was emptied is not written any more, until somebody moves it away.
    let file = std::fs::File::options().write(true).open(&audit);
    file.expect("a file").set_len(0).expect("an empty file");
    rig.agent
        .get("https://plain.test/lost")
        .await
        .assert_served();
    rig.sidecar.logged("written by somebody else").await;
    std::fs::rename(&audit, dir.path().join("emptied")).expect("a rename");
    for name in ["audit.db-wal", "audit.db-shm"] {
        std::fs::remove_file(dir.path().join(name)).expect("a file");
    }
    rig.sidecar.logged("is written again").await;
    until_written(&audit, &["--text", "/LOST"]).await;
    let held = Connection::open(&audit).expect("a database");
    held.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    rig.agent
        .get("https://plain.test/three")
        .await
        .assert_served();
    let (_, log) = rig.sidecar.terminate().await;
    assert!(log.contains("rows are missing in it"), "{log}");
}

#[tokio::test]
async fn a_copy_in_a_directory_that_cannot_be_written_is_read_and_no_row_moves_a_cursor() {
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db");
    let rig = audited(&audit, |builder| builder).await;
    rig.agent
        .get("https://plain.test/one")
        .await
        .assert_served();
    rig.sidecar.terminate().await;
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && exec \"$2\" audit \"$1/audit.db\"";
    let read = command::finish(
        tokio::process::Command::new("unshare")
            .args(["--mount", "/bin/sh", "-c", script, "sh"])
            .arg(dir.path())
            .arg(EGRESS),
    )
    .await;
    assert_eq!(read.code, Some(0), "{read:?}");
    assert!(read.stdout.contains("/one"), "{read:?}");
    change_with(
        &audit,
        "UPDATE rows SET path = char(27) || '[31m' || char(10)",
    );
    let table = audit_command(&audit, &[]).await;
    let is_plain = |c: char| c == '\n' || !c.is_control();
    assert!(table.stdout.chars().all(is_plain), "{table:?}");
    assert_eq!(table.stdout.lines().count(), 3, "{table:?}");
}

/// From what was refused to the route that admits it, and to the difference that this makes to what was recorded.
#[tokio::test]
async fn a_recorded_refusal_becomes_a_route_and_the_route_changes_it_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db");
    let rig = audited(&audit, |builder| builder).await;
    rig.agent.get("https://api.test/v1/a").await.assert_served();
    rig.agent
        .get("https://api.test/v2/b")
        .await
        .assert_refused(403, "path_not_allowed");
    let routes = rig.sidecar.routes_file().display().to_string();
    let file = audit.display().to_string();
    // While the sidecar runs and writes.
    rig.sidecar.logged("/v2/b").await;
    until_written(&audit, &["--verdict", "denied"]).await;
    let beside = command::egress(["suggest", "-r", &routes, "--audit", &file]).await;
    assert!(beside.stdout.contains("WARNING"), "{beside:?}");
    let suggested = command::egress(["suggest", "--audit", &file]).await;
    assert_eq!(suggested.code, Some(0), "{suggested:?}");
    let new = dir.path().join("new.yaml");
    std::fs::write(&new, &suggested.stdout).expect("a file");
    let new = new.display().to_string();
    let decided = async |path: &str| {
        let url = format!("https://api.test{path}");
        command::egress(["explain", "-r", &new, "GET", &url])
            .await
            .code
    };
    assert_eq!(decided("/v2/b").await, Some(0));
    assert_eq!(decided("/v2/bb").await, Some(1));
    let replay = command::egress(["replay", "--audit", &file, "--routes", &new]).await;
    assert_eq!(replay.code, Some(1), "{replay:?}");
    assert!(replay.stdout.contains("/v1/a"), "{replay:?}");
    assert!(replay.stdout.contains("/v2/b"), "{replay:?}");
    let same = command::egress(["replay", "--audit", &file, "--routes", &routes]).await;
    assert_eq!(same.code, Some(0), "{same:?}");
    let cases = command::egress(["test", "--from-audit", &file]).await;
    let path = dir.path().join("cases.yaml");
    std::fs::write(&path, &cases.stdout).expect("a file");
    let path = path.display().to_string();
    let tested = command::egress(["test", "-r", &routes, &path]).await;
    assert_eq!(tested.code, Some(0), "{tested:?}");
}

async fn audited(audit: &Path, configure: impl FnOnce(Builder) -> Builder) -> Rig {
    Rig::with(ROUTES, |builder| {
        configure(builder.arg("--audit").arg(audit.to_string_lossy()))
    })
    .await
}

async fn try_start(rig: &Rig, audit: &Path) -> String {
    let builder = Sidecar::with_routes(&Pki::new(), file(ROUTES, &rig.upstream));
    let builder = builder.slot("EGRESS_TOKEN_0", REAL);
    let started = builder
        .arg("--audit")
        .arg(audit.to_string_lossy())
        .try_start()
        .await;
    started.err().expect("a failure").log
}

/// Waits for a row.
async fn until_written(audit: &Path, arguments: &[&str]) {
    within("a row", async {
        while rows(audit, arguments).await.is_empty() {}
    })
    .await;
}

/// The rows as objects, but for those of tunnels that were opened.
async fn rows(audit: &Path, arguments: &[&str]) -> Vec<Value> {
    let done = audit_command(audit, &[arguments, &["--json"]].concat()).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let rows = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    rows.filter(|row: &Value| row["code"] != "tunnel").collect()
}

async fn audit_command(audit: &Path, arguments: &[&str]) -> Done {
    let file = audit.to_string_lossy();
    command::egress([&["audit", &file], arguments].concat()).await
}

async fn verify(audit: &Path, arguments: &[&str]) -> Done {
    let file = audit.to_string_lossy();
    command::egress([&["audit", "verify", &file], arguments].concat()).await
}

/// What a row says first.
fn told(row: &Value) -> String {
    let value = |name: &str| match &row[name] {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "null".into(),
    };
    [
        "method", "host", "path", "verdict", "code", "status", "slot",
    ]
    .map(value)
    .join(" ")
}

/// What somebody with access to the file may do to it.
fn change_with(file: &Path, statement: &str) {
    let connection = Connection::open(file).expect("a database");
    connection.execute_batch(statement).expect("a statement");
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
