//! Why an agent does not get its machine, and what the operator can do about it.

use std::io;
use std::path::PathBuf;

use super::engine::Engine;

/// Why there is no machine, or none that an agent can work in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error("smolvm is not installed: there is no {}", .0.display())]
    Missing(PathBuf),
    /// The program is no smolvm, or none that can be used.
    #[error("{} cannot be used: {reason}", .0.display(), reason = .1)]
    Unusable(PathBuf, String),
    /// The engine takes no such path.
    #[error("{}: a machine cannot be given a path with a colon, or one that is no text", .0.display())]
    Path(PathBuf),
    /// The name is in use.
    #[error("there is a machine `{name}` already ({state})")]
    Taken {
        /// The name.
        name: String,
        /// Its state.
        state: String,
        /// How it is removed.
        typed: String,
    },
    /// The engine makes no such machine.
    #[error("smolvm does not make the machine: {0}")]
    Create(String),
    /// The machine does not come up.
    #[error("the machine does not start: {0}")]
    Start(String),
    /// Another command of the engine failed.
    #[error("`smolvm machine {0}` failed: {1}")]
    Command(&'static str, String),
    /// The guest cannot run what is needed.
    #[error("the image cannot be used: {0}")]
    Image(String, &'static str),
    /// The agent's own test failed.
    #[error("the agent is not ready to work: `{command}` ended with {code}: {said}")]
    Test {
        /// The test.
        command: String,
        /// Its code.
        code: i32,
        /// The last that it said.
        said: String,
    },
    /// The machine has gone.
    #[error("the machine `{0}` has ended, and with it the agent")]
    Died(String),
    /// The machine could not be removed.
    #[error("the machine `{name}` cannot be removed: {complaint}")]
    Left {
        /// The name.
        name: String,
        /// Why not.
        complaint: String,
        /// How it is removed.
        typed: String,
    },
    /// A file of the host's.
    #[error("{}: {source}", .0.display(), source = .1)]
    Io(PathBuf, #[source] io::Error),
}

impl Error {
    pub(super) fn taken(engine: &Engine, name: &str, state: &str) -> Self {
        Self::Taken {
            name: name.into(),
            state: state.into(),
            typed: engine.typed(&format!("delete --force --name {name}")),
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing(_) => "install smolvm (https://github.com/smol-machines/smolvm), or name it with --smolvm PATH".into(),
            Self::Unusable(..) => "name another smolvm with --smolvm PATH; 1.32 is known to work".into(),
            Self::Path(_) => "choose a directory with a plain name".into(),
            Self::Taken { typed, .. } => format!("if nobody works in it, remove it: {typed}; or choose another name with --name"),
            Self::Create(_) => "see --image, --workspace and --name; `docker save IMAGE -o image.tar` makes an image of a container's".into(),
            Self::Start(_) => "smolvm needs /dev/kvm, and an image that it can read with a POSIX shell in it; a registry's image is best saved to a file first".into(),
            Self::Command(..) | Self::Died(_) => "the machine's own log tells more: run the image with smolvm alone".into(),
            Self::Image(_, hint) => (*hint).into(),
            Self::Test { .. } => "run the same command in the image by hand; the agent may be too old, or its login of a kind that it does not know".into(),
            Self::Left { typed, .. } => format!("remove it by hand: {typed}"),
            Self::Io(..) => "see that the directory can be written to".into(),
        }
    }
}
