//! Answers that an upstream breaks off at each of their bytes, in each way that a connection can end (row 48).
//! Nothing that is not whole is ever taken for whole, and nothing is asked twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::harness::agent::Agent;
use crate::harness::command;
use crate::harness::pki::Pki;
use crate::harness::scripted::{Scripted, Wire, cut, request, reset, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::text_body;
use crate::harness::versions::{Client, Http};
use crate::harness::within;

const BODY: &str = "twelve bytes";

/// An answer, where its head ends, and where it is whole.
struct Answer {
    bytes: Vec<u8>,
    head: usize,
    whole: usize,
    /// Only the end of the connection tells the end of the body.
    until_close: bool,
}

impl Answer {
    fn http1(text: &str) -> Self {
        let head = text.find("\r\n\r\n").expect("a head") + 4;
        Self {
            bytes: text.into(),
            head,
            whole: text.len(),
            until_close: false,
        }
    }

    /// Frames of HTTP/2 on stream 1 (RFC 9113, section 4.1).
    fn http2(length: Option<&str>) -> Self {
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            let length = u8::try_from(payload.len()).expect("a small frame");
            [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
        };
        // `:status 200` out of the static table, and a literal content-length (RFC 7541, sections 6.1 and 6.2.2).
        let mut block = vec![0x88];
        if let Some(length) = length {
            block.extend([
                0x0f,
                0x0d,
                u8::try_from(length.len()).expect("a short text"),
            ]);
            block.extend(length.as_bytes());
        }
        let mut bytes = [frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat();
        bytes.extend(frame(1, 4, 1, &block));
        let head = bytes.len();
        bytes.extend(frame(0, 0, 1, &BODY.as_bytes()[..6]));
        // With a length, all of the body is all that there can be, however the stream ends.
        bytes.extend(frame(
            0,
            u8::from(length.is_some()),
            1,
            &BODY.as_bytes()[6..],
        ));
        if length.is_none() {
            bytes.extend(frame(0, 1, 1, &[]));
        }
        let whole = bytes.len();
        Self {
            bytes,
            head,
            whole,
            until_close: false,
        }
    }
}

/// How the connection ends behind the last byte.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// TLS is closed, and then TCP.
    Clean,
    /// TCP alone is closed, as by somebody in between.
    Torn,
    Reset,
}

const ENDS: [End; 3] = [End::Clean, End::Torn, End::Reset];

#[tokio::test]
async fn row_48_an_answer_with_a_length_is_broken_off_at_every_byte() {
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-Name: x\r\n\r\n{BODY}");
    break_off(Http::One, Answer::http1(&text)).await;
}

#[tokio::test]
async fn row_48_an_answer_in_chunks_is_broken_off_at_every_byte() {
    let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6;a=b\r\ntwelve\r\n6\r\n bytes\r\n0\r\nX-T: x\r\n\r\n";
    break_off(Http::One, Answer::http1(text)).await;
}

#[tokio::test]
async fn row_48_an_answer_that_ends_with_its_connection_is_broken_off_at_every_byte() {
    let text = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{BODY}");
    let mut answer = Answer::http1(&text);
    answer.until_close = true;
    break_off(Http::One, answer).await;
}

#[tokio::test]
async fn row_48_an_answer_in_frames_is_broken_off_at_every_byte() {
    break_off(Http::Two, Answer::http2(Some("12"))).await;
    break_off(Http::Two, Answer::http2(None)).await;
}

/// An upstream may add words to the end of a connection (RFC 9113, section 6.8), and one that repeats the credential in them
/// would have it in the log and in the audit file, which say that they hold none.
#[tokio::test]
async fn row_42_what_an_upstream_says_as_it_hangs_up_is_not_told() {
    const TOKEN: &str = "real-token-of-the-host";
    let pki = Pki::new();
    let tls = pki.server_config(&["h2"]);
    let taken = Arc::new(Notify::new());
    let is_taken = taken.clone();
    let upstream = Scripted::start(Some(tls), move |ordinal, mut wire| {
        let is_taken = is_taken.clone();
        async move {
            if !frames_up_to_a_request(&mut wire).await {
                return;
            }
            // Once before an answer, and once within one.
            if ordinal == 2 {
                let answer = Answer::http2(Some("12"));
                say(&mut wire, &answer.bytes[..answer.head]).await;
                is_taken.notified().await;
            }
            let mut goaway = vec![0, 0, 0, 0, 0, 0, 0, 2];
            goaway.extend(format!("not with Bearer {TOKEN}").bytes());
            let length = u8::try_from(goaway.len()).expect("a small frame");
            goaway.splice(..0, [0, 0, length, 7, 0, 0, 0, 0, 0]);
            let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
            say(&mut wire, [settings, &goaway].concat()).await;
            _ = wire.shutdown().await;
        }
    })
    .await;
    let routes = format!(
        "routes: [{{host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: '{}'}}]\n",
        upstream.addr()
    );
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db").display().to_string();
    let sidecar = Sidecar::with_routes(&pki, routes)
        .slot("EGRESS_TOKEN_0", TOKEN)
        .arg(format!("--audit={audit}"))
        .arg("--log=trace")
        .start()
        .await;
    let agent = Agent::of(&sidecar);
    let refusal = agent.get("https://api.test/").await;
    refusal.assert_refused(502, "upstream_protocol");
    let mut http = Client::open(&agent, Http::One, "api.test").await;
    let get = Request::get("/").body(text_body("")).expect("a request");
    let begun = http.start(get).await.expect("an answer");
    taken.notify_one();
    let body = within("end of the answer", begun.into_body().collect()).await;
    assert!(body.is_err(), "{body:?}");
    sidecar.logged("upstream_broke_off").await;
    let log = sidecar.log();
    assert!(!log.contains(TOKEN), "{log}");
    sidecar.terminate().await;
    let rows = command::egress(["audit", &audit]).await.stdout;
    let reasons = rows.matches("unexpected internal error").count();
    assert_eq!(reasons, 2, "{rows}");
    assert!(!rows.contains(TOKEN), "{rows}");
}

/// Asks for the answer up to each of its bytes, once in each way to end.
async fn break_off(http: Http, answer: Answer) {
    let pki = Pki::new();
    let answer = Arc::new(answer);
    let asked = Arc::new(AtomicUsize::new(0));
    let (script, count) = (answer.clone(), asked.clone());
    let tls = pki.server_config(&[http.alpn()]);
    let turn = Arc::new(AtomicUsize::new(0));
    let current = turn.clone();
    let upstream = Scripted::start(Some(tls), move |_, mut wire| {
        let (script, count, current) = (script.clone(), count.clone(), current.clone());
        async move {
            let is_asked = match http {
                Http::One => request(&mut wire).await.is_some(),
                Http::Two => frames_up_to_a_request(&mut wire).await,
            };
            if !is_asked {
                return;
            }
            count.fetch_add(1, Ordering::SeqCst);
            let turn = current.load(Ordering::SeqCst);
            let (length, end) = (turn / ENDS.len(), ENDS[turn % ENDS.len()]);
            say(&mut wire, &script.bytes[..length]).await;
            match end {
                End::Clean => _ = wire.shutdown().await,
                End::Torn => cut(wire),
                End::Reset => reset(wire),
            }
        }
    })
    .await;
    let routes = format!(
        "routes: [{{host: api.test, connect_to: {}}}]\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let agent = Agent::of(&sidecar);
    let mut http2 = Client::open(&agent, Http::Two, "api.test").await;
    let mut broken = 0;
    for at in 0..=answer.whole * ENDS.len() + ENDS.len() - 1 {
        turn.store(at, Ordering::SeqCst);
        let (length, end) = (at / ENDS.len(), ENDS[at % ENDS.len()]);
        let what = format!("{http:?}: {length} of {} bytes, {end:?}", answer.whole);
        let is_whole = match answer.until_close {
            true => length >= answer.head && end == End::Clean,
            false => length == answer.whole,
        };
        // A reset overtakes what was sent before it, and so does the end of a connection that all streams share.
        let can_be_lost = end == End::Reset || (http == Http::Two && end == End::Torn);
        let get = Request::get("/").body(text_body("")).expect("a request");
        // The agent's HTTP/2 connection outlives all of it. Over HTTP/1.1 an answer that broke off ends the connection.
        let mut http1;
        let got = if at % 2 == 0 {
            http2.start(get).await
        } else {
            http1 = Client::open(&agent, Http::One, "api.test").await;
            http1.start(get).await
        };
        let got = match got {
            Ok(got) => got,
            // What breaks off right behind its head can end before that head went out.
            Err(_) if length >= answer.head && (!is_whole || can_be_lost) => {
                broken += 1;
                continue;
            }
            Err(error) => panic!("{what}: no answer: {error}"),
        };
        let (head, body) = got.into_parts();
        let body = within("end of the answer", body.collect()).await;
        if length < answer.head {
            assert_eq!(head.status, 502, "{what}");
            assert_eq!(
                head.headers["x-egress-error"], "upstream_protocol",
                "{what}"
            );
        } else if head.status == 502 && (!is_whole || can_be_lost) {
            // The end can overtake the head, too.
            assert!(head.headers.contains_key("x-egress-error"), "{what}");
        } else if is_whole && !(can_be_lost && body.is_err()) {
            let body = body.unwrap_or_else(|error| panic!("{what}: {error}"));
            let part = &BODY[..BODY.len().min(length - answer.head)];
            let part = if answer.until_close { part } else { BODY };
            assert_eq!(body.to_bytes(), part, "{what}");
            continue;
        } else {
            assert_eq!(head.status, 200, "{what}");
            assert!(body.is_err(), "{what}: it ended as if whole: {body:?}");
        }
        broken += 1;
    }
    let lines = sidecar.logged_times("\"verdict\":\"failed\"", broken).await;
    assert_eq!(lines.len(), broken, "{lines:#?}");
    for line in lines {
        let codes = ["upstream_protocol", "upstream_broke_off"];
        let is_told = |code: &&str| line.contains(&format!("\"code\":\"{code}\""));
        assert!(codes.iter().any(is_told), "{line}");
        assert!(line.contains("\"detail\":\""), "{line}");
    }
    let turns = (answer.whole + 1) * ENDS.len();
    // Behind a whole answer the next request can meet the connection's end before anybody knows of it: it fails, unasked.
    let asked = asked.load(Ordering::SeqCst);
    assert!(
        asked <= turns,
        "something was asked twice: {asked} of {turns}"
    );
    assert!(
        asked + ENDS.len() > turns,
        "never asked: {asked} of {turns}"
    );
}

/// Reads the preface and frames, until the head of a request was among them.
async fn frames_up_to_a_request(wire: &mut Wire) -> bool {
    let mut preface = [0; 24];
    let mut head = [0; 9];
    if wire.read_exact(&mut preface).await.is_err() {
        return false;
    }
    while wire.read_exact(&mut head).await.is_ok() {
        let [a, b, c, kind, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if wire.read_exact(&mut payload).await.is_err() {
            return false;
        }
        if kind == 1 {
            return true;
        }
    }
    false
}
