//! Bodies with a content coding: gzip, br and zstd are read and framed anew, anything else is neither asked for nor passed.

use std::io::Write as _;
use std::process::{Command, Stdio};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::{BEARER, TOKEN, World, assert_clean, assert_clean_bytes, forms, stars};
use crate::harness::upstream::{Call, event_stream, text, text_body};
use crate::harness::versions::{Http, PAIRS, Whole};
use crate::harness::within;

#[tokio::test]
async fn row_25_a_gzip_body_is_masked_and_still_gzip() {
    let text = format!(
        "before {} after {}",
        forms().join("\n"),
        "and more ".repeat(20_000)
    );
    let one = python("gzip.compress(data)", text.as_bytes());
    // Several members are one body (RFC 1952, section 2.2).
    let several = [
        python("gzip.compress(data[:40], 1)", text.as_bytes()),
        python("gzip.compress(data[40:])", text.as_bytes()),
    ];
    let (one, several) = (Bytes::from(one), Bytes::from(several.concat()));
    let world = World::start(BEARER, move |call: Call| {
        let (body, coding) = match call.seen.path() {
            "/one" => (one.clone(), "gzip"),
            _ => (several.clone(), "x-gzip"),
        };
        let answer = Response::builder()
            .header(header::CONTENT_ENCODING, coding)
            .header(header::ETAG, "\"v1\"")
            .header(header::ACCEPT_RANGES, "bytes")
            .header("repr-digest", "sha-256=:AAAA:");
        let answer = answer.body(text_body(body)).expect("a valid answer");
        async { answer }
    })
    .await;
    for (agent, upstream) in PAIRS {
        for path in ["/one", "/several"] {
            let request = Request::get(path).header(
                header::ACCEPT_ENCODING,
                "zstd, br;q=0.9, gzip;q=0.8, *;q=0.1",
            );
            let answer = world.send(agent, upstream, request).await;
            assert_eq!(
                world.seen(upstream).all("accept-encoding"),
                ["zstd, br;q=0.9, gzip;q=0.8"]
            );
            let headers = &answer.head.headers;
            for gone in ["content-length", "accept-ranges", "repr-digest"] {
                assert!(!headers.contains_key(gone), "{gone}: {headers:?}");
            }
            assert_eq!(headers[header::ETAG], "W/\"v1\"");
            assert!(
                headers[header::CONTENT_ENCODING]
                    .to_str()
                    .expect("ASCII")
                    .ends_with("gzip")
            );
            let got = python("gzip.decompress(data)", &answer.body);
            assert_clean_bytes(&got);
            assert_eq!(got.len(), text.len());
            let got = String::from_utf8(got).expect("text");
            assert!(
                got.starts_with(&format!("before {}\n", stars(TOKEN))),
                "{}",
                &got[..99]
            );
            assert!(got.ends_with(&text[text.len() - 150_000..]));
        }
    }
}

#[tokio::test]
async fn row_25_events_in_gzip_are_masked_and_none_waits_for_the_next() {
    let events: Vec<String> = (0..20)
        .map(|number| format!("data: {number} {TOKEN}\n\n"))
        .collect();
    // Each event ends with a flush, as servers do it.
    let script = "b'\\n'.join([c.compress(e + b'\\n\\n').hex().encode() + c.flush(zlib.Z_SYNC_FLUSH).hex().encode() \
                  for c in [zlib.compressobj(9, zlib.DEFLATED, 31)] for e in data.split(b'\\n\\n')[:-1]] )";
    let pieces = python(script, events.concat().as_bytes());
    let pieces: Vec<Bytes> = String::from_utf8(pieces)
        .expect("hex")
        .lines()
        .map(unhex)
        .collect();
    assert_eq!(pieces.len(), events.len());
    let (senders, mut sending) = mpsc::unbounded_channel();
    let world = World::start(BEARER, move |_call: Call| {
        let (sender, mut answer) = event_stream();
        answer
            .headers_mut()
            .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        _ = senders.send(sender);
        async { answer }
    })
    .await;
    for (agent, upstream) in PAIRS {
        let mut client = world.client(agent, upstream).await;
        let request = Request::get("/").body(text_body("")).expect("a request");
        let answer = client.start(request).await.expect("a head");
        let mut sender = sending.recv().await.expect("the handler runs");
        let mut body = answer.into_body();
        let mut got = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            sender.send_data(piece.clone()).await.expect("a reader");
            // What is not compressed can be seen in gzip as it is.
            let event = format!("data: {number} {}\n\n", stars(TOKEN));
            while !got.ends_with(event.as_bytes()) {
                let frame = within(&event, body.frame()).await.expect("a frame");
                got.extend(frame.expect("a whole frame").into_data().expect("data"));
            }
        }
        // An upstream that stops in the middle is no whole answer.
        drop(sender);
        within("end of the events", body.collect())
            .await
            .expect_err("a cut body");
    }
    world
        .sidecar
        .logged("the answer is not whole in its content coding")
        .await;
}

