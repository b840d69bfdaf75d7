//! Following the host's Codex login: Codex on the host renews it, and the sidecar and the agent get the new one.
//!
//! It watches and reads. It never renews anything, and opens no connection: the refresh token is single-use, and whoever
//! redeems it a second time logs the host out.

mod watch;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use self::watch::{Watch, Woken};
use super::login::{Login, NoLogin};

/// Watches the host's login.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    /// The last one that was good.
    login: Login,
    watch: Watch,
    trouble: Trouble,
    /// Whether the file may have changed since it was read.
    stale: bool,
}

/// What became of the host's login.
#[derive(Debug)]
pub enum Change {
    /// There is a new one, which is good.
    Renewed(Box<Login>),
    /// What is there now is of no use; the last good one is kept. Told once per state.
    Kept(NoLogin),
}

/// A login that is of no use, from the first look at it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// Perhaps it is only half written.
    Since(Instant, &'static str),
    Told(&'static str),
}

/// How long a file may be of no use until that is told: whoever writes it in place empties it first.
const SETTLE: Duration = Duration::from_millis(300);

/// How often the file is looked at although nothing was heard of it: some file systems tell nothing.
const TICK: Duration = Duration::from_millis(500);

impl Follower {
    /// Follows the file that `login` was read from. A change since that reading is found at once.
    pub fn new(login: &Login) -> Self {
        let path = std::path::absolute(login.path()).unwrap_or_else(|_| login.path().to_owned());
        Self {
            watch: Watch::new(path.clone()),
            path,
            login: login.clone(),
            trouble: Trouble::None,
            stale: true,
        }
    }

    /// Waits for the next change, at most as long as `patience`. Blocking.
    pub fn next(&mut self, patience: Duration) -> Option<Change> {
        let deadline = Instant::now().checked_add(patience);
        match self.until(deadline, None) {
            Found::Change(change) => Some(change),
            Found::Nothing => None,
        }
    }

    /// Follows on a thread of its own until the result is dropped, and calls `tell` there on each change.
    ///
    /// # Errors
    ///
    /// The system has no thread or descriptor left.
    pub fn spawn(mut self, mut tell: impl FnMut(Change) + Send + 'static) -> io::Result<Following> {
        let (stop, stopped) = UnixStream::pair()?;
        let thread = thread::Builder::new()
            .name("follow-login".into())
            .spawn(move || {
                while let Found::Change(change) = self.until(None, Some(stopped.as_fd())) {
                    tell(change);
                }
            })?;
        Ok(Following {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Ends with [`Found::Nothing`] at the deadline, or when `stop` closes.
    fn until(&mut self, deadline: Option<Instant>, stop: Option<BorrowedFd<'_>>) -> Found {
        loop {
            // The watch is set before the file is looked at, so that nothing happens between the two unseen.
            self.stale |= self.watch.renew();
            if let Some(change) = self.look() {
                return Found::Change(change);
            }
            let now = Instant::now();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
            if left.is_some_and(|left| left.is_zero()) {
                return Found::Nothing;
            }
            let pause = match self.trouble {
                Trouble::Since(since, _) => (since + SETTLE).saturating_duration_since(now),
                Trouble::None | Trouble::Told(_) => TICK,
            };
            match self
                .watch
                .wait(left.map_or(pause, |left| left.min(pause)), stop)
            {
                Woken::Stopped => return Found::Nothing,
                Woken::Changed => self.stale = true,
                Woken::Quiet => {}
            }
        }
    }

    fn look(&mut self) -> Option<Change> {
        let unsettled = matches!(self.trouble, Trouble::Since(..));
        if !self.stale && !unsettled {
            return None;
        }
        self.stale = false;
        match Login::read(&self.path, SystemTime::now()) {
            Ok(login) => {
                self.trouble = Trouble::None;
                let same =
                    login.token() == self.login.token() && login.dummy() == self.login.dummy();
                if same {
                    return None;
                }
                self.login = login.clone();
                Some(Change::Renewed(Box::new(login)))
            }
            Err(trouble) => {
                let code = trouble.code();
                self.trouble = match self.trouble {
                    Trouble::Told(told) if told == code => self.trouble,
                    Trouble::Since(since, _) if since.elapsed() >= SETTLE => {
                        self.trouble = Trouble::Told(code);
                        return Some(Change::Kept(trouble));
                    }
                    Trouble::Since(since, _) => Trouble::Since(since, code),
                    Trouble::None | Trouble::Told(_) => Trouble::Since(Instant::now(), code),
                };
                None
            }
        }
    }
}

enum Found {
    Change(Change),
    Nothing,
}

/// A follower at work on its thread, which ends when this is dropped. `tell` is not called any more after that.
#[derive(Debug)]
pub struct Following {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.stop.take());
        let thread = self.thread.take();
        // Dropped by `tell` itself, it must not wait for itself.
        let thread = thread.filter(|thread| thread.thread().id() != thread::current().id());
        if let Some(thread) = thread {
            // A panic of `tell` has been told by then.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
