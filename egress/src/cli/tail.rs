//! `egress tail`: requests as they come to a running sidecar, over its admin socket, until interrupted.
//!
//! Nothing is read ahead: while nobody takes what is printed, the sidecar passes over what it does not keep any longer, and
//! says how much that was.

use std::io::{self, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Failure;
use super::audit::table::Shape;
use super::audit::{VerdictArg, times};
use super::output::stdout_is_closed;
use crate::admin::AdminAddress;
use crate::admin::events::Begin;
use crate::admin::watch::{Told, Watch};
use crate::audit::feed::Feed;
use crate::audit::object;
use crate::audit::row::Row;
use crate::outcome::Verdict;

/// Arguments of `egress tail`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The sidecar's admin socket: unix:PATH or IP:PORT
    #[arg(long, value_name = "ADDRESS", env = "EGRESS_ADMIN")]
    admin: AdminAddress,
    /// Refusals alone: short for --verdict denied
    #[arg(long, conflicts_with = "verdict")]
    denied: bool,
    /// What became of them
    #[arg(long, value_enum)]
    verdict: Option<VerdictArg>,
    /// Requests to this host, by its name or NAME:PORT
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Begin with what ended since this time, of the latest 1024: 5m or 2h ago, or 2026-11-29T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    since: Option<i64>,
    /// Print one JSON object a request, and {"gap": N} where N are missing
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  egress tail --admin unix:/run/bottle/admin.sock
  egress tail --denied --since 5m --json | jq -r .host

Where the sidecar goes away, it is waited for, and the requests go on from where they were.";

/// Prints requests until interrupted, or until nobody reads them.
///
/// # Errors
///
/// A runtime [`Failure`], where no sidecar answers at first, or one that cannot be watched.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let begin = match args.since {
        Some(_) => Begin::Kept,
        None => Begin::Now,
    };
    let mut tail = Tail {
        wanted: Wanted::of(args),
        shape: match args.json {
            true => Shape::Json,
            false => Shape::Table,
        },
        earlier: Earlier::Unknown,
        out: io::stdout().lock(),
    };
    let mut watch = Watch::new(args.admin.clone(), begin);
    runtime.block_on(async {
        loop {
            // Whoever reads has had enough, and nothing may come that would tell.
            let Some(told) = while_read(watch.next()).await else {
                return Ok(ExitCode::SUCCESS);
            };
            match tail.tell(&told?, &args.admin) {
                Ok(()) => {}
                // Whoever reads has had enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(ExitCode::SUCCESS);
                }
                Err(error) => {
                    let error = anyhow!(error).context("cannot write to stdout");
                    return Err(Failure::runtime(error));
                }
            }
        }
    })
}

/// What comes of it, or nothing once nobody reads stdout any more.
async fn while_read<T>(coming: impl Future<Output = T>) -> Option<T> {
    let mut coming = pin!(coming);
    loop {
        match timeout(LOOK, &mut coming).await {
            Ok(come) => return Some(come),
            Err(_) if stdout_is_closed() => return None,
            Err(_) => {}
        }
    }
}

/// How often it is looked whether anybody reads.
const LOOK: Duration = Duration::from_millis(200);

/// What is printed, and where.
struct Tail<W> {
    wanted: Wanted,
    shape: Shape,
    earlier: Earlier,
    out: W,
}

/// What is known of requests before the first one that is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Earlier {
    /// The sidecar was not heard yet.
    Unknown,
    /// There were some that it keeps no longer.
    Gone,
    /// There were none, or it does not matter any more.
    Settled,
}

impl<W: Write> Tail<W> {
    /// Data goes out, and what is said of it to stderr, where nobody need listen.
    fn tell(&mut self, told: &Told, admin: &AdminAddress) -> io::Result<()> {
        match told {
            Told::Up { earlier } => self.begin(*earlier),
            Told::Request(object) => self.request(object),
            Told::Gap(missed) => {
                note(format_args!(
                    "warning: {missed} requests are missing here: more came than the sidecar keeps for who reads slowly"
                ));
                match self.shape {
                    Shape::Json => writeln!(self.out, "{}", json!({ "gap": missed })),
                    _ => Ok(()),
                }
            }
            Told::Lost(reason) => {
                note(format_args!(
                    "warning: the sidecar on {admin} is gone: {reason}; waiting for it"
                ));
                Ok(())
            }
        }
    }

