//! A table of requests, each cut at every point, and the properties that hold for any bytes.

use proptest::prelude::*;

use super::super::fault::Fault;
use super::super::framing::Phase;
use super::{BOUNDS, judge};

/// What becomes of a row's bytes.
enum Expect {
    Fault(Fault),
    /// Whole messages, ending at the end of the bytes, as many as said.
    Messages(usize),
    /// A tunnel, with so many bytes behind its head.
    Tunnel(usize),
}

#[test]
fn each_request_is_judged_as_the_table_says() {
    for (bytes, expect) in rows() {
        let shown = bytes.escape_ascii();
        let outcome = judge([bytes.as_slice()]);
        match expect {
            Expect::Fault(fault) => {
                assert_eq!(outcome.finish, Err(fault), "{shown}: {outcome:?}");
                if !fault.in_body() {
                    let end = outcome.ends.last().copied().unwrap_or(0);
                    assert_eq!(outcome.accepted, end, "part of a bad head passed: {shown}");
                }
            }
            Expect::Messages(count) => {
                assert_eq!(outcome.ends.len(), count, "{shown}: {outcome:?}");
                assert_eq!(outcome.accepted, bytes.len(), "{shown}: {outcome:?}");
                assert_eq!(outcome.finish, Ok(()), "{shown}: {outcome:?}");
            }
            Expect::Tunnel(behind) => {
                assert_eq!(outcome.phase, Phase::Tunnel, "{shown}: {outcome:?}");
                assert_eq!(outcome.accepted + behind, bytes.len(), "{shown}");
            }
        }
    }
}

#[test]
fn no_way_to_cut_the_reads_changes_the_judgement() {
    for (bytes, _) in rows() {
        let whole = judge([bytes.as_slice()]);
        assert_eq!(judge(bytes.chunks(1)), whole, "{}", bytes.escape_ascii());
        for at in 0..bytes.len() {
            let (left, right) = bytes.split_at(at);
            assert_eq!(
                judge([left, right]),
                whole,
                "{} | {}",
                left.escape_ascii(),
                right.escape_ascii()
            );
        }
    }
}

#[test]
fn a_fault_is_final() {
    let mut framing = super::Framing::new(BOUNDS);
    assert_eq!(framing.advance(b"GET /\n"), Err(Fault::BareLf));
    assert_eq!(
        framing.advance(b"GET / HTTP/1.1\r\n\r\n"),
        Err(Fault::BareLf)
    );
    framing.fail(Fault::HeadTimeout);
    assert_eq!(framing.phase(), Phase::Failed(Fault::BareLf));
}

#[test]
fn the_bounds_of_a_head_are_exact() {
    let head = |len: usize| {
        let frame = "GET / HTTP/1.1\r\nx: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(len - frame)).into_bytes()
    };
    assert_eq!(judge([&*head(BOUNDS.head)]).finish, Ok(()));
    assert_eq!(
        judge([&*head(BOUNDS.head + 1)]).finish,
        Err(Fault::HeadTooLarge)
    );
    let fields = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count)).into_bytes();
    assert_eq!(judge([&*fields(BOUNDS.fields)]).finish, Ok(()));
    assert_eq!(
        judge([&*fields(BOUNDS.fields + 1)]).finish,
        Err(Fault::TooManyFields)
    );
    let trailers = |count| [CHUNKED, b"0\r\n", &b"a: b\r\n".repeat(count), b"\r\n"].concat();
    assert_eq!(judge([&*trailers(BOUNDS.fields)]).finish, Ok(()));
    assert_eq!(
        judge([&*trailers(BOUNDS.fields + 1)]).finish,
        Err(Fault::TrailersTooLarge)
    );
    let long = [CHUNKED, b"0\r\na: ", &b"x".repeat(9000), b"\r\n\r\n"].concat();
    assert_eq!(judge([&*long]).finish, Err(Fault::TrailersTooLarge));
}

#[test]
fn every_byte_in_every_place_of_a_head_is_allowed_or_refused_by_rule() {
    for byte in 0..=u8::MAX {
        let verdict = |before: &[u8], after: &[u8]| {
            judge([[before, &[byte], after].concat().as_slice()])
                .finish
                .is_ok()
        };
        let tchar = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        // hyper could not make a URI of the last two.
        let target = (0x21..=0x7e).contains(&byte) && !b"#<>".contains(&byte);
        let text = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
        assert_eq!(
            verdict(b"GE", b"T / HTTP/1.1\r\n\r\n"),
            tchar,
            "method {byte:#x}"
        );
        assert_eq!(
            verdict(b"GET /", b"x HTTP/1.1\r\n\r\n"),
            target,
            "target {byte:#x}"
        );
        assert_eq!(
            verdict(b"GET / HTTP/1.1\r\na", b"b: c\r\n\r\n"),
            tchar || byte == b':',
            "name {byte:#x}"
        );
        assert_eq!(
            verdict(b"GET / HTTP/1.1\r\na: b", b"c\r\n\r\n"),
            text,
            "value {byte:#x}"
        );
        assert_eq!(
            verdict(b"GET / HTTP/1.1\r\nContent-Length: 0", b"\r\n\r\n"),
            byte == b' ' || byte == b'\t',
            "length {byte:#x}"
        );
        assert_eq!(
            verdict(
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0",
                b"\r\n\r\n"
            ),
            byte == b'0',
            "chunk size {byte:#x}"
        );
    }
}

