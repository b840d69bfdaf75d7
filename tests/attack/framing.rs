//! Raw bytes over HTTP/1.1 (threat model, rows 16, 17, 19 to 21 and 24). The upstream gets nothing, or the requests that
//! were meant and each in one form only, and another agent's request that follows on the same connection is its own.

use http_body_util::BodyExt;
use serde::Deserialize;

use super::bench::{Bench, Case, Expected, Outcome, host, in_body, named, outcomes};
use crate::harness::pki::Pki;
use crate::harness::rig::{REAL, Rig};
use crate::harness::rows::rows;
use crate::harness::upstream::{self, Upstream};
use crate::harness::wire;

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

fn latin1(text: &str) -> Vec<u8> {
    let bytes = text.chars().map(u8::try_from);
    bytes.map(|byte| byte.expect("one byte a letter")).collect()
}