    fn begin(&mut self, earlier: u64) -> io::Result<()> {
        if self.earlier != Earlier::Unknown {
            note(format_args!("note: the sidecar is back"));
            return Ok(());
        }
        self.earlier = match earlier > 0 && self.wanted.since.is_some() {
            true => Earlier::Gone,
            false => Earlier::Settled,
        };
        self.shape.head(&mut self.out)
    }

    fn request(&mut self, object: &Value) -> io::Result<()> {
        let Some(row) = object::row(object) else {
            note(format_args!(
                "warning: a request was told in a form that is not known"
            ));
            return Ok(());
        };
        let is_since = self.wanted.is_since(&row);
        if std::mem::replace(&mut self.earlier, Earlier::Settled) == Earlier::Gone && is_since {
            note(format_args!(
                "note: there may have been earlier ones: the sidecar keeps the latest {}, an audit file has all",
                Feed::KEPT
            ));
        }
        if !is_since || !self.wanted.takes(&row) {
            return Ok(());
        }
        match self.shape {
            // As the sidecar gives it: with what a later one may add.
            Shape::Json => writeln!(self.out, "{object}"),
            shape => shape.row(&mut self.out, &row),
        }
    }
}

/// Not by `eprintln!`, which panics where nobody can be told.
fn note(text: std::fmt::Arguments<'_>) {
    _ = writeln!(io::stderr().lock(), "{text}");
}

/// Which requests are printed.
#[derive(Debug)]
struct Wanted {
    verdict: Option<Verdict>,
    host: Option<String>,
    since: Option<i64>,
}

impl Wanted {
    fn of(args: &Args) -> Self {
        Self {
            verdict: match args.denied {
                true => Some(Verdict::Denied),
                false => args.verdict.map(Verdict::from),
            },
            host: args.host.as_deref().map(str::to_ascii_lowercase),
            since: args.since,
        }
    }

    /// By its end: what began long ago and ends now comes now.
    fn is_since(&self, row: &Row<'_>) -> bool {
        let ended = row.time.saturating_add(row.total_us);
        self.since.is_none_or(|since| ended >= since)
    }

    fn takes(&self, row: &Row<'_>) -> bool {
        let is_verdict = |verdict: Verdict| row.verdict == verdict.as_str();
        let is_host = |host: &String| {
            let rest = row.host.strip_prefix(host.as_str());
            rest.is_some_and(|rest| {
                rest.is_empty() || (rest.starts_with(':') && !host.contains(':'))
            })
        };
        self.verdict.is_none_or(is_verdict) && self.host.as_ref().is_none_or(is_host)
    }
}

#[cfg(test)]
mod tests {
    use super::Wanted;
    use crate::audit::row::Row;
    use crate::outcome::Verdict;

    #[test]
    fn a_host_is_wanted_by_its_whole_name_and_with_its_port_by_that_alone() {
        let takes = |wanted: &str, host: &str| {
            let wanted = Wanted {
                verdict: None,
                host: Some(wanted.into()),
                since: None,
            };
            let row = Row {
                host: host.into(),
                ..Row::default()
            };
            wanted.takes(&row)
        };
        assert!(takes("api.test", "api.test:443"));
        assert!(takes("api.test:443", "api.test:443"));
        assert!(takes("api.test", "api.test"), "a lookup has no port");
        assert!(!takes("api.test:44", "api.test:443"));
        assert!(!takes("api.tes", "api.test:443"));
        assert!(!takes("pi.test", "api.test:443"));
    }

    #[test]
    fn a_request_is_since_its_end_and_has_one_verdict() {
        let wanted = Wanted {
            verdict: Some(Verdict::Denied),
            host: None,
            since: Some(100),
        };
        let row = |time, total_us| Row {
            time,
            total_us,
            verdict: "denied".into(),
            ..Row::default()
        };
        assert!(wanted.is_since(&row(90, 10)));
        assert!(!wanted.is_since(&row(90, 9)));
        assert!(wanted.takes(&row(0, 0)));
        let allowed = Row {
            verdict: "allowed".into(),
            ..row(0, 0)
        };
        assert!(!wanted.takes(&allowed));
    }
}
