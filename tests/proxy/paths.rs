//! Conditions on the query, and methods (threat model, row 24). Paths are in `attack::paths`.

use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::Rig;
use crate::harness::upstream::{self, Upstream};

const ROUTES: &str = "\
- {host: bare.test, connect_to: 'UPSTREAM'}
- {host: get.test, path_allowlist: [/x], methods: [GET], connect_to: 'UPSTREAM'}
- {host: git.test, path_allowlist: [{regex: '^/[^/]+/[^/]+/info/refs$'}], methods: [GET], query: {service: git-upload-pack}, connect_to: 'UPSTREAM'}
- {host: git.test, path_allowlist: [{regex: '^/[^/]+/[^/]+/git-upload-pack$'}], methods: [POST], connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn a_query_condition_holds_for_one_plain_reading_only() {
    let rig = Rig::new(ROUTES).await;
    for query in [
        "",
        "?",
        "?service=",
        "?service",
        "?service=git-receive-pack",
        "?service=git-upload-pack&service=git-receive-pack",
        "?service=git-receive-pack&service=git-upload-pack",
        "?service=git-upload-pack&service=git-upload-pack",
        "?service=git-upload-pack&%73ervice=git-receive-pack",
        "?service=git-upload-pack;service=git-receive-pack",
        "?service=git-receive-pack;service=git-upload-pack",
        "?x=1;service=git-upload-pack",
        "?Service=git-upload-pack",
        "?service=Git-Upload-Pack",
        "?service=git-upload-pack%00",
        "?service=git-upload-pack%20",
        "?service=git-upload-packs",
        "?xservice=git-upload-pack",
        "?x=service=git-upload-pack",
    ] {
        let answer = rig
            .agent
            .get(&format!("https://git.test/o/r.git/info/refs{query}"))
            .await;
        answer.assert_refused(403, "query_not_allowed");
    }
    for (method, path) in [
        ("POST", "/o/r.git/git-receive-pack"),
        ("GET", "/o/r.git/git-receive-pack"),
        ("GET", "/o/r.git/HEAD"),
    ] {
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: git.test\r\nConnection: close\r\n\r\n");
        rig.tunnelled("git.test", head)
            .await
            .assert_refused(403, "path_not_allowed");
    }
    assert!(rig.upstream.seen().is_empty());
    for query in [
        "?service=git-upload-pack",
        "?x=1&service=git-upload-pack&y",
        "?service=git%2Dupload-pack",
    ] {
        let target = format!("/o/r.git/info/refs{query}");
        rig.agent
            .get(&format!("https://git.test{target}"))
            .await
            .assert_served();
        assert_eq!(
            rig.upstream.seen().last().expect("a request").target,
            target
        );
    }
}

#[tokio::test]
async fn a_method_that_no_route_names_is_refused() {
    let rig = Rig::new(ROUTES).await;
    for (host, methods) in [
        (
            "bare.test",
            &[
                "TRACE", "TRACK", "get", "Get", "PROPFIND", "FOO", "GET1", "DEBUG", "QUERY",
            ][..],
        ),
        (
            "get.test",
            &[
                "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get",
            ][..],
        ),
    ] {
        for method in methods {
            let head = format!("{method} /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let mut tunnel = rig
                .agent
                .tunnel(&format!("{host}:443"), host, &["http/1.1"])
                .await
                .expect("a tunnel");
            let raw = crate::harness::agent::exchange(&mut tunnel, head.as_bytes()).await;
            let raw = String::from_utf8_lossy(&raw).into_owned();
            assert!(raw.starts_with("HTTP/1.1 405 "), "{method} {host}: {raw}");
            assert!(
                raw.contains("x-egress-error: method_not_allowed\r\n"),
                "{raw}"
            );
            let mut http = RawHttp2::open(&rig.agent, host).await;
            let fields: [(&str, &[u8]); 4] = [
                (":method", method.as_bytes()),
                (":scheme", b"https"),
                (":authority", host.as_bytes()),
                (":path", b"/x"),
            ];
            assert_eq!(
                http.request(&fields).await.status,
                Some(405),
                "{method} {host}"
            );
        }
    }
    for method in ["G@T", "G(T", "", "\"GET\""] {
        let head = format!("{method} /x HTTP/1.1\r\nHost: bare.test\r\n\r\n");
        let refusal = rig.tunnelled("bare.test", head).await;
        assert_eq!(refusal.status, 400, "{method}: {refusal:?}");
    }
    assert!(rig.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_route_without_methods_admits_the_common_ones() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki).start(async |call| {
        let body = if call.seen.method == "HEAD" {
            ""
        } else {
            "fine"
        };
        let mut answer = upstream::text(200, body);
        answer.headers_mut().insert("bad_content_length", 4.into());
        answer
    });
    let rig = Rig::around(&pki, upstream.await, ROUTES, |builder| builder).await;
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let mut http = RawHttp2::open(&rig.agent, "bare.test").await;
        let fields: [(&str, &[u8]); 4] = [
            (":method", method.as_bytes()),
            (":scheme", b"https"),
            (":authority", b"bare.test"),
            (":path", b"/x"),
        ];
        let ended = http.request(&fields).await;
        assert_eq!(ended.status, Some(200), "{method}: {ended:?}");
        let last = rig.upstream.seen().last().expect("a request").clone();
        assert_eq!(last.method, method);
    }
}
