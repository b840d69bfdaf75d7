//! Row 25: an upstream that says the injected credential back, everywhere and in every form. The agent never gets to see
//! it, what stands beside it is intact, and lengths are right.

mod bodies;
mod codings;
mod websockets;

use std::future::Future;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, Request, Response, header};

use crate::harness::agent::{Agent, exchange};
use crate::harness::pki::Pki;
use crate::harness::scripted::{Scripted, request, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Body, Call, Upstream, text, text_body};
use crate::harness::versions::{Client, Http, PAIRS, Whole};

/// Has characters that encoders treat differently.
const TOKEN: &str = "q7/Zx+kP0a-Tok3n=of.the_host~91aaBBcc";

#[tokio::test]
async fn row_25_headers_of_every_kind_are_masked() {
    let names = [
        "x-echo",
        "location",
        "set-cookie",
        "www-authenticate",
        "link",
        "etag",
    ];
    let world = World::start(BEARER, |call: Call| async move {
        let said = call.seen.all("authorization")[0].to_owned();
        let value = |form: &str| format!("sid=<{form}>; Path=/");
        let encoded = BASE64_STANDARD.encode(&said);
        let values = [&said, &percent(TOKEN), &said, &hex(TOKEN), &encoded, TOKEN];
        let mut answer = Response::builder().status(302);
        for (name, form) in [
            "x-echo",
            "location",
            "set-cookie",
            "www-authenticate",
            "link",
            "etag",
        ]
        .into_iter()
        .zip(values)
        {
            answer = answer.header(name, value(form));
        }
        answer
            .header("x-other", "intact")
            .body(text_body(""))
            .expect("a valid answer")
    })
    .await;
    for (agent, upstream) in PAIRS {
        let answer = world.get(agent, upstream, "/").await;
        assert_clean(&answer);
        for name in names {
            let value = answer.head.headers[name].to_str().expect("ASCII");
            let inner = value
                .strip_prefix("sid=<")
                .and_then(|rest| rest.strip_suffix(">; Path=/"));
            let inner = inner.unwrap_or_else(|| panic!("{name}: {value}"));
            assert!(inner.contains("**********"), "{name}: {value}");
        }
        assert_eq!(
            answer.head.headers["x-echo"],
            format!("sid=<Bearer {}>; Path=/", stars(TOKEN))
        );
        assert_eq!(answer.head.headers["x-other"], "intact");
        world.seen(upstream);
    }
    let line = world.sidecar.logged("places were masked").await;
    assert!(
        line.contains("the answer repeated the credential; 6 places were masked"),
        "{line}"
    );
}

#[tokio::test]
async fn row_25_a_reason_phrase_does_not_pass() {
    let got = scripted(format!(
        "HTTP/1.1 200 {TOKEN}\r\ncontent-length: 2\r\n\r\nok"
    ))
    .await;
    assert!(
        got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\nok"),
        "{got}"
    );
}

