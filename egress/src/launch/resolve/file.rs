//! `file:PATH`: a credential that stands alone in a file of the host.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{Problem, line_of};
use crate::credential::Secret;
use crate::launch::Host;

/// Reads a regular file of at most `most` bytes, with `~` expanded and its trailing newline cut.
pub(super) fn read(path: &Path, most: usize, host: &Host<'_>) -> Result<Secret, Problem> {
    let Some(path) = host.expand(path) else {
        return Err(Problem::new("`~` cannot be expanded: HOME is not set").hint("set HOME"));
    };
    let failed = |error: std::io::Error| Problem::new(format!("cannot be read: {error}"));
    // Without blocking, since a FIFO that nobody writes to would hold the launch for ever.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Problem::new("is not a regular file"));
    }
    // Room for the whole of it from the start: a buffer that grows leaves copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 64));
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > most {
        return Err(Problem::new(format!("is larger than {most} bytes")));
    }
    line_of(&bytes)
}
