//! Row 34: floods of HTTP/2 frames. Each ends its own connection, leaves one record, and costs others nothing.

use crate::harness::raw_http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, RawHttp2,
    SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::harness::rig::Rig;

const ROUTES: &str = "  - {host: api.test, connect_to: UPSTREAM}\n";

const GET: [(&str, &[u8]); 4] = [
    (":method", b"GET"),
    (":scheme", b"https"),
    (":authority", b"api.test"),
    (":path", b"/flood"),
];

const POST: [(&str, &[u8]); 4] = [(":method", b"POST"), GET[1], GET[2], GET[3]];

/// Sends the bytes while another agent is served, and insists on the end of the connection and the one record of it.
async fn flood(rig: &Rig, mut http: RawHttp2, bytes: &[u8], detail: &str) {
    http.send(bytes).await;
    rig.agent
        .get("https://api.test/other")
        .await
        .assert_served();
    http.closed().await;
    let line = rig.sidecar.logged(detail).await;
    assert!(line.contains("\"code\":\"http2_flood\""), "{line}");
    assert!(line.contains("\"verdict\":\"denied\""), "{line}");
    assert!(line.contains("\"host\":\"api.test:443\""), "{line}");
    rig.agent
        .get("https://api.test/other")
        .await
        .assert_served();
}

#[tokio::test]
async fn row_34_frames_that_bring_nothing_end_the_connection() {
    let rig = Rig::new(ROUTES).await;
    for (bytes, name) in [
        (frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), "SETTINGS"),
        (frame(PING, 0, 0, &[7; 8]), "PING"),
        (frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]), "PRIORITY"),
        (frame(0x77, 0, 0, &[7; 100]), "other frames"),
    ] {
        let http = RawHttp2::open(&rig.agent, "api.test").await;
        let detail = format!("a flood of HTTP/2 frames: {name}");
        flood(&rig, http, &bytes.repeat(2000), &detail).await;
    }
    assert!(rig.upstream.at("/flood").is_empty());
}

#[tokio::test]
async fn row_34_a_busy_connection_pays_for_its_control_frames() {
    let rig = Rig::new(ROUTES).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    // More in all than is ever taken at once: each answer has two frames, and each pays for four.
    for _ in 0..300 {
        http.send(&frame(PING, 0, 0, &[7; 8]).repeat(8)).await;
        assert_eq!(http.request(&GET).await.status, Some(200));
    }
    assert_eq!(rig.upstream.at("/flood").len(), 300);
}

#[tokio::test]
async fn row_34_window_updates_and_empty_data_end_the_connection() {
    let rig = Rig::new(ROUTES).await;
    let http = RawHttp2::open(&rig.agent, "api.test").await;
    let updates = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(3000);
    let detail = "a flood of HTTP/2 frames: WINDOW_UPDATE";
    flood(&rig, http, &updates, detail).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    let id = http.id();
    let bytes = [upload(id), frame(DATA, 0, id, &[]).repeat(900)].concat();
    let detail = "a flood of HTTP/2 frames: empty DATA";
    flood(&rig, http, &bytes, detail).await;
    assert!(rig.upstream.at("/flood").is_empty());
}

/// A piece of a body is kept with all that was read along with it, until the upstream takes it.
#[tokio::test]
async fn row_34_data_scattered_among_other_frames_ends_the_connection() {
    let rig = Rig::new(ROUTES).await;
    for other in [
        frame(0x77, 0, 0, &[7; 4000]),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0].repeat(600)),
    ] {
        let mut http = RawHttp2::open(&rig.agent, "api.test").await;
        let id = http.id();
        let pair = [frame(DATA, 0, id, b"x"), other].concat();
        let bytes = [upload(id), pair.repeat(300)].concat();
        let detail = "a flood of HTTP/2 frames: DATA scattered among other frames";
        flood(&rig, http, &bytes, detail).await;
    }
    // Many uploads that begin at once are no flood, however long their heads are.
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    let filler = "f".repeat(4000);
    let mut ids = Vec::new();
    for _ in 0..60 {
        let post: Vec<_> = [&POST[..], &[("x-filler", filler.as_bytes())]].concat();
        let id = http.begin_open(&post).await;
        http.data(id, b"x", false).await;
        ids.push(id);
    }
    for &id in &ids {
        http.data(id, b"x", true).await;
    }
    for id in ids {
        assert_eq!(http.end(id).await.status, Some(200));
    }
}

