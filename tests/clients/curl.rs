//! curl: the plainest agent, over both HTTP versions.

use std::process::Stdio;

use bytes::Bytes;
use http::Version;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::harness::clients::{Home, Running, run, system};
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Upstream};
use crate::harness::within;

const REAL: &str = "real-token-of-the-host-4b1d";
const PLACEHOLDER: &str = "authorization: Bearer placeholder-of-the-agent";

/// One route with a credential, at `api.test`, and the sidecar in front of it.
struct Scene {
    upstream: Upstream,
    sidecar: Sidecar,
    home: Home,
}

impl Scene {
    async fn new() -> Self {
        Self::with(async |pki| {
            let upstream = Upstream::tls(pki).require("authorization", format!("Bearer {REAL}"));
            upstream
                .start(async |call| upstream::text(200, call.seen.body))
                .await
        })
        .await
    }

    async fn with(upstream: impl AsyncFnOnce(&Pki) -> Upstream) -> Self {
        let pki = Pki::new();
        let upstream = upstream(&pki).await;
        let routes = format!(
            "routes:\n  - host: api.test\n    path_allowlist: [/v1/]\n    auth_scheme: Bearer\n    \
             token_env: EGRESS_TOKEN_0\n    connect_to: {}\n",
            upstream.addr()
        );
        let sidecar = Sidecar::with_routes(&pki, routes)
            .slot("EGRESS_TOKEN_0", REAL)
            .start()
            .await;
        let home = Home::behind(&sidecar);
        Self {
            upstream,
            sidecar,
            home,
        }
    }

    fn curl(&self, arguments: &[&str]) -> Command {
        let mut curl = self.home.command(system("curl", "curl"));
        curl.args(["--silent", "--show-error"]).args(arguments);
        curl
    }

    /// What the upstream must have seen of every permitted request: the real token, once, and nothing of the agent's.
    fn assert_real_token_once(&self) {
        let seen = self.upstream.seen();
        assert!(!seen.is_empty(), "nothing reached the upstream");
        for request in seen {
            assert_eq!(request.all("authorization"), [format!("Bearer {REAL}")]);
            assert!(
                !format!("{:?}", request.headers).contains("placeholder"),
                "{request:#?}"
            );
        }
    }
}

#[tokio::test]
async fn a_host_without_a_route_is_refused_at_connect_and_the_reason_is_visible() {
    let scene = Scene::new().await;
    let output = run(&mut scene.curl(&["-v", "https://elsewhere.test/v1/x"])).await;
    assert_eq!(output.status.code(), Some(56), "{output:#?}");
    let lowered = output.stderr.to_lowercase();
    assert!(lowered.contains("http/1.1 403"), "{output:#?}");
    assert!(lowered.contains("x-egress-error:"), "{output:#?}");
    assert_eq!(scene.upstream.connections(), 0);
}

#[tokio::test]
async fn a_path_that_no_route_names_is_refused_with_a_code_that_a_program_can_read() {
    let scene = Scene::new().await;
    for version in ["--http1.1", "--http2"] {
        let url = "https://api.test/v2/private?secret=query";
        let output = run(&mut scene.curl(&[version, "-w", "\n%{http_code}", url]))
            .await
            .success();
        let (body, status) = output
            .stdout
            .rsplit_once('\n')
            .expect("curl writes the status last");
        assert_eq!(status, "403", "{output:#?}");
        let body: serde_json::Value = serde_json::from_str(body).expect("a JSON body");
        assert!(body["error"]["code"].is_string(), "{body}");
        // Of the request only host and port may be repeated.
        assert!(!body.to_string().contains("private"), "{body}");
    }
    assert_eq!(scene.upstream.connections(), 0);
}

#[tokio::test]
async fn the_placeholder_is_replaced_by_the_real_token_over_both_http_versions() {
    let scene = Scene::new().await;
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let format = "\n%{http_code} %{http_version}";
        let arguments = [
            flag,
            "-w",
            format,
            "-H",
            PLACEHOLDER,
            "https://api.test/v1/x?a=b",
        ];
        let output = run(&mut scene.curl(&arguments)).await.success();
        assert_eq!(output.stdout, format!("\n200 {version}"));
        scene.home.assert_free_of(REAL, &output);
    }
    assert_eq!(scene.upstream.seen().len(), 2);
    assert_eq!(scene.upstream.seen()[0].target, "/v1/x?a=b");
    scene.assert_real_token_once();
    assert!(!scene.sidecar.log().contains(REAL));
}

#[tokio::test]
async fn a_token_is_injected_where_the_agent_sent_none() {
    let scene = Scene::new().await;
    run(&mut scene.curl(&["--fail", "https://api.test/v1/x"]))
        .await
        .success();
    scene.assert_real_token_once();
}

