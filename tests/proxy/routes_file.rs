//! A routes file that cannot be put in force, at the start and at a reload, and what the bottle's CA may certify
//! (threat model, rows 38 and 44).

use std::fs;
use std::path::Path;

use crate::harness::command::{self, Done};
use crate::harness::rig::Rig;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: '*.wild.test', connect_to: 'UPSTREAM'}
";

/// What is wrong, the line that has to be named, and a part of what has to be said.
const BAD: &[(&str, u32, &str)] = &[
    ("", 0, "empty"),
    ("routes:\n  - {host: a.test\n  - x", 2, "YAML"),
    ("- a\n- b\n", 1, ""),
    ("{\"routes\": [{\"host\": \"a.test\"}", 1, "YAML"),
    (
        "routes:\n  - host: a.test\n    no_such_key: 1\n",
        3,
        "no_such_key",
    ),
    (
        "routes:\n  - host: a.test\n    paths: [/]\n",
        3,
        "path_allowlist",
    ),
    ("routes:\n  - host: a.test\n    host: b.test\n", 3, "host"),
    ("routes: []\nroutes: []\n", 2, "routes"),
    ("routes: []\nbottles: {}\n", 2, "bottles"),
    ("routes:\n  - path_allowlist: [/]\n", 2, "host"),
    ("routes:\n  - host: ''\n", 2, "empty"),
    ("routes:\n  - host: '*'\n", 2, ""),
    ("routes:\n  - host: '*.test'\n", 2, "two labels"),
    ("routes:\n  - host: 'a.*.test'\n", 2, ""),
    ("routes:\n  - host: a.test.\n", 2, "dot"),
    ("routes:\n  - host: https://a.test\n", 2, ""),
    ("routes:\n  - host: a.test:443\n", 2, "port"),
    ("routes:\n  - host: 0x7f.1\n", 2, "canonical"),
    ("routes:\n  - host: a.test\n    port: 0\n", 3, "port"),
    ("routes:\n  - host: a.test\n    port: 65536\n", 3, "port"),
    ("routes:\n  - host: a.test\n  - host: a.test\n", 3, ""),
    (
        "routes:\n  - host: a.test\n    path_allowlist: [/a]\n  - host: A.test\n    path_allowlist: [/a]\n",
        4,
        "",
    ),
    (
        "routes:\n  - host: a.test\n    path_allowlist:\n      - {regex: '('}\n",
        4,
        "regular expression",
    ),
    (
        "routes:\n  - host: a.test\n    path_allowlist: [v1]\n",
        3,
        "/",
    ),
    (
        "routes:\n  - host: a.test\n    path_allowlist: [/a/../b]\n",
        3,
        "dot segment",
    ),
    (
        "routes:\n  - host: a.test\n    path_allowlist: []\n",
        3,
        "path_allowlist",
    ),
    (
        "routes:\n  - host: a.test\n    ssrf_ip_allowlist: [10.0.0.0/33]\n",
        3,
        "10.0.0.0/33",
    ),
    (
        "routes:\n  - host: a.test\n    ssrf_ip_allowlist: [10.0.0.1/8]\n",
        3,
        "10.0.0.1/8",
    ),
    (
        "routes:\n  - host: a.test\n    auth_scheme: Bearer\n",
        3,
        "token_env",
    ),
    (
        "routes:\n  - host: a.test\n    token_env: EGRESS_TOKEN_0\n",
        3,
        "auth_scheme",
    ),
    (
        "routes:\n  - host: a.test\n    auth_scheme: Digest\n    token_env: EGRESS_TOKEN_0\n",
        3,
        "Digest",
    ),
    (
        "routes:\n  - host: a.test\n    auth_scheme: Basic\n    token_env: EGRESS_TOKEN_0\n",
        3,
        "auth_user",
    ),
    (
        "routes:\n  - host: a.test\n    auth_scheme: Bearer\n    token_env: EGRESS-TOKEN\n",
        4,
        "",
    ),
    (
        "routes:\n  - host: a.test\n    scheme: http\n    auth_scheme: Bearer\n    token_env: EGRESS_TOKEN_0\n",
        5,
        "insecure_inject",
    ),
    (
        "routes:\n  - host: a.test\n    tls: passthrough\n    auth_scheme: Bearer\n    token_env: EGRESS_TOKEN_0\n",
        4,
        "passthrough",
    ),
    (
        "routes:\n  - host: a.test\n    methods: [TRACE]\n",
        3,
        "TRACE",
    ),
    (
        "routes:\n  - host: a.test\n    websocket: 'yes'\n",
        3,
        "websocket",
    ),
    (
        "routes:\n  - host: a.test\n    upstream_ca: none.pem\n",
        3,
        "none.pem",
    ),
];

