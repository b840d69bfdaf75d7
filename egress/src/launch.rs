//! What stands between a manifest and an agent at work: the credentials that its sidecar is handed, and the home and
//! the environment in which the agent starts without any of them.
//!
//! It opens no connection. Credentials are read on the host and go to the sidecar alone; what an agent is given is made
//! here, or copied by a rule that knows what it copies.

pub mod agent;
pub mod bundle;
pub mod claim;
pub mod follow;
pub mod handover;
pub mod home;
pub mod login;
pub mod place;
pub mod prepare;
pub mod refusals;
pub mod resolve;
pub mod sidecar;
pub mod variables;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a launch takes from the host besides files: its environment and its clock.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Looks a variable up.
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
    /// The time.
    pub now: SystemTime,
}

impl Host<'static> {
    /// This process's own.
    pub fn this() -> Self {
        Self {
            env: &|name| std::env::var_os(name),
            now: SystemTime::now(),
        }
    }
}

impl Host<'_> {
    /// The user's home directory, where `HOME` names one.
    pub fn home(&self) -> Option<PathBuf> {
        (self.env)("HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
    }

    /// The path with a leading `~` expanded. `None` where that hangs on `HOME` and there is none.
    pub fn expand(&self, path: &Path) -> Option<PathBuf> {
        match path.strip_prefix("~") {
            Ok(rest) if rest.as_os_str().is_empty() => self.home(),
            Ok(rest) => Some(self.home()?.join(rest)),
            Err(_) => Some(path.to_owned()),
        }
    }
}
