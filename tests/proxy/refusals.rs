//! What a refusal says, and what it never says: nothing of the request but its canonical host and port, and nothing of
//! what the sidecar holds (threat model, rows 27, 28 and 46).

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::harness::agent::Answer;
use crate::harness::pki::Pki;
use crate::harness::rig::{REAL, Rig};
use crate::harness::upstream::{self, Upstream};
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1/], methods: [GET, POST], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, websocket: false, connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
- {host: down.test, connect_to: '127.0.0.1:1'}
- {host: private.test, connect_to: 'localhost:1'}
";

const MARKER: &str = "marker-5c1e";

/// A request full of markers, and the refusal that it meets.
fn refused() -> Vec<(&'static str, String, u16, &'static str)> {
    let to = |host: &str, line: &str, more: &str| {
        format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\nX-{MARKER}: {MARKER}\r\nAuthorization: {MARKER}\r\n{more}Content-Length: 11\r\n\r\n{MARKER}"
        )
    };
    let get = |host: &str, line: &str, more: &str| {
        to(host, line, more).replace(
            "Content-Length: 11\r\n\r\nmarker-5c1e",
            "Connection: close\r\n\r\n",
        )
    };
    let path = format!("/v1/{MARKER}?q={MARKER}");
    let websocket = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\n";
    vec![
        (
            "api.test",
            get("api.test", &format!("GET /{MARKER}"), ""),
            403,
            "path_not_allowed",
        ),
        (
            "api.test",
            to(
                "api.test",
                &format!("POST /{MARKER}?{MARKER}"),
                "Connection: close\r\n",
            ),
            403,
            "path_not_allowed",
        ),
        (
            "api.test",
            get("api.test", &format!("GET /v1/../{MARKER}"), ""),
            400,
            "path_ambiguous",
        ),
        (
            "api.test",
            get("api.test", &format!("PUT {path}"), ""),
            405,
            "method_not_allowed",
        ),
        (
            "api.test",
            get("api.test", &format!("{MARKER} {path}"), ""),
            405,
            "method_not_allowed",
        ),
        (
            "api.test",
            get("api.test", &format!("GET {path}"), websocket).replace("Connection: close\r\n", ""),
            426,
            "websocket_not_allowed",
        ),
        (
            "api.test",
            get("api.test", &format!("GET {path}"), "Upgrade: websocket\r\n"),
            400,
            "bad_handshake",
        ),
        (
            "api.test",
            get(
                "api.test",
                &format!("GET {path}"),
                &format!("{MARKER}_x: 1\r\n"),
            ),
            400,
            "bad_header_name",
        ),
        (
            "api.test",
            get(
                "api.test",
                &format!("GET {path}"),
                &format!("Expect: {MARKER}\r\n"),
            ),
            417,
            "bad_expectation",
        ),
        (
            "api.test",
            get("bare.test", &format!("GET {path}"), ""),
            421,
            "misdirected_request",
        ),
        (
            "api.test",
            get(&format!("{MARKER}.test"), &format!("GET {path}"), ""),
            421,
            "misdirected_request",
        ),
        (
            "api.test",
            get(&format!("u@{MARKER}.test"), &format!("GET {path}"), ""),
            400,
            "bad_target",
        ),
        (
            "api.test",
            get("api.test", &format!("GET {MARKER}"), ""),
            400,
            "bad_target",
        ),
        (
            "api.test",
            get(
                "api.test",
                &format!("GET {path}"),
                &format!(" {MARKER}\r\n"),
            ),
            400,
            "obs_fold",
        ),
        (
            "down.test",
            get("down.test", &format!("GET {path}"), ""),
            502,
            "upstream_unreachable",
        ),
        (
            "private.test",
            get("private.test", &format!("GET {path}"), ""),
            403,
            "address_not_allowed",
        ),
    ]
}

#[tokio::test]
async fn a_refusal_has_one_form_and_repeats_nothing_of_the_request() {
    let rig = Rig::new(ROUTES).await;
    for (host, request, status, code) in refused() {
        let refusal = rig.tunnelled(host, request).await;
        refusal.assert_refused(status, code);
        assert_says_nothing(&refusal);
        // What was decided on is named in its canonical form; what could not be read is not.
        let named = refusal.text().contains(&format!("{host}:443"));
        let unread = matches!(
            code,
            "bad_header_name"
                | "bad_expectation"
                | "bad_handshake"
                | "misdirected_request"
                | "bad_target"
                | "obs_fold"
        );
        assert_eq!(named, !unread, "{refusal:?}");
    }
    let refusal = rig
        .agent
        .connect(&format!("{MARKER}.EVIL.test:443"))
        .await
        .expect_err("no route");
    refusal.assert_refused(403, "host_not_allowed");
    // This is the host itself, in its canonical form.
    assert!(
        refusal.text().contains(&format!("{MARKER}.evil.test:443")),
        "{refusal:?}"
    );
    assert!(rig.upstream.seen().is_empty());
    let (_, log) = rig.sidecar.terminate().await;
    for (what, needle) in [
        ("the query", format!("q={MARKER}")),
        ("a header", format!("x-{MARKER}")),
        ("the token", REAL.to_owned()),
    ] {
        assert!(
            !log.to_lowercase().contains(&needle.to_lowercase()),
            "{what}: {log}"
        );
    }
}

#[track_caller]
fn assert_says_nothing(refusal: &Answer) {
    let shown = format!("{refusal:?}").to_lowercase();
    for secret in [MARKER, REAL, "127.0.0.1", "EGRESS_TOKEN", "/v1/"] {
        assert!(
            !shown.contains(&secret.to_lowercase()),
            "{secret}: {refusal:?}"
        );
    }
}

