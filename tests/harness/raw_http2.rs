//! HTTP/2 frame by frame, for requests that no library would send. Header blocks go out as literals without Huffman
//! coding; of an answer's header block only the status is read, in the two forms that the sidecar's library writes.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::agent::{Agent, Tunnel};
use super::within;

/// A connection in a tunnel, or another stream.
pub(crate) struct RawHttp2<S = Tunnel> {
    stream: S,
    next: u32,
    /// The peer has said that it takes no further streams.
    pub(crate) goaway: bool,
    /// Frames that came while another stream was waited for.
    set_aside: VecDeque<Frame>,
}

/// Type, flags, stream and payload.
type Frame = (u8, u8, u32, Vec<u8>);

/// How a stream ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    pub(crate) status: Option<u16>,
    pub(crate) body: String,
    /// By RST_STREAM, or with the connection.
    pub(crate) broken: bool,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
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
            set_aside: VecDeque::new(),
        }
    }

    /// Sends a request without a body, its header block exactly as given, and waits for the end of its stream.
    pub(crate) async fn request(&mut self, fields: &[(&str, &[u8])]) -> Ended {
        let id = self.begin(fields).await;
        let ended = self.end(id).await;
        // What was read makes room on the connection for the answers to come.
        if let Ok(read @ 1..) = u32::try_from(ended.body.len()) {
            self.send(&frame(WINDOW_UPDATE, 0, 0, &read.to_be_bytes()))
                .await;
        }
        ended
    }

    /// Sends a request without a body, and returns its stream.
    pub(crate) async fn begin(&mut self, fields: &[(&str, &[u8])]) -> u32 {
        let id = self.id();
        self.block(id, fields, true).await;
        id
    }

    /// Sends the head of a request whose stream stays open, and returns the stream.
    pub(crate) async fn begin_open(&mut self, fields: &[(&str, &[u8])]) -> u32 {
        let id = self.id();
        self.block(id, fields, false).await;
        id
    }

    /// Sends a header block on a stream: a head, or trailers. A long one is continued.
    pub(crate) async fn block(&mut self, id: u32, fields: &[(&str, &[u8])], end: bool) {
        let block = block(fields);
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

    /// The next stream of the client's.
    pub(crate) fn id(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Reads until the stream has ended.
    pub(crate) async fn end(&mut self, id: u32) -> Ended {
        let mut ended = Ended::default();
        loop {
            let earlier = self.set_aside.iter().position(|frame| frame.2 == id);
            let frame = match earlier.and_then(|at| self.set_aside.remove(at)) {
                Some(frame) => Some(frame),
                None => self.frame().await,
            };
            if let Some(other) = frame.clone().filter(|frame| frame.2 != id) {
                self.set_aside.push_back(other);
                continue;
            }
            let Some((kind, flags, _, payload)) = frame else {
                ended.broken = true;
                return ended;
            };
            match kind {
                HEADERS => ended.status = status(&payload),
                DATA => ended.body.push_str(&String::from_utf8_lossy(&payload)),
                RST_STREAM => {
                    ended.broken |= ended.status.is_none();
                    return ended;
                }
                _ => {}
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return ended;
            }
        }
    }

    /// Reads until the peer closes.
    pub(crate) async fn closed(&mut self) {
        while self.frame().await.is_some() {}
    }

    /// Reads until the peer closes, and answers nothing meanwhile, not even SETTINGS.
    pub(crate) async fn closed_on_silence(&mut self) {
        let mut rest = Vec::new();
        // How the connection ends is the peer's business; that it does is what is waited for.
        let _ = within("end of the connection", self.stream.read_to_end(&mut rest)).await;
    }

    async fn frame(&mut self) -> Option<Frame> {
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

    /// Sends bytes as they are, or as many of them as the peer takes before it hangs up.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }
}

/// A header block of literals.
pub(crate) fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name.as_bytes());
        text(&mut block, value);
    }
    block
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
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
