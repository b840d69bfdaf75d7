//! Bodies and heads that break off or do not end (threat model, rows 20 and 33). Bytes with two readings are in
//! `attack::framing`.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::harness::agent::exchange;
use crate::harness::pki::Pki;
use crate::harness::rig::Rig;
use crate::harness::upstream::{self, Upstream};
use crate::harness::wire;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
";

const GOOD: &str = "GET /good HTTP/1.1\r\nHost: api.test\r\n\r\n";

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
    for refusal in [slow, outer] {
        refusal.assert_refused(408, "head_timeout");
        assert!(refusal.text().contains("--head-timeout"), "{refusal:?}");
    }
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
