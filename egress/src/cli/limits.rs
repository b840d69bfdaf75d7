//! The deadlines and caps as arguments: of `egress serve`, which keeps to them, and of `egress check`, which tells how much
//! memory they allow.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use crate::proxy::limits::Limits;

/// Deadlines and caps.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Deadlines and caps (times as 10s, 15m, 2h)")]
pub(super) struct LimitArgs {
    /// For a request's head, from its first byte
    #[arg(long, value_name = "TIME", default_value = "10s")]
    head_timeout: Time,
    /// For a TLS handshake, on either side
    #[arg(long, value_name = "TIME", default_value = "10s")]
    handshake_timeout: Time,
    /// For a connection to an upstream
    #[arg(long, value_name = "TIME", default_value = "10s")]
    connect_timeout: Time,
    /// For an upstream's answer to begin
    #[arg(long, value_name = "TIME", default_value = "15m")]
    answer_timeout: Time,
    /// For a body that stands still
    #[arg(long, value_name = "TIME", default_value = "5m")]
    body_timeout: Time,
    /// For a tunnel, WebSocket or kept connection of an agent on which nothing moves
    #[arg(long, value_name = "TIME", default_value = "15m")]
    idle_timeout: Time,
    /// For an upstream connection that waits for its next request
    #[arg(long, value_name = "TIME", default_value = "1m")]
    pool_timeout: Time,
    /// For exchanges under way when the sidecar is asked to stop
    #[arg(long, value_name = "TIME", default_value = "10s")]
    drain_timeout: Time,
    /// Bytes of a header block, at least 4KiB
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = head)]
    max_head: Size,
    /// Fields of a header block
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = up_to(1000))]
    max_fields: usize,
    /// Client connections at once; further ones wait in the kernel's queue
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = up_to(1 << 20))]
    max_connections: usize,
    /// Connections of one client address at once (all of a Unix socket are one), and its requests under way
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = up_to(1 << 20))]
    max_per_client: usize,
    /// Requests under way at once
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = up_to(1 << 20))]
    max_requests: usize,
    /// Client connections at once that speak HTTP/2; further ones speak HTTP/1.1
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = up_to(1 << 20))]
    max_http2: usize,
    /// Streams at once on a client's HTTP/2 connection
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = up_to(10_000))]
    max_streams: usize,
    /// Upstream connections that are kept for a next request
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = up_to(1 << 20))]
    max_pooled: usize,
    /// Memory to decode answers: 64KiB each in gzip, 9MiB in zstd, 20MiB in br; at least 20MiB
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = decoding)]
    max_decoding: Size,
    /// Leaf certificates that are kept
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = up_to(1 << 20))]
    max_leaves: usize,
}

pub(super) fn up_to(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most)
}

impl LimitArgs {
    /// The limits.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            head: self.head_timeout.0,
            handshake: self.handshake_timeout.0,
            connect: self.connect_timeout.0,
            answer: self.answer_timeout.0,
            body_idle: self.body_timeout.0,
            tunnel_idle: self.idle_timeout.0,
            pool_idle: self.pool_timeout.0,
            drain: self.drain_timeout.0,
            header_bytes: self.max_head.0,
            header_count: self.max_fields,
            connections: self.max_connections,
            requests: self.max_requests,
            per_client: self.max_per_client,
            http2: self.max_http2,
            streams: u32::try_from(self.max_streams).unwrap_or(u32::MAX),
            pooled: self.max_pooled,
            decoders: self.max_decoding.0,
            leaves: NonZeroUsize::new(self.max_leaves).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// A deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time(Duration);

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

impl FromStr for Time {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let time = span(text)?;
        if (SHORTEST..=LONGEST).contains(&time) {
            Ok(Self(time))
        } else {
            Err(InvalidTime::Range)
        }
    }
}

/// Reads a number with a unit, or of seconds.
pub(super) fn span(text: &str) -> Result<Duration, InvalidTime> {
    let (number, unit) = split(text);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(InvalidTime::Form),
    };
    let number: u64 = number.parse().map_err(|_| InvalidTime::Form)?;
    Ok(Duration::from_millis(number.saturating_mul(milliseconds)))
}

/// Why a text is no deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidTime {
    #[error("write a number and ms, s, m, h or d, as in 10s or 15m")]
    Form,
    #[error("a deadline is between 100ms and 7d; there is no way to have none")]
    Range,
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(usize);

impl Size {
    /// How many.
    pub(super) fn bytes(self) -> u64 {
        self.0 as u64
    }
}

/// hyper takes no less than 8 KiB for a head, of which the gate lets this much through.
const SMALLEST: usize = 4 * 1024;
const LARGEST: usize = 1024 * 1024;

impl FromStr for Size {
    type Err = InvalidSize;

    /// Reads a number of bytes, KiB, MiB or GiB.
    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let (number, unit) = split(text);
        let bytes = match unit {
            "" => 1,
            "KiB" => 1024,
            "MiB" => 1024 * 1024,
            "GiB" => 1024 * 1024 * 1024,
            _ => return Err(InvalidSize::Form),
        };
        let number: usize = number.parse().map_err(|_| InvalidSize::Form)?;
        Ok(Self(number.saturating_mul(bytes)))
    }
}

