//! What an audit file costs: writing a million rows, finding those of a host, and following the chain.
//!
//!     cargo bench -p egress-parts --bench audit [ROWS]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use egress::audit::Client;
use egress::audit::database::{Limits, Writer};
use egress::audit::entry::Entry;
use egress::audit::reader::{Filter, Next, Reader};
use egress::audit::row::Row;
use egress::outcome::Verdict;
use egress::route::target::Scheme;
use http::Method;

/// Rows of one transaction, as they come together in 20 ms of a busy sidecar.
const BATCH: i64 = 1000;
const HOSTS: i64 = 200;

fn main() {
    let rows = std::env::args().find_map(|argument| argument.parse().ok());
    let rows: i64 = rows.unwrap_or(1_000_000);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("audit.db");
    let before = cpu();
    let ((), wall) = timed(|| write(&file, rows));
    let cpu = cpu().saturating_sub(before);
    let rate = rows as f64 / wall.as_secs_f64();
    println!(
        "write {rows} rows: {wall:.1?}, {rate:.0} a second, {:.2} us of the processor each",
        micros(cpu) / rows as f64
    );
    let size = std::fs::metadata(&file).expect("a file").len();
    println!(
        "the file: {} bytes, {} a row",
        size,
        size / rows.unsigned_abs()
    );
    let reader = Reader::open(&file).expect("an audit file");
    let filter = Filter {
        host: Some(format!("h{}.example.com", HOSTS / 2)),
        ..Filter::default()
    };
    let ((latest, _), wall) = timed(|| reader.latest(&filter, 100).expect("rows"));
    println!("the latest {latest} of a host: {wall:.1?}");
    let (every, wall) = found(&reader, &filter);
    println!("all {every} of a host: {wall:.1?}");
    let (_, wall) = timed(|| reader.verify(None).expect("a whole chain"));
    println!("verify: {wall:.1?}");
}

/// How many rows a filter finds, and in how long.
fn found(reader: &Reader, filter: &Filter) -> (usize, Duration) {
    let mut found = 0;
    let ((), wall) = timed(|| {
        let take = |_: &Row<'_>| {
            found += 1;
            Next::More
        };
        reader.rows(filter, take).expect("rows");
    });
    (found, wall)
}

fn write(file: &Path, rows: i64) {
    let limits = Limits {
        size: u64::MAX,
        age: Duration::MAX,
        kept: 1,
    };
    let mut writer = Writer::open(file, limits).expect("a new file");
    for first in (0..rows).step_by(usize::try_from(BATCH).expect("small")) {
        let batch = first..rows.min(first + BATCH);
        let entries: Vec<Arc<Entry>> = batch.map(|number| entry(number).into()).collect();
        writer.append(&entries, Some("blue")).expect("room");
    }
}

fn entry(number: i64) -> Entry {
    let since = Duration::from_micros(1_795_973_510_000_000 + number.unsigned_abs() * 1000);
    Entry {
        time: UNIX_EPOCH + since,
        client: Client::Address([10, 1, 0, 7].into()),
        method: Some(Method::POST),
        scheme: Some(Scheme::Https),
        host: format!("h{}.example.com:443", number % HOSTS),
        path: format!("/v1/things/{number}/parts"),
        query: None,
        route: u32::try_from(number % 40).ok(),
        verdict: Verdict::Allowed,
        code: "ok",
        slot: "EGRESS_TOKEN_0".parse().ok(),
        credential: Some("0123456789ab".into()),
        status: 200,
        received: 1000,
        sent: 2000,
        head_after: Some(Duration::from_micros(1500)),
        total: Duration::from_micros(1700),
        upstream: Some(([203, 0, 113, 7], 443).into()),
        id: None,
        detail: None,
    }
}

/// What came of it, and how long it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed())
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
