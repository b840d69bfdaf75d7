//! The sidecar's own numbers: counters since the start, and how many of some things are open now.
//!
//! All of them are there from the start on and have a fixed size, whatever an agent asks for. What is counted by route is
//! kept with the route ([`Outcomes`]).

use std::iter::zip;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Audit;
use crate::outcome::{Outcome, Outcomes, Verdict};

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Client connections accepted.
    pub connections: AtomicU64,
    /// Client connections closed at once, because their client had as many as it may.
    pub turned_away: AtomicU64,
    /// Client connections open now.
    pub open_connections: AtomicU64,
    /// Requests that became a connection of their own, as WebSockets and tunnels are.
    pub handed_over: AtomicU64,
    /// How long all other requests took.
    pub durations: Durations,
    /// What became of requests that no route admitted.
    pub unrouted: Outcomes,
    /// Tunnels open now, with intercepted or passed TLS.
    pub open_tunnels: AtomicU64,
    /// WebSockets open now.
    pub open_websockets: AtomicU64,
    /// WebSockets and passthrough tunnels whose bytes are copied now.
    pub open_splices: AtomicU64,
    /// What upstreams did wrong.
    pub upstream_faults: UpstreamFaults,
    /// DNS messages.
    pub names: AtomicU64,
    /// Names that no route admits, asked for over DNS.
    pub names_denied: AtomicU64,
    /// Records that could not be written to the log.
    pub log_records_lost: AtomicU64,
    /// Reloads that took effect.
    pub reloads: AtomicU64,
    /// Reloads that were refused; the policy before stayed.
    pub reload_failures: AtomicU64,
    /// When the last one took effect, in seconds of the epoch; 0 before the first.
    pub last_reload: AtomicU64,
}

impl Counters {
    /// Requests that were answered, tunnels included.
    pub fn requests(&self) -> u64 {
        let counts = Verdict::ALL.map(|verdict| self.durations.of(verdict).count());
        counts.iter().sum::<u64>() + self.handed_over.load(Ordering::Relaxed)
    }

    /// Requests refused by policy or for their form.
    pub fn denied(&self) -> u64 {
        self.durations.of(Verdict::Denied).count()
    }

    /// Requests that failed behind the decision: no credential, no upstream.
    pub fn failed(&self) -> u64 {
        self.durations.of(Verdict::Failed).count()
    }

