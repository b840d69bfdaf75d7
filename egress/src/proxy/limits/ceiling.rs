//! How much memory the caps allow to be held at once, at the very worst.
//!
//! Each term is what a peer can make the sidecar keep for as long as the peer likes: buffers that it fills and nobody
//! empties. Not in it: the kernel's socket buffers, what the allocator loses to fragmentation (reckon with a quarter more),
//! and what lives for one poll of one thread. Nor what upstreams would hold that attack the sidecar, and what h2 keeps with
//! each small piece of a body beyond its own budget: see "What remains" in `docs/threat-model.md`.

use std::fmt;

use super::super::gate::frames::MAX_PINNED;
use super::{AGENT_CONNECTION_WINDOW, Limits, SEND_BUFFER, UPSTREAM_STREAM_WINDOW};

/// The most memory that clients and upstreams can make the sidecar hold, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// What it is made of.
    pub parts: Vec<Part>,
    /// The parts of one client at its cap.
    pub one_client: u64,
}

/// One term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What there is a number of.
    pub name: &'static str,
    /// How many there can be.
    pub count: u64,
    /// Bytes of each.
    pub each: u64,
}

impl Part {
    fn new(name: &'static str, count: usize, each: usize) -> Self {
        Self {
            name,
            count: count as u64,
            each: each as u64,
        }
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.each)
    }
}

impl Ceiling {
    /// Bytes in all.
    pub fn total(&self) -> u64 {
        let bytes = self.parts.iter().map(Part::bytes);
        bytes.fold(0, u64::saturating_add)
    }
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at most {} ({} of it by one client)",
            Bytes(self.total()),
            Bytes(self.one_client)
        )
    }
}

/// Bytes as people read them: whole MiB, rounded up.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0.div_ceil(1024 * 1024))
    }
}

impl Limits {
    /// The ceiling that follows from these caps.
    pub fn ceiling(&self) -> Ceiling {
        let http2 = Part::new(
            "HTTP/2 connections",
            self.http2.min(self.connections),
            self.of_an_http2_connection(),
        );
        let others = Part::new(
            "other connections",
            self.connections.saturating_sub(self.http2),
            self.of_a_connection(),
        );
        let requests = Part::new("requests", self.requests, self.of_a_request());
        let one_client = |part: &Part, most: u64| part.each.saturating_mul(part.count.min(most));
        let most = self.per_client as u64;
        Ceiling {
            one_client: one_client(&http2, most)
                .saturating_add(one_client(&others, most.saturating_sub(http2.count)))
                .saturating_add(one_client(&requests, most)),
            parts: vec![
                Part::new("process", 1, PROCESS),
                http2,
                others,
                requests,
                Part::new(
                    "pooled upstream connections",
                    self.pooled,
                    self.of_a_pooled(),
                ),
                Part::new("decoders of answers", 1, self.decoders),
                Part::new("leaf certificates", self.leaves.get(), LEAF),
            ],
        }
    }

    /// A client's connection that speaks HTTP/1.1, or is a tunnel.
    fn of_a_connection(&self) -> usize {
        // The gate holds one head, and hyper reads as much of a body.
        let http1 = 2 * self.header_bytes + READ;
        // A WebSocket's or passthrough tunnel's other end, the two copies under way, and what came with the 101.
        let splice = TLS + 2 * COPY + self.header_bytes;
        TASK + TLS + http1.max(splice)
    }

    /// A client's connection that speaks HTTP/2.
    fn of_an_http2_connection(&self) -> usize {
        // The gate holds one header block, and what came in one read with it. Uploads that nobody reads fill the window;
        // streams that were refused, and whose answer nobody takes, are there until the connection ends.
        let streams = self.streams as usize * STREAM;
        let gate = self.header_bytes + READ;
        // What lies between the pieces of a body stays with them: twice what the gate counts, see `gate/streams.rs`.
        let uploads = AGENT_CONNECTION_WINDOW as usize + 2 * MAX_PINNED;
        TASK + TLS + gate + CODEC + PINNED + uploads + streams
    }

