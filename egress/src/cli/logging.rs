//! The log: standard error, as text for people or JSON for programs.
//!
//! A disk that is full, or a pipe that nobody reads or whose reader stands still, costs records, which are counted, and never
//! the process. No thread but the log's own waits for it.

mod line;
mod queue;

use std::io::{self, IsTerminal as _, Write};
use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use tracing_subscriber::filter::{LevelFilter, Targets};

use self::line::Lines;
use self::queue::{Batch, Queue};
use crate::audit::Audit;
use crate::audit::object::rfc3339;

/// The log's form.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// One line an event, for people
    #[default]
    Text,
    /// One JSON object an event
    Json,
}

/// What is logged: a level, levels of modules as in `egress=debug,hyper=warn`, or both. What none names is at `info`.
#[derive(Clone, Debug)]
pub(super) struct LogFilter(Targets);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut targets = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target(TELLTALE, LevelFilter::INFO);
        for directive in text.split(',') {
            targets = match (level(directive), directive.split_once('=')) {
                (Some(level), _) => targets.with_default(level),
                (None, Some((module, _))) if is_telltale(module) => return Err(KEPT_QUIET.into()),
                (None, Some((module, of))) if is_module(module) => {
                    targets.with_target(module, level(of).ok_or(EXPECTED)?)
                }
                _ => return Err(EXPECTED.into()),
            };
        }
        Ok(Self(targets))
    }
}

/// The library that prints frames as they came: an upstream can have written the credential into one.
const TELLTALE: &str = "h2";
const KEPT_QUIET: &str =
    "h2 prints what upstreams send, which may be the credential, and tells no more than at info";

fn is_telltale(module: &str) -> bool {
    module.split("::").next() == Some(TELLTALE)
}

const EXPECTED: &str =
    "expected a level (off, error, warn, info, debug, trace), or MODULE=LEVEL, with commas between";

/// A level by its name. The library's own reading would take numbers, and nothing at all, too.
fn level(text: &str) -> Option<LevelFilter> {
    let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_name.then(|| text.parse().ok()).flatten()
}

/// Whether a text is the path of a module, as in `egress::request`.
fn is_module(text: &str) -> bool {
    text.split("::").all(|part| {
        let mut bytes = part.bytes();
        let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        bytes.next().is_some_and(is_letter)
            && bytes.all(|byte| is_letter(byte) || byte.is_ascii_digit())
    })
}

/// Begins logging. What cannot be written is counted in `audit`.
///
/// Each record is written at once until [`Logging::detach`] is called.
pub(super) fn begin(format: LogFormat, filter: LogFilter, audit: Arc<Audit>) -> Logging {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let log = Arc::new(Log {
        format,
        audit,
        gap: Mutex::default(),
        queue: OnceLock::new(),
    });
    let is_coloured = io::stderr().is_terminal() && !no_colour;
    let lines = Lines::new(log.clone(), format, filter, is_coloured);
    tracing::subscriber::set_global_default(lines).expect("logging begins once");
    std::panic::set_hook(Box::new(log_panic));
    Logging(log)
}

/// The log of a process that runs.
#[derive(Clone)]
pub(super) struct Logging(Arc<Log>);

/// Waits for the log where it is dropped, which is at the end of the process.
pub(super) struct LastWords(Logging);

/// How long the end of the process waits for the log.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Logging {
    /// Leaves the writing to a thread of its own. What a thread may do is settled when it begins: call it once the process is
    /// confined.
    ///
    /// # Errors
    ///
    /// The system's, where it gives no thread. Records are then written as before.
    pub(super) fn detach(&self) -> io::Result<()> {
        let (log, queue) = (self.0.clone(), Arc::new(Queue::new()));
        let records = queue.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                loop {
                    let batch = records.next();
                    log.put(&mut Stderr, &batch);
                    records.written(&batch);
                }
            })?;
        _ = self.0.queue.set(queue);
        Ok(())
    }

    /// Has the end of the process wait for what is not written yet, also where it ends by an error or a panic.
    pub(super) fn last_words(&self) -> LastWords {
        LastWords(self.clone())
    }

    /// Waits until all that was logged so far is written, but not for longer than a second.
    pub(super) fn flush(&self) {
        if let Some(queue) = self.0.queue.get() {
            queue.flush(LAST_WORDS);
        }
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Standard error without the lock of the standard library's: whoever reports a failure at the end of the process must not
/// wait for a record that nobody takes.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs a defect. A message that was put together at run time may hold what it is about, and is left out; the place is
/// enough to find it by.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload().downcast_ref::<&'static str>();
    let place = panic.location().map(ToString::to_string);
    tracing::error!(
        place,
        message,
        "a defect of egress: what this thread was at is given up"
    );
}

struct Log {
    format: LogFormat,
    audit: Arc<Audit>,
    gap: Mutex<Gap>,
    /// Where records wait for the thread that writes them, once there is one.
    queue: OnceLock<Arc<Queue>>,
}

/// What is missing at the end of the log.
#[derive(Default)]
struct Gap {
    /// Records that could not be written since the last one that could.
    lost: u64,
    /// The last one was begun, and is no whole line.
    torn: bool,
}

impl Log {
    /// Takes one record, to be written now or soon.
    fn take(&self, record: &[u8]) {
        match self.queue.get() {
            None => self.put(&mut Stderr, &Batch::of(record)),
            Some(queue) if queue.push(record) => {}
            Some(_) => self.count_lost(1),
        }
    }

    fn count_lost(&self, records: u64) {
        let lost = &self.audit.counters.log_records_lost;
        lost.fetch_add(records, Ordering::Relaxed);
    }

