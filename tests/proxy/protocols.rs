//! Both HTTP versions on both sides: what a message means survives the change of version, and nothing is made up.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};

use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Body, Call, Upstream, text, text_body};
use crate::harness::versions::{Client, Http, PAIRS, Versions};
use crate::harness::within;

#[tokio::test]
async fn trailers_that_are_no_grpc_status_pass_neither_way() {
    let world = Versions::start(echo).await;
    for (agent, upstream) in PAIRS {
        let (mut sender, body) = Channel::new(4);
        let (mut client, request) = (
            world.client(agent, upstream).await,
            Request::post("/trailers")
                .header(header::TE, "trailers")
                .header(header::TRAILER, "x-smuggled, grpc-status"),
        );
        upload(&mut sender, &["body"]).await;
        let trailers = named(&[("x-smuggled", "1"), ("grpc-status", "1")]);
        sender.send_trailers(trailers).await.expect("a reader");
        drop(sender);
        let request = request.body(body.boxed()).expect("a request");
        let answer = client.send(request).await;
        assert_eq!(answer.status(), 200, "{agent:?} {upstream:?}");
        assert_eq!(answer.body, "body", "{agent:?} {upstream:?}");
        let got = &answer.head.headers["x-request-trailers"];
        assert_eq!(got, "0", "{agent:?} {upstream:?}");
        assert_eq!(answer.trailers, None, "{agent:?} {upstream:?}");
    }
}

#[tokio::test]
async fn of_an_answers_trailers_only_the_status_of_grpc_passes() {
    let world = Versions::start(echo).await;
    let mut client = world.client(Http::Two, Http::Two).await;
    let request = Request::post("/grpc").header(header::TE, "trailers");
    let answer = client
        .send(request.body(text_body("call")).expect("a request"))
        .await;
    let expected = named(&[("grpc-message", "fine"), ("grpc-status", "0")]);
    assert_eq!(answer.trailers, Some(expected));
    assert_eq!(answer.body, "call");
    let seen = world.upstream(Http::Two).only();
    assert_eq!(seen.all("te"), ["trailers"]);
}

#[tokio::test]
async fn bodies_of_a_known_length_keep_it() {
    let world = Versions::start(echo).await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        for (method, body) in [
            (Method::GET, ""),
            (Method::POST, "twelve bytes"),
            (Method::PUT, "x"),
            (Method::DELETE, ""),
            (Method::GET, "a query in a body"),
        ] {
            let request = Request::builder().method(method.clone()).uri("/echo?q=1");
            let answer = client
                .send(request.body(text_body(body)).expect("a request"))
                .await;
            assert_eq!(answer.status(), 200, "{agent:?} {upstream:?} {method}");
            assert_eq!(answer.body, body, "{agent:?} {upstream:?} {method}");
            assert_eq!(answer.head.version, agent.version());
            let seen = last(world.upstream(upstream));
            assert_eq!((seen.version, seen.method), (upstream.version(), method));
            assert_eq!(seen.target, "/echo?q=1");
            assert_eq!(seen.host, upstream.host());
            if !body.is_empty() {
                let length = seen.headers.get(header::CONTENT_LENGTH);
                assert_eq!(length, Some(&HeaderValue::from(body.len())));
            }
            assert!(!seen.headers.contains_key(header::TRANSFER_ENCODING));
        }
    }
}

#[tokio::test]
async fn bodies_without_a_length_become_chunked_only_towards_http1() {
    let world = Versions::start(echo).await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        for method in [Method::POST, Method::PUT, Method::PATCH] {
            let (mut sender, body) = Channel::new(4);
            upload(&mut sender, &["one, ", "two"]).await;
            drop(sender);
            let request = Request::builder().method(method).uri("/echo");
            let answer = client
                .send(request.body(body.boxed()).expect("a request"))
                .await;
            assert_eq!(answer.body, "one, two", "{agent:?} {upstream:?}");
            let seen = last(world.upstream(upstream));
            let coding = seen.all("transfer-encoding");
            match upstream {
                Http::One => assert_eq!(coding, ["chunked"]),
                Http::Two => assert!(coding.is_empty()),
            }
            assert!(!seen.headers.contains_key(header::CONTENT_LENGTH));
        }
    }
}

/// A client library leaves the body of a GET out unless its framing is spelt out; a proxy must not.
#[tokio::test]
async fn a_get_with_a_body_without_a_length_keeps_the_body() {
    let world = Versions::start(echo).await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        let (mut sender, body) = Channel::new(4);
        upload(&mut sender, &["{\"query\": 1}"]).await;
        drop(sender);
        let mut request = Request::get("/echo");
        if agent == Http::One {
            request = request.header(header::TRANSFER_ENCODING, "chunked");
        }
        let answer = client
            .send(request.body(body.boxed()).expect("a request"))
            .await;
        assert_eq!(answer.body, "{\"query\": 1}", "{agent:?} {upstream:?}");
    }
}

