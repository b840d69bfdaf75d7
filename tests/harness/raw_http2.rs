//! HTTP/2 frame by frame, for requests that no library would send. Header blocks go out as literals without Huffman
//! coding; of an answer's header block only the status is read, in the two forms that the sidecar's library writes.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::agent::{Agent, Tunnel};
use super::within;

/// A connection in a tunnel, or another stream.
pub(crate) struct RawHttp2<S = Tunnel> {
    stream: S,
    next: u32,
    /// The peer has said that it takes no further streams.
    pub(crate) goaway: bool,
}

/// How a stream ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    pub(crate) status: Option<u16>,
    pub(crate) body: String,
    /// By RST_STREAM, or with the connection.
    pub(crate) broken: bool,
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// What a frame may carry unless its receiver says otherwise (RFC 9113, section 4.2).
const MAX_FRAME: usize = 16_384;

impl RawHttp2 {
    pub(crate) async fn open(agent: &Agent, host: &str) -> Self {
        let tunnel = agent.tunnel(&format!("{host}:443"), host, &["h2"]).await;
        Self::over(tunnel.expect("a tunnel")).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawHttp2<S> {
    pub(crate) async fn over(mut stream: S) -> Self {
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // SETTINGS_HEADER_TABLE_SIZE is 0, so that no answer refers to one before it.
        hello.extend(frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]));
        stream.write_all(&hello).await.expect("a reader");
        Self {
            stream,
            next: 1,
            goaway: false,
        }
    }

    /// Sends a request without a body, its header block exactly as given, and waits for the end of its stream.
    pub(crate) async fn request(&mut self, fields: &[(&str, &[u8])]) -> Ended {
        let id = self.begin(fields).await;
        self.end(id).await
    }

    /// Sends a request without a body, and returns its stream.
    pub(crate) async fn begin(&mut self, fields: &[(&str, &[u8])]) -> u32 {
        let id = self.next;
        self.next += 2;
        self.block(id, fields, true).await;
        id
    }

    /// Sends the head of a request whose stream stays open, and returns the stream.
    pub(crate) async fn begin_open(&mut self, fields: &[(&str, &[u8])]) -> u32 {
        let id = self.next;
        self.next += 2;
        self.block(id, fields, false).await;
        id
    }

    /// Sends a header block on a stream: a head, or trailers. A long one is continued.
    pub(crate) async fn block(&mut self, id: u32, fields: &[(&str, &[u8])], end: bool) {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            text(&mut block, name.as_bytes());
            text(&mut block, value);
        }
        let mut pieces = block.chunks(MAX_FRAME).peekable();
        let (mut kind, mut flags) = (HEADERS, if end { END_STREAM } else { 0 });
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                flags |= END_HEADERS;
            }
            // A sidecar that has said goodbye may be gone; how the stream ended is read below.
            self.send(&frame(kind, flags, id, piece)).await;
            (kind, flags) = (CONTINUATION, 0);
        }
    }

    /// Sends a piece of a body.
    pub(crate) async fn data(&mut self, id: u32, data: &[u8], end: bool) {
        let flags = if end { END_STREAM } else { 0 };
        self.send(&frame(DATA, flags, id, data)).await;
    }

    /// Reads until the stream has ended.
    pub(crate) async fn end(&mut self, id: u32) -> Ended {
        let mut ended = Ended::default();
        loop {
            let Some((kind, flags, stream, payload)) = self.frame().await else {
                ended.broken = true;
                return ended;
            };
            match kind {
                HEADERS if stream == id => ended.status = status(&payload),
                DATA if stream == id => ended.body.push_str(&String::from_utf8_lossy(&payload)),
                RST_STREAM if stream == id => {
                    ended.broken |= ended.status.is_none();
                    return ended;
                }
                _ => {}
            }
            if matches!(kind, HEADERS | DATA) && stream == id && flags & END_STREAM != 0 {
                return ended;
            }
        }
    }

    /// Reads until the peer closes.
    pub(crate) async fn closed(&mut self) {
        while self.frame().await.is_some() {}
    }

    async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        let read = within("HTTP/2 frame", self.stream.read_exact(&mut head)).await;
        read.ok()?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        match kind {
            SETTINGS if flags & ACK == 0 => self.send(&frame(SETTINGS, ACK, 0, &[])).await,
            PING if flags & ACK == 0 => self.send(&frame(PING, ACK, 0, &payload)).await,
            GOAWAY => self.goaway = true,
            _ => {}
        }
        Some((kind, flags, u32::from_be_bytes(id), payload))
    }

    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A string literal of RFC 7541, section 5.2, without Huffman coding.
fn text(block: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        length @ 0..127 => block.push(u8::try_from(length).expect("a small number")),
        length => {
            block.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).expect("a small number") | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).expect("a small number"));
        }
    }
    block.extend(text);
}

/// The status is the first field: an index of the static table, or a literal after a table size update at most.
fn status(block: &[u8]) -> Option<u16> {
    match block {
        [first @ 0x20..0x40, rest @ ..] if *first != 0x3f => status(rest),
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500]
            .get(usize::from(indexed - 0x88))
            .copied(),
        // `:status` by name, its value as three digits in Huffman code: 5 bits for 0 to 2, 6 for 3 to 9.
        [0x48 | 0x08 | 0x18, length, rest @ ..] if length & 0x80 != 0 => {
            let mut bits = rest
                .iter()
                .take(usize::from(length & 0x7f))
                .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
            let mut digits = 0;
            for _ in 0..3 {
                let mut code = (0..5).try_fold(0, |code, _| Some(code * 2 + bits.next()?))?;
                if code > 2 {
                    code = code * 2 + bits.next()?;
                    code -= 0b01_1001 - 3;
                }
                digits = digits * 10 + code;
            }
            Some(digits)
        }
        _ => None,
    }
}
