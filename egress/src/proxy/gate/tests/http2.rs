//! The gate before HTTP/2 as a stream: what it lets through and when, what it says at the end, and its one deadline.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use super::frames::frame;
use crate::proxy::gate::fault::{Fault, Flood};
use crate::proxy::gate::http2::{Http2Gate, Patience};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: Duration = Duration::from_secs(10);

fn gate() -> (DuplexStream, Http2Gate<DuplexStream>) {
    let (client, server) = duplex(1 << 20);
    let patience = Patience {
        max_block: 1000,
        head: HEAD,
    };
    (client, Http2Gate::new(server, patience))
}

#[tokio::test(start_paused = true)]
async fn what_is_well_comes_out_as_it_went_in() {
    let sent = [
        PREFACE.to_vec(),
        frame(4, 0, &[0; 6]),
        frame(1, 5, &[7; 300]).repeat(20),
        frame(1, 0, &[8; 100]),
        frame(9, 0, &[9; 50]),
        frame(9, 4, &[10; 50]),
        frame(0, 0, &[11; 16_384]).repeat(10),
        frame(1, 4, &[]),
        frame(0, 1, &[]),
    ]
    .concat();
    for piece in [1, 7, 100, 5000, sent.len()] {
        let (mut client, mut gate) = gate();
        let sending = async {
            for piece in sent.chunks(piece) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let mut came = Vec::new();
        let (_, read) = tokio::join!(sending, gate.read_to_end(&mut came));
        read.unwrap();
        assert!(came == sent, "in pieces of {piece}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_read_brings_one_request_at_most() {
    let (mut client, mut gate) = gate();
    let request = frame(1, 5, &[7; 30]);
    let sent = [PREFACE.to_vec(), request.repeat(3)].concat();
    client.write_all(&sent).await.unwrap();
    let mut room = [0; 4096];
    let first = gate.read(&mut room).await.unwrap();
    assert_eq!(first, PREFACE.len() + request.len());
    assert_eq!(gate.read(&mut room).await.unwrap(), request.len());
    assert_eq!(gate.read(&mut room).await.unwrap(), request.len());
}

#[tokio::test(start_paused = true)]
async fn a_header_block_that_trickles_in_is_cut_off() {
    for beginning in [
        // The connection's own, a frame that is not whole, and a block that is not.
        PREFACE[..10].to_vec(),
        [PREFACE, &frame(4, 0, &[]), &frame(1, 4, &[1; 50])[..20]].concat(),
        [PREFACE, &frame(4, 0, &[]), &frame(1, 0, &[1; 50])].concat(),
    ] {
        let (mut client, mut gate) = gate();
        client.write_all(&beginning).await.unwrap();
        let started = Instant::now();
        let trickling = async {
            for _ in 0..1000 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if client.write_all(&[9]).await.is_err() {
                    break;
                }
            }
        };
        let mut came = Vec::new();
        let error = tokio::select! {
            read = gate.read_to_end(&mut came) => read.unwrap_err(),
            () = trickling => panic!("it was never cut off"),
        };
        assert_eq!(Fault::find(&error), Some(Fault::HeadTimeout));
        assert_eq!(gate.fault().get(), Some(&Fault::HeadTimeout));
        assert_eq!(started.elapsed().as_secs(), HEAD.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn between_requests_nothing_is_due() {
    let (mut client, mut gate) = gate();
    let sent = [PREFACE, &frame(1, 4, &[1; 50]), &frame(0, 0, &[0; 9])[..12]].concat();
    client.write_all(&sent).await.unwrap();
    let mut room = vec![0; sent.len()];
    gate.read_exact(&mut room).await.unwrap();
    assert!(timeout(HEAD * 100, gate.read(&mut [0; 9])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_told_to_calm_down_between_two_frames() {
    for (written, is_told) in [
        (frame(4, 0, &[]), true),
        (frame(4, 0, &[0; 6])[..10].to_vec(), false),
    ] {
        let (mut client, mut gate) = gate();
        let flood = [PREFACE.to_vec(), frame(6, 0, &[0; 8]).repeat(1001)].concat();
        client.write_all(&flood).await.unwrap();
        gate.write_all(&written).await.unwrap();
        let mut came = Vec::new();
        let error = gate.read_to_end(&mut came).await.unwrap_err();
        assert_eq!(Fault::find(&error), Some(Fault::Flood(Flood::Ping)));
        drop(gate);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        let mut goaway = frame(7, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11]);
        // It is about the connection.
        goaway[8] = 0;
        let expected = if is_told {
            [written, goaway].concat()
        } else {
            written
        };
        assert_eq!(told, expected);
    }
}
