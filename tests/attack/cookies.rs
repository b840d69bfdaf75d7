//! Identities beside the injected one: credentials in a query, cookies of the agent and of the upstream (rows 13 and 26),
//! and a WebSocket's extensions, behind which nothing can be masked (row 23).

use bytes::Bytes;
use http::header::SET_COOKIE;
use http::{HeaderMap, Request, Response};
use tokio::io::AsyncWriteExt;

use crate::harness::agent::read_head;
use crate::harness::pki::Pki;
use crate::harness::raw_http2::RawHttp2;
use crate::harness::rig::{REAL, Rig};
use crate::harness::upstream::{self, Body, Call, Seen, Upstream};
use crate::harness::within;

const ROUTES: &str = "\
- {host: real.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: own.test, auth_scheme: raw, auth_header: x-our-own, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: lax.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, query_credentials: allow, connect_to: 'UPSTREAM'}
- {host: some.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, cookies: [__cf_bm, _cfuvid, __Host-id], connect_to: 'UPSTREAM'}
- {host: two.test, path_allowlist: [/v1/], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: two.test, connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
- {host: strict.test, query_credentials: deny, cookies: [], connect_to: 'UPSTREAM'}
";

/// What some server takes for a credential, or cannot be told not to be one.
#[rustfmt::skip] // One case a line.
const CARRYING: &[(&str, &str)] = &[
    ("/x?access_token=agents-own", "query_credential"),
    ("/x?a=b&access_token=agents-own", "query_credential"),
    ("/x?ACCESS_TOKEN=agents-own", "query_credential"),
    ("/x?Access-Token=agents-own", "query_credential"),
    ("/x?accessToken=agents-own", "query_credential"),
    ("/x?access.token=agents-own", "query_credential"),
    ("/x?access+token=agents-own", "query_credential"),
    ("/x?access%20token=agents-own", "query_credential"),
    ("/x?%61ccess%5ftoken=agents-own", "query_credential"),
    ("/x?%E2%84%AAey=agents-own", "query_credential"),
    ("/x?key=agents-own", "query_credential"),
    ("/x?+key=agents-own", "query_credential"),
    ("/x?key", "query_credential"),
    ("/x?key[]=agents-own", "query_credential"),
    ("/x?key%5B0%5D=agents-own", "query_credential"),
    ("/x?access[token=agents-own", "query_credential"),
    ("/x?api_key=agents-own", "query_credential"),
    ("/x?apikey=agents-own", "query_credential"),
    ("/x?api-key=agents-own", "query_credential"),
    ("/x?private_token=agents-own", "query_credential"),
    ("/x?job_token=agents-own", "query_credential"),
    ("/x?token=agents-own", "query_credential"),
    ("/x?auth=agents-own", "query_credential"),
    ("/x?authorization=Bearer+agents-own", "query_credential"),
    ("/x?oauth_token=agents-own", "query_credential"),
    ("/x?client_secret=agents-own", "query_credential"),
    ("/x?x-api-key=agents-own", "query_credential"),
    ("/x?X-Amz-Credential=agents-own", "query_credential"),
    ("/x?X-Amz-Signature=agents-own", "query_credential"),
    ("/x?X-Amz-Security-Token=agents-own", "query_credential"),
    ("/x?refresh_token=agents-own", "query_credential"),
    ("/x?id_token=agents-own", "query_credential"),
    ("/x?oauth_signature=agents-own", "query_credential"),
    ("/x?access_key=agents-own", "query_credential"),
    ("/x?subscription-key=agents-own", "query_credential"),
    ("/x?api_token=agents-own", "query_credential"),
    ("/x?auth_token=agents-own", "query_credential"),
    ("/x?feed_token=agents-own", "query_credential"),
    ("/x?circle-token=agents-own", "query_credential"),
    ("/x?jwt=agents-own", "query_credential"),
    ("/x?x-goog-api-key=agents-own", "query_credential"),
    ("/x?signature=agents-own", "query_credential"),
    ("/x?AWSAccessKeyId=agents-own", "query_credential"),
    ("/x?GoogleAccessId=agents-own", "query_credential"),
    ("/x?X-Goog-Credential=agents-own", "query_credential"),
    ("/x?X-Goog-Signature=agents-own", "query_credential"),
    ("/x?X-Goog-Security-Token=agents-own", "query_credential"),
    ("/x?sv=2024-11-04&sig=agents-own", "query_credential"),
    ("/x?a=b;token=agents-own", "query_credential"),
    ("/x?a=b%3Btoken=agents-own", "query_credential"),
    ("/x?a=b&amp;token=agents-own", "query_credential"),
    ("/x?a=b%26token%3Dagents-own", "query_credential"),
    ("/x?a=b%2526token%253Dagents-own", "query_credential"),
    ("/x??token=agents-own", "query_credential"),
    ("/x?a=b?token=agents-own", "query_credential"),
    ("/x%3Ftoken=agents-own", "query_credential"),
    ("/x;token=agents-own", "query_credential"),
    ("/x?to=https%3A%2F%2Fh%2F%3Ftoken%3Dagents-own", "query_credential"),
    ("/x?%2574oken=agents-own", "query_ambiguous"),
    ("/x?a=b&%252574oken=agents-own", "query_ambiguous"),
    ("/x?%u0074oken=agents-own", "query_ambiguous"),
    ("/x?token%=agents-own", "query_ambiguous"),
    ("/x?a=100%", "query_ambiguous"),
    ("/x?token%00=agents-own", "query_ambiguous"),
    ("/x?%C1%B4oken=agents-own", "query_ambiguous"),
];

/// What looks a little like it, and is none.
const HARMLESS: &[&str] = &[
    "/x",
    "/x?",
    "/key",
    "/token/key=a",
    "/x?q=token",
    "/x?q=access_token%3Da",
    "/x?q=what+is+a+token?",
    "/x?page_token=a",
    "/x?nextToken=a&pageToken=b",
    "/x?token_type=a&author=b&keyword=c&sort_key=d",
    "/x?filter%5Btoken%5D=a",
    "/x?q=100%25",
    "/x?q=a%26b",
    "/x?code=a&state=b",
    "/x?to=https%3A%2F%2Fh%2Fp%3Fq%3Da%2520b%26n%3D1",
    "/x?service=git-upload-pack",
    "/x?alt=sse",
];

#[tokio::test]
async fn row_13_a_credential_in_the_query_goes_nowhere_beside_an_injected_one() {
    let rig = Rig::new(ROUTES).await;
    for host in ["real.test", "strict.test"] {
        let mut http2 = RawHttp2::open(&rig.agent, host).await;
        for (target, code) in CARRYING {
            let refused = rig.tunnelled(host, http1(host, target, "")).await;
            refused.assert_refused(400, code);
            assert!(!refused.text().contains("agents-own"), "{target}");
            let ended = http2.request(&fields(host, target)).await;
            assert_eq!(ended.status, Some(400), "{target} {ended:?}");
            assert!(ended.body.contains(&format!("\"{code}\"")), "{ended:?}");
        }
    }
    // What a route's own header is called is a credential there, and elsewhere is not.
    let target = "/x?x_our_own=agents-own";
    let refused = rig.tunnelled("own.test", http1("own.test", target, ""));
    refused.await.assert_refused(400, "query_credential");
    assert_eq!(rig.upstream.connections(), 0);
    assert!(rig.upstream.seen().is_empty());
    let served = rig.tunnelled("real.test", http1("real.test", target, ""));
    served.await.assert_served();
    // Paths are logged, and queries are not.
    for line in rig.sidecar.log().lines() {
        let in_path = ["/x;token=", "/x%3Ftoken="]
            .iter()
            .any(|path| line.contains(path));
        assert!(in_path || !line.contains("agents-own"), "{line}");
    }
}

#[tokio::test]
async fn row_13_a_request_that_is_refused_for_its_query_gets_no_other_route() {
    let rig = Rig::new(ROUTES).await;
    let to = |target| rig.tunnelled("two.test", http1("two.test", target, ""));
    to("/v1/x?key=agents-own")
        .await
        .assert_refused(400, "query_credential");
    assert!(rig.upstream.seen().is_empty());
    to("/v2/x?key=agents-own").await.assert_served();
    let seen = rig.upstream.only();
    assert_eq!(seen.target, "/v2/x?key=agents-own");
    assert!(seen.all("authorization").is_empty());
}

#[tokio::test]
async fn row_13_a_query_goes_out_byte_for_byte_where_it_may() {
    let rig = Rig::new(ROUTES).await;
    let carrying = CARRYING.iter().map(|(target, _)| *target);
    let everything: Vec<&str> = HARMLESS.iter().copied().chain(carrying).collect();
    for (host, targets) in [
        ("real.test", HARMLESS),
        ("lax.test", &everything),
        ("bare.test", &everything),
    ] {
        let mut http2 = RawHttp2::open(&rig.agent, host).await;
        for target in targets {
            let answer = rig.tunnelled(host, http1(host, target, "")).await;
            assert_eq!(answer.status, 200, "{host} {target} {answer:?}");
            let ended = http2.request(&fields(host, target)).await;
            assert_eq!(ended.status, Some(200), "{host} {target} {ended:?}");
            for seen in last_two(&rig.upstream) {
                assert_eq!((&*seen.host, &*seen.target), (host, *target));
                let injected = format!("Bearer {REAL}");
                let wanted = if host == "bare.test" {
                    vec![]
                } else {
                    vec![&*injected]
                };
                assert_eq!(seen.all("authorization"), wanted, "{host}");
            }
        }
    }
}

/// Cookie fields, and what is left of them where `__cf_bm`, `_cfuvid` and `__Host-id` are named.
#[rustfmt::skip] // One case a line.
const COOKIES: &[(&[&str], Option<&str>)] = &[
    (&["session=agents-own"], None),
    (&["__cf_bm=1"], Some("__cf_bm=1")),
    (&["session=agents-own; __cf_bm=1; other=2"], Some("__cf_bm=1")),
    (&["session=agents-own;__cf_bm=1;_cfuvid=2"], Some("__cf_bm=1; _cfuvid=2")),
    (&["__cf_bm=1", "session=agents-own", "_cfuvid=2"], Some("__cf_bm=1; _cfuvid=2")),
    (&["__Host-id=1; id=agents-own"], Some("__Host-id=1")),
    (&["__CF_BM=agents-own"], None),
    (&["__cf_bmx=agents-own; x__cf_bm=agents-own"], None),
    (&["__cf_bm"], None),
    (&["=__cf_bm=agents-own"], None),
    (&["__cf_bm =agents-own"], None),
    (&["\"__cf_bm\"=agents-own"], None),
    (&["$__cf_bm=agents-own"], None),
    (&["__cf_bm="], Some("__cf_bm=")),
    (&["__cf_bm=a=b=="], Some("__cf_bm=a=b==")),
    (&["__cf_bm=\"1\""], Some("__cf_bm=\"1\"")),
    (&["__cf_bm=\"1; session=agents-own\""], None),
    (&["__cf_bm=\"1; session=agents-own; _cfuvid=2\""], None),
    (&["__cf_bm=1, session=agents-own"], None),
    (&["__cf_bm=1,session=agents-own"], None),
    (&["__cf_bm=1 session=agents-own"], None),
    (&["__cf_bm=1\\; session=agents-own"], None),
    (&["__cf_bm=1; __cf_bm=2"], None),
    (&["__cf_bm=1", "__cf_bm=1"], None),
    (&["__cf_bm=1; __cf_bm=2; _cfuvid=3"], Some("_cfuvid=3")),
    (&["$Version=1; __cf_bm=1; $Path=/; session=agents-own"], Some("__cf_bm=1")),
    (&[";;; ;"], None),
];

#[tokio::test]
async fn row_13_of_the_agents_cookies_only_the_named_ones_go_beside_a_credential() {
    let rig = Rig::new(ROUTES).await;
    for (host, names_some) in [
        ("some.test", true),
        ("real.test", false),
        ("strict.test", false),
    ] {
        let mut http2 = RawHttp2::open(&rig.agent, host).await;
        for (cookies, kept) in COOKIES {
            let lines: String = cookies
                .iter()
                .map(|cookie| format!("cOOkie: {cookie}\r\nCookie2: $Version=1\r\n"))
                .collect();
            let answer = rig.tunnelled(host, http1(host, "/", &lines)).await;
            answer.assert_served();
            let mut request = fields(host, "/");
            request.extend(cookies.iter().map(|cookie| ("cookie", cookie.as_bytes())));
            assert_eq!(http2.request(&request).await.status, Some(200));
            for seen in last_two(&rig.upstream) {
                let wanted: Vec<&str> = kept.iter().copied().filter(|_| names_some).collect();
                assert_eq!(seen.all("cookie"), wanted, "{host} {cookies:?}");
                assert!(seen.all("cookie2").is_empty(), "{host}");
            }
        }
    }
    let lines = "Cookie: a=\"1, b; c=2\r\n";
    let answer = rig.tunnelled("bare.test", http1("bare.test", "/", lines));
    answer.await.assert_served();
    let seen = rig.upstream.seen().pop().expect("a request");
    assert_eq!(seen.all("cookie"), ["a=\"1, b; c=2"]);
}

/// What the upstream sets, and whether it reaches the agent where the cookies above are named.
#[rustfmt::skip] // One case a line.
const SETTING: &[(&str, bool)] = &[
    ("session=hosts-own; Path=/; HttpOnly", false),
    ("__cf_bm=1; Path=/; Expires=Thu, 01 Jan 2037 00:00:00 GMT; Secure; SameSite=None", true),
    ("_cfuvid=2; path=/; domain=.some.test", true),
    ("__CF_BM=hosts-own", false),
    ("__cf_bmx=hosts-own", false),
    ("session=hosts-own; __cf_bm=1", false),
    ("=__cf_bm=hosts-own", false),
    ("__cf_bm", false),
    ("hosts-own", false),
    ("__cf_bm=1, session=hosts-own", false),
    ("__cf_bm=1; Expires=Thu, 01 Jan 2037 00:00:00 GMT, session=hosts-own; Path=/", false),
    ("__cf_bm=; Max-Age=0", true),
    ("__Host-id=1; Secure; Path=/", true),
    ("\"__cf_bm\"=hosts-own", false),
];

fn setting(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (cookie, _) in SETTING {
        headers.append(SET_COOKIE, cookie.parse().expect("a header value"));
    }
    let second = "session=hosts-own; Version=1".parse();
    headers.insert("set-cookie2", second.expect("a header value"));
    response
}

/// What has to be left of it on a route.
fn left(host: &str) -> Vec<&'static str> {
    let passes = |passes: bool| match host {
        "bare.test" => true,
        "some.test" => passes,
        _ => false,
    };
    let kept = SETTING.iter().filter(|(_, named)| passes(*named));
    kept.map(|(cookie, _)| *cookie).collect()
}