#[tokio::test]
async fn row_25_an_interim_answer_does_not_pass() {
    let early = format!("HTTP/1.1 103 Early Hints\r\nlink: </{TOKEN}>\r\n\r\n");
    let got = scripted(format!(
        "{early}{early}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    ))
    .await;
    assert!(
        got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\nok"),
        "{got}"
    );
}

#[tokio::test]
async fn row_25_a_header_whose_name_says_it_is_taken_off() {
    let script =
        |said: &str| format!("HTTP/1.1 200 OK\r\nx-{said}: 1\r\ncontent-length: 2\r\n\r\nok");
    for token in [
        "only-small-letters-0123456789",
        "Small-Letters-And-Capitals-0123456789",
    ] {
        let got = scripted_with(token, script(token)).await;
        assert!(
            !got.to_lowercase().contains("small-letters") && got.ends_with("\r\n\r\nok"),
            "{got}"
        );
    }
}

/// Nothing would tell the agent, or the mask, that the body is in it.
#[tokio::test]
async fn row_25_a_transfer_coding_that_nobody_asked_for_is_refused() {
    for coding in ["gzip, chunked", "gzip\r\ntransfer-encoding: chunked"] {
        let got = scripted(format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        ))
        .await;
        assert!(
            got.starts_with("HTTP/1.1 502 ") && got.contains("upstream_coding"),
            "{got}"
        );
    }
}

#[tokio::test]
async fn row_25_a_route_can_let_it_pass() {
    let rule = format!("{BEARER}    redact: false\n");
    let world = World::start(&rule, |call: Call| async move {
        let said = call.seen.all("authorization")[0];
        let answer = Response::builder()
            .header("x-echo", said)
            .header(header::CONTENT_ENCODING, "br");
        answer
            .body(text_body(said.to_owned()))
            .expect("a valid answer")
    })
    .await;
    for (agent, upstream) in PAIRS {
        let request = Request::get("/").header(header::ACCEPT_ENCODING, "br, *;q=0.1");
        let answer = world.send(agent, upstream, request).await;
        assert_eq!(answer.head.headers["x-echo"], format!("Bearer {TOKEN}"));
        assert_eq!(answer.head.headers[header::CONTENT_ENCODING], "br");
        assert_eq!(answer.body, format!("Bearer {TOKEN}"));
        assert_eq!(world.seen(upstream).all("accept-encoding"), ["br, *;q=0.1"]);
    }
    assert!(!world.sidecar.log().contains("masked"));
}

#[tokio::test]
async fn row_25_a_short_value_is_not_masked_and_the_log_says_so() {
    let echo = async |call: Call| text(200, call.seen.all("authorization")[0].to_owned());
    let world = World::with(BEARER, "short77", echo).await;
    let answer = world.get(Http::One, Http::One, "/").await;
    assert_eq!(answer.body, "Bearer short77");
    let line = world.sidecar.logged("is not masked in answers").await;
    assert!(
        line.contains("EGRESS_TOKEN_0") && !line.contains("short77"),
        "{line}"
    );
}

const BEARER: &str = "    auth_scheme: Bearer\n    token_env: EGRESS_TOKEN_0\n    cookies: [sid]\n";

/// A sidecar that injects a credential, before an upstream of each version.
struct World {
    h1: Upstream,
    h2: Upstream,
    sidecar: Sidecar,
    agent: Agent,
}

impl World {
    async fn start<F, R>(rule: &str, handler: F) -> Self
    where
        F: Fn(Call) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::with(rule, TOKEN, handler).await
    }

    async fn with<F, R>(rule: &str, token: &str, handler: F) -> Self
    where
        F: Fn(Call) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::under(&[], rule, token, handler).await
    }

    /// With further arguments of the sidecar.
    async fn under<F, R>(arguments: &[&str], rule: &str, token: &str, handler: F) -> Self
    where
        F: Fn(Call) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let pki = Pki::new();
        let of = |http: Http| Upstream::with_tls(pki.server_config(&[http.alpn()]));
        let h1 = of(Http::One).start(handler.clone()).await;
        let h2 = of(Http::Two).start(handler).await;
        let route = |http: Http, to: &Upstream| {
            format!(
                "  - host: {}\n    connect_to: {}\n{rule}",
                http.host(),
                to.addr()
            )
        };
        let routes = format!(
            "routes:\n{}{}",
            route(Http::One, &h1),
            route(Http::Two, &h2)
        );
        let builder = Sidecar::with_routes(&pki, routes).slot("EGRESS_TOKEN_0", token);
        let builder = arguments
            .iter()
            .fold(builder, |builder, word| builder.arg(*word));
        let sidecar = builder.start().await;
        let agent = Agent::of(&sidecar);
        Self {
            h1,
            h2,
            sidecar,
            agent,
        }
    }

    async fn client(&self, agent: Http, upstream: Http) -> Client {
        Client::open(&self.agent, agent, upstream.host()).await
    }

    async fn get(&self, agent: Http, upstream: Http, path: &str) -> Whole {
        self.send(agent, upstream, Request::get(path)).await
    }

    async fn send(&self, agent: Http, upstream: Http, request: http::request::Builder) -> Whole {
        let request = request.body(text_body("")).expect("a valid request");
        self.client(agent, upstream).await.send(request).await
    }

    /// The latest request, which carried the credential.
    #[track_caller]
    fn seen(&self, upstream: Http) -> crate::harness::upstream::Seen {
        let upstream = match upstream {
            Http::One => &self.h1,
            Http::Two => &self.h2,
        };
        let seen = upstream.seen().pop().expect("a request");
        assert_eq!(seen.all("authorization").len(), 1, "{seen:?}");
        seen
    }
}

