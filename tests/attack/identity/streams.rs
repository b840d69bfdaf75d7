//! The streams of an HTTP/2 connection: each names its tunnel, or none is served any more.

use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::Rig;
use crate::harness::wire::assert_error;

use super::ROUTES;

#[tokio::test]
async fn row_03_another_authority_than_the_tunnels_ends_the_http2_connection() {
    let rig = Rig::new(ROUTES).await;
    for authority in [
        "other.test",
        "evil.test",
        "api.test:8443",
        "x.wild.test",
        "127.0.0.1",
    ] {
        let mut http = RawHttp2::open(&rig.agent, "api.test").await;
        let ended = http
            .request(&get(&[(":authority", b"api.test"), (":path", b"/good")]))
            .await;
        assert_eq!((ended.status, ended.body.as_str()), (Some(200), "fine"));
        let bad = http
            .begin(&get(&[
                (":authority", authority.as_bytes()),
                (":path", b"/bad"),
            ]))
            .await;
        let ended = http.end(bad).await;
        assert_eq!(ended.status, Some(421), "{authority}: {ended:?}");
        assert_error(&ended.body, "misdirected_request");
        let late = http
            .request(&get(&[(":authority", b"api.test"), (":path", b"/late")]))
            .await;
        assert_ne!(late.status, Some(200), "{authority}: {late:?}");
        http.closed().await;
        assert!(http.goaway, "{authority}");
    }
    let paths: Vec<_> = rig
        .upstream
        .seen()
        .iter()
        .map(|seen| seen.target.clone())
        .collect();
    assert_eq!(paths, ["/good"; 5]);
}

#[tokio::test]
async fn row_04_an_http2_request_that_does_not_name_its_tunnel_in_one_way_is_refused() {
    let rig = Rig::new(ROUTES).await;
    let api = (":authority", &b"api.test"[..]);
    let root = (":path", &b"/"[..]);
    let cases: &[&[(&str, &[u8])]] = &[
        &[(":method", b"GET"), (":scheme", b"https"), root],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            root,
            ("host", b"api.test"),
        ],
        &[(":method", b"GET"), (":scheme", b"http"), root, api],
        &[(":method", b"GET"), (":scheme", b"ftp"), root, api],
        &[(":method", b"GET"), root, api],
        &[(":method", b"GET"), (":scheme", b"https"), api],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            api,
            (":path", b""),
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            api,
            (":path", b"*"),
        ],
        &[
            (":method", b"OPTIONS"),
            (":scheme", b"https"),
            api,
            (":path", b"*"),
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            api,
            (":path", b"@evil.test/"),
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            api,
            (":path", b"https://evil.test/"),
        ],
        &[(":method", b"GET"), (":scheme", b"https"), api, api, root],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            api,
            root,
            ("host", b"evil.test"),
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            api,
            root,
            ("host", b"other.test"),
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            api,
            root,
            ("host", b"api.test"),
            ("host", b"api.test"),
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            api,
            root,
            ("host", b"api.test, evil.test"),
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            (":authority", b"u@api.test"),
            root,
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            (":authority", b"api.test,evil.test"),
            root,
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            (":authority", b"api.test."),
            root,
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            (":authority", b"api.test:0443"),
            root,
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            (":authority", b"[api.test]"),
            root,
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            (":authority", b""),
            root,
        ],
        &[(":method", b"CONNECT"), (":authority", b"evil.test:443")],
        &[(":method", b"CONNECT"), (":authority", b"api.test:443")],
        &[
            (":method", b"CONNECT"),
            (":protocol", b"websocket"),
            (":scheme", b"https"),
            api,
            root,
        ],
    ];
    for case in cases {
        let mut http = RawHttp2::open(&rig.agent, "api.test").await;
        let ended = http.request(case).await;
        let shown: Vec<_> = case
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
            .collect();
        // What is no HTTP/2 at all is reset by the library, as RFC 9113, section 8.1.1, has it.
        let refused = ended.status == Some(400) || (ended.status.is_none() && ended.broken);
        assert!(refused, "{shown:?}: {ended:?}");
        if ended.status.is_some() && !ended.body.is_empty() {
            assert_error(&ended.body, "bad_target");
        }
    }
    assert!(rig.upstream.seen().is_empty());
}

/// hyper prints such a target as `https://api.test*`, which would be another host if anybody read it again.
#[tokio::test]
async fn row_05_a_path_that_melts_into_the_host_in_print_is_refused() {
    let rig = Rig::new(ROUTES).await;
    for host in ["api.test", "x.wild.test"] {
        for path in [
            "*",
            "**",
            ".evil.test/",
            "@evil.test/",
            ":8443/",
            ":x@evil.test/",
            "-evil.test",
            "?@evil.test",
            "\\evil.test/",
            "%40evil.test/",
        ] {
            for method in ["GET", "OPTIONS", "POST"] {
                let mut http = RawHttp2::open(&rig.agent, host).await;
                let fields: [(&str, &[u8]); 4] = [
                    (":method", method.as_bytes()),
                    (":scheme", b"https"),
                    (":authority", host.as_bytes()),
                    (":path", path.as_bytes()),
                ];
                let ended = http.request(&fields).await;
                let is_reset = ended.status.is_none() && ended.broken;
                assert!(
                    ended.status == Some(400) || is_reset,
                    "{method} {path}: {ended:?}"
                );
                if ended.status.is_some() {
                    assert_error(&ended.body, "bad_target");
                }
            }
        }
    }
    assert_eq!(rig.upstream.connections(), 0);
}

fn get<'a>(fields: &[(&'a str, &'a [u8])]) -> Vec<(&'a str, &'a [u8])> {
    let mut all: Vec<(&str, &[u8])> = vec![(":method", b"GET"), (":scheme", b"https")];
    all.extend(fields);
    all
}
