//! WebSockets: messages in one frame and in several, and handshakes that are declined.

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Response};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::{BEARER, TOKEN, World, assert_clean_bytes, forms, stars};
use crate::harness::agent::{Tunnel, exchange, read_head};
use crate::harness::upstream::{Body, Call, WebSocket, text};
use crate::harness::versions::Http;
use crate::harness::within;

#[tokio::test]
async fn row_25_messages_are_masked_in_every_form() {
    let world = World::start(BEARER, async |call: Call| {
        call.websocket(async |mut socket| {
            for form in forms() {
                _ = socket.send(Message::text(format!("say <{form}>"))).await;
                _ = socket.send(Message::binary(format!("say <{form}>"))).await;
                _ = socket.send(Message::Ping(TOKEN.into())).await;
            }
            finish(socket).await;
        })
    })
    .await;
    let mut socket = open(&world).await;
    for form in forms() {
        for _ in 0..2 {
            let said = next(&mut socket).await.into_data();
            assert_clean_bytes(&said);
            let said = String::from_utf8(said.to_vec()).expect("text");
            assert!(said.starts_with("say <") && said.ends_with('>'), "{said}");
            assert_eq!(said.len(), "say <>".len() + form.len());
        }
        assert_eq!(next(&mut socket).await, Message::Ping(stars(TOKEN).into()));
    }
    drop(socket);
    world.sidecar.logged("places were masked").await;
}

#[tokio::test]
async fn row_25_a_token_cut_by_frames_is_masked_wherever_it_is_cut() {
    let world = World::start(BEARER, async |call: Call| {
        call.websocket(async |mut socket| {
            for cut in 0..=TOKEN.len() {
                let (front, back) = TOKEN.split_at(cut);
                let front = Frame::message(format!("<{front}"), OpCode::Data(Data::Text), false);
                let back = Frame::message(format!("{back}>"), OpCode::Data(Data::Continue), true);
                _ = socket.send(Message::Frame(front)).await;
                _ = socket.send(Message::Ping("between".into())).await;
                _ = socket.send(Message::Frame(back)).await;
            }
            finish(socket).await;
        })
    })
    .await;
    let mut socket = open(&world).await;
    for cut in 0..=TOKEN.len() {
        assert_eq!(next(&mut socket).await, Message::Ping("between".into()));
        assert_eq!(
            next(&mut socket).await,
            Message::text(format!("<{}>", stars(TOKEN))),
            "cut at {cut}"
        );
    }
}

/// What a message ends with is not kept for the next one.
#[tokio::test]
async fn row_25_a_message_never_waits_for_another() {
    let world = World::start(BEARER, async |call: Call| {
        call.websocket(async |mut socket| {
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() && socket.send(message).await.is_err() {
                    return;
                }
            }
        })
    })
    .await;
    let mut socket = open(&world).await;
    for length in 1..TOKEN.len() {
        let beginning = Message::text(&TOKEN[..length]);
        socket.send(beginning.clone()).await.expect("a reader");
        assert_eq!(next(&mut socket).await, beginning);
    }
    // An agent that says it itself gets it masked too.
    socket.send(Message::text(TOKEN)).await.expect("a reader");
    assert_eq!(next(&mut socket).await, Message::text(stars(TOKEN)));
}

#[tokio::test]
async fn row_25_the_101_is_masked_and_frames_of_an_extension_are_left_alone() {
    let world = World::start(BEARER, |call: Call| async move {
        let is_extended = call.seen.path() == "/extended";
        let mut answer = call.websocket(async |mut socket| {
            _ = socket.send(Message::text(TOKEN)).await;
            finish(socket).await;
        });
        let headers = answer.headers_mut();
        headers.insert("x-echo", HeaderValue::from_static(TOKEN));
        if is_extended {
            headers.insert(
                "sec-websocket-extensions",
                HeaderValue::from_static("x-own"),
            );
        }
        answer
    })
    .await;
    for (path, expected) in [("/", stars(TOKEN)), ("/extended", TOKEN.to_owned())] {
        let mut tunnel = tunnel(&world).await;
        tunnel
            .write_all(handshake(path).as_bytes())
            .await
            .expect("a reader");
        let head = within("a head", read_head(&mut tunnel)).await;
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        assert_clean_bytes(&head);
        let mut socket = WebSocketStream::from_raw_socket(tunnel, Role::Client, None).await;
        assert_eq!(next(&mut socket).await, Message::text(expected));
    }
}

#[tokio::test]
async fn row_25_a_declined_handshake_is_masked() {
    let echo = async |call: Call| -> Response<Body> {
        text(403, format!("no {}", call.seen.all("authorization")[0]))
    };
    let world = World::start(BEARER, echo).await;
    let got = exchange(&mut tunnel(&world).await, handshake("/").as_bytes()).await;
    assert_clean_bytes(&got);
    let got = String::from_utf8(got).expect("text");
    assert!(
        got.ends_with(&format!("\r\n\r\nno Bearer {}", stars(TOKEN))),
        "{got}"
    );
}

async fn tunnel(world: &World) -> Tunnel {
    let host = Http::One.host();
    let tunnel = world
        .agent
        .tunnel(&format!("{host}:443"), host, &["http/1.1"])
        .await;
    tunnel.expect("a TLS tunnel")
}

async fn open(world: &World) -> WebSocketStream<Tunnel> {
    let mut tunnel = tunnel(world).await;
    tunnel
        .write_all(handshake("/").as_bytes())
        .await
        .expect("a reader");
    let head = within("a head", read_head(&mut tunnel)).await;
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    WebSocketStream::from_raw_socket(tunnel, Role::Client, None).await
}

async fn next(socket: &mut WebSocketStream<Tunnel>) -> Message {
    let message = within("a message", socket.next()).await;
    message.expect("a message").expect("a whole message")
}

/// Waits until the agent has gone: it still reads.
async fn finish(mut socket: WebSocket) {
    while let Some(Ok(_)) = socket.next().await {}
}

fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: x-own\r\n\r\n",
        Http::One.host()
    )
}
