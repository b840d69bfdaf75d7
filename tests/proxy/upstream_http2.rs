//! What only an upstream that speaks HTTP/2 can do: with its streams, with interim answers, and with the connection.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use crate::harness::agent::Agent;
use crate::harness::pki::Pki;
use crate::harness::raw_http2::{RST_STREAM, RawHttp2, frame};
use crate::harness::scripted::{Scripted, Wire};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Body, text_body};
use crate::harness::versions::{Client, Http, Whole};
use crate::harness::within;

const AGENTS: [Http; 2] = [Http::One, Http::Two];

#[tokio::test]
async fn an_answer_that_needs_no_more_of_the_upload_is_whole() {
    let rig = Rig::start(|request, mut respond| async move {
        let mut body = request.into_body();
        _ = body.data().await;
        let mut answer = respond
            .send_response(Response::new(()), false)
            .expect("an open stream");
        // h2 follows it up with NO_ERROR, because nobody reads the rest.
        let early = Bytes::from_static(b"early");
        answer.send_data(early, true).expect("an open stream");
    })
    .await;
    for http in AGENTS {
        let mut client = Client::open(&rig.agent, http, "api.test").await;
        let (_sender, request) = upload().await;
        let answer = client.start(request).await.expect("a head");
        assert_eq!(Whole::of(answer).await.body, "early", "{http:?}");
    }
    assert_eq!(rig.upstream.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_is_reset_without_an_error_before_its_end_is_not_whole() {
    let (release, gate) = mpsc::unbounded_channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let rig = Rig::start(move |_, mut respond| {
        let gate = gate.clone();
        async move {
            let mut answer = respond
                .send_response(Response::new(()), false)
                .expect("an open stream");
            _ = gate.lock().await.recv().await;
            answer.send_reset(Reason::NO_ERROR);
        }
    })
    .await;
    for http in AGENTS {
        let mut client = Client::open(&rig.agent, http, "api.test").await;
        let answer = client.start(get("/")).await.expect("a head");
        release.send(()).expect("it runs");
        let body = within("end of the answer", answer.into_body().collect()).await;
        assert!(body.is_err(), "{http:?}: it ended as if whole");
    }
    rig.sidecar
        .logged_times("upstream_broke_off", AGENTS.len())
        .await;
}

/// An upload holds its stream open. Without an end to it the upstream would go on with an answer that nobody takes.
#[tokio::test]
async fn an_answer_that_is_no_good_resets_its_stream_with_the_upload_under_way() {
    let (seen, mut reset) = mpsc::unbounded_channel();
    let rig = Rig::start(move |_, mut respond| {
        let seen = seen.clone();
        async move {
            let mut many = Response::builder();
            for number in 0..101 {
                many = many.header(format!("x-{number}"), "1");
            }
            let many = many.body(()).expect("an answer");
            let mut answer = respond.send_response(many, false).expect("an open stream");
            let reason = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
            _ = seen.send(reason.expect("a reset"));
        }
    })
    .await;
    let mut client = Client::open(&rig.agent, Http::Two, "api.test").await;
    let (_sender, request) = upload().await;
    let answer = client.start(request).await.expect("a head");
    assert_eq!(answer.status(), 502);
    let reason = within("the reset", reset.recv()).await;
    assert_eq!(reason, Some(Reason::CANCEL));
}

#[tokio::test]
async fn interim_answers_are_passed_over_up_to_a_bound() {
    let rig = Rig::start(|request, mut respond| async move {
        let count: usize = request.uri().path()[1..].parse().expect("a number");
        for _ in 0..count {
            let hint = Response::builder().status(103).body(()).expect("a hint");
            if respond.send_informational(hint).is_err() {
                return;
            }
        }
        _ = respond.send_response(Response::new(()), true);
    })
    .await;
    let mut client = Client::open(&rig.agent, Http::Two, "api.test").await;
    assert_eq!(client.send(get("/1000")).await.status(), 200);
    assert_eq!(client.send(get("/1001")).await.status(), 502);
    rig.sidecar.logged("interim answers without end").await;
    // What would still come for the stream is not waited for: the connection ends, and the next request has another one.
    assert_eq!(client.send(get("/0")).await.status(), 200);
    assert_eq!(rig.upstream.connections(), 2);
}

/// To a server NO_ERROR is what it says itself of an upload that it needs no more of (RFC 9113, section 8.1).
#[tokio::test]
async fn an_upload_that_the_agent_resets_is_never_whole_for_the_upstream() {
    let (told, mut ends) = mpsc::unbounded_channel();
    let rig = Rig::start(move |request, respond| {
        let told = told.clone();
        async move {
            let (_open, mut body) = (respond, request.into_body());
            let end = loop {
                match body.data().await {
                    Some(Ok(data)) => {
                        _ = body.flow_control().release_capacity(data.len());
                        _ = told.send(String::from_utf8_lossy(&data).into_owned());
                    }
                    Some(Err(error)) => break format!("reset: {:?}", error.reason()),
                    None => break "whole".to_owned(),
                }
            };
            _ = told.send(end);
        }
    })
    .await;
    for reason in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR] {
        for length in [None, Some(&b"10"[..])] {
            let mut http2 = RawHttp2::open(&rig.agent, "api.test").await;
            let mut fields: Vec<(&str, &[u8])> = vec![
                (":method", b"POST"),
                (":scheme", b"https"),
                (":authority", b"api.test"),
                (":path", b"/"),
            ];
            fields.extend(length.map(|length| ("content-length", length)));
            let stream = http2.begin_open(&fields).await;
            http2.data(stream, b"hello", false).await;
            let begun = within("the first part of the upload", ends.recv()).await;
            assert_eq!(begun.as_deref(), Some("hello"));
            let reset = u32::from(reason).to_be_bytes();
            http2.send(&frame(RST_STREAM, 0, stream, &reset)).await;
            let end = within("the end of the upload", ends.recv()).await;
            let end = end.expect("the upstream runs");
            assert!(end.starts_with("reset"), "{reason:?} {length:?}: {end}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_goes_away_ends_its_streams_and_takes_no_more() {
    let (release, gate) = watch::channel(false);
    let rig = Rig::start(move |request, mut respond| {
        let mut gate = gate.clone();
        async move {
            if request.uri().path() == LAST {
                _ = gate.wait_for(|open| *open).await;
            }
            _ = respond.send_response(Response::new(()), true);
        }
    })
    .await;
    let mut client = Client::open(&rig.agent, Http::Two, "api.test").await;
    let mut other = client.beside();
    let last = tokio::spawn(async move { client.send(get(LAST)).await.status() });
    within("a second connection", async {
        while rig.upstream.connections() < 2 {
            assert_eq!(other.send(get("/")).await.status(), 200);
        }
    })
    .await;
    assert!(!last.is_finished());
    release.send_replace(true);
    let last = within("the answer", last).await;
    assert_eq!(last.expect("no panic"), 200);
}

/// The request after which an upstream's connection takes no more (RFC 9113, section 6.8).
const LAST: &str = "/last";

/// A sidecar before an upstream that answers each request as a script says.
struct Rig {
    agent: Agent,
    sidecar: Sidecar,
    upstream: Scripted,
}

impl Rig {
    async fn start<F, R>(script: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let pki = Pki::new();
        let tls = pki.server_config(&["h2"]);
        let upstream = Scripted::start(Some(tls), move |_, wire| serve(wire, script.clone())).await;
        let routes = format!(
            "routes: [{{host: api.test, connect_to: {}}}]\n",
            upstream.addr()
        );
        let sidecar = Sidecar::with_routes(&pki, routes).start().await;
        Self {
            agent: Agent::of(&sidecar),
            sidecar,
            upstream,
        }
    }
}

async fn serve<F, R>(wire: Wire, script: F)
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = h2::server::handshake(wire).await else {
        return;
    };
    let mut running = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == LAST {
            connection.graceful_shutdown();
        }
        running.spawn(script(request, respond));
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(text_body("")).expect("a request")
}

/// A request whose body does not end before its sender does.
async fn upload() -> (Sender<Bytes>, Request<Body>) {
    let (mut sender, body) = Channel::new(4);
    let piece = Bytes::from_static(b"a piece");
    sender.send_data(piece).await.expect("a reader");
    let request = Request::post("/").body(body.boxed()).expect("a request");
    (sender, request)
}
