//! Paths, queries and methods: what can be read in two ways is refused where a route has path rules, and what is admitted
//! goes out byte for byte (threat model, rows 9 to 12 and 24).

use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::Rig;
use crate::harness::upstream::{self, Upstream};

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1/, {regex: '^/repos/[^/]+$'}], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
- {host: npm.test, path_allowlist: [/], encoded_slash: true, connect_to: 'UPSTREAM'}
- {host: get.test, path_allowlist: [/x], methods: [GET], connect_to: 'UPSTREAM'}
- {host: git.test, path_allowlist: [{regex: '^/[^/]+/[^/]+/info/refs$'}], methods: [GET], query: {service: git-upload-pack}, connect_to: 'UPSTREAM'}
- {host: git.test, path_allowlist: [{regex: '^/[^/]+/[^/]+/git-upload-pack$'}], methods: [POST], connect_to: 'UPSTREAM'}
";

/// Each of them reaches below `/v1/`, out of it, or not into it, depending on who reads it.
const REFUSED: &[&[u8]] = &[
    b"/v1/..",
    b"/v1/../admin",
    b"/v1/../v1/x",
    b"/v1/x/../../admin",
    b"/v1/x/..",
    b"/v1/.",
    b"/v1/./x",
    b"/./v1/x",
    b"/../v1/x",
    b"/v1/%2e",
    b"/v1/%2e%2e",
    b"/v1/%2E%2e/admin",
    b"/v1/.%2e/admin",
    b"/v1/%2e./admin",
    b"/v1/%2e%2e%2fadmin",
    b"/v1/..%2fadmin",
    b"/v1/x/%2e%2e/%2e%2e/admin",
    b"/v1/a%2fb",
    b"/v1/a%2Fb",
    b"/v1%2fx",
    b"/v1/a%5cb",
    b"/v1/a%5Cb",
    b"/v1/..%5cadmin",
    b"/v1/a\\b",
    b"/v1/..\\admin",
    b"/v1\\x",
    b"/v1//x",
    b"/v1/a//b",
    b"//v1/x",
    b"/v1//",
    b"/v1/a;b",
    b"/v1/;x",
    b"/v1/..;/admin",
    b"/v1/a%3bb",
    b"/v1/a%3Bb",
    b"/v1/%252e%252e/admin",
    b"/v1/%252fx",
    b"/v1/%2525252e",
    b"/v1/a%2500",
    b"/v1/%00",
    b"/v1/a%00b",
    b"/v1/%0a",
    b"/v1/%0d%0aHost:%20evil.test",
    b"/v1/%1f",
    b"/v1/%7f",
    b"/v1/%09",
    b"/v1/%c2%85",
    b"/v1/%c0%ae%c0%ae/admin",
    b"/v1/%c0%afadmin",
    b"/v1/%e0%80%afadmin",
    b"/v1/%f0%80%80%afadmin",
    b"/v1/%ed%a0%80",
    b"/v1/%ff",
    b"/v1/%80",
    b"/v1/%",
    b"/v1/%2",
    b"/v1/%zz",
    b"/v1/%2z",
    b"/v1/%u002e%u002e/admin",
    b"/v1/%%32%65%%32%65/admin",
    b"/v1/\xc3\xa4",
    b"/v1/\x80",
    b"/v1/\xc0\xae\xc0\xae/admin",
    b"/v1/a#b",
    b"/v1/#/../admin",
    b"/v1/a b",
    b"/v1/a\tb",
    b"/v1/a\"b",
    b"/v1/<x>",
    b"/v1/a`b",
    b"/v1",
    b"/V1/x",
    b"/v1x/",
    b"/v11/x",
    b"/v",
    b"/",
    b"/admin",
    b"/%76%31/x",
    b"/admin/v1/x",
    b"/admin?/v1/x",
    b"/repos/",
    b"/repos/a/b",
    b"/repos/a%2fb",
    b"/repos/a/",
    b"/xrepos/a",
    b"/repos/a%0a",
];

const ADMITTED: &[&str] = &[
    "/v1/",
    "/v1/a",
    "/v1/a/",
    "/v1/a%20b?x=%2F..",
    "/v1/a?x=../..;//%00%zz\\&y=?/",
    "/v1/a?",
    "/v1/?q",
    "/v1/a+b",
    "/v1/a%2Bb",
    "/v1/%E4%BD%A0%e5%a5%bd",
    "/v1/a:b@c,d=e&f!g$h'i(j)k*",
    "/v1/...",
    "/v1/a..b",
    "/v1/.well-known/x",
    "/v1/~user/%7Euser",
    "/v1/a%25",
    "/v1/a%25zz",
    "/v1/[x]/{y}/a|b^c",
    "/v1/a?b?c",
    "/repos/a",
    "/repos/a%20b",
];

