//! What the process gives up before it listens, so that other processes of the same user cannot look into it, and whoever
//! takes it over can do no more than it does.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod fence;
#[cfg(target_os = "linux")]
pub mod filter;
#[cfg(all(target_os = "linux", debug_assertions))]
pub mod probe;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

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
    /// It does not, and why.
    Off(String),
    /// The platform has nothing like it.
    Unsupported,
}

impl MeasureState {
    fn of<E: fmt::Display>(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::On,
            Err(error) => Self::Off(error.to_string()),
        }
    }
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

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.state)
    }
}

/// Closes the process to others, before it takes a secret in.
///
/// A process that is not dumpable cannot be traced by its own user, and its files under `/proc` belong to root
/// (prctl(2), PR_SET_DUMPABLE). Without a core file no crash writes the slots to a disk; a core that the kernel pipes to a
/// program is not limited by RLIMIT_CORE (core(5)), but there is none of a process that is not dumpable.
pub fn close() -> Vec<Measure> {
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

/// The same for a launcher, which holds the host's credentials: what it starts may have core files, and is as open as ever,
/// since a process begins anew with its program.
///
/// Where it fails, nothing is lost that there was before.
pub fn close_launcher() {
    _ = not_dumpable();
}

#[cfg(target_os = "linux")]
fn not_dumpable() -> MeasureState {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    MeasureState::of(set_dumpable_behavior(DumpableBehavior::NotDumpable))
}

#[cfg(not(target_os = "linux"))]
fn not_dumpable() -> MeasureState {
    MeasureState::Unsupported
}

fn no_core_files() -> MeasureState {
    use rustix::process::{Resource, Rlimit, setrlimit};
    MeasureState::of(setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    ))
}

/// What the process still needs once it is enclosed.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Files that are read again, each of which may be replaced by another of its name.
    pub files: Vec<PathBuf>,
    /// Unix sockets that are made and removed.
    pub sockets: Vec<PathBuf>,
    /// TCP ports that are listened on; 0 is one that the system chooses.
    pub ports: Vec<u16>,
    /// A directory in which files are made, written, moved and removed.
    pub written: Option<PathBuf>,
}

/// Gives up everything else: new privileges, other files, ports and processes, and the system calls of other programs.
///
/// Call it before a second thread runs: what the kernel takes away, it takes from the calling thread and from those that
/// are started later.
pub fn enclose(needs: &Needs) -> Vec<Measure> {
    let [privileges, files, ports, processes, calls] = taken(needs);
    let measure = |name, state| Measure { name, state };
    vec![
        measure("no new privileges", privileges),
        measure("own files only", files),
        measure("own ports only", ports),
        measure("own processes only", processes),
        measure("own system calls only", calls),
    ]
}

#[cfg(target_os = "linux")]
fn taken(needs: &Needs) -> [MeasureState; 5] {
    // First, since the others are for those alone who have no way to get more.
    let privileges = MeasureState::of(rustix::thread::set_no_new_privs(true));
    let fence = fence::raise(needs);
    let calls = match calls::filters(needs.written.is_some()) {
        Ok(filters) => MeasureState::of(
            filters
                .iter()
                .try_for_each(|filter| seccompiler::apply_filter(filter)),
        ),
        Err(error) => MeasureState::Off(error.to_string()),
    };
    [privileges, fence.files, fence.ports, fence.processes, calls]
}

#[cfg(not(target_os = "linux"))]
fn taken(_needs: &Needs) -> [MeasureState; 5] {
    std::array::from_fn(|_| MeasureState::Unsupported)
}

/// What the system says about a file that cannot be opened, or that it is this process which has given it up.
pub fn reason(path: &Path, error: &io::Error) -> String {
    use rustix::fs::{Access, access};
    // The user may read it, so it is not the file's mode: Landlock does not hold access(2).
    if error.kind() == io::ErrorKind::PermissionDenied && access(path, Access::READ_OK).is_ok() {
        return "a sidecar keeps to the directories that its files were in when it started; \
                move the file into one of them, or restart the sidecar"
            .into();
    }
    error.to_string()
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
