//! The real Codex, end to end on placeholders: a dummy login in the sandbox, the real token in the slot.
//! What it asks for and what it takes as an answer was learnt by watching 0.169.0.

mod preset;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::agent::Agent;
use crate::harness::chatgpt::{
    self, ACCOUNT, HELLO, RESPONSES, SIGNATURE, access_token, answer, unix_now,
};
use crate::harness::clients::{Home, Output, node_program, run};
use crate::harness::pki::Pki;
use crate::harness::sidecar::{EGRESS, Sidecar};
use crate::harness::upstream::{self, Body, Call, Upstream};

pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// What the sidecar answers where the slot expired. Of all statuses only this one makes Codex stop at once and print
/// the cause: 401 sends it to the login page, 403 makes it try 13 times, 429 hides the message, 502 makes it try 37
/// times in half a minute.
const EXPIRED_STATUS: u16 = 400;

#[tokio::test]
async fn the_dummy_login_is_a_login_to_codex() {
    let scene = Scene::new(FORWARDED).await;
    let output = run(scene.codex().await.args(["login", "status"]))
        .await
        .success();
    assert!(
        output.stderr.contains("Logged in using ChatGPT"),
        "{output:#?}"
    );
    scene.assert_clean(&output);
}

#[tokio::test]
async fn exec_works_over_the_websocket() {
    let scene = Scene::new(FORWARDED).await;
    let output = scene.exec().await.success();
    assert_eq!(output.stdout.trim(), HELLO);
    let responses = scene.upstream.at(RESPONSES);
    assert!(
        responses
            .iter()
            .all(|request| request.method == Method::GET),
        "{responses:#?}"
    );
    let extensions = responses[0].all("sec-websocket-extensions");
    assert!(
        extensions[0].starts_with("permessage-deflate"),
        "the offer passes unchanged: {extensions:?}"
    );
    scene.assert_only_the_real_token_arrived();
    scene.assert_clean(&output);
}

#[tokio::test]
async fn exec_falls_back_to_server_sent_events_where_the_route_has_no_websocket() {
    let scene = Scene::new("    websocket: false\n").await;
    // Of all refusals only this one makes Codex change over at once, and not after six more tries.
    let offer = Request::get("https://chatgpt.com/backend-api/codex/responses")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(Bytes::new())
        .expect("a valid request");
    assert_eq!(Agent::of(&scene.sidecar).send(offer).await.status, 426);
    let output = scene.exec().await.success();
    assert_eq!(output.stdout.trim(), HELLO);
    scene.assert_one_post();
    scene.assert_only_the_real_token_arrived();
    scene.assert_clean(&output);
}

#[tokio::test]
async fn exec_falls_back_to_server_sent_events_where_the_upstream_has_no_websocket() {
    let scene = Scene::answering(FORWARDED, async |call| match call.is_websocket() {
        true => upstream::json(426, &json!({})),
        false => answer(call).await,
    })
    .await;
    let output = scene.exec().await.success();
    assert_eq!(output.stdout.trim(), HELLO);
    scene.assert_clean(&output);
}

#[tokio::test]
async fn one_refusal_by_the_upstream_is_retried_and_tells_the_agent_nothing() {
    let refused = AtomicUsize::new(0);
    let refused: &'static AtomicUsize = Box::leak(Box::new(refused));
    let scene = Scene::answering(FORWARDED, async move |call| {
        if call.seen.path() == RESPONSES && refused.fetch_add(1, Ordering::SeqCst) == 0 {
            return upstream::json(
                401,
                &json!({"error": {"message": "expired", "code": "token_expired"}}),
            );
        }
        answer(call).await
    })
    .await;
    let output = scene.exec().await.success();
    assert_eq!(output.stdout.trim(), HELLO);
    assert!(refused.load(Ordering::SeqCst) >= 2, "Codex tried again");
    scene.assert_only_the_real_token_arrived();
    scene.assert_clean(&output);
}

#[tokio::test]
async fn a_dummy_that_lapsed_does_not_matter_while_the_slot_is_good() {
    let scene = Scene::new(FORWARDED).await;
    scene.age_the_dummy(unix_now() - 60);
    let output = scene.exec().await.success();
    assert_eq!(output.stdout.trim(), HELLO);
    // Codex tried to refresh it, in vain: nothing that is not routed got out.
    assert!(output.stderr.contains("auth.openai.com"), "{output:#?}");
    assert!(
        scene
            .upstream
            .seen()
            .iter()
            .all(|request| request.host == "chatgpt.com")
    );
    scene.assert_clean(&output);
}

#[tokio::test]
async fn telemetry_stays_blocked_and_codex_works_on() {
    let scene = Scene::new(FORWARDED).await;
    scene.exec().await.success();
    scene.sidecar.logged("ab.chatgpt.com").await;
    assert!(
        scene
            .upstream
            .seen()
            .iter()
            .all(|request| request.host == "chatgpt.com")
    );
}