#[tokio::test]
async fn an_empty_post_stays_empty() {
    let world = Versions::start(echo).await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        for _ in 0..2 {
            let request = Request::post("/echo").body(text_body(""));
            let answer = client.send(request.expect("a request")).await;
            assert_eq!((answer.status(), &*answer.body), (200, &b""[..]));
        }
        let seen = last(world.upstream(upstream));
        assert!(!seen.headers.contains_key(header::TRANSFER_ENCODING));
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none_and_keep_their_headers() {
    let world = Versions::start(echo).await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        // Twice each: what is left over from one would spoil the next.
        for _ in 0..2 {
            for (method, path, status, length) in [
                (Method::HEAD, "/head", 200, Some("4321")),
                (Method::GET, "/204", 204, None),
                (Method::GET, "/304", 304, None),
                (Method::POST, "/204", 204, None),
                (Method::HEAD, "/304", 304, None),
            ] {
                let what = format!("{agent:?} {upstream:?} {method} {path}");
                let request = Request::builder().method(method).uri(path);
                let request = request.body(text_body("")).expect("a request");
                let answer = client.send(request).await;
                assert_eq!(answer.status(), status, "{what}");
                assert!(answer.body.is_empty(), "{what}");
                let got = answer.head.headers.get(header::CONTENT_LENGTH);
                let got = got.map(|value| value.to_str().expect("a number"));
                assert_eq!(got, length, "{what}");
                let etag = answer.head.headers.get(header::ETAG);
                assert_eq!(etag, Some(&HeaderValue::from_static("\"v1\"")), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn an_agent_without_alpn_gets_http1() {
    let world = Versions::start(echo).await;
    let mut tunnel = world
        .agent
        .tunnel("h2.test:443", "h2.test", &[])
        .await
        .expect("a TLS tunnel");
    assert_eq!(tunnel.get_ref().1.alpn_protocol(), None);
    let request = b"GET /echo HTTP/1.1\r\nHost: h2.test\r\nConnection: close\r\n\r\n";
    let answer = crate::harness::agent::exchange(&mut tunnel, request).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

/// HTTP/2 is negotiated or it is not spoken (RFC 9113, section 3.2).
#[tokio::test]
async fn an_upstream_without_alpn_is_spoken_to_in_http1() {
    let pki = Pki::new();
    let upstream = Upstream::with_tls(pki.server_config(&[])).streaming();
    let upstream = upstream.start(echo).await;
    let routes = format!(
        "routes: [{{host: api.test, connect_to: {}}}]\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let agent = crate::harness::agent::Agent::of(&sidecar);
    for http in [Http::One, Http::Two] {
        let mut client = Client::open(&agent, http, "api.test").await;
        let request = Request::post("/echo").body(text_body("body"));
        let answer = client.send(request.expect("a request")).await;
        assert_eq!(answer.body, "body");
        assert_eq!(last(&upstream).version, Http::One.version());
    }
}

/// Many streams on one connection of the agent, answered in another order than they were asked in.
#[tokio::test]
async fn streams_of_one_connection_do_not_wait_for_each_other() {
    let (release, gate) = tokio::sync::watch::channel(false);
    let world = Versions::start(move |call: Call| {
        let mut gate = gate.clone();
        async move {
            if call.seen.path() == "/first" {
                _ = gate.wait_for(|open| *open).await;
            }
            echo(call).await
        }
    })
    .await;
    for upstream in [Http::One, Http::Two] {
        release.send_replace(false);
        let mut first = world.client(Http::Two, upstream).await;
        let mut client = first.beside();
        let waiting = async {
            let request = Request::get("/first").body(text_body(""));
            first.send(request.expect("a request")).await
        };
        let others = async {
            for _ in 0..20 {
                let request = Request::get("/echo").body(text_body(""));
                let answer = client.send(request.expect("a request")).await;
                assert_eq!(answer.status(), 200);
            }
            release.send_replace(true);
        };
        let (answer, ()) = tokio::join!(waiting, others);
        assert_eq!(answer.status(), 200);
    }
}

/// Answers by path, and says in a header how many trailers came with the request.
async fn echo(call: Call) -> Response<Body> {
    let path = call.seen.path().to_owned();
    let head = |status: u16| {
        let builder = Response::builder().status(status);
        builder.header(header::ETAG, "\"v1\"")
    };
    let answer = match path.as_str() {
        "/head" => head(200)
            .header(header::CONTENT_LENGTH, "4321")
            .body(text_body("")),
        "/304" => head(304).body(text_body("")),
        "/204" => head(204).body(text_body("")),
        _ => return echo_body(&path, call).await,
    };
    answer.expect("a valid response")
}

async fn echo_body(path: &str, call: Call) -> Response<Body> {
    let body = call.request.into_body().expect("a streamed body");
    let Ok(Ok(body)) = tokio::time::timeout(crate::harness::DEADLINE, body.collect()).await else {
        return text(400, "the body broke off");
    };
    let count = body.trailers().map_or(0, HeaderMap::len);
    let body = body.to_bytes();
    let mut answer = match path {
        "/trailers" | "/grpc" => {
            let (mut sender, channel) = Channel::new(4);
            sender.send_data(body).await.expect("a reader");
            let trailers = named(&[
                ("grpc-status", "0"),
                ("grpc-message", "fine"),
                ("x-late", "1"),
                ("authorization", "late"),
            ]);
            sender.send_trailers(trailers).await.expect("a reader");
            let declared = "grpc-status, grpc-message, x-late, authorization";
            let mut answer = Response::new(channel.boxed());
            let value = HeaderValue::from_static(declared);
            answer.headers_mut().insert(header::TRAILER, value);
            answer
        }
        _ => Response::new(text_body(body)),
    };
    if path == "/grpc" {
        let grpc = HeaderValue::from_static("application/grpc");
        answer.headers_mut().insert(header::CONTENT_TYPE, grpc);
    }
    let count = HeaderValue::from(count);
    answer.headers_mut().insert("x-request-trailers", count);
    answer
}

async fn upload(sender: &mut Sender<Bytes>, pieces: &[&'static str]) {
    for piece in pieces {
        let piece = Bytes::from_static(piece.as_bytes());
        within("room for a piece", sender.send_data(piece))
            .await
            .expect("a reader");
    }
}

fn named(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        })
        .collect()
}

fn last(upstream: &Upstream) -> crate::harness::upstream::Seen {
    upstream.seen().pop().expect("a request")
}
