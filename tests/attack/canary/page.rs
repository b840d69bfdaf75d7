//! The page as a browser gets it, to be searched.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::agent::{exchange, read_until};
use crate::harness::command;
use crate::harness::sidecar::Sidecar;

/// What the page answers to a browser that may read it, the latest requests among it.
pub(super) async fn answers(sidecar: &Sidecar) -> Vec<Vec<u8>> {
    let ask = async |request: &str, lines: &str| {
        let stream = TcpStream::connect(sidecar.told_address("UI")).await;
        let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        (stream.expect("a page"), request)
    };
    let admin = format!("--admin=unix:{}", sidecar.admin_socket().display());
    let address = command::egress(["ui", &admin]).await.stdout;
    let (_, ticket) = address.trim().split_once("/?").expect("an address");
    let (mut stream, request) = ask(&format!("GET /?{ticket}"), "").await;
    let opened = exchange(&mut stream, request.as_bytes()).await;
    let text = String::from_utf8_lossy(&opened).into_owned();
    let (_, cookie) = text.split_once("set-cookie: ").expect("a cookie");
    let (cookie, _) = cookie.split_once(';').expect("its attributes");
    let own = format!("Cookie: {cookie}\r\nOrigin: http://localhost\r\n");
    let mut answers = vec![opened];
    for request in [
        "GET /",
        "GET /status",
        "GET /routes",
        "GET /refusals",
        "POST /preview",
        "POST /reload?digest=x",
        "GET /x",
    ] {
        let (mut stream, text) = ask(request, &own).await;
        let answer = exchange(&mut stream, text.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 "), "{request}");
        assert!(!answer.starts_with(b"HTTP/1.1 403 "), "{request}");
        answers.push(answer);
    }
    let (mut stream, text) = ask("GET /events?kept", &own).await;
    _ = stream.write_all(text.as_bytes()).await;
    // Of the last request that was made.
    let events = read_until(&mut stream, "file.test").await;
    answers.push(events.into_bytes());
    answers
}
