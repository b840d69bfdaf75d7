//! Connections to an upstream between two exchanges (threat model, row 22): whatever came of the first, the next request is
//! answered with its own answer, and never with bytes that were left over.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use tokio::sync::{mpsc, watch};

use crate::harness::agent::{Agent, exchange, read_until};
use crate::harness::pki::Pki;
use crate::harness::scripted::{Scripted, Wire, request, rest, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Body, text_body};
use crate::harness::versions::{Client, Http, Whole};
use crate::harness::within;

/// What the upstream says, and how.
struct Script {
    name: &'static str,
    method: Method,
    says: String,
    /// The connection is used for the next request too.
    kept: bool,
    /// What the agent gets: a status and a body, or an answer that breaks off.
    gets: Option<(u16, &'static str)>,
}

const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";

fn scripts() -> Vec<Script> {
    let get = |name, says: &str, kept, gets| Script {
        name,
        method: Method::GET,
        says: says.replace("MORE", SMUGGLED),
        kept,
        gets,
    };
    let head = |name, says: &str, kept| Script {
        method: Method::HEAD,
        ..get(name, says, kept, Some((200, "")))
    };
    let (fine, interim) = (Some((200, "fine")), "HTTP/1.1 100 Continue\r\n\r\n");
    let flood = interim.repeat(500);
    vec![
        get(
            "a length",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
            true,
            fine,
        ),
        get(
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
            true,
            fine,
        ),
        get(
            "trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\nX-T: 1\r\n\r\n",
            true,
            fine,
        ),
        get(
            "no body",
            "HTTP/1.1 204 No Content\r\n\r\n",
            true,
            Some((204, "")),
        ),
        get(
            "an early hint",
            "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
            true,
            fine,
        ),
        get(
            "a flood of interim answers",
            &format!("{flood}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
            true,
            fine,
        ),
        head(
            "a head",
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n",
            true,
        ),
        get(
            "a farewell",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine",
            false,
            fine,
        ),
        get(
            "a farewell and more",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfineMORE",
            false,
            fine,
        ),
        get(
            "an old farewell",
            "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine",
            false,
            fine,
        ),
        get(
            "bytes beyond the length",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfinesmuggled",
            false,
            fine,
        ),
        get(
            "an answer beyond the length",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfineMORE",
            false,
            fine,
        ),
        get(
            "an empty line beyond the length",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine\r\n",
            false,
            fine,
        ),
        get(
            "an answer beyond the chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\nMORE",
            false,
            fine,
        ),
        get(
            "an answer beyond a 204",
            "HTTP/1.1 204 No Content\r\n\r\nMORE",
            false,
            Some((204, "")),
        ),
        get(
            "a 204 with a body",
            "HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\nsmuggled",
            false,
            Some((204, "")),
        ),
        get(
            "a 304 with a body",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\nsmuggled",
            false,
            Some((304, "")),
        ),
        head(
            "a head with a body",
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
            false,
        ),
        head(
            "a head with another answer",
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nMORE",
            false,
        ),
        get(
            "an interim answer at the end",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfineHTTP/1.1 100 Continue\r\n\r\n",
            false,
            fine,
        ),
        get(
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 12\r\n\r\nfinesmuggled",
            false,
            Some((502, "")),
        ),
        get(
            "a list of lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 4, 12\r\n\r\nfinesmuggled",
            false,
            Some((502, "")),
        ),
        get(
            "a signed length",
            "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nfinesmuggled",
            false,
            Some((502, "")),
        ),
        get(
            "a length and chunks",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
            false,
            fine,
        ),
        get(
            "a length and chunks, and more",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\nMORE",
            false,
            fine,
        ),
        get(
            "too little, and an end",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfine",
            false,
            None,
        ),
        get(
            "half a chunk, and an end",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nfine",
            false,
            None,
        ),
        get(
            "no chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\nHTTP/1.1 200 OK\r\n\r\n",
            false,
            None,
        ),
        get(
            "a 101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nMORE",
            false,
            Some((502, "")),
        ),
        get("no HTTP", "smuggled\r\n\r\nMORE", false, Some((502, ""))),
        get(
            "another version",
            "HTTP/3.0 200 OK\r\nContent-Length: 4\r\n\r\nfineMORE",
            false,
            Some((502, "")),
        ),
    ]
}

#[tokio::test]
async fn row_22_no_request_is_answered_with_what_another_left_behind() {
    let scripts = scripts();
    let (used, mut connections) = mpsc::unbounded_channel();
    let pki = Pki::new();
    let tls = pki.server_config(&["http/1.1"]);
    let upstream = Scripted::start(Some(tls), move |ordinal, mut wire: Wire| {
        let used = used.clone();
        async move {
            while let Some(head) = request(&mut wire).await {
                let path = head.split(' ').nth(1).expect("a target").to_owned();
                if let Some(number) = path.strip_prefix("/next/") {
                    let body = format!("{number} on {ordinal}");
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    say(&mut wire, format!("{head}{body}")).await;
                    continue;
                }
                let number: usize = path.trim_start_matches('/').parse().expect("a number");
                let all = self::scripts();
                _ = used.send((number, ordinal));
                say(&mut wire, &all[number].says).await;
                if all[number].gets.is_none() {
                    return;
                }
            }
        }
    })
    .await;
    let sidecar = sidecar(&pki, &upstream).await;
    let agent = Agent::of(&sidecar);
    // Each has a host, and so connections, of its own.
    let all = scripts.iter().enumerate().map(|(number, script)| {
        let agent = &agent;
        async move {
            let (name, host) = (script.name, format!("c{number}.a.test"));
            let http = [Http::One, Http::Two][number % 2];
            let mut client = Client::open(agent, http, &host).await;
            let request = Request::builder().method(&script.method);
            let request = request.uri(format!("/{number}")).body(text_body(""));
            let answer = client.start(request.expect("a request")).await;
            match (answer, script.gets) {
                (Ok(answer), Some((status, body))) => {
                    let answer = Whole::of(answer).await;
                    assert_eq!(answer.status(), status, "{name}: {answer:?}");
                    match status {
                        502 => assert_eq!(answer.code(), Some("upstream_protocol"), "{name}"),
                        _ => assert_eq!(answer.body, body, "{name}"),
                    }
                }
                (Ok(answer), None) => {
                    let body = within(name, answer.into_body().collect()).await;
                    assert!(body.is_err(), "{name}: it ended as if whole");
                }
                (Err(_), None) => {}
                (Err(error), _) => panic!("{name}: {error}"),
            }
            let mut other = Client::open(agent, Http::One, &host).await;
            let next = other.send(get(&format!("/next/{number}"))).await;
            assert_eq!(next.status(), 200, "{name}: {next:?}");
            String::from_utf8_lossy(&next.body).into_owned()
        }
    });
    let answers = futures_util::future::join_all(all).await;
    let mut ordinals = std::collections::HashMap::new();
    while let Ok((number, ordinal)) = connections.try_recv() {
        assert!(
            ordinals.insert(number, ordinal).is_none(),
            "sent twice: {number}"
        );
    }
    for (number, (script, answer)) in scripts.iter().zip(answers).enumerate() {
        let same = format!("{number} on {}", ordinals[&number]);
        assert!(
            answer.starts_with(&format!("{number} on ")),
            "{}: {answer}",
            script.name
        );
        assert_eq!(
            answer == same,
            script.kept,
            "{}: {answer}, not {same}",
            script.name
        );
    }
}

/// An agent that leaves takes its upstream connection along, at each stage of an exchange.
#[tokio::test]
async fn row_22_an_exchange_that_the_agent_breaks_off_leaves_no_connection() {
    let (reached, mut stages) = mpsc::unbounded_channel();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let pki = Pki::new();
    let tls = pki.server_config(&["http/1.1"]);
    let upstream = Scripted::start(Some(tls), move |_, mut wire: Wire| {
        let (reached, ended) = (reached.clone(), ended.clone());
        async move {
            while let Some(head) = request(&mut wire).await {
                if head.starts_with("GET /next ") {
                    say(
                        &mut wire,
                        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext",
                    )
                    .await;
                    continue;
                }
                let stage = head.split(' ').nth(1).expect("a target").to_owned();
                match stage.as_str() {
                    "/upload" => _ = read_until(&mut wire, "piece").await,
                    "/head" => {}
                    "/body" => {
                        say(
                            &mut wire,
                            "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nfine",
                        )
                        .await
                    }
                    "/answered" => {
                        read_until(&mut wire, "piece").await;
                        say(
                            &mut wire,
                            "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nfine",
                        )
                        .await;
                    }
                    other => panic!("{other}"),
                }
                _ = reached.send(());
                let after = rest(&mut wire).await;
                _ = ended.send((stage, String::from_utf8_lossy(&after).into_owned()));
                return;
            }
        }
    })
    .await;
    let sidecar = sidecar(&pki, &upstream).await;
    let agent = Agent::of(&sidecar);
    for http in [Http::One, Http::Two] {
        for stage in ["/upload", "/head", "/body", "/answered"] {
            let mut client = Client::open(&agent, http, "c.a.test").await;
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
            let uploads = matches!(stage, "/upload" | "/answered");
            let request = if uploads {
                sender.send_data("piece".into()).await.expect("a reader");
                Request::post(stage).body(body.boxed())
            } else {
                Request::get(stage).body(text_body(""))
            };
            let request = request.expect("a request");
            let asking = client.start(request);
            let answer = tokio::select! {
                answer = asking => Some(answer.expect("a head")),
                _ = stages.recv(), if matches!(stage, "/upload" | "/head") => None,
            };
            client.vanish();
            drop((answer, sender));
            let (of, after) = within(stage, ends.recv()).await.expect("the script runs");
            assert_eq!(of, stage);
            assert!(
                !after.contains("0\r\n\r\n"),
                "{http:?} {stage}: it ended as if whole"
            );
            assert!(!after.contains("GET"), "{http:?} {stage}: {after}");
            let mut other = Client::open(&agent, http, "c.a.test").await;
            assert_eq!(
                other.send(get("/next")).await.body,
                "next",
                "{http:?} {stage}"
            );
            while stages.try_recv().is_ok() {}
        }
    }
}

/// What comes on a connection that waits for its next request belongs to no request.
#[tokio::test]
async fn row_22_what_comes_while_nobody_asks_is_no_answer() {
    for secure in [true, false] {
        let (said, mut saying) = mpsc::unbounded_channel();
        let pki = Pki::new();
        let tls = secure.then(|| pki.server_config(&["http/1.1"]));
        let (release, gate) = watch::channel(0);
        let upstream = Scripted::start(tls, move |ordinal, mut wire: Wire| {
            let (said, mut gate) = (said.clone(), gate.clone());
            async move {
                while let Some(head) = request(&mut wire).await {
                    let path = head.split(' ').nth(1).expect("a target").to_owned();
                    let length = path.len();
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                    say(&mut wire, format!("{head}{path}")).await;
                    _ = gate.wait_for(|turn| *turn >= ordinal).await;
                    say(&mut wire, SMUGGLED).await;
                    _ = said.send((ordinal, path));
                }
            }
        })
        .await;
        let sidecar = match secure {
            true => sidecar(&pki, &upstream).await,
            false => {
                let routes = format!(
                    "routes: [{{host: c.a.test, scheme: http, port: 80, connect_to: {}}}]\n",
                    upstream.addr()
                );
                Sidecar::with_routes(&pki, routes).start().await
            }
        };
        let agent = Agent::of(&sidecar);
        let mut client = match secure {
            true => Some(Client::open(&agent, Http::One, "c.a.test").await),
            false => None,
        };
        for turn in 1..40 {
            let path = format!("/{turn}");
            let body = match &mut client {
                Some(client) => client.send(get(&path)).await.body.to_vec(),
                None => {
                    let request = format!(
                        "GET http://c.a.test{path} HTTP/1.1\r\nHost: c.a.test\r\nConnection: close\r\n\r\n"
                    );
                    let answer = exchange(&mut agent.raw().await, request.as_bytes()).await;
                    answer
                        .rsplit(|byte| *byte == b'\n')
                        .next()
                        .expect("a line")
                        .to_vec()
                }
            };
            assert_eq!(String::from_utf8_lossy(&body), path, "TLS: {secure}");
            release.send_replace(turn);
            // Each request came once, on a connection of its own, and the answer that nobody asked for is in the kernel.
            let said = within("a stray answer", saying.recv()).await;
            assert_eq!(said, Some((turn, path)), "TLS: {secure}");
        }
    }
}

async fn sidecar(pki: &Pki, upstream: &Scripted) -> Sidecar {
    let routes = format!(
        "routes: [{{host: '*.a.test', connect_to: {}}}]\n",
        upstream.addr()
    );
    Sidecar::with_routes(pki, routes).start().await
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(text_body("")).expect("a request")
}
