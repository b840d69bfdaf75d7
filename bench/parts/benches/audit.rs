//! What an audit file costs: writing a million rows, finding those of a host, and following the chain.
//!
//!     cargo bench -p egress-parts --bench audit [ROWS]

use std::path::Path;
use std::time::{Duration, Instant};

use egress::audit::database::{Limits, Writer};
use egress::audit::reader::{Filter, Next, Reader};
use egress::audit::row::Row;

/// Rows of one transaction, as they come together in 20 ms of a busy sidecar.
const BATCH: i64 = 1000;
const HOSTS: i64 = 200;

fn main() {
    let rows = std::env::args().find_map(|argument| argument.parse().ok());
    let rows: i64 = rows.unwrap_or(1_000_000);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("audit.db");
    let (wall, cpu) = timed(|| write(&file, rows));
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
        latest: Some(100),
        ..Filter::default()
    };
    let (latest, wall) = found(&reader, &filter);
    println!("the latest {latest} of a host: {wall:.1?}");
    let all = Filter {
        latest: None,
        ..filter
    };
    let (every, wall) = found(&reader, &all);
    println!("all {every} of a host: {wall:.1?}");
    let (wall, _) = timed(|| _ = reader.verify(None).expect("a whole chain"));
    println!("verify: {wall:.1?}");
}

/// How many rows a filter finds, and in how long.
fn found(reader: &Reader, filter: &Filter) -> (usize, Duration) {
    let mut found = 0;
    let (wall, _) = timed(|| {
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
        writer.append(batch.map(row)).expect("room");
    }
}

fn row(number: i64) -> Row<'static> {
    Row {
        time: 1_795_973_510_000_000 + number * 1000,
        client: "10.1.0.7".into(),
        bottle: Some("blue".into()),
        method: "POST".into(),
        host: format!("h{}.example.com:443", number % HOSTS).into(),
        path: format!("/v1/things/{number}/parts").into(),
        route: Some(number % 40),
        verdict: "allowed".into(),
        code: "ok".into(),
        slot: Some("EGRESS_TOKEN_0".into()),
        credential: Some("0123456789ab".into()),
        status: 200,
        bytes_up: 1000,
        bytes_down: 2000,
        head_us: Some(1500),
        total_us: 1700,
        upstream: Some("203.0.113.7:443".into()),
        ..Row::default()
    }
}

/// How long it took, and how much of the processor.
fn timed(work: impl FnOnce()) -> (Duration, Duration) {
    let (begin, before) = (Instant::now(), cpu());
    work();
    (begin.elapsed(), cpu().saturating_sub(before))
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