    /// Counts a request at its end. `took` is `None` for one that was handed over.
    pub(super) fn ended(
        &self,
        outcome: Outcome,
        by_route: Option<&Outcomes>,
        took: Option<Duration>,
    ) {
        by_route.unwrap_or(&self.unrouted).add(outcome);
        match took {
            Some(took) => self.durations.of(outcome.verdict).observe(took),
            None => _ = self.handed_over.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// How long requests took, by their verdict.
#[derive(Debug, Default)]
pub struct Durations {
    allowed: Histogram,
    denied: Histogram,
    failed: Histogram,
}

impl Durations {
    /// Those of one verdict.
    pub fn of(&self, verdict: Verdict) -> &Histogram {
        match verdict {
            Verdict::Allowed => &self.allowed,
            Verdict::Denied => &self.denied,
            Verdict::Failed => &self.failed,
        }
    }
}

/// Durations in buckets with fixed bounds.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and one for what is beyond the last. Each counts what lies between its bound and the one before.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// In nanoseconds, which wraps after five centuries of requests.
    sum: AtomicU64,
}

/// The upper bounds of buckets in nanoseconds, and in seconds as a scrape writes them. Those that are usual, and three more:
/// a model's answer streams for minutes.
const BOUNDS: [(u64, &str); 14] = [
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
    (100_000_000_000, "100"),
    (300_000_000_000, "300"),
];

impl Histogram {
    fn observe(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|(bound, _)| *bound < took);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(took, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        let counts = self.buckets.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// How long they took together, in seconds.
    pub fn sum(&self) -> f64 {
        Duration::from_nanos(self.sum.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// Each bound in seconds, and how many were not above it. The last one is `+Inf`.
    pub fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let bounds = BOUNDS.iter().map(|(_, seconds)| *seconds).chain(["+Inf"]);
        zip(bounds, &self.buckets).scan(0, |below, (bound, count)| {
            *below += count.load(Ordering::Relaxed);
            Some((bound, *below))
        })
    }
}

/// What an upstream, or the way to it, did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFault {
    /// Its name does not resolve.
    Unresolved,
    /// It takes no connection.
    Unreachable,
    /// No connection in time, its name's resolution included.
    ConnectTimeout,
    /// No TLS handshake in time.
    TlsTimeout,
    /// No answer in time.
    AnswerTimeout,
    /// An answer that stood still for too long.
    BodyTimeout,
    /// Its certificate has expired.
    CertificateExpired,
    /// Its certificate is for another name.
    CertificateName,
    /// Nobody who is trusted vouches for its certificate.
    CertificateIssuer,
    /// Its certificate is wrong in another way.
    Certificate,
    /// Another fault of TLS.
    Tls,
    /// No HTTP, or a connection that ended before the answer.
    Protocol,
    /// An answer that did not arrive whole.
    BrokeOff,
    /// A wrong answer to a WebSocket handshake.
    Handshake,
    /// A coding in which the credential cannot be masked.
    Coding,
    /// The proxy in front of it refused.
    Proxy,
    /// Cloudflare asks for a human in front of a browser.
    Challenge,
}

impl UpstreamFault {
    /// All there are, in their order.
    const ALL: [Self; 17] = [
        Self::Unresolved,
        Self::Unreachable,
        Self::ConnectTimeout,
        Self::TlsTimeout,
        Self::AnswerTimeout,
        Self::BodyTimeout,
        Self::CertificateExpired,
        Self::CertificateName,
        Self::CertificateIssuer,
        Self::Certificate,
        Self::Tls,
        Self::Protocol,
        Self::BrokeOff,
        Self::Handshake,
        Self::Coding,
        Self::Proxy,
        Self::Challenge,
    ];

    /// Its name in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unresolved => "dns",
            Self::Unreachable => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsTimeout => "tls_timeout",
            Self::AnswerTimeout => "answer_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateName => "certificate_name",
            Self::CertificateIssuer => "certificate_issuer",
            Self::Certificate => "certificate_other",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::BrokeOff => "broke_off",
            Self::Handshake => "websocket_handshake",
            Self::Coding => "coding",
            Self::Proxy => "proxy",
            Self::Challenge => "cf_mitigated",
        }
    }
}

/// A counter for each fault.
#[derive(Debug, Default)]
pub struct UpstreamFaults([AtomicU64; UpstreamFault::ALL.len()]);

impl UpstreamFaults {
    pub(super) fn add(&self, fault: UpstreamFault) {
        if let Some(count) = self.0.get(fault as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Each fault, and how often it was met.
    pub fn iter(&self) -> impl Iterator<Item = (UpstreamFault, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        zip(UpstreamFault::ALL, counts)
    }
}

/// Which of the counters tells how many of something are open.
type Gauge = fn(&Counters) -> &AtomicU64;

/// Something that counts as open for as long as this lives.
#[derive(Debug)]
pub struct Open {
    audit: Arc<Audit>,
    gauge: Gauge,
}

impl Open {
    pub(super) fn new(audit: Arc<Audit>, gauge: Gauge) -> Self {
        gauge(&audit.counters).fetch_add(1, Ordering::Relaxed);
        Self { audit, gauge }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.gauge)(&self.audit.counters).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BOUNDS, Histogram, UpstreamFault, UpstreamFaults};

    #[test]
    fn a_duration_lies_in_each_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        let nanosecond = Duration::from_nanos(1);
        for took in [
            Duration::ZERO,
            Duration::from_millis(5),
            Duration::from_millis(5) + nanosecond,
            Duration::from_secs(300),
            Duration::from_secs(300) + nanosecond,
        ] {
            histogram.observe(took);
        }
        let counts: Vec<_> = histogram.cumulative().collect();
        assert_eq!(counts[..3], [("0.005", 2), ("0.01", 3), ("0.025", 3)]);
        assert_eq!(counts[12..], [("100", 3), ("300", 4), ("+Inf", 5)]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum() - 600.010_000_002).abs() < 1e-9);
    }

    #[test]
    fn a_bound_is_written_as_it_is_compared() {
        for (nanoseconds, seconds) in BOUNDS {
            let written: f64 = seconds.parse().expect("a number");
            assert_eq!(
                Duration::from_secs_f64(written).as_nanos(),
                nanoseconds.into()
            );
        }
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn each_fault_has_a_counter_of_its_own() {
        for fault in UpstreamFault::ALL {
            let faults = UpstreamFaults::default();
            faults.add(fault);
            let met: Vec<_> = faults.iter().filter(|(_, count)| *count == 1).collect();
            assert_eq!(met, [(fault, 1)]);
        }
    }
}
