//! Raw bytes over HTTP/1.1 (threat model, rows 16, 17, 19 to 21 and 24). The upstream gets nothing, or the requests that
//! were meant and each in one form only, and another agent's request that follows on the same connection is its own.

use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::http2;
use crate::harness::agent::{Agent, Answer, Tunnel, exchange};
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::recorder::{Got, Recorder, Request};
use crate::harness::rig::{REAL, Rig};
use crate::harness::rows::{bytes, rows};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Upstream};
use crate::harness::{wire, within};

const LIST: &str = include_str!("../data/attack/framing.txt");

#[tokio::test]
async fn row_16_what_a_head_may_not_hold_is_refused() {
    run_list("16 ").await;
}

#[tokio::test]
async fn row_17_trailers_go_no_further() {
    run_list("17 ").await;
}

/// To an upstream that would show them, in either version.
#[tokio::test]
async fn row_17_trailers_of_a_request_are_dropped() {
    for alpn in ["http/1.1", "h2"] {
        let pki = Pki::new();
        let upstream = Upstream::with_tls(pki.server_config(&[alpn])).streaming();
        let upstream = upstream.start(async |call| {
            let body = call.request.into_body().expect("a streamed body");
            let body = body.collect().await.expect("a whole body");
            let trailers = body.trailers().map_or(0, http::HeaderMap::len);
            upstream::text(200, format!("{trailers} trailers, {:?}", body.to_bytes()))
        });
        let routes = "- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}\n";
        let rig = Rig::around(&pki, upstream.await, routes, |builder| builder).await;
        let request = "POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-T, Authorization\r\nTE: trailers\r\n\
             Connection: close\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\nAuthorization: Bearer agents-own\r\n\r\n";
        let answer = rig.tunnelled("api.test", request).await;
        answer.assert_served();
        assert_eq!(answer.text(), "0 trailers, b\"hello\"", "{alpn}");
        let seen = rig.upstream.only();
        assert!(seen.all("trailer").is_empty());
        assert_eq!(seen.all("authorization"), [format!("Bearer {REAL}")]);
    }
}

#[tokio::test]
async fn row_19_a_body_has_one_plain_length() {
    run_list("19 ").await;
}

#[tokio::test]
async fn row_20_a_body_in_chunks_has_one_reading() {
    run_list("20 ").await;
}

/// A line that is nearly a coding, beside a length that covers a second request.
#[tokio::test]
async fn row_20_no_mutated_coding_makes_a_second_request_of_a_body() {
    #[derive(Deserialize)]
    struct Gadget {
        id: String,
        gadget_latin1: String,
    }
    let body = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n".replace("HOST", &host(0));
    let cases = include_str!("../data/te_gadgets.jsonl")
        .lines()
        .map(|line| {
            let row: Gadget = serde_json::from_str(line).expect("a gadget");
            let head = format!(
                "POST /a HTTP/1.1\r\nHost: HOST\r\nContent-Length: {}\r\n",
                body.len()
            );
            let sent = [
                head.as_bytes(),
                &latin1(&row.gadget_latin1),
                b"\r\n\r\n",
                body.as_bytes(),
            ]
            .concat();
            Case {
                name: row.id,
                sent,
                leaves: false,
                outcomes: Expected::OneOrRefused(body.clone().into_bytes()),
            }
        });
    let refused = Bench::start().await.run(cases.collect()).await;
    assert!(refused > 150, "{refused}");
}

/// The requests of http_desync_guardian. What it calls severe or ambiguous is refused, or reaches the upstream as one
/// request that has one reading.
#[tokio::test]
async fn row_20_requests_that_desynchronise_other_servers_reach_the_upstream_once_or_not() {
    #[derive(Deserialize)]
    struct Row {
        name: String,
        tier: String,
        expect: String,
        head_latin1: String,
        /// How many `x` follow.
        #[serde(default)]
        body: usize,
        #[serde(default)]
        leaves: bool,
    }
    let rows: Vec<Row> = include_str!("../data/desync.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row"))
        .collect();
    assert_eq!(rows.len(), 159);
    let is_refused = |row: &Row| row.expect.starts_with(['4', '5']);
    assert!(
        rows.iter()
            .all(|row| row.tier != "Severe" || is_refused(row))
    );
    // The bodies of GET and HEAD, which have one reading here.
    let passed = rows
        .iter()
        .filter(|row| row.tier == "Ambiguous" && !is_refused(row));
    assert_eq!(passed.count(), 7);
    let cases = rows.into_iter().map(|row| Case {
        name: row.name,
        sent: [latin1(&row.head_latin1), vec![b'x'; row.body]].concat(),
        leaves: row.leaves,
        outcomes: Expected::Exactly(outcomes(&row.expect)),
    });
    Bench::start().await.run(cases.collect()).await;
}