fn head(text: &str) -> Result<Size, InvalidSize> {
    let size: Size = text.parse()?;
    if (SMALLEST..=LARGEST).contains(&size.0) {
        Ok(size)
    } else {
        Err(InvalidSize::Range)
    }
}

/// An answer comes in the coding that its server chose, once the request was sent. So there is room for one in any.
const LEAST_DECODING: usize = 20 * 1024 * 1024;

fn decoding(text: &str) -> Result<Size, InvalidSize> {
    let size: Size = text.parse()?;
    if size.0 >= LEAST_DECODING {
        Ok(size)
    } else {
        Err(InvalidSize::Decoding)
    }
}

/// Why a text is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidSize {
    #[error("write a number of bytes, or one with KiB, MiB or GiB, as in 64KiB")]
    Form,
    #[error("a head is between 4KiB and 1MiB")]
    Range,
    #[error("decoding one answer takes up to 20MiB, so it is at least 20MiB")]
    Decoding,
}

fn split(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at_checked(digits).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{Args as _, Command, FromArgMatches as _};

    use super::{InvalidSize, InvalidTime, LimitArgs, Size, Time};
    use crate::proxy::limits::Limits;
    use crate::proxy::redact::coding::Coding;

    #[test]
    fn what_is_no_deadline_is_refused() {
        for text in ["", "s", "10 s", "10x", "-1s", "1.5s", "10S", "\u{664}s"] {
            assert_eq!(text.parse::<Time>(), Err(InvalidTime::Form), "{text:?}");
        }
        for text in ["0", "0s", "99ms", "8d", "18446744073709551615d"] {
            assert_eq!(text.parse::<Time>(), Err(InvalidTime::Range), "{text}");
        }
        for (text, milliseconds) in [
            ("100ms", 100),
            ("7", 7000),
            ("90s", 90_000),
            ("15m", 900_000),
            ("2h", 7_200_000),
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(text.parse(), Ok(Time(time)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "KiB", "64K", "64kib", "1TiB", "-1"] {
            assert_eq!(text.parse::<Size>(), Err(InvalidSize::Form), "{text:?}");
        }
        for text in ["0", "4095", "2MiB"] {
            assert_eq!(super::head(text), Err(InvalidSize::Range), "{text}");
        }
        for text in ["0", "64KiB", "20971519"] {
            assert_eq!(super::decoding(text), Err(InvalidSize::Decoding), "{text}");
        }
        for coding in [Coding::Gzip, Coding::Zstd, Coding::Brotli] {
            assert!(coding.cost() <= super::LEAST_DECODING, "{coding:?}");
        }
        assert_eq!(super::decoding("20MiB"), Ok(Size(20 * 1024 * 1024)));
        assert_eq!("4096".parse(), Ok(Size(4096)));
        assert_eq!("64KiB".parse(), Ok(Size(65_536)));
    }

    #[test]
    fn each_argument_sets_its_own_limit() {
        let arguments = [
            "egress",
            "--head-timeout=1s",
            "--handshake-timeout=2s",
            "--connect-timeout=3s",
            "--answer-timeout=4s",
            "--body-timeout=5s",
            "--idle-timeout=6s",
            "--pool-timeout=7s",
            "--drain-timeout=8s",
            "--max-head=9000",
            "--max-fields=10",
            "--max-connections=11",
            "--max-per-client=12",
            "--max-requests=13",
            "--max-http2=14",
            "--max-streams=15",
            "--max-pooled=16",
            "--max-leaves=17",
            "--max-decoding=21MiB",
        ];
        let matches = LimitArgs::augment_args(Command::new("egress")).get_matches_from(arguments);
        let limits = LimitArgs::from_arg_matches(&matches).unwrap().limits();
        let expected = Limits {
            head: Duration::from_secs(1),
            handshake: Duration::from_secs(2),
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(4),
            body_idle: Duration::from_secs(5),
            tunnel_idle: Duration::from_secs(6),
            pool_idle: Duration::from_secs(7),
            drain: Duration::from_secs(8),
            header_bytes: 9000,
            header_count: 10,
            connections: 11,
            per_client: 12,
            requests: 13,
            http2: 14,
            streams: 15,
            pooled: 16,
            leaves: 17.try_into().unwrap(),
            decoders: 21 * 1024 * 1024,
        };
        assert_eq!(format!("{limits:?}"), format!("{expected:?}"));
    }

    #[test]
    fn without_an_argument_the_defaults_are_those_of_the_data_path() {
        let matches = LimitArgs::augment_args(Command::new("egress")).get_matches_from(["egress"]);
        let limits = LimitArgs::from_arg_matches(&matches).unwrap().limits();
        assert_eq!(format!("{limits:?}"), format!("{:?}", Limits::default()));
    }
}