/// What the agent gets byte for byte from an upstream that says this.
async fn scripted(answer: String) -> String {
    scripted_with(TOKEN, answer).await
}

async fn scripted_with(token: &str, answer: String) -> String {
    let pki = Pki::new();
    let tls = pki.server_config(&["http/1.1"]);
    let upstream = Scripted::start(Some(tls), move |_, mut wire| {
        let answer = answer.clone();
        async move {
            let head = request(&mut wire).await.expect("a request");
            assert!(head.contains("authorization: Bearer "), "{head}");
            say(&mut wire, answer).await;
        }
    })
    .await;
    let routes = format!(
        "routes:\n  - host: api.test\n    connect_to: {}\n{BEARER}",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes)
        .slot("EGRESS_TOKEN_0", token)
        .start()
        .await;
    let tunnel = Agent::of(&sidecar)
        .tunnel("api.test:443", "api.test", &["http/1.1"])
        .await;
    let mut tunnel = tunnel.expect("a TLS tunnel");
    let request = b"GET / HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n\r\n";
    let got = exchange(&mut tunnel, request).await;
    assert_clean_bytes(&got);
    String::from_utf8(got).expect("ASCII")
}

/// The token in each form, as encoders that are not the sidecar's write it.
fn forms() -> Vec<String> {
    let mut forms = vec![
        TOKEN.to_owned(),
        percent(TOKEN),
        percent(TOKEN).to_lowercase(),
        hex(TOKEN),
        hex(TOKEN).to_uppercase(),
        TOKEN.replace('/', "\\/"),
        // encodeURIComponent; Python's quote; a form; .NET's JSON.
        TOKEN
            .replace('/', "%2F")
            .replace('+', "%2B")
            .replace('=', "%3D"),
        TOKEN.replace('+', "%2B").replace('=', "%3D"),
        TOKEN
            .replace('/', "%2f")
            .replace('+', "%2b")
            .replace('=', "%3d")
            .replace('~', "%7e"),
        TOKEN.replace('+', "\\u002B"),
        TOKEN.replace('=', "\\u003d"),
    ];
    for before in ["", "a", "ab", "user:"] {
        forms.push(BASE64_STANDARD.encode(format!("{before}{TOKEN}")));
        forms.push(BASE64_URL_SAFE_NO_PAD.encode(format!("{before}{TOKEN}")));
    }
    forms
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn stars(text: &str) -> String {
    "*".repeat(text.len())
}

/// Insists that nothing of an answer has the token in any form.
#[track_caller]
fn assert_clean(answer: &Whole) {
    let none = HeaderMap::new();
    let headers = answer
        .head
        .headers
        .iter()
        .chain(answer.trailers.as_ref().unwrap_or(&none));
    for (name, value) in headers {
        assert_clean_bytes(name.as_str().as_bytes());
        assert_clean_bytes(value.as_bytes());
    }
    assert_clean_bytes(&answer.body);
}

#[track_caller]
fn assert_clean_bytes(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let core = |form: &String| match form.len() {
        // What base64 shares with the text around it is at its ends.
        length if length > 40 => form[6..length - 4].to_owned(),
        _ => form.clone(),
    };
    for form in forms().iter().map(core) {
        assert!(!text.contains(&form), "{form} in {text}");
    }
}
