//! Bodies in motion: nothing is buffered, back-pressure reaches the sender, whoever leaves is noticed on the other side,
//! and an upstream that breaks its word ends that exchange and no other.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response, header};
use http_body::Frame;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::harness::agent::{Agent, read_until};
use crate::harness::pki::Pki;
use crate::harness::scripted::{Scripted, request, rest, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Body, Call, event_stream, text, text_body};
use crate::harness::versions::{Client, Http, PAIRS, Versions, Whole};
use crate::harness::within;

const PIECE: usize = 64 * 1024;
const ZEROES: Bytes = Bytes::from_static(&[0; PIECE]);

#[tokio::test]
async fn an_upstream_that_never_answers_is_a_timeout_and_loses_the_request() {
    let (notice, mut left) = mpsc::unbounded_channel();
    let world = Versions::start_with(
        move |call: Call| {
            let notice = notice.clone();
            async move {
                if call.seen.path() == "/fine" {
                    return text(200, "fine");
                }
                let _guard = Notice(Some(notice));
                std::future::pending().await
            }
        },
        |builder| builder.arg("--answer-timeout=1"),
    )
    .await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        let answer = client.send(get("/silence")).await;
        assert_eq!(answer.status(), 504, "{agent:?} {upstream:?}");
        assert_eq!(answer.code(), Some("upstream_timeout"));
        within("end of the request upstream", left.recv()).await;
        let answer = client.send(get("/fine")).await;
        assert_eq!(answer.status(), 200, "{agent:?} {upstream:?}");
    }
    let code = "\"code\":\"upstream_timeout\"";
    world.sidecar.logged_times(code, PAIRS.len()).await;
}

/// The deadline is for the answer: an upload that takes longer is not late.
#[tokio::test]
async fn an_upload_that_moves_is_not_timed_out() {
    let world = Versions::start_with(count, |builder| builder.arg("--answer-timeout=1")).await;
    let mut clients = Vec::new();
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        let (mut sender, body) = Channel::new(1);
        let uploading = async move {
            // This is the slowness that the test is about, not a wait for something to happen.
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_millis(400)).await;
                sender.send_data(ZEROES).await.expect("a reader");
            }
        };
        clients.push(async move {
            let answering = client.send(post("/count", body.boxed()));
            tokio::join!(answering, uploading).0
        });
    }
    for answer in futures_util::future::join_all(clients).await {
        assert_eq!(answer.status(), 200, "{:?}", answer.code());
        assert_eq!(answer.body, (6 * PIECE).to_string());
    }
}

#[tokio::test]
async fn an_answer_that_stalls_is_ended() {
    let (notice, mut left) = mpsc::unbounded_channel();
    let world = Versions::start_with(
        move |_call: Call| {
            let notice = notice.clone();
            async move {
                let (mut sender, answer) = event_stream();
                sender.send_data(ZEROES).await.expect("a reader");
                // Kept, so that the body stays open.
                answer.map(|body| Guarded::new(body, sender, notice).boxed())
            }
        },
        |builder| builder.arg("--body-timeout=1"),
    )
    .await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        let answer = client.start(get("/")).await.expect("a head");
        assert_eq!(answer.status(), 200);
        let body = within("end of the answer", answer.into_body().collect()).await;
        assert!(
            body.is_err(),
            "{agent:?} {upstream:?}: it ended as if whole"
        );
        within("end of the answer upstream", left.recv()).await;
    }
    let detail = "no byte came for too long";
    world.sidecar.logged_times(detail, PAIRS.len()).await;
}

