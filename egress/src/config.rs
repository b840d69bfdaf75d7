//! Files that an operator writes, read into the program's own types. YAML is known nowhere else.
//!
//! A file is right as a whole or not at all, and everything that is wrong with it is told at once ([`Faults`]).

pub mod agents;
mod authority;
pub mod cases;
mod conflicts;
mod document;
mod fault;
mod fields;
mod keys;
pub mod manifest;
pub(crate) mod pasted;
mod paths;
pub mod presets;
pub mod render;
mod report;
mod routes_file;
mod rule;
pub mod sarif;
pub mod schema;
mod source;
mod values;

use std::path::Path;

use self::source::Source;
use crate::confine;

pub use fault::{Fault, Faults, Related, Span};
pub use report::Colour;
pub use routes_file::{Draft, RoutesFile, load, parse, read};

/// A file of either kind.
#[derive(Debug)]
pub enum Either {
    /// A routes file, whatever is wrong with it.
    Routes(Draft),
    /// A manifest.
    Manifest(Result<manifest::Manifest, Faults>),
}

/// Reads a file that may be a routes file or a manifest; `-` is standard input.
pub fn read_either(path: &Path) -> Either {
    match Source::read(path, "file") {
        Ok(source) if manifest::is_one(&source) => Either::Manifest(manifest::of(&source)),
        Ok(source) => Either::Routes(Draft::of(&source)),
        Err(fault) => Either::Routes(Draft::unreadable(path, *fault)),
    }
}

/// What the system says about a file that cannot be read, without its number.
fn reason(path: &Path, error: &std::io::Error) -> String {
    let text = confine::reason(path, error);
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    // Ours are lower-case fragments.
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests;