#[tokio::test]
async fn row_25_what_cannot_be_read_is_refused_and_never_passed() {
    let world = World::start(BEARER, |call: Call| async move {
        let mut answer = Response::new(text_body(if call.seen.method == Method::HEAD {
            ""
        } else {
            TOKEN
        }));
        let coding = call
            .seen
            .target
            .split_once('?')
            .expect("a coding")
            .1
            .replace('+', ", ");
        let coding = HeaderValue::from_str(&coding).expect("a value");
        answer
            .headers_mut()
            .insert(header::CONTENT_ENCODING, coding);
        let status = call
            .seen
            .path()
            .trim_start_matches('/')
            .parse()
            .expect("a status");
        *answer.status_mut() = status;
        if status == 304 {
            *answer.body_mut() = text_body("");
        }
        answer
    })
    .await;
    for (agent, upstream) in PAIRS {
        for path in [
            "/200?compress",
            "/200?deflate",
            "/200?br+zstd",
            "/200?gzip+gzip",
            "/500?br+gzip",
            "/200?x-own",
            "/206?gzip",
            "/206?br",
            "/206?zstd",
        ] {
            let request = Request::get(path).header(header::ACCEPT_ENCODING, "deflate, dcz");
            let answer = world.send(agent, upstream, request).await;
            assert_eq!(
                (answer.status(), answer.code()),
                (502, Some("upstream_coding")),
                "{path}"
            );
            assert_clean(&answer);
            assert_eq!(world.seen(upstream).all("accept-encoding"), ["identity"]);
        }
        for (method, path, status) in [
            (Method::HEAD, "/200?br", 200),
            (Method::GET, "/304?br", 304),
        ] {
            let request = Request::builder().method(method).uri(path);
            let answer = world.send(agent, upstream, request).await;
            assert_eq!(answer.status(), status, "{path}");
            assert_eq!(
                answer.head.headers[header::CONTENT_ENCODING],
                "br",
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn row_25_a_body_in_br_or_zstd_is_masked_and_still_in_it() {
    let text = format!(
        "before {} after {}",
        forms().join("\n"),
        "and more ".repeat(20_000)
    );
    let (br, zstd) = (to_brotli(text.as_bytes()), to_zstd(text.as_bytes()));
    let world = World::start(BEARER, move |call: Call| {
        let (body, coding) = match call.seen.path() {
            "/br" => (br.clone(), "br"),
            _ => (zstd.clone(), "zstd"),
        };
        let answer = Response::builder()
            .header(header::CONTENT_ENCODING, coding)
            .header(header::ETAG, "\"v1\"");
        let answer = answer.body(text_body(body)).expect("a valid answer");
        async { answer }
    })
    .await;
    for (agent, upstream) in PAIRS {
        for coding in ["br", "zstd"] {
            let path = format!("/{coding}");
            let asked = format!("deflate, {coding}");
            let request = Request::get(path).header(header::ACCEPT_ENCODING, asked);
            let answer = world.send(agent, upstream, request).await;
            assert_eq!(world.seen(upstream).all("accept-encoding"), [coding]);
            assert_eq!(answer.head.headers[header::CONTENT_ENCODING], coding);
            assert_eq!(answer.head.headers[header::ETAG], "W/\"v1\"");
            let got = match coding {
                "br" => from_brotli(&answer.body),
                _ => from_zstd(&answer.body),
            };
            assert_clean_bytes(&got);
            assert_eq!(got.len(), text.len());
            let got = String::from_utf8(got).expect("text");
            assert!(got.starts_with(&format!("before {}\n", stars(TOKEN))));
            assert!(got.ends_with(&text[text.len() - 150_000..]));
        }
    }
}

#[tokio::test]
async fn row_25_a_broken_gzip_body_ends_in_an_error() {
    let mut gzip = python(
        "gzip.compress(data, 0)",
        &b"some text and more ".repeat(5000),
    );
    let at = gzip.len() - 20;
    gzip[at] ^= 1;
    let gzip = Bytes::from(gzip);
    let world = World::start(BEARER, move |_call: Call| {
        let answer = Response::builder().header(header::CONTENT_ENCODING, "gzip");
        let answer = answer
            .body(text_body(gzip.clone()))
            .expect("a valid answer");
        async { answer }
    })
    .await;
    for (agent, upstream) in PAIRS {
        let request = Request::get("/").body(text_body("")).expect("a request");
        let mut client = world.client(agent, upstream).await;
        // HTTP/2 may reset the stream before its head went out.
        if let Ok(answer) = client.start(request).await {
            within("end of the body", answer.into_body().collect())
                .await
                .expect_err("a broken body");
        }
    }
    let lines = world
        .sidecar
        .logged_times("the answer is not whole in its content coding", PAIRS.len())
        .await;
    assert!(
        lines
            .iter()
            .all(|line| line.contains("\"verdict\":\"failed\"")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn row_25_a_bomb_passes_and_costs_no_memory() {
    const MEMBER: usize = 16 * 1024 * 1024;
    const MEMBERS: usize = 64;
    let member = python(&format!("gzip.compress(bytes({MEMBER}))"), b"");
    bomb_passes("gzip", member.repeat(MEMBERS), MEMBER * MEMBERS).await;
    let frame = to_zstd(&vec![0; MEMBER]);
    bomb_passes("zstd", frame.repeat(MEMBERS), MEMBER * MEMBERS).await;
    // Brotli has but one stream.
    let mut stream = brotli::CompressorWriter::new(Vec::new(), MEMBER, 5, 24);
    let zeroes = vec![0; MEMBER];
    for _ in 0..MEMBERS {
        stream.write_all(&zeroes).expect("memory");
    }
    bomb_passes("br", stream.into_inner(), MEMBER * MEMBERS).await;
}

async fn bomb_passes(coding: &'static str, bomb: Vec<u8>, length: usize) {
    const ALLOWED_KIB: u64 = 32 * 1024;
    let bomb = Bytes::from(bomb);
    assert!(bomb.len() < 2_000_000, "{coding}");
    let world = World::start(BEARER, move |_call: Call| {
        let answer = Response::builder().header(header::CONTENT_ENCODING, coding);
        let answer = answer
            .body(text_body(bomb.clone()))
            .expect("a valid answer");
        async { answer }
    })
    .await;
    let before = world.sidecar.peak_memory();
    let request = Request::get("/").body(text_body("")).expect("a request");
    let mut client = world.client(Http::One, Http::One).await;
    let mut body = client.start(request).await.expect("a head").into_body();
    let mut total = 0;
    while let Some(frame) = within("the next piece", body.frame()).await {
        total += frame
            .expect("a whole body")
            .into_data()
            .expect("data")
            .len();
    }
    // Nothing is compressed any more: a byte for each of its bytes, and a little for blocks of 16 KiB.
    assert!(
        (length..length * 1001 / 1000).contains(&total),
        "{coding}: {total}"
    );
    let grown = world.sidecar.peak_memory() - before;
    assert!(grown < ALLOWED_KIB, "{coding}: it grew by {grown} KiB");
}

#[tokio::test]
async fn row_35_answers_beyond_the_memory_for_decoding_are_refused_until_one_ends() {
    beyond_the_memory("br", to_brotli(b"fine"), from_brotli).await;
    beyond_the_memory("zstd", to_zstd(b"fine"), from_zstd).await;
}

/// The cap is the smallest that there is, and the upstream answers in a coding whether it was asked for it or not.
async fn beyond_the_memory(coding: &'static str, whole: Bytes, decode: fn(&[u8]) -> Vec<u8>) {
    let (senders, mut sending) = mpsc::unbounded_channel();
    let handler = move |call: Call| {
        let answer = if call.seen.path() == "/plain" {
            text(200, "fine")
        } else {
            let (sender, mut answer) = event_stream();
            let coding = HeaderValue::from_static(coding);
            answer
                .headers_mut()
                .insert(header::CONTENT_ENCODING, coding);
            _ = senders.send(sender);
            answer
        };
        async { answer }
    };
    let world = World::under(&["--max-decoding=20MiB"], BEARER, TOKEN, handler).await;
    let get = || {
        let request = Request::get("/coded").header(header::ACCEPT_ENCODING, coding);
        request.body(text_body("")).expect("a request")
    };
    let mut held = Vec::new();
    let refused = loop {
        let mut client = world.client(Http::One, Http::One).await;
        let answer = client.start(get()).await.expect("a head");
        let sender = sending.recv().await.expect("the handler runs");
        if answer.status() != 200 {
            break Whole::of(answer).await;
        }
        held.push((client, answer.into_body(), sender));
        assert!(held.len() < 4, "{coding}: all are served");
    };
    let code = (refused.status(), refused.code());
    assert_eq!(code, (503, Some("decoders_exhausted")), "{coding}");
    world.sidecar.logged("decoders_exhausted").await;
    // Others are none the worse for it.
    let plain = world.get(Http::One, Http::One, "/plain").await;
    assert_eq!((plain.status(), &plain.body[..]), (200, &b"fine"[..]));

    let (_client, body, mut sender) = held.pop().expect("one that was served");
    sender.send_data(whole).await.expect("a reader");
    drop(sender);
    let body = within("end of the body", body.collect()).await;
    let body = body.expect("a whole body").to_bytes();
    assert_eq!(decode(&body), b"fine", "{coding}");
    // The agent has all of the answer a moment before the sidecar has done with it.
    within("a turn for another answer", async {
        let mut client = world.client(Http::One, Http::One).await;
        while client.start(get()).await.expect("a head").status() != 200 {
            client = world.client(Http::One, Http::One).await;
        }
    })
    .await;
}

fn to_brotli(text: &[u8]) -> Bytes {
    let mut out = Vec::new();
    let mut text = text;
    brotli::BrotliCompress(&mut text, &mut out, &Default::default()).expect("memory");
    out.into()
}

fn from_brotli(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    brotli::BrotliDecompress(&mut bytes, &mut out).expect("brotli");
    out
}

fn to_zstd(text: &[u8]) -> Bytes {
    let mut out = vec![0; zstd_safe::compress_bound(text.len())];
    let length = zstd_safe::compress(&mut out[..], text, 3).expect("room");
    out.truncate(length);
    out.into()
}

fn from_zstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 1 << 20];
    let length = zstd_safe::decompress(&mut out[..], bytes).expect("zstd");
    out.truncate(length);
    out
}

/// What Python makes of bytes: a coder that is not the sidecar's.
fn python(expression: &str, data: &[u8]) -> Vec<u8> {
    let script = format!(
        "import sys, gzip, zlib\ndata = sys.stdin.buffer.read()\nsys.stdout.buffer.write({expression})"
    );
    let child = Command::new("python3")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.expect("python3");
    let mut stdin = child.stdin.take().expect("a pipe");
    let data = data.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&data));
    let done = child.wait_with_output().expect("an end");
    assert!(done.status.success(), "{expression}");
    writing.join().expect("no panic").expect("a reader");
    done.stdout
}

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] * 16 + pair[1]) as u8)
        .collect()
}
