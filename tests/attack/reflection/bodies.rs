//! Bodies without a coding: whole, in pieces, as events, in parts; and what follows them.

use std::convert::Infallible;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::{BEARER, TOKEN, World, assert_clean, assert_clean_bytes, forms, percent, stars};
use crate::harness::upstream::{Call, event_stream, text, text_body, typed};
use crate::harness::versions::{Client, Http, PAIRS};
use crate::harness::within;

#[tokio::test]
async fn row_25_every_form_in_text_json_and_html_is_masked() {
    let wrappings = [
        ("text/plain", "your token is ", ", keep it"),
        (
            "application/json",
            "{\"headers\": {\"Authorization\": \"Bearer ",
            "\"}, \"n\": 1}",
        ),
        ("text/html", "<pre>Authorization: ", "</pre>"),
    ];
    let world = World::start(BEARER, move |call: Call| async move {
        let (wrapping, form) = call
            .seen
            .path()
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .expect("two numbers");
        let (kind, before, after) = wrappings[wrapping.parse::<usize>().expect("a number")];
        let form = &forms()[form.parse::<usize>().expect("a number")];
        typed(200, kind, format!("{before}{form}{after}"))
    })
    .await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        for (wrapping, (_, before, after)) in wrappings.iter().enumerate() {
            for (number, form) in forms().iter().enumerate() {
                let request = Request::get(format!("/{wrapping}/{number}"));
                let answer = client
                    .send(request.body(text_body("")).expect("a request"))
                    .await;
                assert_clean(&answer);
                let body = String::from_utf8(answer.body.to_vec()).expect("text");
                assert!(
                    body.starts_with(before) && body.ends_with(after),
                    "{form}: {body}"
                );
                assert_eq!(
                    body.len(),
                    before.len() + form.len() + after.len(),
                    "{form}: {body}"
                );
                assert_eq!(
                    answer.head.headers[header::CONTENT_LENGTH],
                    HeaderValue::from(body.len())
                );
                if *form == TOKEN {
                    assert_eq!(body, format!("{before}{}{after}", stars(TOKEN)));
                }
            }
        }
        world.seen(upstream);
    }
}

#[tokio::test]
async fn row_25_basic_is_masked_as_it_was_sent_and_as_the_value_alone() {
    let rule =
        "    auth_scheme: Basic\n    auth_user: x-access-token\n    token_env: EGRESS_TOKEN_0\n";
    let world = World::start(rule, |call: Call| async move {
        let said = call.seen.all("authorization")[0].to_owned();
        text(
            200,
            format!(
                "<{said}> <{TOKEN}> <x-access-token:{TOKEN}> <{}>",
                percent(&said[6..])
            ),
        )
    })
    .await;
    for (agent, upstream) in PAIRS {
        let answer = world.get(agent, upstream, "/").await;
        let sent = BASE64_STANDARD.encode(format!("x-access-token:{TOKEN}"));
        let expected = format!(
            "<Basic {}> <{}> <x-access-token:{}> <{}>",
            stars(&sent),
            stars(TOKEN),
            stars(TOKEN),
            stars(&percent(&sent))
        );
        assert_eq!(answer.body, expected);
    }
}