fn set(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(SET_COOKIE).iter();
    values
        .map(|value| value.to_str().expect("a text header"))
        .collect()
}

#[tokio::test]
async fn row_26_cookies_of_the_injected_identity_do_not_reach_the_agent() {
    for alpn in ["http/1.1", "h2"] {
        let pki = Pki::new();
        let upstream = Upstream::with_tls(pki.server_config(&[alpn]));
        let upstream = upstream
            .start(async |call: Call| {
                let status = if call.seen.path() == "/401" { 401 } else { 200 };
                setting(upstream::text(status, "fine"))
            })
            .await;
        let rig = Rig::around(&pki, upstream, ROUTES, |builder| builder).await;
        for host in [
            "real.test",
            "lax.test",
            "strict.test",
            "some.test",
            "bare.test",
        ] {
            for path in ["200", "401"] {
                let request = || {
                    let request = Request::get(format!("https://{host}/{path}"));
                    request.body(Bytes::new()).expect("a request")
                };
                for answer in [
                    rig.agent.send(request()).await,
                    rig.agent.send_h2(request()).await,
                ] {
                    assert_eq!(answer.status.as_str(), path);
                    assert_eq!(set(&answer.headers), left(host), "{host} {alpn}");
                    let second = answer.headers.contains_key("set-cookie2");
                    assert_eq!(second, host == "bare.test", "{host}");
                }
            }
        }
    }
}

