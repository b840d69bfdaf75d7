//! What is measured on: routes, a request as an agent sends it, credentials and bodies.
//!
//! Whatever is random in them comes from a fixed seed, so that every run measures the same.

use std::path::Path;

use bytes::Bytes;
use egress::config;
use egress::route::target::{Kind, Origin, Scheme, Target};
use egress::route::{Injection, Line, Rule};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};

/// The turns in which each input of a piece is taken at least once.
pub(crate) const SPREAD: usize = 4000;

/// Characters of a credential like those of most APIs.
pub(crate) const SHORT: usize = 40;

/// Characters of the access token of a ChatGPT login.
pub(crate) const LONG: usize = 1600;

/// Bytes that are masked at once: what a TLS record holds.
pub(crate) const PIECE: usize = 16 * 1024;

/// The host that the request is for.
pub(crate) const HOST: &str = "api.example.com";

/// The path that it asks for.
pub(crate) const PATH: &str = "/v1/responses?stream=true";

/// A routes file with a host of its own for each route, one in ten of them a wildcard.
pub(crate) fn routes_file(routes: usize) -> String {
    let entries = (0..routes).map(|number| {
        format!(
            "  - host: '{}'\n    path_allowlist: [/v1/]\n    auth_scheme: Bearer\n    token_env: EGRESS_TOKEN_0\n",
            pattern(number)
        )
    });
    "routes:\n".to_owned() + &entries.collect::<String>()
}

/// The rules of such a file. Reading a large one as a whole takes minutes under valgrind.
pub(crate) fn rules(routes: usize) -> Vec<(Rule, Line)> {
    let sample = rule();
    let of_host = |number| Rule {
        host: pattern(number).parse().expect("a host"),
        ..sample.clone()
    };
    (0..routes).map(of_host).zip(1..).collect()
}

/// What its routes inject.
pub(crate) fn injection() -> Injection {
    rule().injection.expect("a credential")
}

fn rule() -> Rule {
    let parsed = config::parse("routes.yaml", &routes_file(1), Path::new("."));
    let rules = parsed.expect("a file without faults");
    at(&rules, 0).0.clone()
}

/// The host of a route.
fn pattern(number: usize) -> String {
    let label = if number % 10 == 9 { "*" } else { "api" };
    format!("{label}.{}", parent(number))
}

/// No two share one, so that a look-up of many tells of as many hashes.
fn parent(number: usize) -> String {
    format!("service-{number}.example.com")
}

/// Targets that such routes admit.
pub(crate) fn targets(routes: usize) -> Vec<Target> {
    let target = |turn| {
        // Routes that lie together in memory are not asked for together.
        let host = format!("api.{}", parent(turn * STRIDE % routes));
        let origin = origin(&host);
        Target::new(origin, Method::POST, PATH, Kind::Exchange).expect("a target")
    };
    (0..SPREAD).map(target).collect()
}

/// A prime, so that it meets all routes.
const STRIDE: usize = 7919;

/// Where a tunnel leads.
pub(crate) fn origin(host: &str) -> Origin {
    Origin::parse(Scheme::Https, host).expect("an origin")
}

/// A request for a URI.
pub(crate) fn request(uri: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.parse().expect("a URI");
    *request.headers_mut() = headers();
    request
}

/// The headers of a request over HTTP/1.1, as the SDKs of OpenAI's API send them.
pub(crate) fn headers() -> HeaderMap {
    let field = |&(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    FIELDS.iter().map(field).collect()
}

const FIELDS: [(&str, &str); 17] = [
    ("host", HOST),
    ("connection", "keep-alive"),
    ("content-length", "4321"),
    ("authorization", "Bearer placeholder"),
    ("content-type", "application/json"),
    ("accept", "text/event-stream"),
    ("accept-encoding", "gzip, deflate, br"),
    ("user-agent", "OpenAI/Python 2.8.1"),
    ("x-stainless-lang", "python"),
    ("x-stainless-package-version", "2.8.1"),
    ("x-stainless-os", "Linux"),
    ("x-stainless-arch", "x64"),
    ("x-stainless-runtime", "CPython"),
    ("x-stainless-runtime-version", "3.13.9"),
    ("x-stainless-async", "false"),
    ("x-stainless-retry-count", "0"),
    (
        "cookie",
        "__cf_bm=WgLq2QKJ4a4uZkVq; _cfuvid=hq3dUXnqvAcWcOL0",
    ),
];

/// A credential of so many characters.
pub(crate) fn credential(length: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let characters = words(1).map(|word| char::from(*at(alphabet, word as usize)));
    characters.take(length).collect()
}

/// A body of JSON, as APIs send it.
pub(crate) fn json() -> Bytes {
    let item = |number| format!(r#"{{"id": {number}, "name": "user-{number}", "login": true}}, "#);
    (0..)
        .flat_map(|number| item(number).into_bytes())
        .take(BODY)
        .collect()
}

/// A body of random bytes, as archives are.
pub(crate) fn noise() -> Bytes {
    words(2).map(|word| word as u8).take(BODY).collect()
}

const BODY: usize = 8 * PIECE;

/// SplitMix64 (Steele, Lea and Flood, 2014), of which the upper bits are taken.
fn words(seed: u64) -> impl Iterator<Item = u32> {
    (1..).map(move |turn: u64| {
        let mut word = seed.wrapping_add(turn.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ (word >> 31)) >> 32) as u32
    })
}

/// An item, counted round and round.
pub(crate) fn at<T>(items: &[T], turn: usize) -> &T {
    items.get(turn % items.len()).expect("there are some")
}
