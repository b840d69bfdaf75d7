//! Canaries: a token that is found nowhere else stands in each place where the sidecar and its commands take a secret.
//! Then everything is done that can go right or wrong, and all that anybody but the upstream can see of it is searched
//! (threat model, row 42).

mod commands;
mod page;
mod passwords;

use std::fmt::Debug;
use std::path::Path;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response};
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpStream;

use super::needles::Needles;
use crate::harness::agent::{Agent, exchange};
use crate::harness::chatgpt::unix_now;
use crate::harness::clients::files_under;
use crate::harness::command::{self, Done};
use crate::harness::pki::Pki;
use crate::harness::scripted::{self, Scripted};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Body, Call, Upstream};
use crate::harness::within;

/// Something that is written nowhere by chance.
fn canary(name: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    // FNV, and then the numbers of Knuth's MMIX.
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(LETTERS[(state >> 33) as usize % LETTERS.len()])
    };
    (0..40).map(|_| next()).collect()
}

/// A JWT whose secret parts are canaries. What else is in it may be told.
fn jwt(claim: &str, signature: &str, seconds: u64) -> String {
    let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"alg": "RS256", "typ": "JWT"}));
    let payload = part(json!({"exp": unix_now() + seconds, "jti": canary(claim)}));
    format!("{header}.{payload}.{}", canary(signature))
}

/// What others can see, by the place where they see it.
#[derive(Default)]
struct Hay(Vec<(String, Vec<u8>)>);

impl Hay {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    fn shown(&mut self, place: &str, value: impl Debug) {
        self.add(place, format!("{value:?}"));
    }

    fn told(&mut self, place: &str, done: &Done) {
        self.add(place, format!("{}{}", done.stdout, done.stderr));
    }

    /// Every file of a process that whoever runs the tests may read, but for its memory.
    fn process(&mut self, number: i32) {
        let mut read = 0;
        for name in [
            "auxv",
            "cmdline",
            "comm",
            "environ",
            "io",
            "limits",
            "maps",
            "mountinfo",
            "net/unix",
            "sched",
            "smaps",
            "stack",
            "stat",
            "status",
            "syscall",
            "wchan",
        ] {
            let path = format!("/proc/{number}/{name}");
            if let Ok(bytes) = std::fs::read(&path) {
                read += 1;
                self.add(path, bytes);
            }
        }
        assert!(read > 4, "the process runs");
    }

    fn files(&mut self, dir: &Path) {
        for file in files_under(dir) {
            let bytes = std::fs::read(&file).expect("a file");
            self.add(file.display().to_string(), bytes);
        }
    }

    fn assert_free_of(&self, needles: &Needles) {
        for (place, bytes) in &self.0 {
            let found = needles.found_in(bytes);
            assert!(found.is_empty(), "{place} shows {found:#?}");
        }
    }
}

/// The routes of every way to inject, with a slot of its own each.
fn routes(at: &str, elsewhere: &str, stranger: &str, broken: &str) -> String {
    format!(
        "routes:\n\
         - {{host: bearer.test, path_allowlist: [/v1/], methods: [GET, POST], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: '{at}'}}\n\
         - {{host: basic.test, auth_scheme: Basic, auth_user: me, token_env: EGRESS_TOKEN_1, connect_to: '{at}'}}\n\
         - {{host: raw.test, auth_scheme: raw, auth_header: x-api-key, token_env: EGRESS_TOKEN_2, connect_to: '{at}'}}\n\
         - {{host: token.test, auth_scheme: token, token_env: EGRESS_TOKEN_3, connect_to: '{at}'}}\n\
         - {{host: file.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_4, connect_to: '{at}'}}\n\
         - {{host: jwt.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_5, connect_to: '{at}'}}\n\
         - {{host: down.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: '{elsewhere}'}}\n\
         - {{host: private.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'localhost:1'}}\n\
         - {{host: stranger.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: '{stranger}'}}\n\
         - {{host: broken.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: '{broken}'}}\n"
    )
}

const HOSTS: [&str; 6] = ["bearer", "basic", "raw", "token", "file", "jwt"];

