//! The audit file of a sidecar: where it is, what goes into it, and how much is kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::Failure;
use super::super::limits::{Size, span, up_to};
use crate::audit::Audit;
use crate::audit::database::{Limits, Writer};
use crate::audit::journal::{Demand, Journal};
use crate::file::directory_of;

/// Arguments about the audit file.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Audit")]
pub(super) struct AuditArgs {
    /// Write a row for each request into this file, an SQLite database that is made where it is missing; `egress audit` reads it
    #[arg(long, value_name = "FILE")]
    pub(super) audit: Option<PathBuf>,
    /// Refuse requests while the audit file cannot be written
    #[arg(long, requires = "audit")]
    audit_required: bool,
    /// Keep the queries of requests, too, which may hold what is private
    #[arg(long, requires = "audit")]
    audit_query: bool,
    /// The bottle's name, for a column of its own
    #[arg(long, value_name = "NAME", requires = "audit")]
    audit_bottle: Option<String>,
    /// Begin the next file at this size. The one before is moved to FILE.N.db, N being the number of its last row
    #[arg(long, value_name = "SIZE", default_value = "1GiB", requires = "audit")]
    audit_max_size: Size,
    /// Begin the next file when the first row is so old
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = span, requires = "audit")]
    audit_max_age: Duration,
    /// Files that are kept beside the one that is written
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = up_to(100_000), requires = "audit")]
    audit_keep: usize,
}

impl AuditArgs {
    /// Opens the file, before the process encloses itself and tells anybody that it is ready.
    pub(super) fn open(&self) -> Result<Option<Writer>, Failure> {
        let Some(path) = &self.audit else {
            return Ok(None);
        };
        let limits = Limits {
            size: self.audit_max_size.bytes(),
            age: self.audit_max_age,
            kept: self.audit_keep,
        };
        Ok(Some(Writer::open(path, limits)?))
    }

    /// Begins to write, on a thread that keeps to what the process may do from now on.
    pub(super) fn begin(&self, writer: Writer, audit: &Audit) -> Result<(), Failure> {
        let demand = match self.audit_required {
            true => Demand::Required,
            false => Demand::Wanted,
        };
        let journal = Journal::begin(writer, self.audit_bottle.clone(), demand, self.audit_query);
        audit.write_to(journal.map_err(Failure::runtime)?);
        Ok(())
    }

    /// The directory of the file, in which others are made, moved and removed.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.audit.as_deref().map(directory_of)
    }
}
