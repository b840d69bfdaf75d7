//! Deadlines, in the runtime's paused time: hours pass at once, and only where everybody waits.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::time::{Instant, Sleep, sleep};

use super::super::Limits;
use super::super::fault::Fault;
use super::serving::{never, read_all, serve, text};

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_is_cut_off() {
    // The first head's time begins with the connection, that of a later one with its first byte.
    for (first, gap) in [("", 0), ("GET / HTTP/1.1\r\n\r\n", 100)] {
        let (mut client, io) = duplex(4096);
        let start = Instant::now();
        let (elapsed, ()) = tokio::join!(
            async {
                let (result, gate) = serve(io, |_| async { text("") }).await;
                result.unwrap();
                assert_eq!(gate.refusal(), Some(Fault::HeadTimeout));
                start.elapsed().as_secs()
            },
            async {
                client.write_all(first.as_bytes()).await.unwrap();
                sleep(Duration::from_secs(gap)).await;
                for byte in b"GET / HTTP/1.1\r\nHost: abcdefgh" {
                    if client.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    sleep(Duration::from_millis(900)).await;
                }
            }
        );
        assert_eq!(elapsed, gap + Limits::default().head.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_head_is_noticed_at_its_deadline() {
    let limits = Limits::default();
    let (mut client, io) = duplex(4096);
    let start = Instant::now();
    client.write_all(b"GET / HT").await.unwrap();
    let (result, gate) = serve(io, |_| never()).await;
    result.unwrap();
    assert_eq!(gate.refusal(), Some(Fault::HeadTimeout));
    assert_eq!(start.elapsed().as_secs(), limits.head.as_secs());
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_connection_without_a_fault() {
    let limits = Limits::default();
    for (first, bound) in [("", limits.head), ("GET / HTTP/1.1\r\n\r\n", limits.idle)] {
        let (mut client, io) = duplex(4096);
        client.write_all(first.as_bytes()).await.unwrap();
        let start = Instant::now();
        let (result, gate) = serve(io, |_| async { text("") }).await;
        result.unwrap();
        assert_eq!(gate.fault(), None);
        assert_eq!(start.elapsed().as_secs(), bound.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_keep_coming_never_meet_the_idle_bound() {
    let limits = Limits::default();
    let (mut client, io) = duplex(64 * 1024);
    let ((result, gate), received) = tokio::join!(serve(io, |_| async { text("") }), async {
        for _ in 0..10 {
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            sleep(limits.idle / 3 * 2).await;
        }
        client
            .write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        read_all(&mut client).await
    });
    result.unwrap();
    assert_eq!(gate.fault(), None);
    assert_eq!(received.matches("HTTP/1.1 200 OK").count(), 11);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_take_hours() {
    let (mut client, io) = duplex(4096);
    client
        .write_all(b"GET /events HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let start = Instant::now();
    let ((result, gate), received) = tokio::join!(
        serve(io, |_| async {
            sleep(Duration::from_secs(3600)).await;
            Response::new(Ticks::new(3))
        }),
        read_all(&mut client)
    );
    result.unwrap();
    assert_eq!(gate.fault(), None);
    assert_eq!(received.matches("tick").count(), 3, "{received}");
    assert_eq!(start.elapsed().as_secs(), 4 * 3600);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_is_an_error_of_its_reader() {
    let (mut client, io) = duplex(4096);
    client
        .write_all(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel")
        .await
        .unwrap();
    let start = Instant::now();
    let ((_, gate), received) = tokio::join!(
        async {
            serve(io, |request| async {
                let error = request.into_body().collect().await.unwrap_err();
                assert_eq!(Fault::find(&error), Some(Fault::BodyTimeout));
                let mut response = text("");
                *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
                response
            })
            .await
        },
        read_all_of_answer(&mut client)
    );
    assert_eq!(gate.fault(), Some(Fault::BodyTimeout));
    assert!(received.starts_with("HTTP/1.1 408 "), "{received}");
    assert_eq!(
        start.elapsed().as_secs(),
        Limits::default().body_idle.as_secs()
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_for_a_while_does_not_time_out() {
    let (mut client, io) = duplex(4096);
    let got = Mutex::new(Bytes::new());
    let ((result, _), ()) = tokio::join!(
        serve(io, |request| async {
            let mut body = request.into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            sleep(Duration::from_secs(3600)).await;
            let rest = body.collect().await.unwrap().to_bytes();
            *got.lock().unwrap() = [first, rest].concat().into();
            text("")
        }),
        async {
            client
                .write_all(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhel")
                .await
                .unwrap();
            sleep(Duration::from_secs(50)).await;
            client.write_all(b"lo").await.unwrap();
            sleep(Duration::from_secs(3600)).await;
            client.write_all(b"there").await.unwrap();
            read_all(&mut client).await;
        }
    );
    result.unwrap();
    assert_eq!(*got.lock().unwrap(), "hellothere");
}

/// Reads up to the end of an answer's head.
async fn read_all_of_answer(client: &mut tokio::io::DuplexStream) -> String {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") {
        received.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(received).unwrap()
}

/// A body of events, one an hour.
struct Ticks {
    left: usize,
    sleep: Pin<Box<Sleep>>,
}

impl Ticks {
    fn new(left: usize) -> Self {
        Self {
            left,
            sleep: Box::pin(sleep(HOUR)),
        }
    }
}

impl Body for Ticks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.sleep.as_mut().poll(cx));
        self.left -= 1;
        self.sleep.as_mut().reset(Instant::now() + HOUR);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data: tick\n\n")))))
    }
}

const HOUR: Duration = Duration::from_secs(3600);