#[tokio::test]
async fn a_stream_that_the_upstream_resets_or_miscounts_is_never_taken_for_a_whole_one() {
    let pki = Pki::new();
    let tls = pki.server_config(&["h2"]);
    let upstream = Scripted::start(Some(tls), |_, wire| async {
        let service = service_fn(|request: Request<Incoming>| async move {
            let builder = Response::builder();
            let (builder, error) = match request.uri().path() {
                "/shorter" => (builder.header(header::CONTENT_LENGTH, 100), false),
                "/longer" => (builder.header(header::CONTENT_LENGTH, 2), false),
                _ => (builder, true),
            };
            let data = stream::iter([Ok(Frame::data(Bytes::from_static(b"data")))]);
            let end = stream::iter(error.then(|| Err(std::io::Error::other("on purpose"))));
            let body = StreamBody::new(data.chain(end));
            Ok::<_, Infallible>(builder.body(body).expect("a valid response"))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        _ = server.serve_connection(TokioIo::new(wire), service).await;
    })
    .await;
    let sidecar = sidecar(&pki, upstream.addr(), &[]).await;
    let agent = Agent::of(&sidecar);
    for http in [Http::One, Http::Two] {
        for path in ["/shorter", "/longer", "/reset"] {
            let mut client = Client::open(&agent, http, "api.test").await;
            if let Ok(answer) = client.start(get(path)).await {
                let is_ours = answer.status() == 502;
                let body = within("end of the answer", answer.into_body().collect()).await;
                assert!(
                    body.is_err() || is_ours,
                    "{http:?} {path}: it ended as if whole"
                );
            }
        }
    }
    sidecar.logged_times("\"verdict\":\"failed\"", 6).await;
}

#[tokio::test]
async fn an_early_answer_passes_and_its_upstream_connection_is_not_used_again() {
    let pki = Pki::new();
    let (seen, mut leftovers) = mpsc::unbounded_channel();
    let tls = pki.server_config(&["http/1.1"]);
    let upstream = Scripted::start(Some(tls), move |_, mut wire| {
        let seen = seen.clone();
        async move {
            while let Some(head) = request(&mut wire).await {
                if head.starts_with("GET ") {
                    say(
                        &mut wire,
                        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
                    )
                    .await;
                    continue;
                }
                let answer = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig";
                say(&mut wire, answer).await;
                _ = seen.send(rest(&mut wire).await);
            }
        }
    })
    .await;
    let sidecar = sidecar(&pki, upstream.addr(), &[]).await;
    let agent = Agent::of(&sidecar);
    for (turn, http) in [Http::One, Http::Two].into_iter().enumerate() {
        let mut client = Client::open(&agent, http, "api.test").await;
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
        sender.send_data(ZEROES).await.expect("a reader");
        let answer = client.send(post("/upload", body.boxed())).await;
        assert_eq!((answer.status(), &*answer.body), (413, &b"big"[..]));
        let mut other = Client::open(&agent, http, "api.test").await;
        assert_eq!(other.send(get("/")).await.body, "fine");
        // Opened for the upload and for the request after it, which the next turn's upload uses.
        assert_eq!(upstream.connections(), turn as u64 + 2);
        drop((sender, client));
        let after = within("end of the upload upstream", leftovers.recv()).await;
        let after = after.expect("the script runs");
        assert!(!after.windows(4).any(|bytes| bytes == b"GET "));
    }
}

/// As above, but the agent finishes its upload after the answer began: what the upstream made of it nobody knows.
#[tokio::test]
async fn an_upload_that_ends_after_its_answer_began_leaves_no_connection_to_use_again() {
    let pki = Pki::new();
    let (release, gate) = watch::channel(false);
    let tls = pki.server_config(&["http/1.1"]);
    let upstream = Scripted::start(Some(tls), move |_, mut wire| {
        let mut gate = gate.clone();
        async move {
            while let Some(head) = request(&mut wire).await {
                if head.starts_with("GET ") {
                    say(
                        &mut wire,
                        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
                    )
                    .await;
                    continue;
                }
                say(
                    &mut wire,
                    "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf",
                )
                .await;
                read_until(&mut wire, "0\r\n\r\n").await;
                _ = gate.wait_for(|open| *open).await;
                say(&mut wire, "half").await;
            }
        }
    })
    .await;
    let sidecar = sidecar(&pki, upstream.addr(), &[]).await;
    let agent = Agent::of(&sidecar);
    let mut client = Client::open(&agent, Http::Two, "api.test").await;
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
    sender
        .send_data(Bytes::from_static(b"one"))
        .await
        .expect("a reader");
    let answer = client.start(post("/upload", body.boxed())).await;
    drop(sender);
    release.send_replace(true);
    let answer = Whole::of(answer.expect("an answer")).await;
    assert_eq!(answer.body, "halfhalf");
    assert_eq!(client.send(get("/")).await.body, "fine");
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn an_agent_that_leaves_ends_its_download_upstream() {
    let (notice, mut left) = mpsc::unbounded_channel();
    let (senders, mut sending) = mpsc::unbounded_channel();
    let world = Versions::start(move |_call: Call| {
        let (notice, senders) = (notice.clone(), senders.clone());
        async move {
            let (mut sender, answer) = event_stream();
            sender.send_data(ZEROES).await.expect("a reader");
            _ = senders.send(sender);
            answer.map(|body| Guarded::new(body, (), notice).boxed())
        }
    })
    .await;
    for is_silent in [true, false] {
        for (agent, upstream) in PAIRS {
            let mut client = world.client(agent, upstream).await;
            let answer = client.start(get("/")).await.expect("a head");
            let mut sender = sending.recv().await.expect("the handler runs");
            client.vanish();
            drop(answer);
            if !is_silent {
                within("end of the download", async {
                    while sender.send_data(ZEROES).await.is_ok() {}
                })
                .await;
            }
            let what = format!("end upstream of a download ({agent:?} {upstream:?} {is_silent})");
            within(&what, left.recv()).await;
        }
    }
}

#[tokio::test]
async fn an_agent_that_leaves_ends_its_upload_upstream() {
    let (notice, mut ended) = mpsc::unbounded_channel();
    let (began, mut begun) = mpsc::unbounded_channel();
    let world = Versions::start(move |call: Call| {
        let (notice, began) = (notice.clone(), began.clone());
        async move {
            let mut body = call.request.into_body().expect("a streamed body");
            let mut last = None;
            while let Some(frame) = body.frame().await {
                _ = began.send(());
                last = Some(frame.is_ok());
                if frame.is_err() {
                    break;
                }
            }
            _ = notice.send(last);
            text(200, "it cannot come to this")
        }
    })
    .await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
        sender.send_data(ZEROES).await.expect("a reader");
        let request = post("/upload", body.boxed());
        let starting = tokio::spawn(async move {
            let kept = client.start(request).await;
            (client, kept)
        });
        within("the first piece", begun.recv()).await;
        starting.abort();
        _ = starting.await;
        drop(sender);
        // A handler that was dropped with its connection sends nothing; `None` stands for the channel's end, which is not it.
        let what = format!("end upstream of an upload ({agent:?} {upstream:?})");
        tokio::select! {
            last = ended.recv() => assert_ne!(last, Some(Some(true)), "{what}: it ended as if whole"),
            () = world.upstream(upstream).end_of(world.upstream(upstream).connections()) => {}
        }
        while begun.try_recv().is_ok() {}
    }
}

/// Its TLS or its connection just stops, which is no framing that the gate could find fault with.
#[tokio::test]
async fn an_upload_that_breaks_off_with_its_connection_is_not_laid_to_the_upstream() {
    let (began, mut begun) = mpsc::unbounded_channel();
    let world = Versions::start(move |call: Call| {
        let began = began.clone();
        async move {
            let mut body = call.request.into_body().expect("a streamed body");
            while let Some(Ok(_)) = body.frame().await {
                _ = began.send(());
            }
            text(200, "it cannot come to this")
        }
    })
    .await;
    for (turn, upstream) in [Http::One, Http::Two].into_iter().enumerate() {
        let host = upstream.host();
        let authority = format!("{host}:443");
        let tunnel = world.agent.tunnel(&authority, host, &["http/1.1"]);
        let mut tunnel = tunnel.await.expect("a TLS tunnel");
        let half =
            format!("POST /upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 8\r\n\r\nhalf");
        tunnel.write_all(half.as_bytes()).await.expect("a reader");
        within("the first half", begun.recv()).await;
        drop(tunnel);
        let needle = "\"code\":\"truncated_body\"";
        world.sidecar.logged_times(needle, turn + 1).await;
        // It had gone out by then, with all that it was given, so it was not denied.
        let log = world.sidecar.log();
        let lines = log.lines().filter(|line| line.contains(needle));
        for line in lines {
            assert!(line.contains("\"verdict\":\"failed\""), "{line}");
            assert!(!line.contains("\"upstream\":null"), "{line}");
        }
    }
    assert!(!world.sidecar.log().contains("upstream_protocol"));
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (senders, mut sending) = mpsc::unbounded_channel();
    let world = Versions::start(move |_call: Call| {
        let (sender, answer) = event_stream();
        _ = senders.send(sender);
        async { answer }
    })
    .await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        // The head comes before any event is there.
        let answer = client.start(get("/")).await.expect("a head");
        let mut sender = sending.recv().await.expect("the handler runs");
        let mut body = answer.into_body();
        for turn in 0..50 {
            let event = format!("data: {turn}\n\n");
            sender
                .send_data(event.clone().into())
                .await
                .expect("a reader");
            let what = format!("event {turn} ({agent:?} {upstream:?})");
            let frame = within(&what, body.frame()).await.expect("a frame");
            let data = frame.expect("a whole frame").into_data().expect("data");
            assert_eq!(data, event);
        }
        drop(sender);
        let rest = within("end of the events", body.collect()).await;
        assert!(rest.expect("a whole body").to_bytes().is_empty());
    }
}

#[tokio::test]
async fn pieces_of_an_upload_arrive_one_by_one() {
    let (pieces, mut arriving) = mpsc::unbounded_channel();
    let world = Versions::start(move |call: Call| {
        let pieces = pieces.clone();
        async move {
            let mut body = call.request.into_body().expect("a streamed body");
            while let Some(Ok(frame)) = body.frame().await {
                let data = frame.into_data().expect("data");
                // HTTP/2 may say goodbye with an empty frame.
                if !data.is_empty() {
                    _ = pieces.send(data);
                }
            }
            text(200, "all")
        }
    })
    .await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        let uploading = async {
            for turn in 0..50 {
                let piece = format!("piece {turn}");
                sender
                    .send_data(piece.clone().into())
                    .await
                    .expect("a reader");
                let what = format!("{piece} ({agent:?} {upstream:?})");
                assert_eq!(
                    within(&what, arriving.recv()).await.expect("a piece"),
                    piece
                );
            }
            drop(sender);
        };
        let (answer, ()) = tokio::join!(client.send(post("/", body.boxed())), uploading);
        assert_eq!(answer.body, "all");
    }
}

