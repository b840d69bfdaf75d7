//! Bytes that two parsers could read as different requests: refused with our own answer and one line in the log, on the
//! proxy's own port and inside a tunnel (threat model, rows 16 to 24).

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::harness::agent::exchange;
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::{REAL, Rig};
use crate::harness::upstream::{self, Upstream};
use crate::harness::wire;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
";

const GOOD: &str = "GET /good HTTP/1.1\r\nHost: api.test\r\n\r\n";

/// A head that is refused, with the code.
fn heads() -> Vec<(Vec<u8>, u16, &'static str)> {
    let post = |lines: &str| {
        format!("POST / HTTP/1.1\r\nHost: api.test\r\n{lines}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n").into_bytes()
    };
    let many: String = (0..200).map(|n| format!("X-{n}: {n}\r\n")).collect();
    vec![
        (
            post("Content-Length: 5\r\nTransfer-Encoding: chunked"),
            400,
            "length_and_encoding",
        ),
        (
            post("Transfer-Encoding: chunked\r\nContent-Length: 5"),
            400,
            "length_and_encoding",
        ),
        (
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            400,
            "repeated_transfer_encoding",
        ),
        (
            post("Transfer-Encoding: chunked\r\ntransfer-encoding: identity"),
            400,
            "repeated_transfer_encoding",
        ),
        (
            post("Transfer-Encoding: gzip, chunked"),
            400,
            "bad_transfer_encoding",
        ),
        (
            post("Transfer-Encoding: chunked, chunked"),
            400,
            "bad_transfer_encoding",
        ),
        (
            post("Transfer-Encoding: xchunked"),
            400,
            "bad_transfer_encoding",
        ),
        (
            post("Transfer-Encoding: identity"),
            400,
            "bad_transfer_encoding",
        ),
        (
            post("Transfer-Encoding: \"chunked\""),
            400,
            "bad_transfer_encoding",
        ),
        (post("Transfer-Encoding: chunked\x0b"), 400, "control_byte"),
        (
            post("Transfer-Encoding : chunked"),
            400,
            "space_before_colon",
        ),
        (post("Transfer-Encoding:"), 400, "bad_transfer_encoding"),
        (
            post("Content-Length: 5\r\nContent-Length: 5"),
            400,
            "repeated_content_length",
        ),
        (
            post("Content-Length: 5\r\nContent-Length: 0"),
            400,
            "repeated_content_length",
        ),
        (post("Content-Length: 5, 5"), 400, "repeated_content_length"),
        (post("Content-Length: +5"), 400, "bad_content_length"),
        (post("Content-Length: -1"), 400, "bad_content_length"),
        (post("Content-Length: 0x5"), 400, "bad_content_length"),
        (post("Content-Length: 05"), 400, "bad_content_length"),
        (post("Content-Length: 5 5"), 400, "bad_content_length"),
        (post("Content-Length:"), 400, "bad_content_length"),
        (
            post("Content-Length: 99999999999999999999"),
            400,
            "bad_content_length",
        ),
        (post("X-A: 1\r\n folded"), 400, "obs_fold"),
        (post("X-A: 1\r\n\tContent-Length: 5"), 400, "obs_fold"),
        (post("X-A: 1\nX-B: 2"), 400, "bare_lf"),
        (post("X-A: 1\rX-B: 2"), 400, "bare_cr"),
        (post("X-A: 1\0"), 400, "control_byte"),
        (post("X-A: \x1b[31m"), 400, "control_byte"),
        (post("X A: 1"), 400, "bad_field_name"),
        (post("X-A"), 400, "bad_field_name"),
        (post(": 1"), 400, "bad_field_name"),
        (post("X-\u{e4}: 1"), 400, "bad_field_name"),
        (post("X\0A: 1"), 400, "bad_field_name"),
        (
            b"GET / HTTP/1.1\nHost: api.test\n\n".to_vec(),
            400,
            "bare_lf",
        ),
        (
            b"GET / HTTP/1.1 \r\nHost: api.test\r\n\r\n".to_vec(),
            400,
            "bad_request_line",
        ),
        (
            b"GET  / HTTP/1.1\r\nHost: api.test\r\n\r\n".to_vec(),
            400,
            "bad_request_line",
        ),
        (
            b"GET\t/ HTTP/1.1\r\nHost: api.test\r\n\r\n".to_vec(),
            400,
            "bad_request_line",
        ),
        (b"GET /\r\n\r\n".to_vec(), 400, "bad_request_line"),
        (
            b"GET / HTTP/1.2\r\nHost: api.test\r\n\r\n".to_vec(),
            505,
            "bad_version",
        ),
        (
            b"GET / HTTP/2.0\r\nHost: api.test\r\n\r\n".to_vec(),
            505,
            "bad_version",
        ),
        (
            b"GET / http/1.1\r\nHost: api.test\r\n\r\n".to_vec(),
            505,
            "bad_version",
        ),
        (
            b"GET / HTTP/1.1\rHost: api.test\r\n\r\n".to_vec(),
            400,
            "bare_cr",
        ),
        (
            b"\r\nGET / HTTP/1.1\r\nHost: api.test\r\n\r\n".to_vec(),
            400,
            "leading_line",
        ),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            400,
            "tls_hello",
        ),
        (b"\x00\x01\x02\xff\xfe".to_vec(), 400, "bad_method"),
        (b"garbage\r\n\r\n".to_vec(), 400, "bad_request_line"),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
            505,
            "http2_preface",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: api.test\r\nX-A: {}\r\n\r\n",
                "a".repeat(1 << 20)
            )
            .into_bytes(),
            431,
            "head_too_large",
        ),
        (
            format!(
                "GET /{} HTTP/1.1\r\nHost: api.test\r\n\r\n",
                "a".repeat(1 << 20)
            )
            .into_bytes(),
            431,
            "head_too_large",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: api.test\r\n{many}\r\n").into_bytes(),
            431,
            "too_many_fields",
        ),
        (
            b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nContent-Length: 5\r\n\r\n"
                .to_vec(),
            400,
            "upgrade_with_body",
        ),
        (
            b"POST / HTTP/1.0\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            400,
            "encoding_in_http10",
        ),
    ]
}

