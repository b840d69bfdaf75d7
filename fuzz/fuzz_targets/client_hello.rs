//! The client hello by which a connection is steered: one server name, the same to a parser of our own, from a bounded
//! number of bytes, and nothing is said but an alert.
//!
//! Input: a number of cuts, the cuts, and the stream.

#![no_main]

use std::pin::Pin;
use std::task::{Context, Poll};

use egress::proxy::connect::read_hello;
use egress::route::host::Host;
use egress_fuzz::pieces;
use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};

/// What a hello may take, in bytes.
const BOUND: usize = 64 * 1024;

fuzz_target!(|input: &[u8]| {
    let (cut, stream) = pieces(input);
    let mut agent = Agent::new(cut);
    let read = read_hello(&mut agent)
        .now_or_never()
        .expect("nothing to wait for");
    assert!(agent.given <= BOUND + 1, "{} bytes buffered", agent.given);
    let mut whole = Agent::new(vec![stream]);
    let at_once = read_hello(&mut whole)
        .now_or_never()
        .expect("nothing to wait for");
    match (&read, &at_once) {
        (Ok(one), Ok(other)) => assert_eq!(one.server_name, other.server_name),
        (Err(_), Err(_)) => {}
        _ => panic!(
            "cuts change the verdict: {} and {}",
            read.is_ok(),
            at_once.is_ok()
        ),
    }
    match read {
        Ok(hello) => {
            assert!(agent.said.is_empty(), "an answer to a hello that was taken");
            assert_eq!(stream.get(..hello.bytes.len()), Some(&hello.bytes[..]));
            assert_eq!(hello.bytes.len(), agent.given, "bytes that are lost");
            let found = server_name(&hello.bytes).map(|name| name.to_ascii_lowercase());
            match hello.server_name {
                Some(name) => assert_eq!(found.as_deref(), Some(name.as_bytes())),
                // There is none, or it is none that a route could be for.
                None => assert!(
                    !found.is_some_and(|name| is_name(&name)),
                    "a name is overlooked"
                ),
            }
        }
        // One alert at the most: record type 21, a version, two bytes of alert.
        Err(_) => {
            assert!(agent.said.is_empty() || matches!(agent.said[..], [21, 3, _, 0, 2, _, _]))
        }
    }
});

fn is_name(name: &[u8]) -> bool {
    let host = std::str::from_utf8(name).map(Host::parse);
    host.is_ok_and(|host| host.is_ok_and(|host| host.as_name().is_some()))
}

/// The one host name of a hello, by the letters of RFC 8446 (4.1.2, 5.1) and RFC 6066 (3). What follows a name of an
/// unknown type cannot be read.
fn server_name(stream: &[u8]) -> Option<Vec<u8>> {
    let handshake = handshake(stream);
    let mut reader = Reader(&handshake);
    assert_eq!(reader.take(1)?, [1], "no client hello");
    let length = reader.number(3)?;
    let mut hello = Reader(reader.take(length)?);
    hello.take(2 + 32)?;
    hello.vector(1)?;
    hello.vector(2)?;
    hello.vector(1)?;
    let mut extensions = Reader(hello.vector(2).unwrap_or_default());
    while let (Some(kind), Some(body)) = (extensions.number(2), extensions.vector(2)) {
        if kind != 0 {
            continue;
        }
        let mut names = Reader(Reader(body).vector(2)?);
        let mut found = None;
        while let (Some(0), Some(name)) = (names.number(1), names.vector(2)) {
            assert!(found.is_none(), "a second server name");
            found = Some(name.to_vec());
        }
        return found;
    }
    None
}

/// The fragments of all handshake records, joined.
fn handshake(stream: &[u8]) -> Vec<u8> {
    let mut records = Reader(stream);
    let mut joined = Vec::new();
    while let (Some(22), Some(_), Some(fragment)) =
        (records.number(1), records.take(2), records.vector(2))
    {
        joined.extend_from_slice(fragment);
    }
    joined
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(
            self.take(bytes)?
                .iter()
                .fold(0, |number, &byte| number << 8 | usize::from(byte)),
        )
    }

    fn vector(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

/// A client that sends its pieces and then ends; what it is told is kept.
struct Agent<'a> {
    pieces: std::vec::IntoIter<&'a [u8]>,
    piece: &'a [u8],
    given: usize,
    said: Vec<u8>,
}

impl<'a> Agent<'a> {
    fn new(pieces: Vec<&'a [u8]>) -> Self {
        Self {
            pieces: pieces.into_iter(),
            piece: &[],
            given: 0,
            said: Vec::new(),
        }
    }
}

impl AsyncRead for Agent<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            match self.pieces.next() {
                Some(piece) => self.piece = piece,
                None => return Poll::Ready(Ok(())),
            }
        }
        let (now, later) = self.piece.split_at(self.piece.len().min(out.remaining()));
        out.put_slice(now);
        self.piece = later;
        self.given += now.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Agent<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.said.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