    /// A request under way, from its head to the last byte of its answer, on an upstream connection of its own.
    fn of_a_request(&self) -> usize {
        // As it was read, and as it is written to the other side.
        let head = 2 * (self.header_bytes + FIELDS * self.header_count);
        let upload = SEND_BUFFER + self.frame();
        let download = UPSTREAM_STREAM_WINDOW as usize + SEND_BUFFER + self.frame();
        2 * head + upload + download + self.of_a_pooled()
    }

    /// An upstream connection that nothing is under way on.
    fn of_a_pooled(&self) -> usize {
        TASK + TLS + CODEC.max(2 * self.header_bytes)
    }

    /// The largest piece of a body that is handed on at once: all that an HTTP/1.1 connection has read.
    fn frame(&self) -> usize {
        self.header_bytes.max(READ)
    }
}

/// The program itself, with public roots, a routes file of some hundred routes, the threads, and the fixed caps: 64 look-ups,
/// 64 DNS streams, 64 refusals kept for `status`.
const PROCESS: usize = 48 * 1024 * 1024;
/// What a connection's task keeps, and the maps that it stands in.
const TASK: usize = 24 * 1024;
/// rustls: 64 KiB that are to be sent, 64 KiB of a handshake message that is not whole, one record of plaintext.
const TLS: usize = 160 * 1024;
/// One read: a TLS record is no larger, and HTTP/2 asks for a frame and its head.
const READ: usize = 32 * 1024;
/// h2: a frame that is not whole, what is to be written, and the HPACK tables.
const CODEC: usize = 2 * READ + 32 * 1024;
/// Each entry of the HPACK table that a client fills (4,096 bytes by RFC 7541, and 33 for an entry at the least) is a piece of
/// the block that it was read in, and keeps all of it: one frame with its head.
const PINNED: usize = 4096 / 33 * (16 * 1024 + 9);
/// A refused stream: its state, its task, and an answer of ours.
const STREAM: usize = 3 * 1024;
/// One direction of a splice.
const COPY: usize = 8 * 1024;
/// A field in the library's map, which doubles.
const FIELDS: usize = 256;
/// A leaf: its certificate, the TLS configuration around it, and its place in the cache.
const LEAF: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::{Limits, Part};

    fn small() -> Limits {
        Limits {
            connections: 10,
            http2: 4,
            requests: 6,
            per_client: 5,
            pooled: 3,
            ..Limits::default()
        }
    }

    #[test]
    fn every_cap_counts() {
        let total = |change: fn(&mut Limits)| {
            let mut limits = small();
            change(&mut limits);
            limits.ceiling().total()
        };
        let before = total(|_| {});
        for (name, after) in [
            ("connections", total(|limits| limits.connections += 1)),
            ("http2", total(|limits| limits.http2 += 1)),
            ("requests", total(|limits| limits.requests += 1)),
            ("streams", total(|limits| limits.streams += 1)),
            ("pooled", total(|limits| limits.pooled += 1)),
            (
                "leaves",
                total(|limits| limits.leaves = limits.leaves.saturating_add(1)),
            ),
            ("header_bytes", total(|limits| limits.header_bytes += 1)),
            ("header_count", total(|limits| limits.header_count += 1)),
        ] {
            assert!(after > before, "{name}");
        }
        assert_eq!(total(|limits| limits.head *= 2), before);
    }

    #[test]
    fn the_total_is_the_sum_of_the_parts_and_never_overflows() {
        let ceiling = small().ceiling();
        let sum: u64 = ceiling.parts.iter().map(Part::bytes).sum();
        assert_eq!(ceiling.total(), sum);
        assert!(ceiling.one_client < sum);
        let endless = Limits {
            connections: usize::MAX,
            requests: usize::MAX,
            ..Limits::default()
        };
        assert_eq!(endless.ceiling().total(), u64::MAX);
    }

    #[test]
    fn the_defaults_are_told_in_one_line() {
        let ceiling = Limits::default().ceiling();
        let line = ceiling.to_string();
        assert!(
            line.starts_with("at most ") && line.contains(" MiB ("),
            "{line}"
        );
        // Below what a machine has that serves a thousand agents; a box of its own has one client.
        assert!(ceiling.total() < 6 << 30, "{line}: {ceiling:#?}");
        assert!(ceiling.one_client < 1400 << 20, "{line}");
    }
}