#[tokio::test]
async fn row_26_cookies_of_a_websocket_are_held_back_like_others() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |call: Call| match call.seen.path() {
            "/declined" => setting(upstream::text(403, "no")),
            _ => setting(call.websocket(async |_| {})),
        })
        .await;
    let rig = Rig::around(&pki, upstream, ROUTES, |builder| builder).await;
    for host in ["real.test", "some.test", "bare.test"] {
        for (path, status) in [("/", "101"), ("/declined", "403")] {
            let cookies = "Cookie: session=agents-own; __cf_bm=1\r\n";
            let head = open(&rig, host, path, cookies).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            let set = head
                .lines()
                .filter_map(|line| line.strip_prefix("set-cookie: "));
            assert_eq!(set.collect::<Vec<_>>(), left(host), "{host} {path}");
            let seen = rig.upstream.seen().pop().expect("a handshake");
            let sent: &[&str] = match host {
                "real.test" => &[],
                "some.test" => &["__cf_bm=1"],
                _ => &["session=agents-own; __cf_bm=1"],
            };
            assert_eq!(seen.all("cookie"), sent, "{host} {path}");
        }
    }
}

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
                     Sec-WebSocket-Extensions: x-other\r\n";

#[tokio::test]
async fn row_23_extensions_are_neither_offered_nor_taken_where_they_are_dropped() {
    const ROUTES: &str = "\
- {host: plain.test, websocket_extensions: drop, connect_to: 'UPSTREAM'}
- {host: any.test, websocket_extensions: pass, connect_to: 'UPSTREAM'}
";
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |call: Call| {
            let insists = call.seen.path() == "/insists";
            let mut response = call.websocket(async |_| {});
            if insists {
                let value = "permessage-deflate".parse().expect("a header value");
                let headers = response.headers_mut();
                headers.insert("sec-websocket-extensions", value);
            }
            response
        })
        .await;
    let rig = Rig::around(&pki, upstream, ROUTES, |builder| builder).await;
    for (host, path, offer, status, code) in [
        ("plain.test", "/", OFFER, 101, None),
        (
            "plain.test",
            "/insists",
            OFFER,
            502,
            Some("upstream_handshake"),
        ),
        ("any.test", "/insists", OFFER, 101, None),
        // Nobody offered it, so it fails the handshake (RFC 6455, section 4.1).
        ("any.test", "/insists", "", 502, Some("upstream_handshake")),
    ] {
        let head = open(&rig, host, path, offer).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let told = head
            .lines()
            .find_map(|line| line.strip_prefix("x-egress-error: "));
        assert_eq!(told, code, "{host} {path}");
        let taken = head.contains("sec-websocket-extensions: permessage-deflate");
        assert_eq!(taken, (host, status) == ("any.test", 101), "{head}");
        let seen = rig.upstream.seen().pop().expect("a handshake");
        let offers = seen.all("sec-websocket-extensions");
        let passed = host == "any.test" && !offer.is_empty();
        assert_eq!(
            offers.len(),
            if passed { 2 } else { 0 },
            "{host} {path} {offers:?}"
        );
    }
}

