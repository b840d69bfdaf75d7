//! Connections to an upstream that requests of many agents share (threat model, row 63): nobody
//! takes the others' turn.

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::harness::agent::Agent;
use crate::harness::pki::Pki;
use crate::harness::raw_http2::{END_HEADERS, END_STREAM, HEADERS, RawHttp2, SETTINGS, frame};
use crate::harness::scripted::{Scripted, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::within;

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
