//! HTTP/2 field blocks that no library would send, on their way into HTTP/1.1 (threat model, rows 4, 5, 16, 17, 19 and
//! 23). The upstream gets nothing, or one request in the canonical form.

use tokio::io::{AsyncRead, AsyncWrite};

use super::bench::{Bench, WORKERS, host};
use crate::harness::agent::send_http1;
use crate::harness::raw_http2::{Ended, RawHttp2};
use crate::harness::recorder::{Got, Request};
use crate::harness::rig::REAL;
use crate::harness::rows::{bytes, rows};
use crate::harness::wire::assert_error;

const LIST: &str = include_str!("../data/attack/http2.txt");

#[tokio::test]
async fn row_19_a_block_of_http2_fields_becomes_one_request_or_none() {
    let rows = rows::<3>(LIST);
    assert!(rows.len() >= 40, "{}", rows.len());
    let bench = Bench::start().await;
    let (rows, bench) = (&rows, &bench);
    let workers = (0..WORKERS).map(|worker| async move {
        let host = host(worker);
        let mut other = bench.agent.http1(&format!("{host}:443"), &host).await;
        for [name, outcome, fields] in rows.iter().skip(worker).step_by(WORKERS) {
            let mut http = RawHttp2::open(&bench.agent, &host).await;
            let ended = send(&mut http, fields, &host).await;
            // A connection that has bytes of this exchange left on it would give them away here.
            let next = http::Request::get("/next").header("host", &host);
            let next = next.body(bytes::Bytes::new()).expect("a request");
            let next = send_http1(&mut other, next).await;
            assert_eq!(next.text(), "/next", "{name}: {next:?}");
            let mut got = whole(name, bench.recorder.take(&host));
            assert_eq!(
                got.pop().expect("the next request").target,
                "/next",
                "{name}"
            );
            assert_outcome(name, outcome, &ended, &got);
        }
    });
    futures_util::future::join_all(workers).await;
}

pub(super) fn assert_outcome(name: &str, outcome: &str, ended: &Ended, got: &[Request]) {
    let refused = |ended: &Ended| ended.broken && ended.status.is_none();
    if outcome == "reset" {
        assert!(refused(ended), "{name}: {ended:?}");
        assert!(got.is_empty(), "{name}: {got:?}");
        return;
    }
    let outcome = match outcome.strip_suffix(" ; reset") {
        Some(_) if refused(ended) && got.is_empty() => return,
        Some(served) => served,
        None => outcome,
    };
    let mut words = outcome.splitn(3, ' ');
    let mut next = || words.next().unwrap_or_default();
    let (first, second, body) = (next(), next(), next());
    if let Ok(status) = first.parse::<u16>() {
        assert_eq!(ended.status, Some(status), "{name}: {ended:?}");
        if !second.is_empty() {
            assert_error(&ended.body, second);
        }
        assert!(got.is_empty(), "{name}: {got:?}");
        return;
    }
    assert_eq!(ended.status, Some(200), "{name}: {ended:?}");
    assert_eq!(ended.body, second, "{name}: {ended:?}");
    let [request] = got else {
        panic!("{name}: not one request: {got:?}")
    };
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        (first, second),
        "{name}"
    );
    assert_eq!(request.body, bytes(body), "{name}");
    let credential = format!("Bearer {REAL}");
    assert_eq!(
        request.all("authorization"),
        [credential.as_bytes()],
        "{name}"
    );
    for gone in ["x-t", "x-injected", "connection", "upgrade"] {
        assert!(request.all(gone).is_empty(), "{name}: {request:?}");
    }
    let lengths = request.all("content-length");
    let counted = request.body.len().to_string();
    assert!(
        lengths.is_empty() || lengths == [counted.as_bytes()],
        "{name}: {request:?}"
    );
}

/// Sends a block in the notation of the list, and what follows it.
pub(super) async fn send<S>(http: &mut RawHttp2<S>, text: &str, host: &str) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let text = text.replace("HOST", host);
    let (mut head, mut trailers, mut pieces) = (Vec::new(), None, Vec::new());
    for part in text.split(" & ") {
        let block = trailers.as_mut().unwrap_or(&mut head);
        if let Some(data) = part.strip_prefix("DATA ") {
            pieces.push(bytes(data));
        } else if let Some(without) = part.strip_prefix('@') {
            block.extend(usual(without, host));
        } else if let Some(count) = part.strip_prefix("MANY ") {
            let count = count.parse().expect("a number");
            block.extend(std::iter::repeat_n(field("x-a: 1"), count));
        } else if part == "TRAILERS" {
            trailers = Some(Vec::new());
        } else {
            block.push(field(part));
        }
    }
    if pieces.is_empty() {
        let id = http.begin(&view(&head)).await;
        return http.end(id).await;
    }
    let id = http.begin_open(&view(&head)).await;
    for (at, piece) in pieces.iter().enumerate() {
        let is_last = at + 1 == pieces.len() && trailers.is_none();
        http.data(id, piece, is_last).await;
    }
    if let Some(trailers) = &trailers {
        http.block(id, &view(trailers), true).await;
    }
    http.end(id).await
}

type Field = (String, Vec<u8>);

fn view(fields: &[Field]) -> Vec<(&str, &[u8])> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect()
}

/// The four pseudo-headers of a request for /a, without some.
fn usual(without: &str, host: &str) -> Vec<Field> {
    let without: Vec<&str> = without.split('-').collect();
    let all = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", host),
        (":path", "/a"),
    ];
    all.into_iter()
        .filter(|(name, _)| !without.contains(name))
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .collect()
}

/// `name: value`; a lone space stands for no name.
fn field(text: &str) -> Field {
    let (name, value) = match text.split_once(": ") {
        Some(pair) => pair,
        None => (text.strip_suffix(':').expect("a colon"), ""),
    };
    let name = String::from_utf8(bytes(name)).expect("a name of text");
    let name = if name == " " { String::new() } else { name };
    (name, bytes(value))
}

pub(super) fn whole(name: &str, got: Vec<Got>) -> Vec<Request> {
    let mut requests = Vec::new();
    for one in got {
        match one {
            Got::Whole(request) => requests.push(request),
            Got::Cut => {}
            Got::Wrong(what) => panic!("{name}: the upstream got {what}"),
        }
    }
    requests
}
