//! The text of a file, with its name and the directory that names in it are relative to.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::Fault;
use crate::file::{directory_of, open_regular};

/// The largest file, in bytes: room for more than 100,000 routes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A file that was read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Its name, as it was given.
    pub(super) name: Arc<str>,
    /// What stands in it.
    pub(super) text: Arc<str>,
    /// Where it is.
    pub(super) directory: PathBuf,
}

impl Source {
    /// Reads a file; `-` is standard input. `what` names it in faults: `routes file`.
    pub(super) fn read(path: &Path, what: &str) -> Result<Self, Box<Fault>> {
        if path == Path::new("-") {
            return Ok(Self {
                name: "standard input".into(),
                text: read_text(Ok(io::stdin().lock()), path, what)?.into(),
                directory: PathBuf::from("."),
            });
        }
        Ok(Self {
            name: path.display().to_string().into(),
            text: read_text(open_regular(path), path, what)?.into(),
            directory: directory_of(path).into(),
        })
    }
}

fn read_text(reader: io::Result<impl Read>, path: &Path, what: &str) -> Result<String, Box<Fault>> {
    let fault = |problem: String| Box::new(Fault::of_file(problem));
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            let hint =
                "name one that does, or write it; a relative name starts at the working directory";
            Box::new(Fault::of_file(format!("the {what} does not exist")).hint(hint))
        }
        kind => {
            let reason = super::reason(path, &error);
            let unread = Fault::of_file(format!("the {what} cannot be read: {reason}"));
            Box::new(match kind {
                io::ErrorKind::IsADirectory => unread.hint("name a file in it"),
                _ => unread,
            })
        }
    };
    let mut bytes = Vec::new();
    reader
        .and_then(|reader| reader.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(fault(format!(
            "the {what} is larger than {MAX_BYTES} bytes"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error
            .as_bytes()
            .iter()
            .take(valid)
            .filter(|byte| **byte == b'\n')
            .count();
        fault(format!("the {what} is not UTF-8, in line {line}"))
    })
}