#[tokio::test]
async fn an_upload_waits_for_an_upstream_that_does_not_read() {
    let (release, gate) = watch::channel(false);
    let world = Versions::start(move |call: Call| {
        let mut gate = gate.clone();
        async move {
            _ = gate.wait_for(|open| *open).await;
            count(call).await
        }
    })
    .await;
    for (agent, upstream) in PAIRS {
        release.send_replace(false);
        let mut client = world.client(agent, upstream).await;
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        let uploading = async {
            let accepted = fill(&mut sender).await;
            drop(sender);
            release.send_replace(true);
            accepted
        };
        let (answer, accepted) = tokio::join!(client.send(post("/", body.boxed())), uploading);
        println!("{agent:?} {upstream:?}: {accepted} bytes were taken");
        assert!(accepted < BOUND, "{agent:?} {upstream:?}: {accepted}");
        assert_eq!(answer.body, accepted.to_string());
    }
}

#[tokio::test]
async fn a_download_waits_for_an_agent_that_does_not_read() {
    let (senders, mut sending) = mpsc::unbounded_channel();
    let world = Versions::start(move |_call: Call| {
        let (sender, body) = Channel::<Bytes, Infallible>::new(1);
        _ = senders.send(sender);
        async { Response::new(body.boxed()) }
    })
    .await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        let answer = client.start(get("/")).await.expect("a head");
        let mut sender = sending.recv().await.expect("the handler runs");
        let accepted = fill(&mut sender).await;
        println!("{agent:?} {upstream:?}: {accepted} bytes were taken");
        assert!(accepted < BOUND, "{agent:?} {upstream:?}: {accepted}");
        drop(sender);
        let body = within("the rest", answer.into_body().collect()).await;
        assert_eq!(body.expect("a whole body").to_bytes().len(), accepted);
    }
}