#[tokio::test]
async fn row_13_a_route_that_gives_up_a_guard_is_warned_of_at_the_start_and_at_a_reload() {
    let rig = Rig::new(ROUTES).await;
    let warning = "the route gives up a guard of its credential";
    let told = rig.sidecar.logged_times(warning, 1).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("lax.test") && told[0].contains("query_credentials: allow"));
    let more = "- {host: real.test, auth_scheme: raw, token_env: EGRESS_TOKEN_0, redact: false}\n";
    rig.sidecar.write_routes(&format!("routes:\n{more}"));
    rig.sidecar.sighup();
    let told = rig.sidecar.logged_times(warning, 2).await;
    assert!(told[1].contains("real.test") && told[1].contains("redact: false"));
}

/// The head of the answer to a WebSocket handshake.
async fn open(rig: &Rig, host: &str, path: &str, more: &str) -> String {
    let authority = format!("{host}:443");
    let tunnel = rig.agent.tunnel(&authority, host, &["http/1.1"]).await;
    let mut tunnel = tunnel.expect("a tunnel");
    let handshake = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    );
    let sent = tunnel.write_all(handshake.as_bytes()).await;
    sent.expect("the sidecar reads");
    let head = within("a head", read_head(&mut tunnel)).await;
    String::from_utf8(head).expect("a text head")
}

fn http1(host: &str, target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n")
}

fn fields<'a>(host: &'a str, target: &'a str) -> Vec<(&'a str, &'a [u8])> {
    vec![
        (":method", b"GET"),
        (":scheme", b"https"),
        (":authority", host.as_bytes()),
        (":path", target.as_bytes()),
    ]
}

/// What an HTTP/1.1 and an HTTP/2 agent have just sent.
fn last_two(upstream: &Upstream) -> Vec<Seen> {
    let mut seen = upstream.seen();
    seen.split_off(seen.len() - 2)
}
