//! Which credential reaches an upstream: the route's own in exactly one header, and nothing that the agent wrote beside it
//! (threat model, rows 12 to 15 and 18).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::agent::{Agent, read_until};
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::{REAL, Rig};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Seen, Upstream};
use crate::harness::within;

const ROUTES: &str = "\
- {host: bearer.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: token.test, auth_scheme: token, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: basic.test, auth_scheme: Basic, auth_user: x-access-token, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: key.test, auth_scheme: raw, auth_header: x-api-key, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: goog.test, auth_scheme: raw, auth_header: x-goog-api-key, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: private.test, auth_scheme: raw, auth_header: private-token, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: own.test, auth_scheme: raw, auth_header: x-our-own, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
";

/// Host, header and value of what has to arrive.
fn expected() -> Vec<(&'static str, Option<(&'static str, String)>)> {
    let basic = BASE64_STANDARD.encode(format!("x-access-token:{REAL}"));
    vec![
        (
            "bearer.test",
            Some(("authorization", format!("Bearer {REAL}"))),
        ),
        (
            "token.test",
            Some(("authorization", format!("token {REAL}"))),
        ),
        (
            "basic.test",
            Some(("authorization", format!("Basic {basic}"))),
        ),
        ("key.test", Some(("x-api-key", REAL.into()))),
        ("goog.test", Some(("x-goog-api-key", REAL.into()))),
        ("private.test", Some(("private-token", REAL.into()))),
        ("own.test", Some(("x-our-own", REAL.into()))),
        ("bare.test", None),
    ]
}

const CREDENTIALS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "private-token",
    "x-our-own",
];

/// What the agent sends beside its request.
const ATTEMPTS: &[&[(&str, &str)]] = &[
    &[],
    &[("Authorization", "Bearer agents-own")],
    &[
        ("AUTHORIZATION", "Bearer agents-own"),
        ("authorization", "Basic agents-own"),
        ("aUtHoRiZaTiOn", "agents-own"),
    ],
    &[
        ("authorization", ""),
        ("authorization", "Bearer agents-own, Bearer agents-own"),
    ],
    &[
        ("Authorization", "Bearer agents-own"),
        ("Proxy-Authorization", "Basic agents-own"),
        ("X-Api-Key", "agents-own"),
        ("x-api-key", "agents-own"),
        ("X-GOOG-API-KEY", "agents-own"),
        ("Api-Key", "agents-own"),
        ("PRIVATE-TOKEN", "agents-own"),
    ],
];

#[tokio::test]
async fn exactly_the_routes_credential_reaches_the_upstream() {
    for alpn in ["http/1.1", "h2"] {
        let pki = Pki::new();
        let upstream = Upstream::with_tls(pki.server_config(&[alpn]));
        let upstream = upstream
            .start(async |_call| upstream::text(200, "fine"))
            .await;
        let rig = Rig::around(&pki, upstream, ROUTES, |builder| builder).await;
        for (host, wanted) in expected() {
            let mut http1 = rig
                .agent
                .tunnel(&format!("{host}:443"), host, &["http/1.1"])
                .await
                .expect("a tunnel");
            let mut http2 = RawHttp2::open(&rig.agent, host).await;
            for (count, attempt) in ATTEMPTS.iter().enumerate() {
                let lines: String = attempt
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}\r\n"))
                    .collect();
                let head = format!("GET /1 HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
                http1
                    .write_all(head.as_bytes())
                    .await
                    .expect("the sidecar reads");
                let answer = read_until(&mut http1, "fine").await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

                let lower: Vec<_> = attempt
                    .iter()
                    .map(|(name, value)| (name.to_lowercase(), *value))
                    .collect();
                let mut fields: Vec<(&str, &[u8])> = vec![
                    (":method", b"GET"),
                    (":scheme", b"https"),
                    (":authority", host.as_bytes()),
                    (":path", b"/2"),
                ];
                fields.extend(
                    lower
                        .iter()
                        .map(|(name, value)| (name.as_str(), value.as_bytes())),
                );
                assert_eq!(
                    http2.request(&fields).await.status,
                    Some(200),
                    "{host} {attempt:?}"
                );

                let seen = rig.upstream.seen();
                let arrived: Vec<_> = seen.iter().filter(|seen| seen.host == host).collect();
                assert_eq!(arrived.len(), 2 * (count + 1));
                for seen in &arrived[2 * count..] {
                    assert_one_credential(seen, &wanted, host);
                }
            }
        }
    }
}