#[tokio::test]
async fn an_expectation_of_100_is_met() {
    let world = Versions::start(count).await;
    for upstream in [Http::One, Http::Two] {
        let host = upstream.host();
        let authority = format!("{host}:443");
        let tunnel = world.agent.tunnel(&authority, host, &["http/1.1"]).await;
        let mut tunnel = tunnel.expect("a TLS tunnel");
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        );
        tunnel.write_all(head.as_bytes()).await.expect("a reader");
        let interim = read_until(&mut tunnel, "\r\n\r\n").await;
        assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
        tunnel.write_all(b"body").await.expect("a reader");
        let answer = read_until(&mut tunnel, "\r\n\r\n4").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let seen = world.upstream(upstream).only();
        assert!(!seen.headers.contains_key(header::EXPECT));
    }
}

/// Half a gigabyte each way, not two: the binary under test is built without optimisation, and the bound on memory is far
/// below either.
#[tokio::test]
async fn a_body_of_half_a_gigabyte_costs_no_memory() {
    const PIECES: usize = 512 * 1024 * 1024 / PIECE;
    const ALLOWED_KIB: u64 = 32 * 1024;
    let world = Versions::start(|call: Call| async move {
        if call.seen.path() == "/upload" {
            return count(call).await;
        }
        let pieces = stream::iter((0..PIECES).map(|_| Ok(Frame::data(ZEROES))));
        Response::new(BodyExt::boxed(StreamBody::new(pieces)))
    })
    .await;
    // Buffers and sessions that any connection costs are not what is measured.
    for (agent, upstream) in PAIRS {
        world
            .client(agent, upstream)
            .await
            .send(post("/upload", text_body(ZEROES)))
            .await;
    }
    let before = world.sidecar.peak_memory();
    // One pair of like versions down and one of unlike versions up: each protocol once on each side.
    let mut client = world.client(Http::One, Http::Two).await;
    let answer = client.start(get("/download")).await.expect("a head");
    let mut body = answer.into_body();
    let mut total = 0;
    while let Some(frame) = within("the next piece", body.frame()).await {
        total += frame
            .expect("a whole body")
            .into_data()
            .expect("data")
            .len();
    }
    assert_eq!(total, PIECES * PIECE);
    let mut client = world.client(Http::Two, Http::One).await;
    let pieces = stream::iter((0..PIECES).map(|_| Ok(Frame::data(ZEROES))));
    let body = BodyExt::boxed(StreamBody::new(pieces));
    let answer = client.send(post("/upload", body)).await;
    assert_eq!(answer.body, (PIECES * PIECE).to_string());
    let grown = world.sidecar.peak_memory() - before;
    assert!(grown < ALLOWED_KIB, "it grew by {grown} KiB");
}

