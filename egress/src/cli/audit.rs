//! `egress audit`: the rows of an audit file, for people and programs, and the proof that they are as they were written.

pub(super) mod table;
pub(super) mod times;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::Value;

use self::table::Shape;
use super::output::stdout_is_closed;
use super::{Failure, print};
use crate::audit::database::{self, earlier_files};
use crate::audit::id::RequestId;
use crate::audit::object::object;
use crate::audit::reader::{Filter, Next, Reader, Unproven, Verified};
use crate::audit::row::{Link, Row};
use crate::outcome::Verdict;

/// Arguments of `egress audit`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = EXAMPLES
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    query: QueryArgs,
}

const EXAMPLES: &str = "\
Examples:
  egress audit egress.db --verdict denied --since 10m
  egress audit egress.db --host api.github.com --json | jq -r .path
  egress audit egress.db --follow
  egress audit verify egress.db";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prove that no row was changed, put in or taken out
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct QueryArgs {
    /// The audit file, as `egress serve --audit` names it
    #[arg(value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    /// Requests to this host, by its name or NAME:PORT
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// What became of them
    #[arg(long, value_enum)]
    verdict: Option<VerdictArg>,
    /// The one request that an agent was told this id of, as `request_id`
    #[arg(long, value_name = "ID")]
    id: Option<RequestId>,
    /// The code, as in `x-egress-error`
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// The client's address, or `unix`
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// A part of the host, the path, the query or the detail, in capitals or not
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Not before this time: 10m or 2h ago, or 2026-11-29T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    since: Option<i64>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    until: Option<i64>,
    /// The latest so many; 0 is all
    #[arg(long, value_name = "N", default_value_t = 100)]
    latest: usize,
    /// Print one JSON object a row
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values (RFC 4180), with a line of names
    #[arg(long)]
    csv: bool,
    /// Go on with rows as they are written, until interrupted
    #[arg(short, long, conflicts_with = "until")]
    follow: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = VERIFY_EXAMPLES)]
struct VerifyArgs {
    /// The audit file. The files before it, as they were moved away, are part of the same chain and are verified with it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The link of a row that was noted earlier, as this command prints it: that it is still in the chain proves that no row up
    /// to it was cut off
    #[arg(long, value_name = "LINK", value_parser = link)]
    has: Option<Link>,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  egress audit verify egress.db
  egress audit verify egress.db --has \"$(cat noted)\"

Exit status: 0 nothing was changed, 1 something was.";

/// A verdict, as it is written on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum VerdictArg {
    /// A route admitted it, and the upstream answered
    Allowed,
    /// No route admits it, or its form is ambiguous
    Denied,
    /// It was admitted, and then a credential or the upstream failed
    Failed,
}

impl From<VerdictArg> for Verdict {
    fn from(verdict: VerdictArg) -> Self {
        match verdict {
            VerdictArg::Allowed => Self::Allowed,
            VerdictArg::Denied => Self::Denied,
            VerdictArg::Failed => Self::Failed,
        }
    }
}

/// Prints rows, or verifies them.
pub fn run(args: Args) -> Result<ExitCode, Failure> {
    match (args.command, args.query.file.clone()) {
        (Some(Command::Verify(args)), _) => verify(&args),
        (None, Some(file)) => query(&file, &args.query),
        // Not reached: clap demands the file.
        (None, None) => Err(Failure::usage(anyhow!("no audit file is named"))),
    }
}

fn query(file: &Path, args: &QueryArgs) -> Result<ExitCode, Failure> {
    let shape = match (args.json, args.csv) {
        (true, _) => Shape::Json,
        (_, true) => Shape::Csv,
        _ => Shape::Table,
    };
    let mut filter = Filter {
        host: args.host.clone(),
        verdict: args.verdict.map(Verdict::from),
        code: args.code.clone(),
        client: args.client.clone(),
        text: args.text.clone(),
        since: args.since,
        until: args.until,
        id: args.id,
        after: None,
    };
    let mut latest = (args.latest > 0).then_some(args.latest);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut printed = Ok(());
    let mut is_begun = false;
    loop {
        let mut last = None;
        filter.after = after_gap(file, filter.after)?;
        for (file, filter) in portions(file, &filter, latest)? {
            // Before the head: where there is nothing to read, nothing is printed.
            let reader = Reader::open(&file).map_err(unreadable)?;
            if !is_begun {
                printed = shape.head(&mut out);
                is_begun = true;
            }
            last = rows(&reader, &filter, shape, &mut out, &mut printed)?.or(last);
        }
        match printed {
            // Whoever reads has had enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                let error = anyhow!(error).context("cannot write to stdout");
                return Err(Failure::runtime(error));
            }
            Ok(()) if !args.follow => {
                if last.is_none() {
                    eprintln!("note: no row is so");
                }
                break;
            }
            // The same, where nothing is written that would tell.
            Ok(()) if stdout_is_closed() => break,
            Ok(()) => {}
        }
        // From the end of the file, where nothing that was asked for was there: what is written next is larger.
        filter.after = last.or(filter.after);
        latest = None;
        thread::sleep(LOOK);
    }
    Ok(ExitCode::SUCCESS)
}

/// From which row on there are some. Says on stderr what is gone, where files were removed before their rows were read.
fn after_gap(file: &Path, after: Option<i64>) -> Result<Option<i64>, Failure> {
    let (Some(after), Some((_, earliest))) = (after, chain(file)?.into_iter().next()) else {
        return Ok(after);
    };
    let first = Reader::open(&earliest).and_then(|reader| reader.begins_after());
    let before = first.map_err(unreadable)?;
    if before > after {
        eprintln!("note: the rows from {} to {before} are gone", after + 1);
    }
    Ok(Some(after.max(before)))
}