/// The agent has what came before the token before the rest of it is sent.
#[tokio::test]
async fn row_25_a_token_in_two_pieces_is_masked_wherever_it_is_cut() {
    let (world, mut sending) = streaming().await;
    let text = format!("data: {TOKEN}\n\n");
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        for cut in 0..=text.len() {
            let (mut sender, mut body) = begin(&mut client, &mut sending).await;
            let (front, back) = text.split_at(cut);
            // A word that is not whole waits for its end.
            let passed = match front.len() {
                0..5 => 0,
                length => length.min("data: ".len()),
            };
            let mut got = Vec::new();
            sender
                .send_data(Bytes::copy_from_slice(front.as_bytes()))
                .await
                .expect("a reader");
            while got.len() < passed {
                let frame = within("what is no token", body.frame())
                    .await
                    .expect("a frame");
                got.extend(frame.expect("a whole frame").into_data().expect("data"));
            }
            sender
                .send_data(Bytes::copy_from_slice(back.as_bytes()))
                .await
                .expect("a reader");
            drop(sender);
            let rest = within("end of the body", body.collect()).await;
            got.extend(rest.expect("a whole body").to_bytes());
            let got = String::from_utf8(got).expect("text");
            assert_eq!(got, format!("data: {}\n\n", stars(TOKEN)), "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn row_25_events_are_masked_and_none_waits_for_the_next() {
    let (world, mut sending) = streaming().await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        let (mut sender, mut body) = begin(&mut client, &mut sending).await;
        for (number, form) in forms().iter().enumerate() {
            let event = format!("data: {number} {form}\n\n");
            sender
                .send_data(event.clone().into())
                .await
                .expect("a reader");
            let mut got = Vec::new();
            while got.len() < event.len() {
                let frame = within("the event", body.frame()).await.expect("a frame");
                got.extend(frame.expect("a whole frame").into_data().expect("data"));
            }
            assert_clean_bytes(&got);
            let got = String::from_utf8(got).expect("text");
            assert!(
                got.starts_with(&format!("data: {number} ")) && got.ends_with("\n\n"),
                "{got}"
            );
        }
        drop(sender);
        let rest = within("end of the events", body.collect()).await;
        assert!(rest.expect("a whole body").to_bytes().is_empty());
    }
}

/// What an agent had an upstream keep, or has it say back, must not show by its pieces whether it is like the token.
#[tokio::test]
async fn row_25_a_guess_that_is_right_comes_in_the_same_pieces_as_one_that_is_not() {
    let (world, mut sending) = streaming().await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        for length in [1, 4, 9, TOKEN.len() - 1] {
            let right = &TOKEN[..length];
            let wrong = format!("{}~", &TOKEN[..length - 1]);
            for guess in [right, &wrong] {
                let (mut sender, mut body) = begin(&mut client, &mut sending).await;
                let said = format!("guess {guess}");
                sender.send_data(said.into()).await.expect("a reader");
                let frame = within("the first word", body.frame()).await;
                let frame = frame.expect("a frame").expect("a whole frame");
                assert_eq!(frame.into_data().expect("data"), "guess ", "{guess}");
                sender.send_data("\n".into()).await.expect("a reader");
                drop(sender);
                let rest = within("end of the body", body.collect()).await;
                let rest = rest.expect("a whole body").to_bytes();
                assert_eq!(rest, format!("{guess}\n"));
            }
        }
    }
}

#[tokio::test]
async fn row_25_a_word_without_an_end_is_not_waited_for_for_ever() {
    let (world, mut sending) = streaming().await;
    let (front, back) = TOKEN.split_at(TOKEN.len() / 2);
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        let (mut sender, mut body) = begin(&mut client, &mut sending).await;
        sender.send_data(front.into()).await.expect("a reader");
        let mut got = Vec::new();
        while got.len() < front.len() {
            let frame = within("the word", body.frame()).await.expect("a frame");
            got.extend(frame.expect("a whole frame").into_data().expect("data"));
        }
        // The rest of a token that came so slowly is masked all the same.
        sender.send_data(back.into()).await.expect("a reader");
        drop(sender);
        let rest = within("end of the body", body.collect()).await;
        got.extend(rest.expect("a whole body").to_bytes());
        assert_eq!(got, format!("{front}{}", stars(back)).as_bytes());
    }
}

/// A part that the agent chose could cut the token in two, or tell by its mask how far a guess is right.
#[tokio::test]
async fn row_25_no_part_of_an_answer_is_asked_for_and_none_passes() {
    let world = World::start(BEARER, |call: Call| async move {
        let mut answer = text(200, format!("before {TOKEN} after"));
        if call.seen.path() == "/part" {
            answer = text(206, TOKEN[5..].to_owned());
            let range = HeaderValue::from_static("bytes 5-20/*");
            answer.headers_mut().insert(header::CONTENT_RANGE, range);
        }
        let ranges = HeaderValue::from_static("bytes");
        answer.headers_mut().insert(header::ACCEPT_RANGES, ranges);
        answer
    })
    .await;
    for (agent, upstream) in PAIRS {
        let request = |path| {
            Request::get(path)
                .header(header::RANGE, "bytes=0-20,21-40")
                .header(header::IF_RANGE, "\"1\"")
                .header("x-ms-range", "bytes=0-20")
        };
        let answer = world.send(agent, upstream, request("/")).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.body, format!("before {} after", stars(TOKEN)));
        assert!(!answer.head.headers.contains_key(header::ACCEPT_RANGES));
        let seen = world.seen(upstream);
        for name in ["range", "if-range", "x-ms-range"] {
            assert!(seen.all(name).is_empty(), "{name}");
        }
        let answer = world.send(agent, upstream, request("/part")).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (502, Some("upstream_coding"))
        );
        assert_clean(&answer);
        world.seen(upstream);
    }
}

