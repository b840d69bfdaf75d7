//! How much of a client hello is read, and that how it arrives makes no difference.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use tokio_rustls::server::TlsStream;

use super::{MAX_CLIENT_HELLO, read_hello};
use crate::proxy::connection::serve_h1;
use crate::proxy::socket::{Prefixed, Socket};

#[tokio::test]
async fn a_large_client_hello_is_read_however_it_arrives() {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    // A record has 16 KiB at the most, so this hello is of three.
    config.alpn_protocols = vec![vec![b'a'; 255]; 160];
    let mut tls = ClientConnection::new(Arc::new(config), "api.test".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut hello).unwrap();
    }
    assert!((40_000..MAX_CLIENT_HELLO).contains(&hello.len()));
    for piece in [1000, 20_000, hello.len()] {
        let (mut agent, mut client) = duplex(piece);
        let sent = hello.clone();
        let sending = tokio::spawn(async move { client.write_all(&sent).await });
        let read = read_hello(&mut agent).await.expect("a whole hello");
        assert_eq!(read.server_name.as_deref(), Some("api.test"), "{piece}");
        assert_eq!(read.bytes, hello, "{piece}");
        sending.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn no_more_than_its_bound_is_read_of_a_client_hello() {
    // Full records of a hello that is as long as a message may be: 65535 bytes, and so more with its headers.
    let mut stream = vec![1, 0, 0xff, 0xff];
    stream.resize(4 * MAX_CLIENT_HELLO, 0);
    let records = stream.chunks(16384).flat_map(|fragment| {
        let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], &length[..], fragment].concat()
    });
    let stream: Vec<u8> = records.collect();
    let (mut agent, mut client) = duplex(stream.len());
    client.write_all(&stream).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(read_hello(&mut agent).await.is_err());
    let mut left = Vec::new();
    agent.read_to_end(&mut left).await.unwrap();
    assert_eq!(stream.len() - left.len(), MAX_CLIENT_HELLO);
}

/// The size of the future that a function of these arguments returns.
fn size_of_four<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
    size_of::<F>()
}

fn size_of_three<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
    size_of::<F>()
}

fn size_of_two<A, B, F>(_: fn(A, B) -> F) -> usize {
    size_of::<F>()
}

/// Most tunnels wait, most of the time.
#[test]
fn what_is_kept_of_a_tunnel_that_waits_is_small() {
    let kept = [
        size_of_four(super::tunnel),
        size_of_three(super::intercept),
        size_of_two(serve_h1::<Box<TlsStream<Prefixed<Socket>>>>),
    ];
    assert!(kept.iter().sum::<usize>() <= 2500, "{kept:?}");
}