#[tokio::test]
async fn an_expired_slot_stops_codex_at_once_and_it_says_why() {
    // A session that began while the login was good: the routing discovery still answers, the responses do not.
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(answer).await;
    let addr = upstream.addr();
    let lapse = unix_now() + SHORT_LIFE;
    let mut routes = String::from("routes:\n");
    for (path, slot) in [("/backend-api/codex/", 0), ("/backend-api/", 1)] {
        routes += &format!(
            "  - host: chatgpt.com\n    path_allowlist: ['{path}']\n    auth_scheme: Bearer\n    \
             token_env: EGRESS_TOKEN_{slot}\n    connect_to: {addr}\n"
        );
    }
    let sidecar = Sidecar::with_routes(&pki, routes)
        .slot("EGRESS_TOKEN_0", access_token(lapse))
        .slot("EGRESS_TOKEN_1", access_token(unix_now() + DAY.as_secs()))
        .start()
        .await;
    let scene = Scene::around(upstream, sidecar).await;
    passing_of(lapse).await;

    let request = Request::post("https://chatgpt.com/backend-api/codex/responses")
        .body(Bytes::from_static(b"{}"));
    let refusal = Agent::of(&scene.sidecar)
        .send(request.expect("a valid request"))
        .await;
    assert_eq!(refusal.status, EXPIRED_STATUS, "{}", refusal.text());
    let body: Value = serde_json::from_slice(&refusal.body).expect("a JSON body");
    assert_eq!(body["error"]["type"], "egress");
    let message = body["error"]["message"].as_str().expect("a message");

    let output = scene.exec().await;
    assert!(!output.status.success(), "{output:#?}");
    assert!(
        output.stderr.contains(message),
        "the cause is printed: {output:#?}"
    );
    assert!(
        output.took < Duration::from_secs(10),
        "it gave up in {:?}",
        output.took
    );
    assert!(
        scene.upstream.at(RESPONSES).is_empty(),
        "nothing went upstream"
    );
    scene.assert_clean(&output);
}

#[tokio::test]
async fn a_new_session_with_an_expired_slot_ends_and_sends_nothing() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(answer).await;
    let routes = routes_to(&upstream, FORWARDED);
    let lapse = unix_now() + SHORT_LIFE;
    let slot = access_token(lapse);
    let sidecar = Sidecar::with_routes(&pki, routes)
        .slot("EGRESS_TOKEN_0", slot)
        .start()
        .await;
    let scene = Scene::around(upstream, sidecar).await;
    passing_of(lapse).await;
    let output = scene.exec().await;
    assert!(!output.status.success(), "{output:#?}");
    assert_eq!(scene.upstream.connections(), 0);
    scene.assert_clean(&output);
}

#[tokio::test]
async fn a_device_login_gets_a_code_and_never_a_token() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |call: Call| match call.seen.path() {
            "/api/accounts/deviceauth/usercode" => {
                let code = json!({"device_auth_id": "device-1", "user_code": "ABCD-1234", "interval": "1"});
                upstream::json(200, &code)
            }
            "/api/accounts/deviceauth/token" => {
                let code = json!({"authorization_code": "code", "code_challenge": "c", "code_verifier": "v"});
                upstream::json(200, &code)
            }
            _ => upstream::json(200, &json!({"access_token": REAL_LOGIN, "refresh_token": REAL_LOGIN, "id_token": REAL_LOGIN})),
        })
        .await;
    let routes = format!(
        "routes:\n  - host: auth.openai.com\n    path_allowlist: [/api/accounts/deviceauth/]\n    connect_to: {}\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let home = Home::behind(&sidecar);
    let output = run(home
        .command(node_program("codex").await)
        .args(["login", "--device-auth"]))
    .await;

    assert!(
        output.stdout.contains("ABCD-1234"),
        "the user sees the code: {output:#?}"
    );
    assert!(!output.status.success(), "{output:#?}");
    assert!(
        output.stderr.contains("device code exchange failed"),
        "{output:#?}"
    );
    assert!(output.stderr.contains("403"), "{output:#?}");
    assert!(!home.path().join(".codex/auth.json").exists());
    assert_eq!(upstream.seen().len(), 2, "{:#?}", upstream.seen());
    assert!(upstream.at("/oauth/token").is_empty());
    home.assert_free_of(REAL_LOGIN, &output);
}

/// Seconds that a slot lives which is to expire under a running sidecar: one that has expired before does not start it.
const SHORT_LIFE: u64 = 6;

/// Waits until the clock, which is what the sidecar looks at, has reached `exp`.
async fn passing_of(exp: u64) {
    let exp = UNIX_EPOCH + Duration::from_secs(exp);
    while let Ok(left) = exp.duration_since(SystemTime::now()) {
        tokio::time::sleep(left + Duration::from_millis(1)).await;
    }
}

const REAL_LOGIN: &str = "real-login-that-must-not-reach-the-sandbox";