#[tokio::test]
async fn a_duplicated_credential_leaves_one() {
    let scene = Scene::new().await;
    let second = "Authorization: Basic cGxhY2Vob2xkZXI6";
    let key = "x-api-key: placeholder-key";
    let arguments = [
        "--fail",
        "-H",
        PLACEHOLDER,
        "-H",
        second,
        "-H",
        key,
        "https://api.test/v1/x",
    ];
    run(&mut scene.curl(&arguments)).await.success();
    scene.assert_real_token_once();
    assert!(scene.upstream.only().all("x-api-key").is_empty());
}

#[tokio::test]
async fn head_has_headers_and_no_body() {
    let scene = Scene::new().await;
    for version in ["--http1.1", "--http2"] {
        let output = run(&mut scene.curl(&[version, "--head", "https://api.test/v1/x"]))
            .await
            .success();
        assert!(output.stdout.contains(" 200"), "{output:#?}");
    }
    scene.assert_real_token_once();
}

#[tokio::test]
async fn an_upload_of_8_mb_arrives_whole_and_comes_back() {
    let scene = Scene::new().await;
    let sent = noise(8 << 20);
    let file = scene.home.write("upload", &sent);
    for version in ["--http1.1", "--http2"] {
        let back = scene.home.work().join("download");
        let arguments = [
            version,
            "--fail",
            "--upload-file",
            file.to_str().expect("a UTF-8 path"),
            "--output",
            back.to_str().expect("a UTF-8 path"),
            "https://api.test/v1/upload",
        ];
        run(&mut scene.curl(&arguments)).await.success();
        let received = scene.upstream.seen().pop().expect("a request");
        assert!(
            received.body == sent,
            "{} of {} bytes arrived",
            received.body.len(),
            sent.len()
        );
        assert!(
            std::fs::read(&back).expect("a download") == sent,
            "the download differs"
        );
    }
    scene.assert_real_token_once();
}

#[tokio::test]
async fn an_upload_of_unknown_length_arrives_whole() {
    let scene = Scene::new().await;
    let sent = noise(1 << 20);
    for version in ["--http1.1", "--http2"] {
        let mut curl = scene.curl(&[
            version,
            "--fail",
            "-o",
            "/dev/null",
            "-T",
            "-",
            "https://api.test/v1/upload",
        ]);
        let mut client = Running::spawn(curl.stdin(Stdio::piped()));
        let mut stdin = client.stdin();
        stdin.write_all(&sent).await.expect("curl reads");
        drop(stdin);
        client.finish().await.success();
        let received = scene.upstream.seen().pop().expect("a request");
        assert!(
            received.body == sent,
            "{} of {} bytes arrived",
            received.body.len(),
            sent.len()
        );
        assert!(
            received.all("content-length").is_empty(),
            "{:?}",
            received.headers
        );
    }
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    for version in ["--http1.1", "--http2"] {
        let (next, events) = mpsc::channel::<Bytes>(1);
        let events = std::sync::Arc::new(tokio::sync::Mutex::new(events));
        let scene = Scene::with(async |pki| {
            let upstream = Upstream::tls(pki).require("authorization", format!("Bearer {REAL}"));
            let stream = move |_call| {
                let events = events.clone();
                async move {
                    let (mut body, response) = upstream::event_stream();
                    tokio::spawn(async move {
                        while let Some(event) = events.lock().await.recv().await {
                            body.send_data(event).await.expect("the sidecar reads");
                        }
                    });
                    response
                }
            };
            upstream.start(stream).await
        })
        .await;

        let mut client = Running::spawn(&mut scene.curl(&[
            version,
            "--no-buffer",
            "https://api.test/v1/stream",
        ]));
        let mut lines = BufReader::new(client.stdout()).lines();
        // The next event is made only after the last one was read, so a proxy that holds any of them back stands still.
        for number in 0..5 {
            let event = format!("data: event {number}\n\n");
            next.send(event.into()).await.expect("the upstream runs");
            for expected in [format!("data: event {number}"), String::new()] {
                let line = within("the event", lines.next_line())
                    .await
                    .expect("a readable pipe");
                assert_eq!(line.as_deref(), Some(expected.as_str()), "{version}");
            }
        }
        drop(next);
        assert_eq!(
            within("the end", lines.next_line())
                .await
                .expect("a readable pipe"),
            None
        );
        client.finish().await.success();
    }
}

#[tokio::test]
async fn an_upstream_that_speaks_http1_only_serves_an_agent_that_speaks_http2() {
    let scene = Scene::with(async |pki| {
        let upstream = Upstream::with_tls(pki.server_config(&["http/1.1"]));
        upstream
            .start(async |call| upstream::text(200, call.seen.body))
            .await
    })
    .await;
    let arguments = [
        "--http2",
        "--fail",
        "-w",
        "%{http_version}",
        "--data",
        "body",
        "https://api.test/v1/x",
    ];
    let output = run(&mut scene.curl(&arguments)).await.success();
    assert_eq!(output.stdout, "body2");
    assert_eq!(scene.upstream.only().version, Version::HTTP_11);
}

/// Bytes that do not compress and do not repeat, so that a lost or doubled piece shows.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