fn assert_one_credential(seen: &Seen, wanted: &Option<(&str, String)>, host: &str) {
    for name in CREDENTIALS {
        let values: Vec<&[u8]> = seen
            .headers
            .get_all(name)
            .iter()
            .map(|value| value.as_bytes())
            .collect();
        match wanted {
            Some((header, value)) if *header == name => {
                assert_eq!(values, [value.as_bytes()], "{host} {name}")
            }
            // A header that only another route injects is none of ours.
            _ if name == "x-our-own" => {}
            _ => assert!(values.is_empty(), "{host} {name}: {seen:?}"),
        }
    }
    for (name, value) in &seen.headers {
        assert!(
            !value
                .as_bytes()
                .windows(10)
                .any(|part| part == b"agents-own"),
            "{host} {name}"
        );
    }
}

#[tokio::test]
async fn a_nominated_header_goes_before_the_credential_comes() {
    let pki = Pki::new();
    for alpn in ["http/1.1", "h2"] {
        let upstream = Upstream::with_tls(pki.server_config(&[alpn]));
        let upstream = upstream
            .start(async |_call| upstream::text(200, "fine"))
            .await;
        let rig = Rig::around(&pki, upstream, ROUTES, |builder| builder).await;
        let head = "GET / HTTP/1.1\r\nHost: bearer.test\r\nConnection: authorization, X-Api-Key ,host\r\n\
             connection: x-mine\r\nAuthorization: Bearer agents-own\r\nX-Mine: agents-own\r\nX-Kept: kept\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nConnection: close\r\n\r\n";
        rig.tunnelled("bearer.test", head).await.assert_served();
        let seen = rig.upstream.only();
        assert_eq!(seen.all("authorization"), [format!("Bearer {REAL}")]);
        assert_eq!(
            (seen.host.as_str(), seen.all("x-kept")),
            ("bearer.test", vec!["kept"])
        );
        for gone in [
            "connection",
            "x-mine",
            "keep-alive",
            "proxy-connection",
            "te",
            "transfer-encoding",
            "content-length",
        ] {
            assert!(seen.all(gone).is_empty(), "{gone}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn cookies_do_not_go_beside_a_credential() {
    let rig = Rig::new(ROUTES).await;
    for (host, kept) in [
        ("bearer.test", &[][..]),
        ("key.test", &[]),
        ("bare.test", &["a=agents-own; b=2"]),
    ] {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nCookie: a=agents-own; b=2\r\nConnection: close\r\n\r\n"
        );
        rig.tunnelled(host, head).await.assert_served();
        let seen = rig.upstream.seen().pop().expect("a request");
        assert_eq!(seen.all("cookie"), kept, "{host}");
    }
}

#[tokio::test]
async fn a_header_name_with_an_underscore_is_refused() {
    let rig = Rig::new(ROUTES).await;
    for name in [
        "X_Api_Key",
        "x-api_key",
        "_",
        "Content_Length",
        "Transfer_Encoding",
        "authorization_",
    ] {
        for host in ["bearer.test", "bare.test"] {
            let head =
                format!("GET / HTTP/1.1\r\nHost: {host}\r\n{name}: 1\r\nConnection: close\r\n\r\n");
            rig.tunnelled(host, head)
                .await
                .assert_refused(400, "bad_header_name");
        }
        let name = name.to_lowercase();
        let mut http = RawHttp2::open(&rig.agent, "bare.test").await;
        let fields: [(&str, &[u8]); 5] = [
            (":method", b"GET"),
            (":scheme", b"https"),
            (":authority", b"bare.test"),
            (":path", b"/"),
            (&name, b"1"),
        ];
        assert_eq!(http.request(&fields).await.status, Some(400), "{name}");
    }
    assert!(rig.upstream.seen().is_empty());
}

#[tokio::test]
async fn only_the_one_known_expectation_is_met_and_it_is_not_passed_on() {
    let rig = Rig::new(ROUTES).await;
    for lines in [
        "Expect: 200-ok",
        "Expect: 100-continue, x",
        "Expect: 100-continue\r\nExpect: x",
        "Expect:",
    ] {
        let head =
            format!("GET / HTTP/1.1\r\nHost: bare.test\r\n{lines}\r\nConnection: close\r\n\r\n");
        rig.tunnelled("bare.test", head)
            .await
            .assert_refused(417, "bad_expectation");
    }
    assert!(rig.upstream.seen().is_empty());
    let mut tunnel = rig
        .agent
        .tunnel("bare.test:443", "bare.test", &["http/1.1"])
        .await
        .expect("a tunnel");
    let head =
        b"POST / HTTP/1.1\r\nHost: bare.test\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n";
    tunnel.write_all(head).await.expect("the sidecar reads");
    let interim = read_until(&mut tunnel, "\r\n\r\n").await;
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    tunnel.write_all(b"body").await.expect("the sidecar reads");
    let answer = read_until(&mut tunnel, "fine").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = rig.upstream.only();
    assert_eq!(
        (&seen.body[..], seen.all("expect").len()),
        (&b"body"[..], 0)
    );
}

/// Every request's header block is looked at: one that was indexed once is a reference in the next.
#[tokio::test]
async fn the_credential_is_never_indexed_in_hpack() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a bound socket");
    let acceptor = TlsAcceptor::from(pki.server_config(&["h2"]));
    let blocks = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("a connection");
        let mut stream = acceptor.accept(tcp).await.expect("a handshake");
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.expect("a preface");
        stream
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .expect("the sidecar reads");
        let mut blocks = Vec::new();
        while blocks.len() < 2 {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("a frame");
            let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
            stream.read_exact(&mut payload).await.expect("a payload");
            if head[3] == 1 {
                blocks.push(payload);
                // 204 and the end of the stream.
                let answer = [&[0, 0, 1, 1, 5][..], &head[5..9], &[0x89]].concat();
                stream.write_all(&answer).await.expect("the sidecar reads");
            }
        }
        blocks
    });
    let routes = crate::harness::rig::file(
        ROUTES,
        &Upstream::plain()
            .start(async |_| upstream::text(200, ""))
            .await,
    );
    let routes = routes
        .lines()
        .map(|line| match line.split_once("connect_to") {
            Some((before, _)) => format!("{before}connect_to: '{address}'}}\n"),
            None => format!("{line}\n"),
        });
    let sidecar = Sidecar::with_routes(&pki, routes.collect::<String>())
        .slot("EGRESS_TOKEN_0", REAL)
        .start()
        .await;
    let agent = Agent::of(&sidecar);
    for _ in 0..2 {
        assert_eq!(agent.get("https://bearer.test/").await.status, 204);
    }
    for block in within("two requests", blocks)
        .await
        .expect("the upstream ran")
    {
        let fields = representations(&block);
        // RFC 7541, appendix A: 23 is `authorization`; section 6.2.3: a field that no hop may index.
        assert!(fields.contains(&(Form::NeverIndexed, 23)), "{fields:?}");
        assert_eq!(
            fields.iter().filter(|(_, name)| *name == 23).count(),
            1,
            "{fields:?}"
        );
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Indexed,
    Incremental,
    WithoutIndexing,
    NeverIndexed,
}

/// The form of each field of a header block, with the index of the field or of its name (RFC 7541, section 6).
fn representations(mut block: &[u8]) -> Vec<(Form, usize)> {
    let mut found = Vec::new();
    while let Some(&first) = block.first() {
        let (form, bits) = match first {
            0x80.. => (Form::Indexed, 7),
            0x40.. => (Form::Incremental, 6),
            0x20.. => {
                integer(&mut block, 5);
                continue;
            }
            0x10.. => (Form::NeverIndexed, 4),
            _ => (Form::WithoutIndexing, 4),
        };
        let index = integer(&mut block, bits);
        if form != Form::Indexed {
            for _ in 0..if index == 0 { 2 } else { 1 } {
                let length = integer(&mut block, 7);
                block = &block[length..];
            }
        }
        found.push((form, index));
    }
    found
}

fn integer(block: &mut &[u8], bits: u32) -> usize {
    let most = (1 << bits) - 1;
    let mut value = usize::from(block[0]) & most;
    *block = &block[1..];
    if value == most {
        let mut shift = 0;
        loop {
            let byte = block[0];
            *block = &block[1..];
            value += usize::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
    }
    value
}