    /// Writes records, and before them how many are missing.
    fn put(&self, output: &mut impl Write, batch: &Batch) {
        let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        gap.lost += batch.lost;
        if gap.lost > 0 {
            let notice = self.notice(gap.lost);
            if gap.write(output, notice.as_bytes(), &[notice.len()]) == 1 {
                gap.lost = 0;
            }
        }
        let whole = match gap.lost {
            0 => gap.write(output, &batch.bytes, &batch.ends),
            _ => 0,
        };
        let lost = (batch.ends.len() - whole) as u64;
        gap.lost += lost;
        self.count_lost(lost);
    }

    fn notice(&self, lost: u64) -> String {
        let (time, text) = (
            rfc3339(SystemTime::now()),
            "records of the log could not be written",
        );
        match self.format {
            LogFormat::Text => format!("{time}  WARN egress::log: {text} lost={lost}\n"),
            LogFormat::Json => format!(
                "{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\"{text}\",\"lost\":{lost},\"target\":\"egress::log\"}}\n"
            ),
        }
    }
}

impl Gap {
    /// Writes lines that end at `ends`, the first of them on a line of its own. Returns how many were written whole.
    fn write(&mut self, output: &mut impl Write, lines: &[u8], ends: &[usize]) -> usize {
        if self.torn && fill(output, b"\n") == 0 {
            return 0;
        }
        let written = fill(output, lines);
        let whole = ends.partition_point(|end| *end <= written);
        let last = whole.checked_sub(1).and_then(|last| ends.get(last));
        self.torn = last.copied().unwrap_or(0) < written;
        whole
    }
}

/// Writes as many of the bytes as the output takes.
fn fill(output: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest @ [_, ..]) = bytes.get(written..) {
        match output.write(rest) {
            Ok(more @ 1..) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, Mutex, OnceLock};

    use tracing::Level;

    use super::{Batch, Gap, Log, LogFilter, LogFormat};
    use crate::audit::Audit;

    /// A disk with room for so many bytes.
    struct Disk(Vec<u8>, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.1 - self.0.len());
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend_from_slice(bytes.get(..fits).unwrap());
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_library_that_prints_what_upstreams_send_is_kept_quiet() {
        for text in ["trace", "debug,egress=trace", "egress=debug,trace"] {
            let LogFilter(targets) = text.parse().unwrap();
            assert!(targets.would_enable("hyper::proto", &Level::DEBUG) || text.contains(','));
            assert!(
                !targets.would_enable("h2::codec::framed_read", &Level::DEBUG),
                "{text}"
            );
        }
        for text in ["h2=debug", "info,h2::codec=trace", "h2=off"] {
            assert!(
                text.parse::<LogFilter>()
                    .unwrap_err()
                    .contains("credential")
            );
        }
    }

    #[test]
    fn what_a_full_disk_did_not_take_is_counted_and_told_once_it_has_room() {
        let records = [&b"first\n"[..], b"second\n", b"third\n", b"fourth\n"];
        let alone = records.map(Batch::of).into();
        let together = vec![
            records
                .into_iter()
                .fold(Batch::default(), |mut all, record| {
                    all.push(record);
                    all
                }),
        ];
        for (format, batches) in [(LogFormat::Text, alone), (LogFormat::Json, together)] {
            let audit = Arc::new(Audit::default());
            let log = Log {
                format,
                audit: audit.clone(),
                gap: Mutex::new(Gap::default()),
                queue: OnceLock::new(),
            };
            let lost = || audit.counters.log_records_lost.load(Ordering::Relaxed);
            let mut disk = Disk(Vec::new(), 10);
            for batch in &batches {
                log.put(&mut disk, batch);
            }
            assert_eq!((disk.0.as_slice(), lost()), (&b"first\nseco"[..], 3));
            disk.1 = 1000;
            log.put(&mut disk, &Batch::of(b"fifth\n"));
            log.put(&mut disk, &Batch::of(b"sixth\n"));
            let text = String::from_utf8(disk.0).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let [first, torn, told, fifth, sixth] = lines.as_slice() else {
                panic!("{text}");
            };
            assert_eq!(
                (*first, *torn, *fifth, *sixth),
                ("first", "seco", "fifth", "sixth")
            );
            assert!(told.contains("could not be written"), "{told}");
            match format {
                LogFormat::Text => assert!(told.ends_with(" lost=3"), "{told}"),
                LogFormat::Json => {
                    let told: serde_json::Value = serde_json::from_str(told).unwrap();
                    assert_eq!(told["lost"], 3);
                }
            }
            assert_eq!(lost(), 3);
        }
    }

    #[test]
    fn what_no_directive_names_is_logged_at_info() {
        let LogFilter(targets) = "egress=debug,hyper=off".parse().expect("a filter");
        assert!(targets.would_enable("egress::proxy", &Level::DEBUG));
        assert!(!targets.would_enable("hyper", &Level::ERROR));
        assert!(targets.would_enable("h2", &Level::INFO));
        assert!(!targets.would_enable("h2", &Level::DEBUG));
    }

    #[test]
    fn a_filter_that_would_not_do_what_it_says_is_refused() {
        for text in [
            "",
            ",",
            "debug,",
            ",debug",
            "debug,,egress=info",
            " debug",
            "inf",
            "3",
            "nonsense!!",
            "egress",
            "egress=",
            "=debug",
            "egress=loud",
            "egress==debug",
            "egress=5",
            "egress::=debug",
            "egress:request=debug",
            "1egress=debug",
            "egress[span]=debug",
            "egress[{field}]=debug",
            "a=b=c",
        ] {
            assert!(text.parse::<LogFilter>().is_err(), "{text}");
        }
        for text in ["WARN", "egress::request=off", "info,_a1::b=trace"] {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
        let LogFilter(off) = "off".parse().expect("a filter");
        assert!(!off.would_enable("egress", &Level::ERROR));
    }
}
