//! Following the host's Codex login: Codex on the host renews it, and the sidecar and the agent get the new one.
//!
//! It watches and reads. It never renews anything, and opens no connection: the refresh token is single-use.

use std::path::PathBuf;
use std::time::Duration;

use super::login::{Login, NoLogin};

/// Watches the host's login.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
}

/// What became of the host's login.
#[derive(Debug)]
pub enum Change {
    /// There is a new one, which is good.
    Renewed(Box<Login>),
    /// What is there now is of no use; the last good one is kept. Told once per state.
    Kept(NoLogin),
}

impl Follower {
    /// Follows the file that `login` was read from. A change since that reading is found at once.
    pub fn new(login: &Login) -> Self {
        Self {
            path: login.path().to_owned(),
        }
    }

    /// Waits for the next change, at most as long as `patience`. Blocking.
    pub fn next(&mut self, patience: Duration) -> Option<Change> {
        let _ = (&self.path, patience);
        todo!()
    }

    /// Follows on a thread of its own until the result is dropped, and calls `tell` there on each change.
    ///
    /// # Errors
    ///
    /// The system has no thread or descriptor left.
    pub fn spawn(self, tell: impl FnMut(Change) + Send + 'static) -> std::io::Result<Following> {
        let _ = tell;
        todo!()
    }
}

/// A follower at work; it ends when this is dropped.
#[derive(Debug)]
pub struct Following {}
