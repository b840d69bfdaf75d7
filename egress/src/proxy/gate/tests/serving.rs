//! The gate in front of the real hyper: what is answered, what is lost, and who gets the stream afterwards.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{Notify, oneshot};

use super::super::fault::Fault;
use super::super::{Gate, Limits, server};
use super::framing::accepted;

#[tokio::test]
async fn a_bad_first_head_is_answered_raw_and_reaches_no_service() {
    for (bytes, fault) in [
        (&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], Fault::BareLf),
        (b"\x16\x03\x01\x02\x00\x01\x00", Fault::TlsHello),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Fault::Http2Preface),
        (b"GET / HT", Fault::TruncatedHead),
    ] {
        let (mut client, io) = duplex(4096);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let ((), received) = tokio::join!(
            async {
                let (result, gate) = serve(io, |_| async { never().await }).await;
                result.unwrap();
                assert_eq!(gate.refusal(), Some(fault));
                gate.answer_and_close(BAD_REQUEST).await.unwrap();
            },
            read_all(&mut client)
        );
        assert_eq!(received.as_bytes(), BAD_REQUEST);
    }
}

#[tokio::test]
async fn a_bad_head_cuts_off_no_answer_in_flight() {
    let (mut client, io) = duplex(4096);
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let ((), received) = tokio::join!(
        async {
            let (result, gate) = serve(io, |request| {
                assert_eq!(request.uri().path(), "/good");
                asked.notify_one();
                let answer = Arc::clone(&answer);
                async move {
                    answer.notified().await;
                    text("an answer")
                }
            })
            .await;
            result.unwrap();
            assert_eq!(gate.refusal(), Some(Fault::LengthAndEncoding));
            gate.answer_and_close(BAD_REQUEST).await.unwrap();
        },
        async {
            client
                .write_all(b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .unwrap();
            asked.notified().await;
            client
                .write_all(b"POST /bad HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
                .await
                .unwrap();
            answer.notify_one();
            let received = read_all(&mut client).await;
            drop(client);
            received
        }
    );
    assert!(received.starts_with("HTTP/1.1 200 OK\r\n"), "{received}");
    assert!(
        received.contains("\r\n\r\nan answerHTTP/1.1 400 "),
        "{received}"
    );
}

/// The one case in which hyper goes idle before its answer is flushed: the body of the request ends after it.
#[tokio::test]
async fn a_bad_head_loses_no_byte_of_an_answer_that_the_client_was_slow_to_read() {
    for keep_stream_open in [false, true] {
        let (mut client, io) = duplex(64);
        let big = Bytes::from(vec![b'x'; 30_000]);
        let (body_tx, body_rx) = oneshot::channel::<Incoming>();
        let body_tx = Mutex::new(Some(body_tx));
        let gate = Gate::new(io, Limits::default());
        let service = service_fn(|request: Request<Incoming>| {
            // The answer does not wait for the body, which somebody else goes on reading.
            let _ = body_tx
                .lock()
                .unwrap()
                .take()
                .unwrap()
                .send(request.into_body());
            let response = Response::new(Full::new(big.clone()));
            async { Ok::<_, Infallible>(response) }
        });
        let conn = server(&Limits::default()).serve_connection(TokioIo::new(gate), service);
        let ((), (), received) = tokio::join!(
            async {
                let gate = if keep_stream_open {
                    conn.without_shutdown().await.unwrap().io.into_inner()
                } else {
                    let mut conn = conn;
                    (&mut conn).await.unwrap();
                    conn.into_parts().io.into_inner()
                };
                assert_eq!(gate.refusal(), Some(Fault::BareLf));
                gate.answer_and_close(BAD_REQUEST).await.unwrap();
            },
            async {
                let body = body_rx.await.unwrap();
                assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
            },
            async {
                client
                    .write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n")
                    .await
                    .unwrap();
                // Once a byte of the answer is here, hyper has begun to write, and the pipe is full.
                let mut first = [0];
                client.read_exact(&mut first).await.unwrap();
                client
                    .write_all(b"2\r\nlo\r\n0\r\n\r\nGET / HTTP/1.1\n\n")
                    .await
                    .unwrap();
                let received = read_all(&mut client).await;
                drop(client);
                received
            }
        );
        let end = [b"\r\n\r\n", &*big, BAD_REQUEST].concat();
        assert!(
            received.as_bytes().ends_with(&end),
            "{} bytes came, {keep_stream_open}",
            received.len()
        );
    }
}

#[tokio::test]
async fn a_fault_in_a_body_reaches_the_service_that_reads_it() {
    for (body, fault) in [
        ("5\r\nhello\n", Fault::ChunkEnd),
        ("5;x\r\n", Fault::ChunkExtension),
        ("5\r\nhel", Fault::TruncatedBody),
    ] {
        let (mut client, io) = duplex(4096);
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        client
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let ((_, gate), received) = tokio::join!(
            serve(io, |request| async move {
                let error = request.into_body().collect().await.unwrap_err();
                assert_eq!(Fault::find(&error), Some(fault));
                let mut response = text("");
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response
            }),
            read_all(&mut client)
        );
        assert_eq!(gate.fault(), Some(fault));
        assert_eq!(gate.refusal(), None, "it was answered");
        assert!(received.starts_with("HTTP/1.1 400 "), "{received}");
    }
}

#[tokio::test]
async fn a_tunnel_gets_the_stream_and_all_its_bytes() {
    let (mut client, io) = duplex(4096);
    client
        .write_all(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\nearly ")
        .await
        .unwrap();
    let (result, gate) = serve(io, |_| async { text("") }).await;
    result.unwrap();
    assert_eq!(gate.fault(), None);
    let (mut io, early) = gate.into_inner();
    assert_eq!(early, "early ");
    client.write_all(b"late").await.unwrap();
    let mut late = [0; 4];
    io.read_exact(&mut late).await.unwrap();
    assert_eq!(&late, b"late");
    io.write_all(b"reply").await.unwrap();
    drop(io);
    let received = read_all(&mut client).await;
    assert!(received.starts_with("HTTP/1.1 200 OK\r\n"), "{received}");
    assert!(received.ends_with("\r\n\r\nreply"), "{received}");
}

#[tokio::test]
async fn bytes_meant_for_a_refused_tunnel_are_never_served() {
    for head in [
        "CONNECT a.test:443 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let (mut client, io) = duplex(4096);
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        client
            .write_all(format!("{head}{smuggled}").as_bytes())
            .await
            .unwrap();
        let calls = AtomicUsize::new(0);
        let (result, received) = tokio::join!(
            async {
                serve(io, |request| {
                    assert_ne!(request.uri().path(), "/smuggled");
                    calls.fetch_add(1, Ordering::Relaxed);
                    let mut response = text("no");
                    *response.status_mut() = StatusCode::FORBIDDEN;
                    async { response }
                })
                .await
                .0
            },
            read_all(&mut client)
        );
        result.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert!(
            received.starts_with("HTTP/1.1 403 ") && received.ends_with("\r\n\r\nno"),
            "{received}"
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_work_on_its_request() {
    for body in ["", "hello"] {
        let (mut client, io) = duplex(4096);
        let dropped = Arc::new(Notify::new());
        let asked = Arc::new(Notify::new());
        let serving = async {
            serve(io, |request| {
                let (asked, guard) = (Arc::clone(&asked), NotifyOnDrop(Arc::clone(&dropped)));
                async move {
                    request.into_body().collect().await.unwrap();
                    asked.notify_one();
                    let _guard = guard;
                    never().await
                }
            })
            .await
            .0
        };
        let (result, ()) = tokio::join!(
            tokio::time::timeout(Duration::from_secs(10), serving),
            async {
                let head = format!(
                    "POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                client.write_all(head.as_bytes()).await.unwrap();
                asked.notified().await;
                drop(client);
            }
        );
        let error = result
            .expect("the connection outlived its client")
            .unwrap_err();
        let source = std::error::Error::source(&error)
            .and_then(|error| error.downcast_ref::<std::io::Error>());
        assert_eq!(source.unwrap().kind(), ErrorKind::ConnectionAborted);
        dropped.notified().await;
    }
}

#[tokio::test]
async fn hyper_reads_the_messages_that_the_gate_let_through() {
    for bytes in accepted() {
        let expected = naive(&bytes);
        for cut in [1, 3, 7, bytes.len()] {
            let (mut client, io) = duplex(16 * 1024);
            let seen = Mutex::new(Vec::new());
            let ((result, gate), ()) = tokio::join!(
                serve(io, |request| async {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let target = head
                        .uri
                        .path_and_query()
                        .map_or("", |target| target.as_str())
                        .to_owned();
                    seen.lock().unwrap().push((head.method, target, body));
                    text("")
                }),
                async {
                    for piece in bytes.chunks(cut) {
                        client.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    // Half closed would do for hyper, but the client would then have left in mid answer.
                    for _ in 0..expected.len() {
                        read_answer(&mut client).await;
                    }
                    drop(client);
                }
            );
            let shown = bytes.escape_ascii();
            result.unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!(gate.fault(), None, "{shown}");
            assert_eq!(seen.into_inner().unwrap(), expected, "{shown}");
        }
    }
}

#[tokio::test]
async fn large_bodies_pass_unchanged_and_leave_no_buffer_behind() {
    let body: Vec<u8> = (0..1_000_000_u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    let sized = [
        format!(
            "PUT /sized HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
        &body,
    ]
    .concat();
    let mut chunked = b"PUT /chunked HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(7919) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let stream = [sized, chunked].concat();
    let (client, io) = duplex(50_000);
    let count = AtomicUsize::new(0);
    let ((result, gate), ()) = tokio::join!(
        serve(io, |request| async {
            let got = request.into_body().collect().await.unwrap().to_bytes();
            assert!(got == body, "{} bytes", got.len());
            count.fetch_add(1, Ordering::Relaxed);
            text("")
        }),
        async {
            let (mut reader, mut writer) = tokio::io::split(client);
            let (written, ()) = tokio::join!(writer.write_all(&stream), async {
                read_answer(&mut reader).await;
                read_answer(&mut reader).await;
            });
            written.unwrap();
        }
    );
    result.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 2);
    assert_eq!(gate.held.capacity(), 0);
}

#[test]
fn an_idle_gate_is_small() {
    let size = size_of::<Gate<()>>();
    assert!(size <= 320, "{size}");
}

/// Serves one connection as its owner does, and gives back the gate.
pub(super) async fn serve<F, R, B>(
    io: DuplexStream,
    answer: F,
) -> (hyper::Result<()>, Gate<DuplexStream>)
where
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    let limits = Limits::default();
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut conn = server(&limits).serve_connection(TokioIo::new(Gate::new(io, limits)), service);
    let result = (&mut conn).await;
    (result, conn.into_parts().io.into_inner())
}

pub(super) fn text(text: &'static str) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(text.as_bytes())))
}

/// The answer of a service that never answers.
pub(super) async fn never() -> Response<Full<Bytes>> {
    std::future::pending().await
}

pub(super) async fn read_all(client: &mut DuplexStream) -> String {
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    String::from_utf8(received).unwrap()
}

/// Reads one empty answer, after any interim one.
async fn read_answer(client: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut received = Vec::new();
    loop {
        received.push(client.read_u8().await.unwrap());
        if received.ends_with(b"\r\n\r\n") {
            if !received.starts_with(b"HTTP/1.1 100 ") {
                return;
            }
            received.clear();
        }
    }
}

/// Cuts valid requests apart in the plainest way.
fn naive(mut stream: &[u8]) -> Vec<(Method, String, Bytes)> {
    let mut requests = Vec::new();
    while !stream.is_empty() {
        let at = stream
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8_lossy(&stream[..at]).into_owned();
        stream = &stream[at + 4..];
        let lower = head.to_ascii_lowercase();
        let mut words = head.split(' ');
        let method: Method = words.next().unwrap().parse().unwrap();
        let target = words
            .next()
            .unwrap()
            .trim_start_matches("http://a.test")
            .to_owned();
        let mut body = Vec::new();
        if lower.contains("transfer-encoding:") {
            loop {
                let line = stream
                    .windows(2)
                    .position(|window| window == b"\r\n")
                    .unwrap();
                let size = usize::from_str_radix(std::str::from_utf8(&stream[..line]).unwrap(), 16)
                    .unwrap();
                stream = &stream[line + 2..];
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&stream[..size]);
                stream = &stream[size + 2..];
            }
            while !stream.starts_with(b"\r\n") {
                let line = stream
                    .windows(2)
                    .position(|window| window == b"\r\n")
                    .unwrap();
                stream = &stream[line + 2..];
            }
            stream = &stream[2..];
        } else if let Some((_, rest)) = lower.split_once("content-length:") {
            let size: usize = rest.lines().next().unwrap().trim().parse().unwrap();
            body.extend_from_slice(&stream[..size]);
            stream = &stream[size..];
        }
        requests.push((method, target, Bytes::from(body)));
    }
    requests
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
