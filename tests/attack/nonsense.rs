//! Answers that are no answers (row 48): garbage, heads and chunks that nobody can read in one way, and no end of interim
//! ones. None is passed on as an answer, and the next request gets its own.

use http::Request;
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::harness::agent::Agent;
use crate::harness::pki::Pki;
use crate::harness::scripted::{Scripted, request, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::text_body;
use crate::harness::versions::{Client, Http, Whole};
use crate::harness::within;

/// What is no answer, by what the agent gets: a refusal of ours, or a beginning that never ends well.
const NONSENSE: &[(&str, &str)] = &[
    ("nothing but a line break", "\r\n"),
    ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n"),
    (
        "garbage ahead",
        "\0\u{1}\u{2}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a body ahead",
        "<html>HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "another version",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "an old version",
        "HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a short status",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a long status",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a status that is none",
        "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a status of letters",
        "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a status with a sign",
        "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a field without a colon",
        "HTTP/1.1 200 OK\r\nContent-Length 0\r\n\r\n",
    ),
    (
        "a blank before a colon",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    ),
    (
        "a NUL in a value",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a folded line",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\nbody",
    ),
    (
        "a list of lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 0, 4\r\n\r\nbody",
    ),
    (
        "a negative length",
        "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nbody",
    ),
    (
        "a length with a sign",
        "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nbody",
    ),
    (
        "a length beyond counting",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nbody",
    ),
    (
        "a length in hex",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x4\r\n\r\nbody",
    ),
    (
        "a chunk without a size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nbody\r\n0\r\n\r\n",
    ),
    (
        "a chunk of negative size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-4\r\nbody\r\n0\r\n\r\n",
    ),
    (
        "a chunk beyond counting",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000004\r\nbody\r\n0\r\n\r\n",
    ),
    (
        "a chunk that is longer",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbody\r\n0\r\n\r\n",
    ),
    (
        "a chunk that is shorter",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbody\r\n0\r\n\r\n",
    ),
    (
        "an empty chunk size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nbody\r\n0\r\n\r\n",
    ),
    (
        "a switch that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ),
];

#[tokio::test]
async fn row_48_what_is_no_answer_is_never_passed_on_as_one() {
    let long = format!(
        "HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n",
        "x".repeat(300_000)
    );
    let many = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n",
        "X: x\r\n".repeat(101)
    );
    let line = format!(
        "HTTP/1.1 200 {}\r\nContent-Length: 0\r\n\r\n",
        "x".repeat(300_000)
    );
    let mut scripts: Vec<(&str, String)> = NONSENSE
        .iter()
        .map(|(what, bytes)| (*what, (*bytes).to_owned()))
        .collect();
    scripts.extend([
        ("a field too long", long),
        ("too many fields", many),
        ("a reason too long", line),
    ]);
    let pki = Pki::new();
    let tls = pki.server_config(&["http/1.1"]);
    let answers: Vec<String> = scripts.iter().map(|(_, bytes)| bytes.clone()).collect();
    let upstream = Scripted::start(Some(tls), move |_, mut wire| {
        let answers = answers.clone();
        async move {
            while let Some(head) = request(&mut wire).await {
                let path = head.split(' ').nth(1).expect("a path");
                match path.trim_start_matches('/').parse::<usize>() {
                    Ok(n) => return say(&mut wire, &answers[n]).await,
                    Err(_) => {
                        say(
                            &mut wire,
                            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
                        )
                        .await
                    }
                }
            }
        }
    })
    .await;
    let routes = format!(
        "routes: [{{host: api.test, connect_to: {}}}]\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let agent = Agent::of(&sidecar);
    let mut client = Client::open(&agent, Http::Two, "api.test").await;
    let mut wrong = Vec::new();
    for (n, (what, _)) in scripts.iter().enumerate() {
        let get = |path: String| Request::get(path).body(text_body("")).expect("a request");
        if let Ok(answer) = client.start(get(format!("/{n}"))).await {
            let (head, body) = answer.into_parts();
            let body = within("end of the answer", body.collect()).await;
            let is_ours = head.status == 502 && head.headers.contains_key("x-egress-error");
            if !is_ours && body.is_ok() {
                wrong.push(format!("{what}: {head:?} {body:?}"));
            }
        }
        let line = sidecar.logged(&format!("\"path\":\"/{n}\"")).await;
        if !line.contains("\"code\":\"upstream_protocol\"") && !line.contains("upstream_broke_off")
        {
            wrong.push(format!("{what}: {line}"));
        }
        // The next one gets its own answer, and not the rest of this one.
        match client.start(get("/fine".into())).await {
            Ok(answer) => assert_eq!(Whole::of(answer).await.body, "fine", "{what}"),
            Err(error) => {
                wrong.push(format!("{what}: the agent's connection: {error}"));
                client = Client::open(&agent, Http::Two, "api.test").await;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Interim answers may come in any number (RFC 9110, section 15.2), and hyper takes them all. There is an end to it.
#[tokio::test]
async fn row_48_interim_answers_without_end_are_cut_off() {
    let pki = Pki::new();
    let tls = pki.server_config(&["http/1.1"]);
    let upstream = Scripted::start(Some(tls), |_, mut wire| async move {
        if request(&mut wire).await.is_none() {
            return;
        }
        let hint = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(10);
        while wire.write_all(hint.as_bytes()).await.is_ok() {}
    })
    .await;
    let routes = format!(
        "routes: [{{host: api.test, connect_to: {}}}]\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let refusal = Agent::of(&sidecar).get("https://api.test/").await;
    refusal.assert_refused(502, "upstream_protocol");
    sidecar.logged("interim answers without end").await;
}
