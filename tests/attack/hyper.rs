//! Why there is a gate: what hyper's server does by itself, with the builders' defaults, on what the threat model says that
//! it lets through, beside what the sidecar does with the same bytes. An update of hyper that changes a row turns it red.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::bench::{Bench, Case};
use super::http2;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rows::{bytes, rows};

const LIST: &str = include_str!("../data/attack/hyper.txt");

/// Rows 4, 5, 9 and 16 to 22 of the threat model. The clock stands still but for the waits.
#[tokio::test(start_paused = true)]
async fn row_21_what_hyper_lets_through_is_as_the_table_says() {
    let mut wrong = Vec::new();
    for [name, expected, _, sent] in rows::<4>(LIST) {
        let shown = if is_http2(&sent) {
            over_http2(&sent).await
        } else {
            over_http1(&bytes(&sent.replace("HOST", HOST))).await
        };
        if shown != expected {
            wrong.push(format!("{name} | {shown}"));
        }
    }
    assert!(wrong.is_empty(), "it does otherwise:\n{}", wrong.join("\n"));
}

/// The same bytes.
#[tokio::test]
async fn row_21_the_sidecar_lets_through_what_has_one_reading() {
    let bench = Bench::start().await;
    let mut over_http1 = Vec::new();
    for [name, _, expected, sent] in rows::<4>(LIST) {
        if is_http2(&sent) {
            bench.check_http2(&name, &expected, &sent).await;
        } else {
            over_http1.push(Case::new(name, &expected, &sent));
        }
    }
    bench.run(over_http1).await;
}

fn is_http2(sent: &str) -> bool {
    sent.starts_with(['@', ':'])
}

/// Row 33: a head that never ends. The clock is the runtime's own, and stands still but for the wait.
#[tokio::test(start_paused = true)]
async fn row_33_hyper_waits_for_a_head_for_as_long_as_it_takes() {
    let (mut client, server) = duplex(1024);
    let serving = tokio::spawn(serve_http1(server));
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a")
        .await
        .expect("a reader");
    let mut byte = [0];
    let day = Duration::from_secs(24 * 60 * 60);
    let answer = tokio::time::timeout(day, client.read(&mut byte)).await;
    assert!(answer.is_err(), "it has a deadline now: {answer:?}");
    serving.abort();
}

const HOST: &str = "w0.a.test";

async fn over_http1(sent: &[u8]) -> String {
    let (mut client, server) = duplex(64 * 1024);
    let serving = tokio::spawn(serve_http1(server));
    client.write_all(sent).await.expect("a reader");
    let mut answer = Vec::new();
    // Until it closes, or waits for more.
    let minute = Duration::from_secs(60);
    while let Ok(Ok(1..)) = tokio::time::timeout(minute, client.read_buf(&mut answer)).await {}
    serving.abort();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let mut shown = Vec::new();
    for answer in answer.split("HTTP/1.1 ").skip(1) {
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        shown.push(match head.get(..3) {
            Some("200") => body.to_owned(),
            status => status.expect("a status").to_owned(),
        });
    }
    match shown.is_empty() {
        true => "waits".to_owned(),
        false => shown.join(" ; "),
    }
}

async fn over_http2(text: &str) -> String {
    let (client, server) = duplex(64 * 1024);
    let serving = tokio::spawn(async move {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder
            .serve_connection(TokioIo::new(server), service_fn(show))
            .await;
    });
    let mut http = RawHttp2::over(client).await;
    let ended = http2::send(&mut http, text, HOST).await;
    serving.abort();
    match ended.status {
        Some(200) => ended.body,
        Some(status) => status.to_string(),
        None => "reset".to_owned(),
    }
}

async fn serve_http1(server: DuplexStream) {
    let builder = hyper::server::conn::http1::Builder::new();
    let _ = builder
        .serve_connection(TokioIo::new(server), service_fn(show))
        .await;
}

/// Answers with what the handler is shown.
async fn show(request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut shown = format!("serves {} {}", head.method, head.uri);
    for name in [
        "host",
        "content-length",
        "transfer-encoding",
        "x-a",
        "connection",
    ] {
        for value in head.headers.get_all(name) {
            shown += &format!(" {name}={}", value.as_bytes().escape_ascii());
        }
    }
    shown += &match body.collect().await {
        Ok(body) => {
            let trailers = body.trailers().map_or(0, http::HeaderMap::len);
            let body = body.to_bytes();
            format!(
                " body={}{}",
                body.escape_ascii(),
                match trailers {
                    0 => String::new(),
                    some => format!(" trailers={some}"),
                }
            )
        }
        Err(_) => " and no whole body".to_owned(),
    };
    Ok(Response::new(Full::new(shown.into())))
}
