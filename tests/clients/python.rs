//! The Python clients: requests, httpx and the OpenAI library, all in one virtual environment.

use http::Response;
use serde_json::{Value, json};

use crate::harness::clients::{Home, Output, python, run};
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Body, Call, Upstream};

const REAL: &str = "sk-real-key-of-the-host-5c2e";

struct Scene {
    upstream: Upstream,
    sidecar: Sidecar,
    home: Home,
}

impl Scene {
    async fn new() -> Self {
        let pki = Pki::new();
        let upstream = Upstream::tls(&pki)
            .require("authorization", format!("Bearer {REAL}"))
            .start(answer)
            .await;
        let routes = format!(
            "routes:\n  - host: api.openai.com\n    path_allowlist: [/v1/]\n    auth_scheme: Bearer\n    \
             token_env: EGRESS_TOKEN_0\n    connect_to: {}\n",
            upstream.addr()
        );
        let sidecar = Sidecar::with_routes(&pki, routes)
            .slot("EGRESS_TOKEN_0", REAL)
            .start()
            .await;
        let home = Home::behind(&sidecar).set("OPENAI_API_KEY", "sk-placeholder");
        Self {
            upstream,
            sidecar,
            home,
        }
    }

    async fn run(&self, script: &str) -> Output {
        let script = self.home.write("work/client.py", script);
        run(self.home.command(python().await).arg(script))
            .await
            .success()
    }

    fn assert_only_the_real_key_arrived(&self, output: &Output) {
        let seen = self.upstream.seen();
        assert!(!seen.is_empty(), "nothing reached the upstream");
        for request in seen {
            assert_eq!(
                request.all("authorization"),
                [format!("Bearer {REAL}")],
                "{request:#?}"
            );
        }
        self.home.assert_free_of(REAL, output);
        assert!(!self.sidecar.log().contains(REAL));
    }
}

#[tokio::test]
async fn requests_sees_a_refused_path_and_a_refused_host() {
    let scene = Scene::new().await;
    let script = r#"
import requests
refused = requests.get("https://api.openai.com/private")
assert refused.status_code == 403, refused
assert refused.json()["error"]["code"], refused.text
try:
    requests.get("https://elsewhere.test/")
except requests.exceptions.ProxyError as error:
    assert "403" in str(error), error
else:
    raise SystemExit("the host was not refused")
"#;
    scene.run(script).await;
    assert_eq!(scene.upstream.connections(), 0);
}

#[tokio::test]
async fn requests_posts_and_keeps_the_connection() {
    let scene = Scene::new().await;
    let script = r#"
import requests
session = requests.Session()
for number in range(3):
    answer = session.post("https://api.openai.com/v1/echo", data=b"x" * 100_000,
                          headers={"Authorization": "Bearer placeholder"})
    answer.raise_for_status()
    assert answer.content == b"x" * 100_000, len(answer.content)
"#;
    let output = scene.run(script).await;
    assert_eq!(scene.upstream.seen().len(), 3);
    scene.assert_only_the_real_key_arrived(&output);
}

#[tokio::test]
async fn httpx_posts() {
    let scene = Scene::new().await;
    let script = r#"
import httpx
answer = httpx.post("https://api.openai.com/v1/echo", content=b"body", headers={"Authorization": "Bearer placeholder"})
answer.raise_for_status()
assert answer.content == b"body", answer.content
"#;
    let output = scene.run(script).await;
    scene.assert_only_the_real_key_arrived(&output);
}

#[tokio::test]
async fn the_openai_library_completes_a_chat_whole_and_streamed() {
    let scene = Scene::new().await;
    let script = r#"
from openai import OpenAI
client = OpenAI(max_retries=0)
messages = [{"role": "user", "content": "hi"}]
whole = client.chat.completions.create(model="m", messages=messages)
assert whole.choices[0].message.content == "one two", whole
stream = client.chat.completions.create(model="m", messages=messages, stream=True)
pieces = [chunk.choices[0].delta.content for chunk in stream]
assert pieces == ["one", " two"], pieces
"#;
    let output = scene.run(script).await;
    assert_eq!(scene.upstream.at("/v1/chat/completions").len(), 2);
    scene.assert_only_the_real_key_arrived(&output);
}

async fn answer(call: Call) -> Response<Body> {
    if call.seen.path() != "/v1/chat/completions" {
        return upstream::text(200, call.seen.body);
    }
    let request: Value = serde_json::from_slice(&call.seen.body).expect("a JSON request");
    let completion = |object: &str, choice: Value| json!({"id": "chatcmpl-1", "object": object, "created": 0, "model": "m", "choices": [choice]});
    if request["stream"] != true {
        let message = json!({"role": "assistant", "content": "one two"});
        let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
        return upstream::json(200, &completion("chat.completion", choice));
    }
    let mut events = String::new();
    for piece in ["one", " two"] {
        let choice = json!({"index": 0, "delta": {"content": piece}, "finish_reason": null});
        events += &format!("data: {}\n\n", completion("chat.completion.chunk", choice));
    }
    upstream::typed(200, "text/event-stream", events + "data: [DONE]\n\n")
}
