//! Every deadline and cap of the data path in one place, with its default.

use std::time::Duration;

use hyper::client::conn::http1;

use super::gate;

/// Deadlines and caps. All are bounds on what one peer can hold, none is a target.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the head of a request, from its first byte; for the first one, from the connection's start.
    pub head: Duration,
    /// For a TLS handshake, on either side.
    pub handshake: Duration,
    /// For a connection to an upstream: look-up, TCP, and a further proxy's answer.
    pub connect: Duration,
    /// For an upstream's answer to begin, after the request was sent. Models think for minutes.
    pub answer: Duration,
    /// For a body that stands still.
    pub body_idle: Duration,
    /// For a tunnel, a WebSocket or a kept-alive connection on which nothing moves.
    pub tunnel_idle: Duration,
    /// For an upstream connection that waits for its next request.
    pub pool_idle: Duration,
    /// For exchanges under way when the sidecar is asked to stop.
    pub drain: Duration,
    /// Bytes of a header block.
    pub header_bytes: usize,
    /// Header fields of a message.
    pub header_count: usize,
    /// Client connections at once.
    pub connections: usize,
    /// HTTP/2 streams at once on a client's connection.
    pub streams: u32,
    /// Bytes of all decoders of compressed answers.
    pub decoders: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(15 * 60),
            body_idle: Duration::from_secs(5 * 60),
            tunnel_idle: Duration::from_secs(15 * 60),
            pool_idle: Duration::from_secs(60),
            drain: Duration::from_secs(10),
            header_bytes: 64 * 1024,
            header_count: 100,
            connections: 4096,
            streams: 100,
            decoders: 256 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// A client towards servers that are not the operator's: what their heads may be is bounded too.
    pub(super) fn http1_client(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .max_headers(self.header_count)
            .max_buf_size(self.header_bytes);
        builder
    }

    pub(super) fn gate(&self) -> gate::Limits {
        gate::Limits {
            max_head: self.header_bytes,
            max_fields: self.header_count,
            head: self.head,
            idle: self.tunnel_idle,
            body_idle: self.body_idle,
        }
    }
}