/// No further keys on the route.
const FORWARDED: &str = "";

/// A host login, a sidecar that holds its token, and an agent that holds the dummy made from it.
struct Scene {
    upstream: Upstream,
    sidecar: Sidecar,
    home: Home,
    /// The host's own login, which stays outside of the sandbox.
    host: tempfile::TempDir,
    token: String,
    dummy: Vec<u8>,
}

impl Scene {
    async fn new(route_keys: &str) -> Self {
        Self::answering(route_keys, answer).await
    }

    async fn answering<F, R>(route_keys: &str, answer: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::routed(|upstream| routes_to(upstream, route_keys), answer).await
    }

    async fn routed<F, R>(routes: impl FnOnce(&Upstream) -> String, answer: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let pki = Pki::new();
        let token = access_token(unix_now() + DAY.as_secs());
        let upstream = Upstream::tls(&pki)
            .require("authorization", format!("Bearer {token}"))
            .start(answer)
            .await;
        let routes = routes(&upstream);
        let sidecar = Sidecar::with_routes(&pki, routes)
            .slot("EGRESS_TOKEN_0", token)
            .start()
            .await;
        Self::around(upstream, sidecar).await
    }

    async fn around(upstream: Upstream, sidecar: Sidecar) -> Self {
        let host = tempfile::tempdir().expect("a temporary directory");
        let token = access_token(unix_now() + DAY.as_secs());
        let login = chatgpt::login(&token);
        std::fs::write(host.path().join("auth.json"), login.to_string())
            .expect("a writable directory");
        let home = Home::behind(&sidecar);
        let dummy = dummy_auth(host.path(), &home.path().join(".codex/auth.json")).await;
        Self {
            upstream,
            sidecar,
            home,
            host,
            token,
            dummy,
        }
    }

    async fn codex(&self) -> Command {
        self.home.command(node_program("codex").await)
    }

    async fn exec(&self) -> Output {
        run(self
            .codex()
            .await
            .args(["exec", "--skip-git-repo-check", "say hi"]))
        .await
    }

    /// Rewrites `exp` in both of the dummy's tokens, as if the sandbox had slept.
    fn age_the_dummy(&self, exp: u64) {
        let mut login: Value = serde_json::from_slice(&self.dummy).expect("a JSON file");
        for name in ["access_token", "id_token"] {
            let token = login["tokens"][name]
                .as_str()
                .expect("a dummy token")
                .to_owned();
            let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
                panic!("{name} is no JWT");
            };
            let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).expect("base64url");
            let mut payload: Value = serde_json::from_slice(&payload).expect("a JSON payload");
            payload["exp"] = exp.into();
            let payload = BASE64_URL_SAFE_NO_PAD.encode(payload.to_string());
            login["tokens"][name] = format!("{header}.{payload}.{signature}").into();
        }
        self.home.write(".codex/auth.json", login.to_string());
    }

    fn assert_one_post(&self) {
        let responses = self.upstream.at(RESPONSES);
        let [only] = responses.as_slice() else {
            panic!("one request was expected: {responses:#?}");
        };
        assert_eq!(only.method, Method::POST);
        assert_eq!(only.all("content-encoding"), ["zstd"]);
        assert!(
            only.body.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]),
            "the zstd body passes untouched"
        );
    }

    fn assert_only_the_real_token_arrived(&self) {
        let seen = self.upstream.seen();
        assert!(seen.iter().all(|request| request.authorised), "{seen:#?}");
        let wanted = ["/backend-api/wham/accounts/check", RESPONSES];
        assert!(
            wanted
                .iter()
                .all(|path| seen.iter().any(|request| request.path() == *path)),
            "{seen:#?}"
        );
        for request in seen {
            assert_eq!(request.all("chatgpt-account-id"), [ACCOUNT]);
        }
    }

    /// Neither the agent nor the log holds anything of the host's login.
    fn assert_clean(&self, output: &Output) {
        assert!(self.host.path().exists());
        for secret in [self.token.as_str(), chatgpt::REFRESH_TOKEN, SIGNATURE] {
            self.home.assert_free_of(secret, output);
            assert!(!self.sidecar.log().contains(secret));
        }
    }
}

/// Has the binary make the dummy of the login in `host`, as a launcher does.
async fn dummy_auth(host: &Path, target: &Path) -> Vec<u8> {
    let mut command = Command::new(EGRESS);
    command
        .args(["codex", "dummy-auth", "-o"])
        .arg(target)
        .env_clear()
        .env("CODEX_HOME", host);
    let output = command.output().await.expect("the binary runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::read(target).expect("the dummy is there")
}

fn routes_to(upstream: &Upstream, route_keys: &str) -> String {
    format!(
        "routes:\n  - host: chatgpt.com\n    path_allowlist: [/backend-api/]\n    auth_scheme: Bearer\n    \
         token_env: EGRESS_TOKEN_0\n    connect_to: {}\n{route_keys}",
        upstream.addr()
    )
}