/// What may be on its way to an end that does not read. Nearly all of it is the kernel's: it lends each of the two
/// connections up to 4 MiB to send and 6 to receive.
const BOUND: usize = 16 * 1024 * 1024;

/// Sends until nothing is taken any more, or twice the bound was. Returns how much was.
async fn fill(sender: &mut Sender<Bytes>) -> usize {
    let mut accepted = 0;
    // Standing still shows in nothing but time. On a slow machine this ends early, and the rest of the test holds.
    while accepted < 2 * BOUND {
        match timeout(Duration::from_millis(500), sender.send_data(ZEROES)).await {
            Ok(sent) => sent.expect("a reader"),
            Err(_) => break,
        }
        accepted += PIECE;
    }
    accepted
}

/// Reads the body, and answers with its length.
async fn count(call: Call) -> Response<Body> {
    let mut body = call.request.into_body().expect("a streamed body");
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return text(400, "the body broke off");
        };
        total += frame.data_ref().map_or(0, Bytes::len);
    }
    text(200, total.to_string())
}

async fn sidecar(pki: &Pki, upstream: std::net::SocketAddr, arguments: &[&str]) -> Sidecar {
    let routes = format!("routes: [{{host: api.test, connect_to: {upstream}}}]\n");
    let builder = Sidecar::with_routes(pki, routes);
    let builder = arguments
        .iter()
        .fold(builder, |builder, argument| builder.arg(*argument));
    builder.start().await
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(text_body("")).expect("a request")
}

fn post(path: &str, body: Body) -> Request<Body> {
    Request::post(path).body(body).expect("a request")
}

/// Tells when it is dropped.
struct Notice(Option<mpsc::UnboundedSender<()>>);

impl Drop for Notice {
    fn drop(&mut self) {
        if let Some(notice) = self.0.take() {
            _ = notice.send(());
        }
    }
}

/// A body that tells when the server lets it go. It keeps something alive as long.
struct Guarded<K> {
    inner: Body,
    _kept: K,
    _notice: Notice,
}

impl<K> Guarded<K> {
    fn new(inner: Body, kept: K, notice: mpsc::UnboundedSender<()>) -> Self {
        Self {
            inner,
            _kept: kept,
            _notice: Notice(Some(notice)),
        }
    }
}

impl<K: Unpin> http_body::Body for Guarded<K> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }
}