/// Which files have what is asked for, the earliest first, and from which row on in each.
fn portions(
    file: &Path,
    filter: &Filter,
    mut missing: Option<usize>,
) -> Result<Vec<(PathBuf, Filter)>, Failure> {
    let mut portions = Vec::new();
    for (number, file) in chain(file)?.into_iter().rev() {
        if number.is_some_and(|last| filter.after.is_some_and(|after| last <= after)) {
            break;
        }
        let mut of_file = filter.clone();
        if let Some(missing) = &mut missing {
            let (found, first) = Reader::open(&file)
                .and_then(|reader| reader.latest(filter, *missing))
                .map_err(unreadable)?;
            *missing -= found;
            of_file.after = first.map(|first| first - 1).or(of_file.after);
        }
        portions.push((file, of_file));
        if missing == Some(0) {
            break;
        }
    }
    portions.reverse();
    Ok(portions)
}

/// All files of a name with the number of the last row of each, the earliest first; the one that is written has none.
fn chain(file: &Path) -> Result<Vec<(Option<i64>, PathBuf)>, Failure> {
    let mut files = earlier_files(file)
        .with_context(|| format!("the directory of {}", file.display()))
        .map_err(Failure::runtime)?;
    files.sort();
    let earlier = files.into_iter().map(|(number, file)| (Some(number), file));
    Ok(earlier.chain([(None, file.to_owned())]).collect())
}

/// How often `--follow` looks. Each look opens the file anew: whoever holds it open keeps the sidecar from beginning the next.
const LOOK: Duration = Duration::from_millis(200);

/// Hands all rows of an audit file, and of those before it, to `take` as objects.
///
/// # Errors
///
/// A runtime [`Failure`] for a file that cannot be read.
pub(super) fn each(file: &Path, take: impl FnMut(Value)) -> Result<(), Failure> {
    every(file, &Filter::default(), take)
}

/// Hands the row of a refusal to `take`, where there is one.
///
/// # Errors
///
/// A runtime [`Failure`] for a file that cannot be read.
pub(super) fn named(file: &Path, id: RequestId, take: impl FnMut(Value)) -> Result<(), Failure> {
    let filter = Filter {
        id: Some(id),
        ..Filter::default()
    };
    every(file, &filter, take)
}

/// The rows that are asked for, of all files of the name.
fn every(file: &Path, filter: &Filter, mut take: impl FnMut(Value)) -> Result<(), Failure> {
    for (_, file) in chain(file)? {
        let reader = Reader::open(&file).map_err(unreadable)?;
        let take = |row: &Row<'_>| {
            take(object(row));
            Next::More
        };
        reader.rows(filter, take).map_err(unreadable)?;
    }
    Ok(())
}

/// Prints the rows of a look, and returns the number of the last one.
fn rows(
    reader: &Reader,
    filter: &Filter,
    shape: Shape,
    out: &mut impl Write,
    printed: &mut io::Result<()>,
) -> Result<Option<i64>, Failure> {
    let mut last = None;
    let take = |row: &Row<'_>| {
        last = Some(row.number);
        *printed = shape.row(out, row);
        match printed {
            Ok(()) => Next::More,
            Err(_) => Next::Enough,
        }
    };
    reader.rows(filter, take).map_err(unreadable)?;
    if printed.is_ok() {
        *printed = out.flush();
    }
    Ok(last)
}

/// Verifies the chain over all files of the name, the earliest first.
fn verify(args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let mut before: Option<Verified> = None;
    let mut first = 0;
    let mut has = args.has.is_none();
    for (_, file) in chain(&args.file)? {
        let reader = Reader::open(&file).map_err(unreadable)?;
        let verified = match reader.verify(args.has) {
            Ok(verified) => verified,
            Err(Unproven::File(error)) => return Err(unreadable(error)),
            Err(broken) => return broken_chain(&file, &broken.to_string()),
        };
        match before {
            None => first = verified.before.number + 1,
            Some(before) if before.last == verified.before => {}
            Some(before) => {
                let problem = format!(
                    "it does not go on from row {}, where the file before it ends",
                    before.last.number
                );
                return broken_chain(&file, &problem);
            }
        }
        has |= verified.has && args.has.is_some();
        before = Some(verified);
    }
    let last = before.map(|verified| verified.last).unwrap_or_default();
    if !has {
        return broken_chain(
            &args.file,
            "the link of --has is not in the chain: rows were cut off, or all were written anew",
        );
    }
    let rows = last.number + 1 - first;
    // Rotation removes the oldest files, and whoever makes many rows can have it do so.
    let gone = match first {
        ..=1 => String::new(),
        first => format!(
            "note: rows 1 to {} are in earlier files that are not here\n",
            first - 1
        ),
    };
    print(&format!(
        "ok: {rows} rows, up to number {}\n{gone}link: {}\n",
        last.number,
        last.link.hex()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// A file that cannot be read, with what its reader can do.
fn unreadable(error: database::Error) -> Failure {
    let hint = error.reading_hint();
    Failure::runtime(error).hint(hint)
}

fn broken_chain(file: &Path, problem: &str) -> Result<ExitCode, Failure> {
    print(&format!("BROKEN: {}: {problem}\n", file.display()))?;
    Ok(ExitCode::FAILURE)
}

fn link(text: &str) -> Result<Link, &'static str> {
    Link::parse(text).ok_or("expected the 64 hexadecimal digits that `egress audit verify` prints")
}