#[tokio::test]
async fn a_head_that_two_parsers_read_differently_is_refused_and_logged_once() {
    let rig = Rig::new(ROUTES).await;
    for (head, status, code) in heads() {
        rig.outer(&head).await.assert_refused(status, code);
        rig.tunnelled("api.test", &head)
            .await
            .assert_refused(status, code);
    }
    assert!(rig.upstream.seen().is_empty());
    let (_, log) = rig.sidecar.terminate().await;
    for code in heads().iter().map(|(_, _, code)| *code) {
        let sent = 2 * heads()
            .iter()
            .filter(|(_, _, other)| *other == code)
            .count();
        let lines = log
            .lines()
            .filter(|line| line.contains(&format!("\"code\":\"{code}\"")))
            .count();
        assert_eq!(lines, sent, "{code}");
    }
}

#[tokio::test]
async fn a_good_request_before_a_bad_head_is_still_answered() {
    let rig = Rig::new(ROUTES).await;
    for (head, status, code) in heads() {
        let mut tunnel = rig
            .agent
            .tunnel("api.test:443", "api.test", &["http/1.1"])
            .await
            .expect("a tunnel");
        let raw = exchange(&mut tunnel, &[GOOD.as_bytes(), &head].concat()).await;
        let answers = wire::answers(&raw);
        let [served, refused] = &answers[..] else {
            panic!("{code}: {answers:?}")
        };
        served.assert_served();
        refused.assert_refused(status, code);
    }
    assert!(
        rig.upstream
            .seen()
            .iter()
            .all(|seen| seen.target == "/good")
    );
}

