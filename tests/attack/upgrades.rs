//! WebSocket handshakes as a way to a second request (threat model, row 23): no byte of the agent goes upstream before a
//! 101 that fits the handshake, and what was sent ahead is never taken for a request. Handshakes that are none are in
//! the list of `framing`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::harness::agent::{Agent, Tunnel, exchange, read_until};
use crate::harness::pki::Pki;
use crate::harness::scripted::{Scripted, request, rest, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::within;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Each answer, and the status that the agent gets; 502 is the sidecar's own.
fn answers() -> Vec<(&'static str, String, u16)> {
    let switching = |lines: &str| {
        let lines = lines.replace("ACCEPT", ACCEPT);
        format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\nframes")
    };
    let both = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let wrong = |name, lines: String| (name, switching(&lines), 502);
    let other = |name, status: u16| {
        let head =
            format!("HTTP/1.1 {status} No\r\nX-Why: because\r\nContent-Length: 6\r\n\r\nreason");
        (name, head, status)
    };
    vec![
        wrong("no proof", both.to_owned()),
        wrong("an empty proof", format!("{both}Sec-WebSocket-Accept:\r\n")),
        wrong(
            "another key's proof",
            format!("{both}Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"),
        ),
        wrong(
            "the key for a proof",
            format!("{both}Sec-WebSocket-Accept: {KEY}\r\n"),
        ),
        wrong(
            "a proof in other letters",
            format!("{both}Sec-WebSocket-Accept: {}\r\n", ACCEPT.to_lowercase()),
        ),
        wrong(
            "two proofs",
            format!("{both}Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Accept: x\r\n"),
        ),
        wrong(
            "a list of proofs",
            format!("{both}Sec-WebSocket-Accept: ACCEPT, x\r\n"),
        ),
        wrong(
            "no Upgrade",
            "Connection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n".to_owned(),
        ),
        wrong(
            "another Upgrade",
            "Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n".to_owned(),
        ),
        wrong(
            "no Connection",
            "Upgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n".to_owned(),
        ),
        wrong(
            "another Connection",
            "Upgrade: websocket\r\nConnection: keep-alive\r\nSec-WebSocket-Accept: ACCEPT\r\n"
                .to_owned(),
        ),
        ("no HTTP", "frames\r\n\r\n".to_owned(), 502),
        other("an ordinary answer", 200),
        other("no credential", 401),
        other("no permission", 403),
        other("another protocol", 426),
        other("no server", 503),
    ]
}

#[tokio::test]
async fn row_23_without_a_fitting_101_no_byte_of_the_agent_goes_up() {
    let pki = Pki::new();
    let all = answers().into_iter().map(|(name, said, status)| {
        let tls = pki.server_config(&["http/1.1"]);
        let pki = &pki;
        async move {
            let (sender, mut got) = mpsc::unbounded_channel();
            let upstream = Scripted::start(Some(tls), move |_, mut wire| {
                let (said, sender) = (said.clone(), sender.clone());
                async move {
                    request(&mut wire).await.expect("a handshake");
                    say(&mut wire, said).await;
                    _ = sender.send(rest(&mut wire).await);
                }
            })
            .await;
            let sidecar = sidecar(pki, upstream.addr()).await;
            let mut tunnel = tunnel(&Agent::of(&sidecar)).await;
            let ahead = "GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n";
            let sent = format!("{}{ahead}", handshake());
            let answer = exchange(&mut tunnel, sent.as_bytes()).await;
            let answer = String::from_utf8_lossy(&answer);
            let start = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&start), "{name}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
            assert!(!answer.contains("frames"), "{name}: {answer}");
            if status == 502 {
                let code = match name {
                    "no HTTP" => "upstream_protocol",
                    _ => "upstream_handshake",
                };
                let header = format!("x-egress-error: {code}\r\n");
                assert!(answer.contains(&header), "{name}: {answer}");
                sidecar.logged(code).await;
            } else {
                assert!(answer.contains("x-why: because\r\n"), "{name}: {answer}");
                assert!(answer.ends_with("\r\n\r\nreason"), "{name}: {answer}");
            }
            let up = within("end of the handshake upstream", got.recv()).await;
            assert_eq!(up.expect("the script runs"), b"", "{name}");
            assert_eq!(upstream.connections(), 1, "{name}");
        }
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn row_23_agent_bytes_wait_for_the_101() {
    let pki = Pki::new();
    let (sender, mut got) = mpsc::unbounded_channel();
    let tls = pki.server_config(&["http/1.1"]);
    let upstream = Scripted::start(Some(tls), move |_, mut wire| {
        let sender = sender.clone();
        async move {
            request(&mut wire).await.expect("a handshake");
            // Nothing may come before the 101. This wait can only miss a fault, never invent one.
            let mut early = [0; 64];
            let waiting = wire.read(&mut early);
            let early = tokio::time::timeout(std::time::Duration::from_millis(300), waiting).await;
            _ = sender.send(early.is_ok());
            say(
                &mut wire,
                format!(
                    "{}frames of the upstream",
                    switching("X-Egress-Error: forged\r\n")
                ),
            )
            .await;
            assert_eq!(read_until(&mut wire, "agent bytes").await, "agent bytes");
            say(&mut wire, " and more").await;
        }
    })
    .await;
    let sidecar = sidecar(&pki, upstream.addr()).await;
    let mut tunnel = tunnel(&Agent::of(&sidecar)).await;
    let ahead = format!("{}agent bytes", handshake());
    tunnel.write_all(ahead.as_bytes()).await.expect("a reader");
    assert_eq!(within("the upstream's word", got.recv()).await, Some(false));
    let answer = read_until(&mut tunnel, "and more").await;
    // What came in the packet of the 101 was not lost.
    assert!(
        answer.ends_with("\r\n\r\nframes of the upstream and more"),
        "{answer}"
    );
    assert!(!answer.contains("forged"), "{answer}");
}

async fn tunnel(agent: &Agent) -> Tunnel {
    let tunnel = agent.tunnel("api.test:443", "api.test", &["http/1.1"]);
    tunnel.await.expect("a TLS tunnel")
}

fn handshake() -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

fn switching(more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n{more}\r\n"
    )
}

async fn sidecar(pki: &Pki, upstream: std::net::SocketAddr) -> Sidecar {
    let routes = format!("routes:\n  - host: api.test\n    connect_to: {upstream}\n");
    Sidecar::with_routes(pki, routes).start().await
}
