//! A sidecar before a recorder of raw bytes, and what the lists of raw requests are run with: each case is sent, then another
//! agent's request follows on the same connection to the upstream.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::http2;
use crate::harness::agent::{Agent, Answer, Tunnel, exchange};
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::recorder::{Got, Recorder, Request};
use crate::harness::rig::REAL;
use crate::harness::rows::bytes;
use crate::harness::sidecar::Sidecar;
use crate::harness::{wire, within};

pub(super) struct Case {
    pub(super) name: String,
    /// With HOST for the tunnel's host.
    pub(super) sent: Vec<u8>,
    pub(super) leaves: bool,
    pub(super) outcomes: Expected,
}

impl Case {
    /// In the notation of the list.
    pub(super) fn new(name: String, expected: &str, sent: &str) -> Self {
        Self {
            name,
            leaves: sent.ends_with('␄'),
            sent: bytes(sent.trim_end_matches('␄')),
            outcomes: Expected::Exactly(outcomes(expected)),
        }
    }
}

pub(super) enum Expected {
    Exactly(Vec<Outcome>),
    /// One POST of /a with this body, or one refusal with a 4xx.
    OneOrRefused(Vec<u8>),
}

#[derive(Debug)]
pub(super) enum Outcome {
    Refused(u16, String),
    Served(String, String, Vec<u8>),
}

pub(super) fn outcomes(text: &str) -> Vec<Outcome> {
    let texts = text.split(" ; ").filter(|text| *text != "-");
    texts
        .map(|text| {
            let mut words = text.splitn(3, ' ');
            let mut next = || words.next().unwrap_or_default().to_owned();
            let (first, second, body) = (next(), next(), next());
            match first.parse() {
                Ok(status) => Outcome::Refused(status, second),
                Err(_) => Outcome::Served(first, second, bytes(&body)),
            }
        })
        .collect()
}

/// A sidecar before a recorder, and agents that go through lists beside each other.
pub(super) struct Bench {
    pub(super) recorder: Recorder,
    pub(super) sidecar: Sidecar,
    pub(super) agent: Agent,
}

/// Each goes to a host of its own, and so has connections to the upstream of its own.
pub(super) const WORKERS: usize = 6;

pub(super) fn host(worker: usize) -> String {
    format!("w{worker}.a.test")
}

pub(super) fn named(sent: &[u8], host: &str) -> Vec<u8> {
    let mut named = Vec::with_capacity(sent.len());
    let mut rest = sent;
    while let Some(at) = rest.windows(4).position(|four| four == b"HOST") {
        named.extend(&rest[..at]);
        named.extend(host.as_bytes());
        rest = &rest[at + 4..];
    }
    named.extend(rest);
    named
}

impl Bench {
    pub(super) async fn start() -> Self {
        let pki = Pki::new();
        let recorder = Recorder::start(&pki).await;
        let routes = format!(
            "routes: [{{host: '*.a.test', auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, query_credentials: allow, connect_to: {}}}]\n",
            recorder.addr()
        );
        let sidecar = Sidecar::with_routes(&pki, routes)
            .slot("EGRESS_TOKEN_0", REAL)
            .start()
            .await;
        let agent = Agent::of(&sidecar);
        Self {
            recorder,
            sidecar,
            agent,
        }
    }

    /// Runs all cases, and returns how many were refused.
    pub(super) async fn run(&self, cases: Vec<Case>) -> usize {
        let cases = &cases;
        let workers = (0..WORKERS).map(|worker| async move {
            let host = host(worker);
            let mut other = self.tunnel(&host).await;
            let mut refused = 0;
            for case in cases.iter().skip(worker).step_by(WORKERS) {
                refused += usize::from(self.check(case, &host, &mut other).await);
                if matches!(&case.outcomes, Expected::Exactly(outcomes) if in_head(outcomes)) {
                    self.check_after_a_good_one(case, &host).await;
                }
            }
            refused
        });
        futures_util::future::join_all(workers).await.iter().sum()
    }

    /// Sends one case in a tunnel of its own, and then another agent's request.
    async fn check(&self, case: &Case, host: &str, other: &mut Tunnel) -> bool {
        let (answers, got) = self.converse(case, host, other).await;
        let name = &case.name;
        let refused = answers.first().is_some_and(|answer| answer.status != 200);
        match &case.outcomes {
            Expected::Exactly(outcomes) => assert_outcomes(name, outcomes, &answers, &got),
            Expected::OneOrRefused(body) => {
                let served = Outcome::Served("POST".into(), "/a".into(), body.clone());
                let code = answers.first().and_then(Answer::error_code);
                let outcome = match code {
                    Some(code) => Outcome::Refused(400, code),
                    None => served,
                };
                assert_outcomes(name, &[outcome], &answers, &got);
            }
        }
        refused
    }