#[tokio::test]
async fn a_path_that_can_be_read_in_two_ways_is_refused_over_http1() {
    let rig = Rig::new(ROUTES).await;
    for path in REFUSED {
        let head = [
            b"GET ",
            *path,
            b" HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n",
        ]
        .concat();
        let refusal = rig.tunnelled("api.test", head).await;
        let code = refusal.error_code().unwrap_or_default();
        let status = match code.as_str() {
            "path_not_allowed" => 403,
            "path_ambiguous" | "bad_target_byte" | "bad_request_line" => 400,
            _ => panic!("{}: {refusal:?}", String::from_utf8_lossy(path)),
        };
        refusal.assert_refused(status, &code);
    }
    assert_eq!(rig.upstream.connections(), 0);
}

#[tokio::test]
async fn a_path_that_can_be_read_in_two_ways_is_refused_over_http2() {
    let rig = Rig::new(ROUTES).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    // What follows a `#` the HTTP/2 library cuts off before anybody sees it; the next test is about that.
    for path in REFUSED.iter().filter(|path| !path.contains(&b'#')) {
        let ended = http.request(&get("api.test", path)).await;
        let refused =
            matches!(ended.status, Some(400 | 403)) || ended.status.is_none() && ended.broken;
        assert!(refused, "{}: {ended:?}", String::from_utf8_lossy(path));
        if http.goaway {
            http = RawHttp2::open(&rig.agent, "api.test").await;
        }
    }
    assert_eq!(rig.upstream.connections(), 0);
}

#[tokio::test]
async fn what_follows_a_fragment_sign_in_http2_is_neither_decided_on_nor_sent() {
    let rig = Rig::new(ROUTES).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    for path in ["/v1/a#b", "/v1/a#/../../admin", "/v1/a?x#/../admin"] {
        let ended = http.request(&get("api.test", path.as_bytes())).await;
        assert_eq!(ended.status, Some(200), "{path}: {ended:?}");
    }
    let ended = http.request(&get("api.test", b"/admin#/v1/a")).await;
    assert_eq!(ended.status, Some(403), "{ended:?}");
    let targets: Vec<_> = rig
        .upstream
        .seen()
        .into_iter()
        .map(|seen| seen.target)
        .collect();
    assert_eq!(targets, ["/v1/a", "/v1/a", "/v1/a?x"]);
}

#[tokio::test]
async fn an_admitted_path_goes_out_byte_for_byte() {
    for alpn in ["h2", "http/1.1"] {
        let pki = Pki::new();
        let upstream = Upstream::with_tls(pki.server_config(&[alpn]));
        let upstream = upstream
            .start(async |_call| upstream::text(200, "fine"))
            .await;
        let rig = Rig::around(&pki, upstream, ROUTES, |builder| builder).await;
        for path in ADMITTED {
            let head =
                format!("GET {path} HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n");
            rig.tunnelled("api.test", head).await.assert_served();
        }
        let mut http = RawHttp2::open(&rig.agent, "api.test").await;
        for path in ADMITTED {
            let ended = http.request(&get("api.test", path.as_bytes())).await;
            assert_eq!(ended.status, Some(200), "{path}: {ended:?}");
        }
        let seen: Vec<_> = rig
            .upstream
            .seen()
            .into_iter()
            .map(|seen| seen.target)
            .collect();
        assert_eq!(seen, [ADMITTED, ADMITTED].concat(), "{alpn}");
    }
}

#[tokio::test]
async fn a_route_without_path_rules_lets_every_path_through_unchanged() {
    let rig = Rig::new(ROUTES).await;
    let odd = [
        "/..",
        "/a/../b",
        "/./a",
        "//x",
        "//evil.test/x",
        "/a;b",
        "/a%2fb",
        "/%2e%2e/",
        "/%00",
        "/%zz",
        "/%",
        "/a\\b",
        "/%c0%af",
    ];
    for path in odd {
        let head = format!("GET {path} HTTP/1.1\r\nHost: bare.test\r\nConnection: close\r\n\r\n");
        rig.tunnelled("bare.test", head).await.assert_served();
    }
    let seen = rig.upstream.seen();
    assert!(seen.iter().all(|seen| seen.host == "bare.test"));
    let targets: Vec<_> = seen.into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, odd);
}

#[tokio::test]
async fn an_encoded_slash_is_data_only_where_the_route_says_so() {
    let rig = Rig::new(ROUTES).await;
    for path in [
        "/a%2f..%2fb",
        "/..%2fb",
        "/a%2f%2e%2e",
        "/a%2f.%2fb",
        "/a%2f%2fb",
        "/%2fb",
        "/a%252fb",
        "/a%5cb",
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: npm.test\r\nConnection: close\r\n\r\n");
        rig.tunnelled("npm.test", head)
            .await
            .assert_refused(400, "path_ambiguous");
    }
    assert!(rig.upstream.seen().is_empty());
    for path in ["/@scope%2fpkg", "/@scope%2Fpkg/-/x.tgz"] {
        rig.agent
            .get(&format!("https://npm.test{path}"))
            .await
            .assert_served();
        assert_eq!(rig.upstream.at(path).len(), 1, "{path}");
    }
}

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

fn get<'a>(host: &'a str, path: &'a [u8]) -> [(&'a str, &'a [u8]); 4] {
    [
        (":method", b"GET"),
        (":scheme", b"https"),
        (":authority", host.as_bytes()),
        (":path", path),
    ]
}
