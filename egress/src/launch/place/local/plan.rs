//! What the launcher tells the box to be, and what the two say to each other after that.
//!
//! Nothing in here is a secret: all of it is in plain sight of the agent.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::launch::agent::HomeFile;

/// A box: what stands in its file system, and the command that runs in it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Plan {
    /// The box's host name.
    pub(super) hostname: String,
    /// Parts of the host's file system, parents before children.
    pub(super) binds: Vec<Bind>,
    /// The directory of the host that is the agent's home; without it there is an empty one, which is forgotten.
    pub(super) home: Option<PathBuf>,
    /// Symbolic links: where they stand, and what they say.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    /// Files of the box's own, by their absolute paths.
    pub(super) files: Vec<BoxFile>,
    /// Files of the agent's home, by their paths in it.
    pub(super) home_files: Vec<BoxFile>,
    /// The whole environment of the command.
    pub(super) environment: Vec<(String, String)>,
    /// The program and its arguments.
    pub(super) command: Vec<String>,
    /// Where it starts.
    pub(super) directory: PathBuf,
    /// The terminal that the launcher was started from; without it the command has none that it could open.
    pub(super) terminal: Option<PathBuf>,
}

/// A part of the host's file system.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Bind {
    /// Where it is on the host: absolute, without symbolic links.
    pub(super) source: PathBuf,
    /// Where it is in the box.
    pub(super) target: PathBuf,
    /// Whether the agent may write.
    pub(super) access: Access,
    /// Whether it stands for itself although a parent brings it along: what is mounted on cannot be renamed.
    pub(super) pinned: bool,
}

/// Whether the agent may write to a part of the host's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Access {
    /// It may.
    ReadWrite,
    /// It may not.
    ReadOnly,
}

/// A file of the box's own.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct BoxFile {
    /// Where it stands.
    pub(super) path: PathBuf,
    /// Its permissions.
    pub(super) mode: u32,
    /// What is in it.
    #[serde(with = "base64_bytes")]
    pub(super) contents: Vec<u8>,
}

/// What the launcher says. The plan is first, with the descriptor that becomes the command's standard input.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum ToBox {
    /// Build this, and start the command.
    Start(Box<Plan>),
    /// Replace a file of the agent's home in one step.
    Write(BoxFile),
    /// Send this signal to the command.
    Signal(i32),
}

/// What the box says.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum FromBox {
    /// The listeners are open; they come with it.
    Listening,
    /// The command has started.
    Started,
    /// The box cannot be built.
    Failed(Failed),
    /// The command has ended, with this code in the way of a shell.
    Ended(u8),
}

/// Why a box cannot be built.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Failed {
    /// Which step.
    pub(super) step: Step,
    /// What it was about, such as a path.
    pub(super) about: String,
    /// The system's error number, where there is one.
    pub(super) errno: Option<i32>,
    /// The error in words.
    pub(super) reason: String,
}

/// A step of building the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Step {
    /// Namespaces and the map of users.
    Namespaces,
    /// Loopback and listeners.
    Network,
    /// Mounts and files.
    Files,
    /// Giving up privileges.
    Privileges,
    /// Starting the command.
    Command,
}

impl From<&HomeFile> for BoxFile {
    fn from(file: &HomeFile) -> Self {
        Self {
            path: file.target.clone(),
            mode: file.mode,
            contents: file.contents.clone(),
        }
    }
}

impl From<BoxFile> for HomeFile {
    fn from(file: BoxFile) -> Self {
        Self {
            target: file.path,
            mode: file.mode,
            contents: file.contents,
        }
    }
}

impl Failed {
    /// A failure of the system.
    pub(super) fn new(step: Step, about: impl Into<String>, error: &std::io::Error) -> Self {
        Self {
            step,
            about: about.into(),
            errno: error.raw_os_error(),
            reason: error.to_string(),
        }
    }
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}
