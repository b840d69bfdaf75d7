//! The real Claude Code, without a terminal, against a fake Messages API.

use http::Response;
use serde_json::{Value, json};

use crate::harness::clients::{Home, node_program, run};
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Body, Call, Upstream};

const REAL: &str = "sk-ant-oat01-real-token-of-the-host-93f0";
const HELLO: &str = "hello from the upstream";

#[tokio::test]
async fn a_prompt_is_answered_with_an_oauth_token_that_is_a_placeholder() {
    let scheme = "auth_scheme: Bearer";
    let bearer = format!("Bearer {REAL}");
    prompt(
        scheme,
        ("authorization", bearer),
        ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-placeholder"),
    )
    .await;
}

#[tokio::test]
async fn a_prompt_is_answered_with_an_api_key_that_is_a_placeholder() {
    let scheme = "auth_scheme: raw\n    auth_header: x-api-key";
    let key = REAL.to_owned();
    prompt(
        scheme,
        ("x-api-key", key),
        ("ANTHROPIC_API_KEY", "sk-ant-api03-placeholder"),
    )
    .await;
}

async fn prompt(scheme: &str, required: (&'static str, String), placeholder: (&str, &str)) {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .require(required.0, required.1.clone())
        .start(answer)
        .await;
    let routes = format!(
        "routes:\n  - host: api.anthropic.com\n    {scheme}\n    token_env: EGRESS_TOKEN_0\n    connect_to: {}\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes)
        .slot("EGRESS_TOKEN_0", REAL)
        .start()
        .await;
    let home = Home::behind(&sidecar)
        .set(placeholder.0, placeholder.1)
        .set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    let output = run(home
        .command(node_program("claude").await)
        .args(["-p", "hi"]))
    .await
    .success();

    assert_eq!(output.stdout.trim(), HELLO);
    let messages = upstream.at("/v1/messages");
    assert!(!messages.is_empty());
    for request in upstream.seen() {
        assert_eq!(
            request.all(required.0),
            [required.1.as_str()],
            "{request:#?}"
        );
        assert!(
            !format!("{:?}", request.headers).contains("placeholder"),
            "{request:#?}"
        );
    }
    home.assert_free_of(REAL, &output);
    assert!(!sidecar.log().contains(REAL));
}

async fn answer(call: Call) -> Response<Body> {
    if call.seen.path() != "/v1/messages" {
        let error = json!({"type": "not_found_error", "message": "not here"});
        return upstream::json(404, &json!({"type": "error", "error": error}));
    }
    let request: Value = serde_json::from_slice(&call.seen.body).expect("a JSON request");
    let message = |content: Value| {
        json!({
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": content,
            "stop_reason": null,
            "stop_sequence": null,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        })
    };
    if request["stream"] != true {
        return upstream::json(200, &message(json!([{"type": "text", "text": HELLO}])));
    }
    let block = json!({"type": "text", "text": ""});
    let delta = json!({"type": "text_delta", "text": HELLO});
    let end = json!({"stop_reason": "end_turn", "stop_sequence": null});
    let events = [
        json!({"type": "message_start", "message": message(json!([]))}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": end, "usage": {"output_tokens": 3}}),
        json!({"type": "message_stop"}),
    ];
    let events = events.iter().map(|event| {
        format!(
            "event: {}\ndata: {event}\n\n",
            event["type"].as_str().unwrap_or_default()
        )
    });
    upstream::typed(200, "text/event-stream", events.collect::<String>())
}
