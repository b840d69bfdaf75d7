//! Every deadline and cap of the data path in one place, with its default; and the memory that follows from them.

mod ceiling;

use std::num::NonZeroUsize;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::server::conn::http2 as http2_server;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::gate;
use super::gate::http2::Patience;

pub use self::ceiling::{Ceiling, Part};

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
    /// Requests under way at once, of all clients. What a request holds is most of the memory that there is to hold.
    pub requests: usize,
    /// Connections of one client at once, and its requests under way.
    pub per_client: usize,
    /// Client connections at once that speak HTTP/2. Further ones speak HTTP/1.1: HTTP/2 lets a client have much kept.
    pub http2: usize,
    /// HTTP/2 streams at once on a client's connection.
    pub streams: u32,
    /// Bytes of all decoders of compressed answers.
    pub decoders: usize,
    /// Upstream connections that are kept for a next request.
    pub pooled: usize,
    /// Leaf certificates that are kept.
    pub leaves: NonZeroUsize,
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
            requests: 1024,
            per_client: 256,
            http2: 512,
            streams: 100,
            decoders: 64 * 1024 * 1024,
            pooled: 256,
            leaves: NonZeroUsize::new(1024).expect("1024 is not 0"),
        }
    }
}

/// Flow-control windows towards agents, in bytes: what one upload, and all of a connection's, may have under way. Half as
/// much for one upload takes a fifth more of the processor, since it is asked for more often; four times as much for both
/// takes a tenth less, and all that memory for a connection whose uploads nobody reads.
const AGENT_STREAM_WINDOW: u32 = 256 * 1024;
const AGENT_CONNECTION_WINDOW: u32 = 256 * 1024;
/// Towards upstreams, which may be far: 512 KiB within 50 ms are 10 MB/s. The connection's window is that of all its streams
/// together, because they may be different agents': all but one can stand still without a hold on that one. So it bounds
/// nothing; the cap on requests does.
const UPSTREAM_STREAM_WINDOW: u32 = 512 * 1024;
const UPSTREAM_CONNECTION_WINDOW: u32 = (MAX_UPSTREAM_STREAMS as u32 + 1) * UPSTREAM_STREAM_WINDOW;
/// How many streams an upstream's connection carries before another one is opened: what RFC 9113, section 6.5.2, recommends
/// servers to allow at the least.
pub(super) const MAX_UPSTREAM_STREAMS: usize = 100;
/// The same before the upstream has said what it allows, which it does in the first bytes that it sends.
const FIRST_UPSTREAM_STREAMS: usize = 10;
/// What HTTP/2 keeps of a stream's outgoing bytes before it asks for no more.
const SEND_BUFFER: usize = 64 * 1024;
/// A dead HTTP/2 connection to an upstream is noticed within these two while streams are open on it.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(30);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams that a peer may have reset before we looked at them (CVE-2023-44487), the library's own default; and streams that
/// it may have made us reset in a connection's life (CVE-2025-8671). Beyond either the library says `ENHANCE_YOUR_CALM`.
const UNSEEN_RESETS: usize = 20;
const PROVOKED_RESETS: usize = 256;

/// The smallest buffer of HTTP/1.1 that the library takes; less is a panic.
const LEAST_BUFFER: usize = 8192;

impl Limits {
    /// A client towards servers that are not the operator's: what their heads may be is bounded too.
    pub(super) fn http1_client(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .max_headers(self.header_count)
            .max_buf_size(self.header_bytes.max(LEAST_BUFFER));
        builder
    }

    /// The same over HTTP/2.
    pub(super) fn http2_client(&self) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(UPSTREAM_STREAM_WINDOW)
            .initial_connection_window_size(UPSTREAM_CONNECTION_WINDOW)
            .initial_max_send_streams(FIRST_UPSTREAM_STREAMS)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(self.header_list())
            .max_pending_accept_reset_streams(UNSEEN_RESETS)
            .max_local_error_reset_streams(Some(PROVOKED_RESETS));
        builder
    }

    /// A server towards agents, behind the gate of [`http2_patience`](Self::http2_patience).
    pub(super) fn http2_server(&self) -> http2_server::Builder<TokioExecutor> {
        let mut builder = http2_server::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .max_header_list_size(self.header_list())
            .initial_stream_window_size(AGENT_STREAM_WINDOW)
            .initial_connection_window_size(AGENT_CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(UNSEEN_RESETS)
            .max_local_error_reset_streams(PROVOKED_RESETS);
        builder
    }

    fn header_list(&self) -> u32 {
        u32::try_from(self.header_bytes).unwrap_or(u32::MAX)
    }

    pub(super) fn http2_patience(&self) -> Patience {
        Patience {
            max_block: self.header_bytes,
            head: self.head,
        }
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