#[tokio::test]
async fn an_upstream_cannot_speak_as_the_sidecar() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(async |_call| {
        let mut answer = upstream::text(403, "mine");
        let headers = answer.headers_mut();
        headers.append(
            "x-egress-error",
            "host_not_allowed".parse().expect("a value"),
        );
        headers.append("X-Egress-Error", "again".parse().expect("a value"));
        headers.append(
            "proxy-authenticate",
            "Basic realm=\"x\"".parse().expect("a value"),
        );
        headers.append("alt-svc", "h3=\":443\"".parse().expect("a value"));
        answer
    });
    let rig = Rig::around(&pki, upstream.await, ROUTES, |builder| builder).await;
    let get = || {
        http::Request::get("https://api.test/v1/x")
            .body(bytes::Bytes::new())
            .expect("a request")
    };
    for answer in [rig.agent.send(get()).await, rig.agent.send_h2(get()).await] {
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (403, "mine".into())
        );
        for name in ["x-egress-error", "proxy-authenticate", "alt-svc"] {
            assert!(!answer.headers.contains_key(name), "{name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_redirect_is_passed_back_and_not_followed() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(async |call| {
        let status = call
            .seen
            .path()
            .rsplit('/')
            .next()
            .and_then(|part| part.parse().ok());
        let mut answer = upstream::text(status.unwrap_or(200), "");
        answer.headers_mut().insert(
            "location",
            "https://bare.test/next".parse().expect("a value"),
        );
        answer
    });
    let rig = Rig::around(&pki, upstream.await, ROUTES, |builder| builder).await;
    for status in [301, 302, 303, 307, 308] {
        let answer = rig
            .agent
            .get(&format!("https://api.test/v1/{status}"))
            .await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.headers["location"], "https://bare.test/next");
    }
    assert_eq!(rig.upstream.seen().len(), 5);
    assert!(
        rig.upstream
            .seen()
            .iter()
            .all(|seen| seen.host == "api.test")
    );
}

#[tokio::test]
async fn a_credential_that_expires_while_running_is_not_sent_any_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    let seconds = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("a clock").as_secs()
    };
    let long = jwt(seconds() + 3600);
    fs::write(&file, &long).expect("a file");
    let routes = ROUTES.replace("EGRESS_TOKEN_0", "EGRESS_TOKEN_5");
    let path = file.display().to_string();
    let rig = Rig::with(&routes, |builder| builder.env("EGRESS_TOKEN_5_FILE", path)).await;
    rig.agent.get("https://api.test/v1/x").await.assert_served();
    // The sidecar is up: however slow the machine is, only the look at the file may miss the short life.
    let end = seconds() + 4;
    let short = jwt(end);
    fs::write(dir.path().join("next"), &short).expect("a file");
    fs::rename(dir.path().join("next"), &file).expect("a rename");
    let refusal = until(&rig, "refusal", |answer| answer.status != 200).await;
    refusal.assert_refused(400, "credential_expired");
    assert!(seconds() >= end, "not before its time");
    assert!(!format!("{refusal:?}").contains(&short));
    let served = rig.upstream.seen().len();
    rig.agent
        .get("https://api.test/v1/x")
        .await
        .assert_refused(400, "credential_expired");
    assert_eq!(rig.upstream.seen().len(), served);
    assert!(rig.upstream.seen().iter().all(|seen| {
        let sent = seen.all("authorization");
        sent == [format!("Bearer {long}")] || sent == [format!("Bearer {short}")]
    }));
    // Other routes go on, and the status says what is wrong.
    rig.agent.get("https://bare.test/").await.assert_served();
    let status = rig.sidecar.status().await;
    assert_eq!(status["healthy"], false);
    assert!(
        status["slots"][0]["state"]
            .as_str()
            .expect("a state")
            .contains("expired"),
        "{status}"
    );
}

#[tokio::test]
async fn a_slot_file_that_goes_is_missed_and_one_that_comes_back_is_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    fs::write(&file, "first-value-of-the-file\n").expect("a file");
    let path = file.display().to_string();
    let routes = ROUTES.replace("EGRESS_TOKEN_0", "EGRESS_TOKEN_5");
    let rig = Rig::with(&routes, |builder| builder.env("EGRESS_TOKEN_5_FILE", &path)).await;
    rig.agent.get("https://api.test/v1/x").await.assert_served();
    assert_eq!(
        rig.upstream.only().all("authorization"),
        ["Bearer first-value-of-the-file"]
    );

    fs::remove_file(&file).expect("the file goes");
    let refusal = until(&rig, "refusal", |answer| answer.status != 200).await;
    refusal.assert_refused(400, "credential_missing");
    assert!(!format!("{refusal:?}").contains(&path), "{refusal:?}");
    let served = rig.upstream.seen().len();
    rig.agent
        .get("https://api.test/v1/x")
        .await
        .assert_refused(400, "credential_missing");
    assert_eq!(rig.upstream.seen().len(), served);

    fs::write(&file, "second-value-of-the-file").expect("a file");
    until(&rig, "the new value", |answer| answer.status == 200).await;
    let last = rig.upstream.seen().pop().expect("a request");
    assert_eq!(
        last.all("authorization"),
        ["Bearer second-value-of-the-file"]
    );
}

async fn until(rig: &Rig, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    within(what, async {
        loop {
            let answer = rig.agent.get("https://api.test/v1/x").await;
            if wanted(&answer) {
                return answer;
            }
        }
    })
    .await
}

/// An unsigned token with this expiry.
pub(super) fn jwt(exp: u64) -> String {
    let part = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.c2ln",
        part("{\"alg\":\"none\"}".into()),
        part(format!("{{\"exp\":{exp}}}"))
    )
}
