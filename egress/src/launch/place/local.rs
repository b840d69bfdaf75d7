//! The local box: an agent on this machine, in namespaces in which nothing is but its files, its processes, and the
//! sidecar's listeners.
//!
//! The sidecar runs outside, in the host's network. Its listeners are made inside and handed out, so there is no route, no
//! bridge and no rule between the two that could be wrong.

mod channel;
pub mod contents;
mod fence;
mod files;
pub mod inside;
mod layout;
mod network;
mod plan;
mod privileges;
pub mod shared;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use self::contents::Contents;
use self::network::Listeners;
use self::plan::{Failed, FromBox, Step, ToBox};
use crate::launch::agent::HomeFile;

/// The sidecar's address as the agent sees it.
pub const SIDECAR: std::net::Ipv4Addr = network::SIDECAR;

/// The proxy's URL as the agent sees it.
pub fn proxy_url() -> String {
    format!("http://{}:{}", network::SIDECAR, network::PROXY_PORT)
}

/// The trust bundle as the agent sees it.
pub const BUNDLE: &str = layout::BUNDLE;

/// The agent's home as the agent sees it.
pub const HOME: &str = layout::HOME;

/// A box that is open, and in which nothing runs yet. Dropping it ends all that is in it.
#[derive(Debug)]
pub struct OpenBox {
    child: Child,
    socket: UnixStream,
    said: mpsc::Receiver<io::Result<FromBox>>,
}

/// The sockets on which the sidecar serves a box, each with the flag of `egress serve` that takes it.
pub type Sockets = Vec<(&'static str, OwnedFd)>;

impl OpenBox {
    /// Makes the namespaces, and the sidecar's listeners in them.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn open() -> Result<(Self, Sockets), Error> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::Start)?;
        let child = Command::new("/proc/self/exe")
            .arg0(inside::OUTER)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::Start)?;
        let (socket, listeners, said) = listen(ours).await?;
        let this = Self {
            child,
            socket,
            said,
        };
        let sockets = vec![
            ("--listen", listeners.proxy),
            ("--steer-tls", listeners.tls),
            ("--steer-http", listeners.http),
            ("--dns", listeners.dns_udp),
            ("--dns", listeners.dns_tcp),
        ];
        Ok((this, sockets))
    }

    /// Fills the box and starts the command in it.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn start(&mut self, contents: Contents) -> Result<(), Error> {
        let plan = contents.plan();
        let stdin = io::stdin();
        channel::send(
            &self.socket,
            &ToBox::Start(Box::new(plan)),
            &[stdin.as_fd()],
        )
        .map_err(Error::Start)?;
        match self.next().await? {
            FromBox::Started => Ok(()),
            _ => Err(Error::Gone),
        }
    }

    /// Waits for the command's end: its code in the way of a shell.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] where the box was ended from outside.
    pub async fn ended(&mut self) -> Result<u8, Error> {
        match self.next().await? {
            FromBox::Ended(code) => Ok(code),
            _ => Err(Error::Gone),
        }
    }

    /// Replaces a file of the agent's home in one step, where the agent still has a place for it.
    ///
    /// # Errors
    ///
    /// The box has ended.
    pub fn write(&self, file: &HomeFile) -> io::Result<()> {
        let message = ToBox::Write(file.into());
        channel::send(&self.socket, &message, &[])
    }

    /// Sends a signal to the command.
    ///
    /// # Errors
    ///
    /// The box has ended.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        channel::send(&self.socket, &ToBox::Signal(number), &[])
    }

    /// Ends all that is in the box, and waits for it.
    pub async fn close(mut self) {
        _ = self.child.kill().await;
    }

    async fn next(&mut self) -> Result<FromBox, Error> {
        match self.said.recv().await {
            Some(Ok(FromBox::Failed(failed))) => Err(failed.into()),
            Some(Ok(message)) => Ok(message),
            Some(Err(_)) | None => Err(Error::Gone),
        }
    }
}

/// Reads what the box says, on a thread of its own. The first message has the listeners with it.
async fn listen(
    socket: UnixStream,
) -> Result<(UnixStream, Listeners, mpsc::Receiver<io::Result<FromBox>>), Error> {
    let ours = socket.try_clone().map_err(Error::Start)?;
    let (first, said_first) = tokio::sync::oneshot::channel();
    let (tell, said) = mpsc::channel(8);
    std::thread::spawn(move || {
        _ = first.send(channel::receive::<FromBox>(&socket, MOST_SAID));
        while let Ok(Some((message, _))) = channel::receive(&socket, MOST_SAID) {
            if tell.blocking_send(Ok(message)).is_err() {
                break;
            }
        }
    });
    match said_first.await {
        Ok(Ok(Some((FromBox::Listening, sockets)))) => {
            let sockets = <[OwnedFd; 5]>::try_from(sockets).map_err(|_| Error::Gone)?;
            Ok((ours, Listeners::from_array(sockets), said))
        }
        Ok(Ok(Some((FromBox::Failed(failed), _)))) => Err(failed.into()),
        Ok(Err(error)) => Err(Error::Start(error)),
        _ => Err(Error::Gone),
    }
}

/// The box says little.
const MOST_SAID: usize = 64 << 10;

/// Why there is no box.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A process or socket could not be made.
    #[error("the box cannot be started")]
    Start(#[source] io::Error),
    /// A step of building it failed.
    #[error("{what}")]
    Failed {
        /// Which, and why.
        what: String,
        /// What can be done about it.
        hint: Option<&'static str>,
    },
    /// It ended without a word.
    #[error("the box has ended, and not by itself")]
    Gone,
}

fn describe(failed: &Failed) -> String {
    let Failed { about, reason, .. } = failed;
    match failed.step {
        Step::Namespaces => {
            format!("this system gives you no namespaces for a box ({about}: {reason})")
        }
        Step::Network => format!("the box's network cannot be made ({about}: {reason})"),
        Step::Files => format!("the box's file system cannot be made ({about}: {reason})"),
        Step::Privileges => format!("the box cannot be closed off ({about}: {reason})"),
        Step::Command => format!("{about} does not start in the box: {reason}"),
    }
}

impl Error {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Failed { hint, .. } => *hint,
            Self::Start(_) | Self::Gone => None,
        }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        Self::Failed {
            what: describe(&failed),
            hint: failed.hint(),
        }
    }
}

impl Failed {
    fn hint(&self) -> Option<&'static str> {
        match self.step {
            Step::Namespaces | Step::Files if self.is_forbidden() => Some(
                "allow user namespaces (`sysctl kernel.apparmor_restrict_unprivileged_userns=0`, \
                 `sysctl kernel.unprivileged_userns_clone=1`, `sysctl user.max_user_namespaces=10000`; in a container, \
                 a profile that permits them), or use --no-box, which leaves the agent in your own network and files",
            ),
            Step::Command => Some(
                "the box has the system's programs and the directories of PATH; add what else the program needs with \
                 --ro-bind DIR",
            ),
            _ => None,
        }
    }

    fn is_forbidden(&self) -> bool {
        use rustix::io::Errno;
        [
            Errno::PERM,
            Errno::ACCESS,
            Errno::NOSPC,
            Errno::USERS,
            Errno::NOSYS,
        ]
        .iter()
        .any(|errno| self.errno == Some(errno.raw_os_error()))
    }
}