proptest! {
    #[test]
    fn any_cuts_of_any_requests_are_judged_alike(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        flip in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let rows = rows();
        let mut bytes: Vec<u8> = picks.iter().flat_map(|pick| pick.get(&rows).0.clone()).collect();
        if let (Some((at, byte)), false) = (flip, bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        prop_assert_eq!(judge(pieces), judge([bytes.as_slice()]));
    }

    #[test]
    fn noise_is_never_accepted(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assume!(!bytes.windows(8).any(|window| window.starts_with(b"HTTP/1.")));
        prop_assert_eq!(judge([bytes.as_slice()]).accepted, 0);
    }
}

/// The rows whose messages are whole and valid, for the comparison with hyper.
pub(super) fn accepted() -> Vec<Vec<u8>> {
    rows()
        .into_iter()
        .filter(|(_, expect)| matches!(expect, Expect::Messages(1..)))
        .map(|(bytes, _)| bytes)
        .collect()
}

const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Refusals first.
fn rows() -> Vec<(Vec<u8>, Expect)> {
    use Expect::{Messages, Tunnel};
    let fault = |bytes: &[u8], fault| (bytes.to_vec(), Expect::Fault(fault));
    // Behind a good request line: one header line, or several.
    let line = |line: &str, fault| {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n0\r\n\r\n");
        (head.into_bytes(), Expect::Fault(fault))
    };
    let chunks = |chunks: &str, expect| ([CHUNKED, chunks.as_bytes()].concat(), expect);
    let good = |bytes: &[u8], count| (bytes.to_vec(), Messages(count));
    #[rustfmt::skip]
    let rows = vec![
        // The request line.
        fault(b"\x16\x03\x01\x02\x00\x01", Fault::TlsHello),
        fault(b"\x16", Fault::TlsHello),
        fault(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Fault::Http2Preface),
        fault(b"\x05\x01\x00", Fault::Method),
        fault(b"\x00", Fault::Method),
        fault(b" GET / HTTP/1.1\r\n\r\n", Fault::Method),
        fault(b"\r\nGET / HTTP/1.1\r\n\r\n", Fault::LeadingLine),
        fault(b"\n", Fault::LeadingLine),
        fault(b"GET /\r\n\r\n", Fault::RequestLine),
        fault(b"GET\r\n\r\n", Fault::RequestLine),
        fault(b"GET  / HTTP/1.1\r\n\r\n", Fault::RequestLine),
        fault(b"GET /  HTTP/1.1\r\n\r\n", Fault::RequestLine),
        fault(b"GET / HTTP/1.1 \r\n\r\n", Fault::RequestLine),
        fault(b"GET /a b HTTP/1.1\r\n\r\n", Fault::RequestLine),
        fault(b"SSH-2.0-OpenSSH_9.9\r\n", Fault::RequestLine),
        fault(b"GET\t/\tHTTP/1.1\r\n\r\n", Fault::RequestLine),
        fault(b"G(T / HTTP/1.1\r\n\r\n", Fault::Method),
        fault(b"G\xc3\x89T / HTTP/1.1\r\n\r\n", Fault::Method),
        fault(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n\r\n", Fault::Method),
        fault(b"GET /a#b HTTP/1.1\r\n\r\n", Fault::Target),
        fault(b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", Fault::Target),
        fault(b"GET /a\tb HTTP/1.1\r\n\r\n", Fault::Target),
        fault(b"GET /a\x00b HTTP/1.1\r\n\r\n", Fault::Target),
        fault(b"GET /a\x7fb HTTP/1.1\r\n\r\n", Fault::Target),
        fault(b"GET / HTTP/1.2\r\n\r\n", Fault::Version),
        fault(b"GET / HTTP/2.0\r\n\r\n", Fault::Version),
        fault(b"GET / HTTP/0.9\r\n\r\n", Fault::Version),
        fault(b"GET / http/1.1\r\n\r\n", Fault::Version),
        fault(b"GET / HTTP/1.10\r\n\r\n", Fault::Version),
        fault(b"GET / HTTP/01.1\r\n\r\n", Fault::Version),
        // Line ends.
        fault(b"GET / HTTP/1.1\n\n", Fault::BareLf),
        fault(b"GET / HTTP/1.1\r\nHost: a\n\r\n", Fault::BareLf),
        fault(b"GET / HTTP/1.1\r\nHost: a\r\n\n", Fault::BareLf),
        fault(b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", Fault::BareCr),
        fault(b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Fault::BareCr),
        fault(b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Fault::BareCr),
        fault(b"GET /\r HTTP/1.1\r\n\r\n", Fault::BareCr),
        // Header lines.
        line("X: a\0b", Fault::Control),
        line("X: a\x0bb", Fault::Control),
        line("X: a\x7f", Fault::Control),
        line("X: \x1b[0m", Fault::Control),
        line("X: a\r\n b", Fault::ObsFold),
        line("X: a\r\n\tb", Fault::ObsFold),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_vec(), Expect::Fault(Fault::ObsFold)),
        line("Content-Length : 5", Fault::SpaceBeforeColon),
        line("Transfer-Encoding\t: chunked", Fault::SpaceBeforeColon),
        line("X", Fault::FieldName),
        line(": x", Fault::FieldName),
        line("X y: z", Fault::FieldName),
        line("X\0: z", Fault::FieldName),
        line("X\u{e9}: z", Fault::FieldName),
        line("\"X\": z", Fault::FieldName),
        line("X(: z", Fault::FieldName),
        // Lengths.
        line("Content-Length: 5\r\nContent-Length: 5", Fault::RepeatedContentLength),
        line("Content-Length: 5\r\ncontent-length: 6", Fault::RepeatedContentLength),
        line("Content-Length: 5, 5", Fault::RepeatedContentLength),
        line("Content-Length: 0\r\nContent-Length: 0", Fault::RepeatedContentLength),
        line("Content-Length: +5", Fault::ContentLength),
        line("Content-Length: -5", Fault::ContentLength),
        line("Content-Length: -0", Fault::ContentLength),
        line("Content-Length: 5 5", Fault::ContentLength),
        line("Content-Length: 0x5", Fault::ContentLength),
        line("Content-Length: 5e0", Fault::ContentLength),
        line("Content-Length: 05", Fault::ContentLength),
        line("Content-Length: \u{665}", Fault::ContentLength),
        line("Content-Length:", Fault::ContentLength),
        line("Content-Length: \"5\"", Fault::ContentLength),
        line("Content-Length: 5_0", Fault::ContentLength),
        line("Content-Length: 9223372036854775808", Fault::ContentLength),
        line("Content-Length: 18446744073709551616", Fault::ContentLength),
        line("Content-Length: 99999999999999999999999999", Fault::ContentLength),
        // Codings.
        line("Content-Length: 5\r\nTransfer-Encoding: chunked", Fault::LengthAndEncoding),
        line("Transfer-Encoding: chunked\r\nContent-Length: 5", Fault::LengthAndEncoding),
        line("Content-Length: 0\r\nTransfer-Encoding: chunked", Fault::LengthAndEncoding),
        line("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Fault::RepeatedTransferEncoding),
        line("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Fault::RepeatedTransferEncoding),
        line("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", Fault::TransferEncoding),
        line("Transfer-Encoding: gzip, chunked", Fault::TransferEncoding),
        line("Transfer-Encoding: chunked, chunked", Fault::TransferEncoding),
        line("Transfer-Encoding: chunked,", Fault::TransferEncoding),
        line("Transfer-Encoding: ,chunked", Fault::TransferEncoding),
        line("Transfer-Encoding: chunked;q=1", Fault::TransferEncoding),
        line("Transfer-Encoding: identity", Fault::TransferEncoding),
        line("Transfer-Encoding: xchunked", Fault::TransferEncoding),
        line("Transfer-Encoding: \"chunked\"", Fault::TransferEncoding),
        line("Transfer-Encoding: chunked\u{a0}", Fault::TransferEncoding),
        line("Transfer-Encoding:", Fault::TransferEncoding),
        fault(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Fault::EncodingInHttp10),
        // Chunks.
        chunks("\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("x\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("0x5\r\nhello\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("+5\r\nhello\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("-1\r\nhello\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks(" 5\r\nhello\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("5 \r\nhello\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("5\t\r\nhello\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("5\nhello\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("5\rhello\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("00000000000000005\r\nhello\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("8000000000000000\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("ffffffffffffffff\r\n", Expect::Fault(Fault::ChunkSize)),
        chunks("5;a=b\r\nhello\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkExtension)),
        chunks("5;\nhello\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkExtension)),
        chunks("0;\r\n\r\n", Expect::Fault(Fault::ChunkExtension)),
        chunks("5\r\nhello!\r\n0\r\n\r\n", Expect::Fault(Fault::ChunkEnd)),
        chunks("5\r\nhello\n0\r\n\r\n", Expect::Fault(Fault::ChunkEnd)),
        chunks("5\r\nhello\r0\r\n\r\n", Expect::Fault(Fault::ChunkEnd)),
        chunks("5\r\nhello0\r\n\r\n", Expect::Fault(Fault::ChunkEnd)),
        chunks("0\r\n\n", Expect::Fault(Fault::Trailer)),
        chunks("0\r\n\rx", Expect::Fault(Fault::Trailer)),
        chunks("0\r\na\r\n\r\n", Expect::Fault(Fault::Trailer)),
        chunks("0\r\n: b\r\n\r\n", Expect::Fault(Fault::Trailer)),
        chunks("0\r\na : b\r\n\r\n", Expect::Fault(Fault::Trailer)),
        chunks("0\r\na: b\n\r\n", Expect::Fault(Fault::Trailer)),
        chunks("0\r\na: b\r\n c\r\n\r\n", Expect::Fault(Fault::Trailer)),
        chunks("0\r\na: \0\r\n\r\n", Expect::Fault(Fault::Trailer)),
        chunks("0\r\nGET / HTTP/1.1\r\n\r\n", Expect::Fault(Fault::Trailer)),
        // Tunnels with bodies.
        fault(b"CONNECT a:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", Fault::UpgradeWithBody),
        fault(b"CONNECT a:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Fault::UpgradeWithBody),
        line("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5", Fault::UpgradeWithBody),
        // Ends in the middle.
        fault(b"G", Fault::TruncatedHead),
        fault(b"GET / HTTP/1.1\r\nHost: a\r\n", Fault::TruncatedHead),
        fault(b"GET / HTTP/1.1\r\nHost: a\r\n\r", Fault::TruncatedHead),
        fault(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell", Fault::TruncatedBody),
        chunks("", Expect::Fault(Fault::TruncatedBody)),
        chunks("5\r\nhell", Expect::Fault(Fault::TruncatedBody)),
        chunks("0\r\n", Expect::Fault(Fault::TruncatedBody)),
        chunks("0\r\n\r", Expect::Fault(Fault::TruncatedBody)),
        // A good request and a bad one.
        fault(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n", Fault::BareLf),
        fault(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nabGET / HTTP/1.1\r\n\r\n\x16", Fault::TlsHello),
        fault(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\na\r\n", Fault::LeadingLine),

        good(b"", 0),
        good(b"GET / HTTP/1.1\r\n\r\n", 1),
        good(b"GET / HTTP/1.0\r\n\r\n", 1),
        good(b"GET http://a.test/b?c=d HTTP/1.1\r\nHost: a.test\r\n\r\n", 1),
        good(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        good(b"M-SEARCH /a%20b HTTP/1.1\r\nHost: a\r\nX:\r\nY:   z  \r\nZ:\ta\tb\t\r\n\r\n", 1),
        good(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\xff\r\n_!#$%&'*+-.^`|~: x\r\n\r\n", 1),
        good(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 1),
        good(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:5\r\n\r\nhello", 1),
        good(b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: \t 5\t \r\n\r\nhello", 1),
        good(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\r\n\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 2),
        good(b"POST / HTTP/1.0\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", 1),
        good(b"POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:CHUNKED\r\n\r\n0\r\n\r\n", 1),
        good(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok", 1),
        good(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n", 1),
        good(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", 2),
        good(b"GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", 1),
        good(b"connect / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        chunks("5\r\nhello\r\n0\r\n\r\n", Messages(1)),
        chunks("0000000000000005\r\nhello\r\n00\r\n\r\n", Messages(1)),
        chunks("A\r\n0123456789\r\nb\r\n0123456789a\r\n0\r\n\r\n", Messages(1)),
        chunks("5\r\n0\r\n\r\n\r\n0\r\n\r\n", Messages(1)),
        chunks("0\r\nExpires: x\r\nx-sum:\r\n\r\n", Messages(1)),
        chunks("1\r\na\r\n0\r\na: b\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", Messages(2)),
        good(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPUT /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nxGET /3 HTTP/1.1\r\nHost: a\r\n\r\n", 3),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".to_vec(), Tunnel(0)),
        (b"CONNECT a:443 HTTP/1.1\r\nContent-Length: 0\r\n\r\n\x16\x03\x01".to_vec(), Tunnel(3)),
        (b"CONNECT a:443 HTTP/1.0\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_vec(), Tunnel(18)),
        (b"GET / HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\r\n\x81".to_vec(), Tunnel(1)),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\n\r\n".to_vec(), Tunnel(0)),
    ];
    assert!(rows.len() >= 70);
    rows
}
