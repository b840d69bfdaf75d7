//! The ChatGPT service as Codex sees it, as far as `codex exec` needs it, and a host's login for it. What Codex asks for and
//! what it takes as an answer was learnt by watching 0.169.0.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::{SinkExt, StreamExt};
use http::Response;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::upstream::{self, Body, Call, WebSocket};

pub(crate) const ACCOUNT: &str = "0b7c2a52-6f7e-4a3c-9d0e-1f6f1a3f7c11";

/// What the model says, whatever it is asked.
pub(crate) const HELLO: &str = "hello from the upstream";

/// Where Codex talks to the model.
pub(crate) const RESPONSES: &str = "/backend-api/codex/responses";

/// The refresh token of every login.
pub(crate) const REFRESH_TOKEN: &str = "rt_real-refresh-token-of-the-host";

/// An `auth.json` as `codex login` leaves it on the host.
pub(crate) fn login(access_token: &str) -> Value {
    json!({
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": null,
        "tokens": {
            "id_token": access_token,
            "access_token": access_token,
            "refresh_token": REFRESH_TOKEN,
            "account_id": ACCOUNT,
        },
        "last_refresh": "2026-11-01T00:00:00Z",
    })
}

/// The least of the service that `codex exec` needs. The rest may be missing.
pub(crate) async fn answer(call: Call) -> Response<Body> {
    match call.seen.path() {
        "/backend-api/wham/accounts/check" => {
            let account = json!({
                "id": ACCOUNT,
                "workspace_backend_origin": "https://chatgpt.com",
                "account_routing_override": "NO_CONSTRAINT",
            });
            upstream::json(
                200,
                &json!({"accounts": [account], "default_account_id": ACCOUNT}),
            )
        }
        RESPONSES if call.is_websocket() => call.websocket(converse),
        RESPONSES => {
            let events =
                events().map(|event| format!("event: {}\ndata: {event}\n\n", name(&event)));
            upstream::typed(200, "text/event-stream", events.concat())
        }
        _ => upstream::json(404, &json!({})),
    }
}

/// Answers each `response.create`: Codex sends one to warm the connection up, and one with the prompt.
async fn converse(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else {
            continue;
        };
        let request: Value = serde_json::from_str(&text).expect("a JSON message");
        assert_eq!(name(&request), "response.create");
        for event in events() {
            if socket.send(Message::text(event.to_string())).await.is_err() {
                return;
            }
        }
    }
}

fn events() -> [Value; 3] {
    let text = json!({"type": "output_text", "text": HELLO});
    let item = json!({"type": "message", "role": "assistant", "id": "msg_1", "content": [text]});
    let usage = json!({
        "input_tokens": 1,
        "input_tokens_details": null,
        "output_tokens": 1,
        "output_tokens_details": null,
        "total_tokens": 2,
    });
    [
        json!({"type": "response.created", "response": {"id": "resp_1"}}),
        json!({"type": "response.output_item.done", "item": item}),
        json!({"type": "response.completed", "response": {"id": "resp_1", "usage": usage}}),
    ]
}

fn name(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

/// The signature part of every access token.
pub(crate) const SIGNATURE: &str = "cmVhbC1zaWduYXR1cmUtb2YtdGhlLWhvc3QtbG9naW4";

/// An access token as the host has one. Only its `exp` and the account matter; nobody here checks the signature.
pub(crate) fn access_token(exp: u64) -> String {
    let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    let payload = json!({
        "exp": exp,
        "sub": "auth0|real-subject-of-the-host",
        "https://api.openai.com/auth": {"chatgpt_plan_type": "pro", "chatgpt_account_id": ACCOUNT},
    });
    let payload = BASE64_URL_SAFE_NO_PAD.encode(payload.to_string());
    format!("{header}.{payload}.{SIGNATURE}")
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_secs()
}
