//! What the gate keeps while hyper is dropped between two requests.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use super::super::fault::Fault;
use super::super::{Gate, Limits, REST, server};

const ONE: &[u8] = b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n";
/// Is never answered.
const STUCK: &[u8] = b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n";
const TWO: &[u8] = b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_connection_rests_once_it_was_silent_and_goes_on_where_a_byte_comes() {
    let (mut client, io) = duplex(4096);
    let mut gate = Gate::new(io, Limits::default());
    client.write_all(ONE).await.unwrap();
    let began = Instant::now();
    gate = rest(gate).await.expect("a rest");
    assert_eq!(began.elapsed(), REST);
    assert_eq!(answer(&mut client).await, "/one");
    // Cut anywhere, the next request is none but whole.
    for cut in 1..TWO.len() {
        let (first, second) = TWO.split_at(cut);
        let silence = timeout(Limits::default().idle / 2, gate.wake()).await;
        assert!(silence.is_err(), "woken by nothing");
        client.write_all(first).await.unwrap();
        gate.wake().await;
        let (served, ()) = tokio::join!(rest(gate), async {
            tokio::time::sleep(2 * REST).await;
            client.write_all(second).await.unwrap();
        });
        gate = served.expect("a rest");
        assert_eq!(answer(&mut client).await, "/two", "{cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rest_ends_with_the_client_or_with_the_time_for_another_request() {
    for leaves in [true, false] {
        let (mut client, io) = duplex(4096);
        client.write_all(ONE).await.unwrap();
        let mut gate = rest(Gate::new(io, Limits::default()))
            .await
            .expect("a rest");
        let began = Instant::now();
        if leaves {
            client.shutdown().await.unwrap();
        }
        gate.wake().await;
        let expected = if leaves {
            Duration::ZERO
        } else {
            Limits::default().idle
        };
        assert_eq!(began.elapsed(), expected);
        assert!(rest(gate).await.is_none(), "hyper ends it in peace");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_after_a_rest_is_told_as_before_it() {
    for (bytes, fault) in [
        (&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], Fault::BareLf),
        (b"GET / HT", Fault::HeadTimeout),
    ] {
        let (mut client, io) = duplex(4096);
        client.write_all(ONE).await.unwrap();
        let mut gate = rest(Gate::new(io, Limits::default()))
            .await
            .expect("a rest");
        client.write_all(bytes).await.unwrap();
        gate.wake().await;
        let mut http = serve(gate);
        (&mut http).await.expect("the gate answers it");
        assert_eq!(http.into_parts().io.into_inner().refusal(), Some(fault));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_noticed_whatever_was_read_ahead_for_its_request() {
    for pipelined in [false, true] {
        let (mut client, io) = duplex(4096);
        client.write_all(ONE).await.unwrap();
        if pipelined {
            client.write_all(STUCK).await.unwrap();
        }
        let mut gate = Gate::new(io, Limits::default());
        if !pipelined {
            gate = rest(gate).await.expect("a rest");
            client.write_all(STUCK).await.unwrap();
            gate.wake().await;
        }
        let mut http = serve(gate);
        let early = timeout(REST / 2, &mut http).await;
        assert!(early.is_err(), "it is worked on");
        assert_eq!(answer(&mut client).await, "/one");
        drop(client);
        let ended = timeout(REST / 2, &mut http).await;
        let ended = ended.unwrap_or_else(|_| panic!("not noticed, pipelined: {pipelined}"));
        assert!(ended.is_err(), "the request is given up");
    }
}

/// Serves until the connection rests; `None` where it ends before.
async fn rest(mut gate: Gate<DuplexStream>) -> Option<Gate<DuplexStream>> {
    let rests = gate.rests();
    let mut http = serve(gate);
    let resting = poll_fn(|cx| match Pin::new(&mut http).poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Err(ended)),
        Poll::Pending if rests.now() => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    });
    match resting.await {
        Ok(()) => {}
        Err(ended) => {
            ended.expect("no fault");
            return None;
        }
    }
    let parts = http.into_parts();
    assert!(parts.read_buf.is_empty(), "nothing is lost");
    Some(parts.io.into_inner())
}

fn serve(
    gate: Gate<DuplexStream>,
) -> hyper::server::conn::http1::Connection<
    TokioIo<Gate<DuplexStream>>,
    impl hyper::service::HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible>,
> {
    let service = service_fn(async |request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        if path == "/stuck" {
            std::future::pending::<()>().await;
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(path)))
    });
    server(&Limits::default()).serve_connection(TokioIo::new(gate), service)
}

/// The body of one answer, which is a path of four bytes.
async fn answer(client: &mut DuplexStream) -> String {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") {
        received.push(client.read_u8().await.unwrap());
    }
    let mut body = [0; 4];
    client.read_exact(&mut body).await.unwrap();
    String::from_utf8(body.into()).unwrap()
}
