//! Row 35: whatever is done at once, the memory stays below the ceiling that follows from the caps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::harness::pki::Pki;
use crate::harness::raw_http2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, RawHttp2, SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::harness::rig::Rig;
use crate::harness::upstream::{Call, Upstream};
use crate::harness::within;

const ROUTES: &str = "  - {host: api.test, connect_to: UPSTREAM}\n";
const PIECE: usize = 16 * 1024;
const ZEROES: Bytes = Bytes::from_static(&[0; PIECE]);
const CONNECTIONS: usize = 12;
const REQUESTS: usize = 48;
/// The least that the option takes.
const DECODING: u64 = 20 * 1024 * 1024;

#[tokio::test]
async fn row_35_memory_stays_below_its_ceiling() {
    let pki = Pki::new();
    let sent = Arc::new(AtomicU64::new(0));
    let (changed, mut news) = watch::channel(());
    let counter = sent.clone();
    // Answers without an end, at once and without a look at the request's body.
    let endless = move |_call: Call| {
        let (counter, changed) = (counter.clone(), changed.clone());
        let pieces = stream::repeat_with(move || {
            counter.fetch_add(PIECE as u64, Ordering::Relaxed);
            changed.send_replace(());
            Ok(Frame::data(ZEROES))
        });
        std::future::ready(Response::new(StreamBody::new(pieces).boxed()))
    };
    let upstream = Upstream::tls(&pki).streaming().start(endless).await;
    let rig = Rig::around(&pki, upstream, ROUTES, |builder| {
        builder
            .arg("--max-connections=48")
            .arg("--max-http2=12")
            .arg(format!("--max-requests={REQUESTS}"))
            // What is not filled here is not to count.
            .arg(format!("--max-decoding={DECODING}"))
            .arg("--max-leaves=1")
            .arg("--max-pooled=1")
    })
    .await;
    let ceiling = rig.sidecar.status().await["memory_ceiling"]
        .as_u64()
        .expect("a number");
    // No answer here is decoded, and there is no less to be had for decoding.
    let ceiling = ceiling - DECODING;

    // Half heads, and handshakes that go no further.
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut half = rig.agent.raw().await;
        let head = format!("GET http://api.test/ HTTP/1.1\r\nX: {}", "a".repeat(60_000));
        half.write_all(head.as_bytes()).await.expect("a reader");
        held.push(half);
        let mut silent = rig.agent.connect("api.test:443").await.expect("a tunnel");
        silent
            .write_all(&[22, 3, 1, 64, 0])
            .await
            .expect("a reader");
        held.push(silent);
    }
    // Streams that upload and are not read, whose answers fill windows that are large and are not read either; and more
    // of them than there may be requests.
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(RawHttp2::open(&rig.agent, "api.test").await);
    }
    let mut flooding = Vec::new();
    for mut http in open {
        let wide = (i32::MAX as u32).to_be_bytes();
        let mut bytes = frame(SETTINGS, 0, 0, &[&[0, 4][..], &wide].concat());
        bytes.extend(frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
        for at in 0..40 {
            let id = http.id();
            let (method, flags) = match at % 2 {
                0 => (&b"GET"[..], END_HEADERS | END_STREAM),
                _ => (&b"POST"[..], END_HEADERS),
            };
            let filler = "f".repeat(4000);
            let fields: [(&str, &[u8]); 5] = [
                (":method", method),
                (":scheme", b"https"),
                (":authority", b"api.test"),
                (":path", b"/"),
                ("x-filler", filler.as_bytes()),
            ];
            bytes.extend(frame(HEADERS, flags, id, &block(&fields)));
            if at == 1 {
                bytes.extend(frame(DATA, 0, id, &ZEROES).repeat(4));
            }
        }
        flooding.push(tokio::spawn(async move {
            http.send(&bytes).await;
            http
        }));
    }
    for task in flooding {
        let http = within("the flood to be sent", task).await;
        std::mem::forget(http.expect("no panic"));
    }
    // Every request that was let in has filled its window.
    within("full windows", async {
        while sent.load(Ordering::Relaxed) < (REQUESTS * 512 * 1024) as u64 {
            news.changed().await.expect("the upstream runs");
        }
    })
    .await;
    let peak = rig.sidecar.peak_memory() * 1024;
    assert!(peak < ceiling, "{peak} is more than {ceiling}");
    // It is a ceiling and no guess: not ten times what can be reached.
    assert!(peak * 10 > ceiling, "{peak} of {ceiling}");
    drop(held);
}