#[tokio::test]
async fn row_42_no_secret_of_a_slot_is_anywhere_but_upstream() {
    for format in ["json", "text"] {
        let (pki, stranger) = (Pki::new(), Pki::new());
        let upstream = Upstream::tls(&pki).start(answer).await;
        let stranger = Upstream::tls(&stranger).start(answer).await;
        let broken = Scripted::start(
            Some(pki.server_config(&["http/1.1"])),
            |_, mut wire| async move {
                _ = scripted::request(&mut wire).await;
                scripted::say(&mut wire, "SSH-2.0-OpenSSH_9.2\r\n").await;
            },
        );
        let broken = broken.await;
        let slots = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: String| {
            let next = slots.path().join("next");
            std::fs::write(&next, text).expect("a file");
            std::fs::rename(next, slots.path().join(name)).expect("a rename");
            slots.path().join(name).display().to_string()
        };
        let interceptor: String = canary("interceptor")
            .bytes()
            .take(32)
            .map(|b| format!("{b:02x}"))
            .collect();
        let old = routes(
            &upstream.addr().to_string(),
            "127.0.0.1:1",
            &stranger.addr().to_string(),
            &broken.addr().to_string(),
        );
        let audit = tempfile::tempdir().expect("a directory");
        let sidecar = Sidecar::with_routes(&pki, old.clone())
            .log_format(Some(format))
            .slot("EGRESS_TOKEN_0", canary("bearer"))
            .slot("EGRESS_TOKEN_1", canary("basic"))
            .slot("EGRESS_TOKEN_2", canary("raw"))
            .slot("EGRESS_TOKEN_3", canary("token"))
            .slot("EGRESS_TOKEN_9", canary("unnamed"))
            .slot("SMOLVM_INTERCEPTOR_TOKEN", interceptor)
            .env("EGRESS_TOKEN_4_FILE", file("file", canary("file")))
            .env(
                "EGRESS_TOKEN_5_FILE",
                file("jwt", jwt("claim", "signature", 3600)),
            )
            .env("EGRESS_DEBUG_PANIC_PATH", "/v1/panic")
            .env("RUST_BACKTRACE", "full")
            .arg("--interceptor=127.0.0.1:0")
            .arg("--ui=127.0.0.1:0")
            .arg("--log=trace")
            .arg(format!("--audit={}", audit.path().join("a.db").display()))
            .arg("--audit-query")
            .start()
            .await;
        let agent = Agent::of(&sidecar);
        let mut hay = Hay::default();
        for host in HOSTS {
            let url = format!("https://{host}.test/v1/x?q=1");
            let get = || Request::get(&url).body(Bytes::new()).expect("a request");
            for answer in [agent.send(get()).await, agent.send_h2(get()).await] {
                answer.assert_served();
                hay.shown("an answer", (&answer.headers, answer.text()));
            }
            let mut tunnel = agent
                .tunnel(
                    &format!("{host}.test:443"),
                    &format!("{host}.test"),
                    &["http/1.1"],
                )
                .await
                .expect("a tunnel");
            let answer = exchange(&mut tunnel, websocket(host).as_bytes()).await;
            assert!(answer.starts_with(b"HTTP/1.1 101 "), "{host}");
            hay.add("a WebSocket", answer);
        }
        // All of them were in use.
        let seen = format!(
            "{:?}",
            upstream
                .seen()
                .iter()
                .map(|seen| &seen.headers)
                .collect::<Vec<_>>()
        );
        for (name, count) in [
            ("bearer", 3),
            ("raw", 3),
            ("token", 3),
            ("file", 3),
            ("signature", 3),
        ] {
            assert_eq!(shown(&upstream, &canary(name)), count, "{name}: {seen}");
        }
        let basic = BASE64_STANDARD.encode(format!("me:{}", canary("basic")));
        assert_eq!(shown(&upstream, &basic), 3, "{seen}");

        for (host, bytes) in REFUSED {
            let mut tunnel = agent
                .tunnel(&format!("{host}:443"), host, &["http/1.1"])
                .await
                .expect("a tunnel");
            let answer = exchange(&mut tunnel, bytes.as_bytes()).await;
            assert!(
                answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 5"),
                "{bytes}"
            );
            hay.add(format!("the refusal of {bytes:?}"), answer);
        }
        hay.shown(
            "CONNECT",
            agent.connect("evil.test:443").await.expect_err("no route"),
        );
        hay.add(
            "bytes",
            exchange(&mut agent.raw().await, b"\x16\x03\x01\0\0").await,
        );
        hay.shown(
            "a foreign name",
            agent
                .tunnel("bearer.test:443", "basic.test", &["h2"])
                .await
                .map(drop),
        );
        let interceptor = TcpStream::connect(sidecar.told_address("INTERCEPTOR")).await;
        let preamble = [b"SMOLICPT\x01", &[0; 32][..], b"\x04\x01\xbb\xc0\0\x02\x01"].concat();
        hay.add(
            "the interceptor",
            exchange(&mut interceptor.expect("a listener"), &preamble).await,
        );

        let mut tunnel = agent
            .tunnel("bearer.test:443", "bearer.test", &["http/1.1"])
            .await
            .expect("a tunnel");
        let request = "GET /v1/panic HTTP/1.1\r\nHost: bearer.test\r\n\r\n";
        hay.add("a panic", exchange(&mut tunnel, request.as_bytes()).await);
        sidecar.logged("a defect of egress").await;
        let line = sidecar.logged("the sidecar panicked").await;
        assert!(line.contains("defect"), "{line}");

        // A value that expires, and one that is gone.
        file("jwt", jwt("short claim", "short signature", 3));
        let refusal = within("the end of a credential", async {
            loop {
                let answer = agent.get("https://jwt.test/").await;
                if answer.status != 200 {
                    return answer;
                }
            }
        });
        hay.shown("an expired credential", refusal.await.text());
        file("file", format!("{} {}", canary("file"), canary("spoilt")));
        sidecar.logged("value is gone").await;
        hay.shown(
            "a spoilt credential",
            agent.get("https://file.test/").await.text(),
        );

        let admin = format!("--admin=unix:{}", sidecar.admin_socket().display());
        let check = sidecar.routes_file().display().to_string();
        let pasted = PASTED.map(|text| text.replace("PASTED", &canary("pasted")));
        for text in pasted.iter().chain([&old]) {
            sidecar.write_routes(text);
            // No place for what is in the file: it is the operator's own.
            hay.told("egress reload", &command::egress(["reload", &admin]).await);
            for look in [
                vec!["status", &admin],
                vec!["status", &admin, "--json"],
                vec!["check", &check],
                vec!["check", "--format=json", &check],
                vec!["explain", "-r", &check, "GET", "https://bearer.test/v1/x"],
                vec![
                    "explain",
                    "--json",
                    "-r",
                    &check,
                    "GET",
                    "https://bearer.test/v1/x",
                ],
                vec!["env", "--proxy=http://127.0.0.1:1", "-r", &check],
            ] {
                let done = command::egress(&look).await;
                hay.told(&format!("egress {look:?} with {text:?}"), &done);
            }
        }
        sidecar.sighup();
        for request in [
            "GET /status",
            "GET /metrics",
            "GET /healthz",
            "GET /readyz",
            "POST /reload",
            "GET /x",
        ] {
            let stream = tokio::net::UnixStream::connect(sidecar.admin_socket()).await;
            let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = exchange(&mut stream.expect("a socket"), request.as_bytes()).await;
            assert!(answer.starts_with(b"HTTP/1.1 "), "{request}");
            hay.add("the admin socket", answer);
        }
        for answer in page::answers(&sidecar).await {
            hay.add("the page", answer);
        }
        hay.process(sidecar.pid().as_raw_nonzero().get());
        hay.files(sidecar.dir());
        let file = audit.path().join("a.db").display().to_string();
        let audited = command::egress(["audit", &file, "--json", "--latest=0"]).await;
        assert!(audited.stdout.contains("bearer.test"), "it is in use");
        hay.told("egress audit", &audited);
        sidecar.signal(Signal::ABORT);
        let (status, log) = sidecar.exit().await;
        {
            use std::os::unix::process::ExitStatusExt;
            assert!(!status.core_dumped());
        }
        assert!(log.contains("/v1/x"), "{log}");
        hay.add("the log", log);
        hay.files(audit.path());
        let names = [
            "bearer",
            "basic",
            "raw",
            "token",
            "unnamed",
            "file",
            "spoilt",
            "claim",
            "signature",
            "short claim",
            "short signature",
            "pasted",
            "interceptor",
        ];
        assert_free(&hay, &names);
    }
}