    async fn converse(
        &self,
        case: &Case,
        host: &str,
        other: &mut Tunnel,
    ) -> (Vec<Answer>, Vec<Request>) {
        let mut tunnel = self.tunnel(host).await;
        let _ = tunnel.write_all(&named(&case.sent, host)).await;
        let _ = tunnel.flush().await;
        let wanted = match &case.outcomes {
            Expected::Exactly(outcomes) => outcomes.len(),
            Expected::OneOrRefused(_) => 1,
        };
        let mut raw = Vec::new();
        if !case.leaves {
            within(&case.name, async {
                while wire::whole(&raw) < wanted
                    && matches!(tunnel.read_buf(&mut raw).await, Ok(1..))
                {}
            })
            .await;
        }
        let _ = tunnel.shutdown().await;
        raw.extend(exchange(&mut tunnel, b"").await);
        // A connection that has bytes of this exchange left on it would give them away here.
        let next = format!("GET /next HTTP/1.1\r\nHost: {host}\r\n\r\n");
        other
            .write_all(next.as_bytes())
            .await
            .expect("a sidecar that reads");
        // TLS keeps back what it could not write in this turn.
        other.flush().await.expect("a sidecar that reads");
        let mut after = Vec::new();
        within("the next answer", async {
            while wire::whole(&after) == 0 && matches!(other.read_buf(&mut after).await, Ok(1..)) {}
        })
        .await;
        let after = wire::answers(&after);
        let [after] = &after[..] else {
            panic!(
                "{}: not one answer to the next request: {after:?}",
                case.name
            )
        };
        assert_eq!(after.text(), "/next", "{}: {after:?}", case.name);
        let mut got = Vec::new();
        for one in self.recorder.take(host) {
            match one {
                Got::Whole(request) => got.push(request),
                Got::Cut => {}
                Got::Wrong(what) => panic!("{}: the upstream got {what}", case.name),
            }
        }
        let last = got.pop().expect("the next request");
        assert_eq!(last.target, "/next", "{}: {got:?} {last:?}", case.name);
        (wire::answers(&raw), got)
    }

    /// Sends a block of HTTP/2 fields, in the notation of its list.
    pub(super) async fn check_http2(&self, name: &str, outcome: &str, fields: &str) {
        let host = host(0);
        let mut http = RawHttp2::open(&self.agent, &host).await;
        let ended = http2::send(&mut http, fields, &host).await;
        let got = http2::whole(name, self.recorder.take(&host));
        http2::assert_outcome(name, outcome, &ended, &got);
    }

    /// A good request on the connection is answered before the bad head is refused.
    async fn check_after_a_good_one(&self, case: &Case, host: &str) {
        let mut tunnel = self.tunnel(host).await;
        let good = format!("GET /good HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let sent = [good.as_bytes(), &named(&case.sent, host)].concat();
        let raw = exchange(&mut tunnel, &sent).await;
        let answers = wire::answers(&raw);
        let [served, refused] = &answers[..] else {
            panic!("{}: {answers:?}", case.name)
        };
        served.assert_served();
        assert_ne!(refused.status, 200, "{}", case.name);
        for got in self.recorder.take(host) {
            assert!(
                matches!(&got, Got::Whole(request) if request.target == "/good"),
                "{}: {got:?}",
                case.name
            );
        }
    }

    pub(super) async fn tunnel(&self, host: &str) -> Tunnel {
        let authority = format!("{host}:443");
        let tunnel = self.agent.tunnel(&authority, host, &["http/1.1"]);
        tunnel.await.expect("a tunnel")
    }
}

/// A refusal of a head that ends the connection by itself.
fn in_head(outcomes: &[Outcome]) -> bool {
    let others = [
        "truncated_head",
        "bad_expectation",
        "bad_header_name",
        "bad_target",
        "method_not_allowed",
        "misdirected_request",
    ];
    matches!(outcomes, [Outcome::Refused(_, code)] if !in_body(code) && !others.contains(&code.as_str()))
}

fn assert_outcomes(name: &str, outcomes: &[Outcome], answers: &[Answer], got: &[Request]) {
    assert_eq!(answers.len(), outcomes.len(), "{name}: {answers:#?}");
    let mut got = got.iter();
    for (outcome, answer) in outcomes.iter().zip(answers) {
        match outcome {
            Outcome::Refused(status, code) => {
                assert_eq!(
                    answer.error_code().as_ref(),
                    Some(code),
                    "{name}: {answer:?}"
                );
                answer.assert_refused(*status, code);
            }
            Outcome::Served(method, target, body) => {
                assert_eq!(answer.status, 200, "{name}: {answer:?}");
                answer.assert_served();
                let request = got
                    .next()
                    .unwrap_or_else(|| panic!("{name}: nothing arrived"));
                assert_eq!(
                    (&request.method, &request.target),
                    (method, target),
                    "{name}"
                );
                assert_eq!(request.body, *body, "{name}");
                let credential = format!("Bearer {REAL}");
                assert_eq!(
                    request.all("authorization"),
                    [credential.as_bytes()],
                    "{name}"
                );
                for gone in [
                    "connection",
                    "trailer",
                    "te",
                    "upgrade",
                    "expect",
                    "keep-alive",
                ] {
                    assert!(request.all(gone).is_empty(), "{name}: {request:?}");
                }
            }
        }
    }
    assert!(got.next().is_none(), "{name}: a second request");
}

/// Whether it is found after the head went on.
pub(super) fn in_body(code: &str) -> bool {
    [
        "bad_chunk_size",
        "chunk_extension",
        "bad_chunk_end",
        "bad_trailer",
        "trailers_too_large",
        "truncated_body",
    ]
    .contains(&code)
}