#[tokio::test]
async fn a_body_in_broken_chunks_is_the_agents_fault_and_never_a_whole_request() {
    for alpn in ["http/1.1", "h2"] {
        let pki = Pki::new();
        let upstream = Upstream::with_tls(pki.server_config(&[alpn]));
        let upstream = upstream
            .start(async |_call| upstream::text(200, "fine"))
            .await;
        let rig = Rig::around(&pki, upstream, ROUTES, |builder| builder).await;
        for (body, code) in [
            ("5;ext=1\r\nhello\r\n0\r\n\r\n", "chunk_extension"),
            ("5 \r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
            ("0x5\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
            ("-1\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
            ("5\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
            ("fffffffffffffffff\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
            ("5\r\nhelloGET / HTTP/1.1\r\n\r\n", "bad_chunk_end"),
            ("5\r\nhello\r\n0\r\nX A: 1\r\n\r\n", "bad_trailer"),
        ] {
            let request = format!(
                "POST /broken HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}{GOOD}"
            );
            let refusal = rig.tunnelled("api.test", request).await;
            refusal.assert_refused(400, code);
        }
        assert!(rig.upstream.seen().is_empty(), "{:?}", rig.upstream.seen());
    }
}

#[tokio::test]
async fn http2_fields_that_would_break_an_http1_head_are_refused() {
    let rig = Rig::new(ROUTES).await;
    let fields: &[(&str, &[u8])] = &[
        ("x-a", b"1\r\nx-injected: 1"),
        ("x-a", b"1\nx-injected: 1"),
        ("x-a", b"1\rx-injected: 1"),
        ("x-a", b"1\0"),
        ("x-a: 1\r\nx-injected", b"1"),
        ("x a", b"1"),
        ("x-a:", b"1"),
        ("X-A", b"1"),
        ("", b"1"),
        ("connection", b"close"),
        ("connection", b"authorization"),
        ("transfer-encoding", b"chunked"),
        ("keep-alive", b"timeout=5"),
        ("proxy-connection", b"keep-alive"),
        ("upgrade", b"h2c"),
        ("te", b"gzip"),
        ("content-length", b"5"),
        (":path", b"/other"),
        (":unknown", b"1"),
        (":status", b"200"),
    ];
    for (name, value) in fields {
        let mut http = RawHttp2::open(&rig.agent, "api.test").await;
        let request: [(&str, &[u8]); 5] = [
            (":method", b"GET"),
            (":scheme", b"https"),
            (":authority", b"api.test"),
            (":path", b"/"),
            (name, value),
        ];
        let ended = http.request(&request).await;
        assert!(
            ended.status.is_none_or(|status| status == 400),
            "{name:?}: {ended:?}"
        );
    }
    assert!(rig.upstream.seen().is_empty(), "{:?}", rig.upstream.seen());
}

#[tokio::test]
async fn an_upgrade_other_than_websocket_is_stripped() {
    for alpn in ["http/1.1", "h2"] {
        let pki = Pki::new();
        let upstream = Upstream::with_tls(pki.server_config(&[alpn]));
        let upstream = upstream
            .start(async |_call| upstream::text(200, "fine"))
            .await;
        let rig = Rig::around(&pki, upstream, ROUTES, |builder| builder).await;
        for upgrade in ["h2c", "TLS/1.0", "foo/2, h2c"] {
            let head = format!(
                "GET / HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            );
            rig.tunnelled("api.test", head).await.assert_served();
            let seen = rig.upstream.seen().pop().expect("a request");
            for gone in ["upgrade", "connection", "http2-settings"] {
                assert!(seen.all(gone).is_empty(), "{gone}: {seen:?}");
            }
        }
    }
}

#[tokio::test]
async fn trailers_of_a_request_are_dropped() {
    for alpn in ["http/1.1", "h2"] {
        let pki = Pki::new();
        let upstream = Upstream::with_tls(pki.server_config(&[alpn])).streaming();
        let upstream = upstream.start(async |call| {
            let body = call.request.into_body().expect("a streamed body");
            let body = body.collect().await.expect("a whole body");
            let trailers = body.trailers().map_or(0, http::HeaderMap::len);
            upstream::text(200, format!("{trailers} trailers, {:?}", body.to_bytes()))
        });
        let rig = Rig::around(&pki, upstream.await, ROUTES, |builder| builder).await;
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
async fn a_head_that_does_not_end_is_answered_in_time_while_others_are_served() {
    let rig = Rig::with(ROUTES, |builder| builder.arg("--head-timeout").arg("1")).await;
    let began = Instant::now();
    let slow = async {
        let mut tunnel = rig
            .agent
            .tunnel("api.test:443", "api.test", &["http/1.1"])
            .await
            .expect("a tunnel");
        wire::only(&mut tunnel, b"GET / HTTP/1.1\r\nHost: api.te").await
    };
    let outer = async { rig.outer("CONNECT api.test:443 HTTP/1.1\r\nHos").await };
    let other = async {
        let mut served = 0;
        while began.elapsed() < Duration::from_millis(1200) {
            rig.agent.get("https://api.test/").await.assert_served();
            served += 1;
        }
        served
    };
    let (slow, outer, served) = tokio::join!(slow, outer, other);
    slow.assert_refused(408, "head_timeout");
    outer.assert_refused(408, "head_timeout");
    assert!(served > 3, "{served}");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    // One that says nothing at all is owed no answer.
    let mut silent = rig.agent.raw().await;
    silent.flush().await.expect("a connection");
    assert!(exchange(&mut silent, b"").await.is_empty());
}
