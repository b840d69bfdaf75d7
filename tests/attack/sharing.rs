//! Connections to an upstream that requests of many agents share (threat model, rows 22 and 63): nobody's request becomes
//! part of another's, and nobody takes the others' turn.

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_util::either::Either;

use crate::harness::agent::{Agent, exchange};
use crate::harness::pki::Pki;
use crate::harness::raw_http2::{END_HEADERS, END_STREAM, HEADERS, RawHttp2, SETTINGS, frame};
use crate::harness::scripted::{Scripted, Wire, request, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::within;

/// A body that begins as a request does, and takes the head of the next one for the value of a field.
const BODY: &str = "GET /admin HTTP/1.1\r\nX: ";

/// An upstream that answers every head at once takes a body for the next request ("CL.0").
#[tokio::test]
async fn row_22_a_body_that_the_upstream_does_not_read_takes_no_other_request_along() {
    for (rules, reaches) in [
        // Here every path is admitted, and no credential comes along.
        ("", true),
        ("path_allowlist: [/ok/], ", false),
        ("methods: [POST, GET], ", false),
        (
            "auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, insecure_inject: true, ",
            false,
        ),
    ] {
        let (heard, mut heads) = mpsc::unbounded_channel();
        let upstream = Scripted::start(None, move |_, mut wire: Wire| {
            let heard = heard.clone();
            async move {
                while let Some(head) = request(&mut wire).await {
                    if head.starts_with("POST ") {
                        arrival(&wire, BODY.len()).await;
                    }
                    _ = heard.send(head);
                    say(
                        &mut wire,
                        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
                    )
                    .await;
                }
            }
        })
        .await;
        let routes = format!(
            "routes: [{{host: c.a.test, scheme: http, port: 80, {rules}connect_to: {}}}]\n",
            upstream.addr()
        );
        let sidecar = Sidecar::with_routes(&Pki::new(), routes)
            .slot("EGRESS_TOKEN_0", "the-real-one")
            .start()
            .await;
        let agent = Agent::of(&sidecar);
        let length = BODY.len();
        for (line, rest) in [
            (
                "POST http://c.a.test/ok/1",
                format!("Content-Length: {length}\r\n\r\n{BODY}"),
            ),
            ("GET http://c.a.test/ok/2", "\r\n".to_owned()),
        ] {
            let head = format!("{line} HTTP/1.1\r\nHost: c.a.test\r\nConnection: close\r\n{rest}");
            let answer = exchange(&mut agent.raw().await, head.as_bytes()).await;
            assert!(answer.ends_with(b"fine"), "{rules}: {line}");
        }
        let heads: Vec<String> = std::iter::from_fn(|| heads.try_recv().ok()).collect();
        assert_eq!(heads.len(), 2, "{rules}: {heads:?}");
        let admin = heads.iter().any(|head| head.starts_with("GET /admin "));
        assert_eq!(admin, reaches, "{rules}: {heads:?}");
    }
}

/// Waits until so many bytes can be read.
async fn arrival(wire: &Wire, count: usize) {
    let Either::Left(tcp) = wire else {
        panic!("plain HTTP");
    };
    let mut room = vec![0; count];
    within("the body", async {
        while tcp.peek(&mut room).await.expect("an open socket") < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What the upstream saw: of which connection, and what.
type Seen = (u64, What);

#[derive(Debug, PartialEq, Eq)]
enum What {
    Acknowledged,
    Began,
}

#[tokio::test]
async fn row_63_requests_that_an_upstream_keeps_waiting_do_not_hold_up_another_agents() {
    let (rig, mut seen) = World::start(|ordinal, _| ordinal == 1).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    http.begin(&head("GET")).await;
    // The upstream's limit is known once it is acknowledged.
    let first = [seen.next().await, seen.next().await];
    assert!(first.contains(&(1, What::Acknowledged)), "{first:?}");
    http.begin(&head("GET")).await;
    assert_eq!(seen.next().await, (1, What::Began));
    let mut other = RawHttp2::open(&rig.agent, "api.test").await;
    assert_eq!(other.request(&head("GET")).await.status, Some(200));
}

/// An upstream may answer before it has all of a request, and owes no reset (RFC 9113, section 8.1): to it the stream goes on.
#[tokio::test]
async fn row_63_uploads_that_outlive_their_answers_do_not_hold_up_another_agents_requests() {
    let (rig, mut seen) = World::start(|_, _| false).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    for turn in 0..2 {
        let id = http.begin_open(&head("POST")).await;
        http.data(id, b"a piece", false).await;
        assert_eq!(http.end(id).await.status, Some(200), "{turn}");
        assert_eq!(seen.began().await, 1);
    }
    let mut other = RawHttp2::open(&rig.agent, "api.test").await;
    assert_eq!(other.request(&head("GET")).await.status, Some(200));
    assert_eq!(seen.began().await, 2);
}

fn head(method: &'static str) -> [(&'static str, &'static [u8]); 4] {
    [
        (":method", method.as_bytes()),
        (":scheme", b"https"),
        (":authority", b"api.test"),
        (":path", b"/"),
    ]
}

/// An upstream that allows two streams a connection, and a sidecar before it.
struct World {
    agent: Agent,
    _sidecar: Sidecar,
    _upstream: Scripted,
}

struct Events(mpsc::UnboundedReceiver<Seen>);

impl World {
    /// `keeps_waiting` says by connection and stream which requests get no answer. Others get theirs at once.
    async fn start(keeps_waiting: fn(u64, u32) -> bool) -> (Self, Events) {
        let (heard, seen) = mpsc::unbounded_channel();
        let pki = Pki::new();
        let upstream = Scripted::start(
            Some(pki.server_config(&["h2"])),
            move |ordinal, mut wire| {
                let heard = heard.clone();
                async move {
                    let mut preface = [0; 24];
                    _ = wire.read_exact(&mut preface).await;
                    // SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, section 6.5.2).
                    say(&mut wire, frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 2])).await;
                    let mut head = [0; 9];
                    while wire.read_exact(&mut head).await.is_ok() {
                        let [a, b, c, kind, flags, stream @ ..] = head;
                        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
                        _ = wire.read_exact(&mut payload).await;
                        let stream = u32::from_be_bytes(stream);
                        match (kind, flags & 1) {
                            (SETTINGS, 0) => say(&mut wire, frame(SETTINGS, 1, 0, &[])).await,
                            (SETTINGS, _) => _ = heard.send((ordinal, What::Acknowledged)),
                            (HEADERS, _) => {
                                if !keeps_waiting(ordinal, stream) {
                                    // `:status: 200` of the static table (RFC 7541, appendix A).
                                    let ends = END_HEADERS | END_STREAM;
                                    say(&mut wire, frame(HEADERS, ends, stream, &[0x88])).await;
                                }
                                _ = heard.send((ordinal, What::Began));
                            }
                            _ => {}
                        }
                    }
                }
            },
        )
        .await;
        let routes = format!(
            "routes: [{{host: api.test, connect_to: {}}}]\n",
            upstream.addr()
        );
        let sidecar = Sidecar::with_routes(&pki, routes).start().await;
        let world = Self {
            agent: Agent::of(&sidecar),
            _sidecar: sidecar,
            _upstream: upstream,
        };
        (world, Events(seen))
    }
}

impl Events {
    async fn next(&mut self) -> Seen {
        within("the upstream", self.0.recv())
            .await
            .expect("it runs")
    }

    /// The connection of the next request.
    async fn began(&mut self) -> u64 {
        loop {
            if let (connection, What::Began) = self.next().await {
                return connection;
            }
        }
    }
}
