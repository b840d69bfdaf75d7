//! What goes beside a route's credential and how it is written (threat model, rows 12 and 13). Which credential reaches an
//! upstream is in `attack::headers`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::agent::Agent;
use crate::harness::pki::Pki;
use crate::harness::rig::{REAL, Rig};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Upstream};
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