#[tokio::test]
async fn row_21_a_line_has_one_end_and_a_request_line_one_form() {
    run_list("21 ").await;
}

#[tokio::test]
async fn row_23_an_upgrade_that_is_no_handshake_is_refused_or_stripped() {
    run_list("23 ").await;
}

#[tokio::test]
async fn row_24_methods_that_no_route_names_are_refused() {
    run_list("24 ").await;
}

/// The proxy's own port reads bytes as a tunnel does, and each refusal is one line of the log.
#[tokio::test]
async fn row_21_bad_bytes_are_refused_and_logged_once_on_the_proxys_own_port_too() {
    let bench = Bench::start().await;
    let mut sent = std::collections::BTreeMap::new();
    for case in cases("") {
        let Expected::Exactly(outcomes) = case.outcomes else {
            continue;
        };
        let [Outcome::Refused(status, code)] = &outcomes[..] else {
            continue;
        };
        // What is wrong with the bytes is found before anything is known of hosts and methods.
        if !case.name.starts_with("23")
            && !case.name.starts_with("24")
            && !matches!(code.as_str(), "bad_target" | "misdirected_request")
            && !in_body(code)
            && !case.leaves
        {
            let bytes = named(&case.sent, &host(0));
            let outer = wire::only(&mut bench.agent.raw().await, &bytes).await;
            outer.assert_refused(*status, code);
            let inner = wire::only(&mut bench.tunnel(&host(0)).await, &bytes).await;
            inner.assert_refused(*status, code);
            *sent.entry(code.clone()).or_insert(0) += 2;
        }
    }
    assert!(sent.len() > 20, "{sent:?}");
    assert!(bench.recorder.take(&host(0)).is_empty());
    let (_, log) = bench.sidecar.terminate().await;
    for (code, count) in sent {
        let needle = format!("\"code\":\"{code}\"");
        let lines = log.lines().filter(|line| line.contains(&needle));
        assert_eq!(lines.count(), count, "{code}");
    }
}

/// Whether it is found after the head went on.
fn in_body(code: &str) -> bool {
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

async fn run_list(row: &str) {
    let cases = cases(row);
    assert!(cases.len() >= 9, "{}", cases.len());
    Bench::start().await.run(cases).await;
}

fn cases(row: &str) -> Vec<Case> {
    let rows = rows::<3>(LIST).into_iter();
    rows.filter(|[name, ..]| name.starts_with(row))
        .map(|[name, expected, sent]| Case::new(name, &expected, &sent))
        .collect()
}

pub(super) struct Case {
    name: String,
    /// With HOST for the tunnel's host.
    sent: Vec<u8>,
    leaves: bool,
    outcomes: Expected,
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

enum Expected {
    Exactly(Vec<Outcome>),
    /// One POST of /a with this body, or one refusal with a 4xx.
    OneOrRefused(Vec<u8>),
}

#[derive(Debug)]
enum Outcome {
    Refused(u16, String),
    Served(String, String, Vec<u8>),
}

fn outcomes(text: &str) -> Vec<Outcome> {
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
    sidecar: Sidecar,
    pub(super) agent: Agent,
}

/// Each goes to a host of its own, and so has connections to the upstream of its own.
pub(super) const WORKERS: usize = 6;

pub(super) fn host(worker: usize) -> String {
    format!("w{worker}.a.test")
}

fn named(sent: &[u8], host: &str) -> Vec<u8> {
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
            "routes: [{{host: '*.a.test', auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: {}}}]\n",
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

    async fn tunnel(&self, host: &str) -> Tunnel {
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

fn latin1(text: &str) -> Vec<u8> {
    let bytes = text.chars().map(u8::try_from);
    bytes.map(|byte| byte.expect("one byte a letter")).collect()
}