#[tokio::test]
async fn a_routes_file_with_a_fault_does_not_start_and_the_line_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("routes.yaml");
    let mut wrong = Vec::new();
    for (text, line, part) in BAD {
        fs::write(&file, text).expect("a file");
        let done = serve(&file).await;
        assert_refused(&done, &file, text);
        let place = format!("routes.yaml:{line}:");
        if !done.stderr.contains(part) || (*line > 0 && !done.stderr.contains(&place)) {
            wrong.push(format!("{line} {part:?}: {}", done.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_routes_file_that_cannot_be_read_does_not_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("none.yaml");
    assert_refused(&serve(&missing).await, &missing, "missing");
    assert_refused(&serve(dir.path()).await, dir.path(), "a directory");
    let binary = dir.path().join("binary.yaml");
    fs::write(&binary, b"routes:\n  - host: \xff\xfe\n").expect("a file");
    let done = serve(&binary).await;
    assert_refused(&done, &binary, "binary");
    assert!(done.stderr.contains("line 2"), "{done:?}");
}

#[tokio::test]
async fn all_faults_are_told_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("routes.yaml");
    fs::write(&file, "routes:\n  - host: a.test\n    nonsense: 1\n  - host: ''\n  - host: b.test\n    port: 0\n  - host: c.test\n    auth_scheme: Bearer\n    token_env: MISSING_SLOT\n").expect("a file");
    let done = serve(&file).await;
    assert_refused(&done, &file, "several");
    for line in [3, 4, 6] {
        assert!(
            done.stderr.contains(&format!("routes.yaml:{line}:")),
            "{line}: {}",
            done.stderr
        );
    }
}

#[track_caller]
fn assert_refused(done: &Done, file: &Path, what: &str) {
    assert_eq!(done.code, Some(2), "{what:?}: {done:?}");
    assert!(done.stderr.contains("error: "), "{what:?}: {done:?}");
    assert!(
        done.stderr.contains(&file.display().to_string()),
        "{what:?}: {done:?}"
    );
    assert!(done.stdout.is_empty(), "{what:?}: {done:?}");
}

async fn serve(file: &Path) -> Done {
    let file = file.display().to_string();
    command::egress([
        "serve",
        "--ca-ephemeral",
        "--listen",
        "127.0.0.1:0",
        "--routes",
        &file,
    ])
    .await
}

#[tokio::test]
async fn a_reload_cannot_add_a_host_that_the_ca_may_not_certify() {
    let rig = Rig::new(ROUTES).await;
    let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
    let old = fs::read_to_string(rig.sidecar.routes_file()).expect("the routes");
    let upstream = rig.upstream.addr();
    rig.sidecar.write_routes(&format!(
        "{old}- {{host: new.test, connect_to: '{upstream}'}}\n"
    ));
    let done = command::egress(["reload", "--admin", &admin]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    for part in [
        "new.test",
        "line 4",
        "name constraints",
        "hint: ",
        "egress ca init --renew",
    ] {
        assert!(done.stderr.contains(part), "{part}: {done:?}");
    }
    assert!(rig.agent.connect("new.test:443").await.is_err());
    rig.agent.get("https://api.test/").await.assert_served();
    let status = rig.sidecar.status().await;
    assert!(
        status["last_reload_fault"]
            .as_str()
            .expect("a fault")
            .contains("new.test"),
        "{status}"
    );
    // Within the constraints, and where no leaf is needed, a reload adds what it likes.
    rig.sidecar.write_routes(&format!(
        "{old}- {{host: sub.api.test, connect_to: '{upstream}'}}\n- {{host: raw.test, tls: passthrough, connect_to: '{upstream}'}}\n"
    ));
    let done = command::egress(["reload", "--admin", &admin]).await;
    // `api.test` as a constraint covers the names below it, too (RFC 5280, section 4.2.1.10).
    assert_eq!(done.code, Some(0), "{done:?}");
    rig.agent.get("https://sub.api.test/").await.assert_served();
    assert!(rig.sidecar.status().await["last_reload_fault"].is_null());
}
