//! What the process gives up before it listens, so that other processes of the same user cannot look into it.

#[cfg(target_os = "linux")]
pub mod filter;

use std::fmt;

/// One measure, and whether it is in force.
#[derive(Clone, Debug)]
pub struct Measure {
    /// What it is called.
    pub name: &'static str,
    /// Whether it holds.
    pub state: MeasureState,
}

/// Whether a measure holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeasureState {
    /// It does.
    On,
    /// The system refused it.
    Off(String),
    /// The platform has nothing like it.
    Unsupported,
}

impl fmt::Display for MeasureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => f.write_str("on"),
            Self::Off(reason) => write!(f, "off ({reason})"),
            Self::Unsupported => f.write_str("unsupported"),
        }
    }
}

/// Takes every measure that the platform has.
///
/// A process that is not dumpable cannot be traced by its own user, and its files under `/proc` belong to root
/// (prctl(2), PR_SET_DUMPABLE). Without a core file no crash writes the slots to a disk.
pub fn apply() -> Vec<Measure> {
    vec![
        Measure {
            name: "not dumpable",
            state: not_dumpable(),
        },
        Measure {
            name: "no core files",
            state: no_core_files(),
        },
    ]
}

#[cfg(target_os = "linux")]
fn not_dumpable() -> MeasureState {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    match set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        Ok(()) => MeasureState::On,
        Err(error) => MeasureState::Off(error.to_string()),
    }
}

#[cfg(not(target_os = "linux"))]
fn not_dumpable() -> MeasureState {
    MeasureState::Unsupported
}

fn no_core_files() -> MeasureState {
    use rustix::process::{Resource, Rlimit, setrlimit};
    match setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    ) {
        Ok(()) => MeasureState::On,
        Err(error) => MeasureState::Off(error.to_string()),
    }
}

/// Raises the number of files that may be open to the most that is allowed. A connection through the sidecar takes two,
/// and the usual soft limit of 1,024 is the one of programs that use select(2).
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // A refusal leaves the limit as it was, and the accept loop says so when it is met.
        _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        );
    }
}