/// Fails where one of these canaries is in the hay, and where it would not be found there.
fn assert_free(hay: &Hay, names: &[&'static str]) {
    let canaries: Vec<_> = names.iter().map(|name| (*name, canary(name))).collect();
    let secrets = canaries
        .iter()
        .map(|(name, secret)| (*name, secret.as_bytes()));
    let needles = Needles::of(secrets);
    for (name, secret) in &canaries {
        let leak = format!("x{}x", BASE64_STANDARD.encode(secret));
        let found: Vec<_> = needles.found_in(leak.as_bytes());
        assert_eq!(found.len(), 1, "{name}");
    }
    hay.assert_free_of(&needles);
}

fn shown(upstream: &Upstream, secret: &str) -> usize {
    let seen = upstream.seen();
    let holds = |seen: &&upstream::Seen| {
        seen.headers
            .values()
            .any(|value| String::from_utf8_lossy(value.as_bytes()).contains(secret))
    };
    seen.iter().filter(holds).count()
}

/// Refusals of each kind, as the agent can cause them.
const REFUSED: [(&str, &str); 14] = [
    (
        "bearer.test",
        "GET /no HTTP/1.1\r\nHost: bearer.test\r\nConnection: close\r\n\r\n",
    ),
    (
        "bearer.test",
        "GET /v1/../x HTTP/1.1\r\nHost: bearer.test\r\nConnection: close\r\n\r\n",
    ),
    (
        "bearer.test",
        "PUT /v1/x HTTP/1.1\r\nHost: bearer.test\r\nConnection: close\r\n\r\n",
    ),
    (
        "bearer.test",
        "GET /v1/x HTTP/1.1\r\nHost: basic.test\r\n\r\n",
    ),
    (
        "bearer.test",
        "GET /v1/x HTTP/1.1\r\nHost: bearer.test\r\nHost: bearer.test\r\n\r\n",
    ),
    (
        "bearer.test",
        "GET /v1/x HTTP/1.1\r\nHost: bearer.test\r\nx_y: 1\r\nConnection: close\r\n\r\n",
    ),
    (
        "bearer.test",
        "GET /v1/x HTTP/1.1\r\nHost: bearer.test\r\nExpect: x\r\nConnection: close\r\n\r\n",
    ),
    (
        "bearer.test",
        "GET /v1/x HTTP/1.1\r\nHost: bearer.test\r\n a: 1\r\n\r\n",
    ),
    (
        "bearer.test",
        "GET /v1/x HTTP/1.1\r\nHost: bearer.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    ("bearer.test", "\x01\x02\r\n\r\n"),
    (
        "down.test",
        "GET / HTTP/1.1\r\nHost: down.test\r\nConnection: close\r\n\r\n",
    ),
    (
        "private.test",
        "GET / HTTP/1.1\r\nHost: private.test\r\nConnection: close\r\n\r\n",
    ),
    (
        "stranger.test",
        "GET / HTTP/1.1\r\nHost: stranger.test\r\nConnection: close\r\n\r\n",
    ),
    (
        "broken.test",
        "GET / HTTP/1.1\r\nHost: broken.test\r\nConnection: close\r\n\r\n",
    ),
];

/// Routes files with a token where none belongs.
const PASTED: [&str; 9] = [
    "routes: [{host: bearer.test, auth_scheme: Bearer, token_env: PASTED}]\n",
    "routes: [{host: bearer.test, auth_scheme: Bearer, token_env: 'sk-PASTED'}]\n",
    "routes: [{host: bearer.test, auth_scheme: Bearer, token_env: ghp_PASTED}]\n",
    "routes: [{host: bearer.test, auth_scheme: Bearer PASTED}]\n",
    "routes: [{host: bearer.test, auth_scheme: Bearer, token: PASTED}]\n",
    "routes: [{host: bearer.test, token_env: {value: PASTED}}]\n",
    "routes: [{host: 'me:PASTED@bearer.test'}]\n",
    "routes: [{host: bearer.test, auth_scheme: Basic, auth_user: 'me:PASTED', token_env: EGRESS_TOKEN_0}]\n",
    "routes:\n- host: bearer.test\n  token_env: [PASTED\n- host: x\n",
];

async fn answer(call: Call) -> Response<Body> {
    match call.is_websocket() {
        true => call.websocket(|_| async {}),
        false => upstream::text(200, "fine"),
    }
}

fn websocket(host: &str) -> String {
    format!(
        "GET /v1/x HTTP/1.1\r\nHost: {host}.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