#[tokio::test]
async fn row_25_trailers_of_grpc_are_masked_and_come_after_all_of_the_body() {
    let world = World::start(BEARER, |_call: Call| async move {
        let (mut sender, channel) = Channel::<Bytes, Infallible>::new(4);
        // Ends like the beginning of the token, which is held back until the trailers come.
        let body = format!("{TOKEN} and {}", &TOKEN[..9]);
        sender.send_data(body.into()).await.expect("a reader");
        let mut trailers = HeaderMap::new();
        for (name, value) in [
            ("grpc-status", "16".to_owned()),
            ("grpc-message", format!("100%25 bad: {TOKEN}")),
            (
                "grpc-status-details-bin",
                BASE64_STANDARD.encode(format!("a{TOKEN}b")),
            ),
        ] {
            trailers.insert(name, value.parse().expect("a value"));
        }
        sender.send_trailers(trailers).await.expect("a reader");
        let answer = Response::builder().header(header::CONTENT_TYPE, "application/grpc");
        answer.body(channel.boxed()).expect("a valid answer")
    })
    .await;
    let request = Request::post("/").header(header::TE, "trailers");
    let answer = world.send(Http::Two, Http::Two, request).await;
    assert_clean(&answer);
    assert_eq!(answer.body, format!("{} and {}", stars(TOKEN), &TOKEN[..9]));
    let trailers = answer.trailers.expect("trailers");
    assert_eq!(trailers["grpc-status"], "16");
    assert_eq!(
        trailers["grpc-message"],
        format!("100%25 bad: {}", stars(TOKEN))
    );
    assert!(
        trailers["grpc-status-details-bin"]
            .to_str()
            .expect("ASCII")
            .contains("**********")
    );
}

/// A body with neither the token nor a part of it is the very same bytes, and its connection is used again.
#[tokio::test]
async fn row_25_other_bodies_are_untouched() {
    let body: Bytes = (0..3_000_000_u32)
        .map(|at| (at * 7 + at / 251) as u8)
        .collect::<Vec<u8>>()
        .into();
    let sent = body.clone();
    let world = World::start(BEARER, move |_call: Call| {
        let answer = typed(200, "application/octet-stream", sent.clone());
        async { answer }
    })
    .await;
    for (agent, upstream) in PAIRS {
        for _ in 0..2 {
            let answer = world.get(agent, upstream, "/").await;
            assert!(answer.body == body);
        }
    }
    assert_eq!((world.h1.connections(), world.h2.connections()), (1, 1));
    assert!(!world.sidecar.log().contains("masked"));
}

/// The end into which the pieces of an answer go.
type Pieces = Sender<Bytes, Infallible>;

/// A world whose answers are streams, and the ends of these.
async fn streaming() -> (World, mpsc::UnboundedReceiver<Pieces>) {
    let (senders, sending) = mpsc::unbounded_channel();
    let world = World::start(BEARER, move |_call: Call| {
        let (sender, answer) = event_stream();
        _ = senders.send(sender);
        async { answer }
    })
    .await;
    (world, sending)
}

/// Asks for one of them: the end into which its pieces go, and the body that they come out of.
async fn begin(
    client: &mut Client,
    sending: &mut mpsc::UnboundedReceiver<Pieces>,
) -> (Pieces, Incoming) {
    let request = Request::get("/").body(text_body("")).expect("a request");
    let answer = client.start(request).await.expect("a head");
    let sender = sending.recv().await.expect("the handler runs");
    (sender, answer.into_body())
}