/// The head of a request whose body follows.
fn upload(id: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, id, &block(&POST))
}

#[tokio::test]
async fn row_34_rapid_reset_ends_the_connection_before_it_costs_a_thousand_requests() {
    let rig = Rig::new(ROUTES).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    let mut bytes = Vec::new();
    for _ in 0..1000 {
        let id = http.id();
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, id, &block(&GET)));
        bytes.extend(frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
    }
    http.send(&bytes).await;
    rig.agent
        .get("https://api.test/other")
        .await
        .assert_served();
    http.closed().await;
    // By our count, or by the library's of streams that it had not looked at.
    let line = rig.sidecar.logged("RST_STREAM").await;
    assert!(line.contains("http2_flood"), "{line}");
    // The ones that were let through before, and answered.
    let reached = rig.upstream.at("/flood").len();
    assert!(reached <= 450, "{reached}");
    rig.agent
        .get("https://api.test/other")
        .await
        .assert_served();
}

/// CVE-2025-8671: the client has the server reset its streams, which a count of the client's own resets does not see.
#[tokio::test]
async fn row_34_provoked_resets_end_the_connection() {
    let rig = Rig::new(ROUTES).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    let mut bytes = Vec::new();
    for _ in 0..1000 {
        let id = http.id();
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, id, &block(&GET)));
        // The stream's window cannot grow by nothing (RFC 9113, section 6.9).
        bytes.extend(frame(
            WINDOW_UPDATE,
            0,
            id,
            &(i32::MAX as u32).to_be_bytes(),
        ));
    }
    http.send(&bytes).await;
    rig.agent
        .get("https://api.test/other")
        .await
        .assert_served();
    http.closed().await;
    let line = rig.sidecar.logged("HTTP/2 frames: RST_STREAM").await;
    assert!(line.contains("\"code\":\"http2_flood\""), "{line}");
    let reached = rig.upstream.at("/flood").len();
    assert!(reached <= 450, "{reached}");
    rig.agent
        .get("https://api.test/other")
        .await
        .assert_served();
}

#[tokio::test]
async fn row_34_a_header_block_without_an_end_is_cut_off_at_its_bound() {
    let rig = Rig::with(ROUTES, |builder| builder.arg("--max-head=8KiB")).await;
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    let id = http.id();
    let mut bytes = frame(HEADERS, END_STREAM, id, &block(&GET));
    let filler = block(&[("x-filler", &[b'a'; 900])]);
    for _ in 0..100 {
        bytes.extend(frame(CONTINUATION, 0, id, &filler));
    }
    http.send(&bytes).await;
    rig.agent
        .get("https://api.test/other")
        .await
        .assert_served();
    http.closed().await;
    let line = rig.sidecar.logged("head_too_large").await;
    assert!(line.contains("\"host\":\"api.test:443\""), "{line}");
    assert!(rig.upstream.at("/flood").is_empty());
}

/// One byte of HPACK is a whole field once it is in the table: sixty thousand of them fit in a block.
#[tokio::test]
async fn row_34_a_block_of_many_small_fields_is_refused_and_nothing_reaches_the_upstream() {
    let rig = Rig::new(ROUTES).await;
    for (fields, wanted) in [(96, Some(200)), (101, Some(431)), (1500, Some(431))] {
        let mut http = RawHttp2::open(&rig.agent, "api.test").await;
        let id = http.id();
        let mut all = block(&GET);
        // `accept-encoding: gzip, deflate` of the static table (RFC 7541, appendix A).
        all.extend(vec![0x80 | 16; fields]);
        http.send(&frame(HEADERS, END_STREAM | END_HEADERS, id, &all))
            .await;
        let ended = http.end(id).await;
        assert_eq!(ended.status, wanted, "{fields}: {ended:?}");
    }
    assert_eq!(rig.upstream.at("/flood").len(), 1);
    // What the library counts as far too large ends the connection.
    let mut http = RawHttp2::open(&rig.agent, "api.test").await;
    let id = http.id();
    let all = [block(&GET), vec![0x80 | 16; 15_000]].concat();
    http.send(&frame(HEADERS, END_STREAM | END_HEADERS, id, &all))
        .await;
    http.closed().await;
    assert_eq!(rig.upstream.at("/flood").len(), 1);
    rig.agent
        .get("https://api.test/other")
        .await
        .assert_served();
}
