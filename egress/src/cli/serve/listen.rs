//! Where clients connect: the addresses of `--listen`, and the sockets that they become.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use rustix::net::{AddressFamily, SocketType, getsockname, sockopt};
use tokio::net::{TcpListener, UnixListener};

use super::super::Failure;
use crate::admin;
use crate::inherited;
use crate::proxy::Listener;

/// Refuses a listener that anybody on a network could use, unless the clients are guarded by network or password.
pub(super) fn check(places: &[Place], guarded: bool) -> Result<(), Failure> {
    for place in places {
        if let Some(address) = place.address()
            && !address.ip().to_canonical().is_loopback()
            && !guarded
        {
            let error = anyhow!(
                "{address} is not loopback, and anybody who reaches it could use the credentials"
            );
            return Err(Failure::usage(error)
                .hint("name the clients with --allow-client CIDR, or ask them for a password with --client-auth-file"));
        }
    }
    Ok(())
}

/// Takes inherited sockets over; addresses stay what they are. Call it before a second thread runs.
pub(super) fn take(flag: &str, addresses: &[ListenAddress]) -> Result<Vec<Place>, Failure> {
    let place = |address: &ListenAddress| match address {
        ListenAddress::Tcp(address) => Ok(Place::Tcp(*address)),
        ListenAddress::Unix(path) => Ok(Place::Unix(path.clone())),
        ListenAddress::Inherited(number) => inherited_listener(*number)
            .with_context(|| format!("{flag} fd:{number}"))
            .map_err(Failure::usage),
    };
    addresses.iter().map(place).collect()
}

fn inherited_listener(number: RawFd) -> anyhow::Result<Place> {
    if number < 3 {
        return Err(anyhow!("the standard descriptors are no listeners"));
    }
    let fd = inherited::take_descriptor(number)?;
    match sockopt::socket_type(&fd) {
        Ok(SocketType::STREAM) if is_listening(&fd)? => {}
        Ok(SocketType::STREAM) => return Err(anyhow!("the socket does not listen")),
        Ok(_) => return Err(anyhow!("the socket is no stream socket")),
        Err(error) if error == rustix::io::Errno::NOTSOCK => {
            return Err(anyhow!("the descriptor is no socket"));
        }
        Err(error) => return Err(error.into()),
    }
    let family = getsockname(&fd)?.address_family();
    let place = match family {
        AddressFamily::INET | AddressFamily::INET6 => {
            let socket = std::net::TcpListener::from(fd);
            Place::InheritedTcp(socket.local_addr()?, socket)
        }
        AddressFamily::UNIX => Place::InheritedUnix(fd.into()),
        _ => return Err(anyhow!("the socket is neither a TCP nor a Unix socket")),
    };
    Ok(place)
}

#[cfg(not(any(target_os = "macos", target_os = "ios")))]
fn is_listening(fd: &OwnedFd) -> io::Result<bool> {
    Ok(sockopt::socket_acceptconn(fd.as_fd())?)
}

/// Apple's systems cannot tell. The first `accept` does.
#[cfg(any(target_os = "macos", target_os = "ios"))]
fn is_listening(_fd: &OwnedFd) -> io::Result<bool> {
    Ok(true)
}

/// Makes a listener of every place.
pub(super) async fn bind_all(places: Vec<Place>) -> Result<Vec<Listener>, Failure> {
    let mut listeners = Vec::new();
    for place in places {
        let shown = place.to_string();
        let bound = place.bind().await;
        let hint = match &bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                "another process listens there; choose with --listen"
            }
            _ => "choose another address with --listen",
        };
        let bound = bound.with_context(|| format!("cannot listen on {shown}"));
        listeners.push(bound.map_err(|error| Failure::runtime(error).hint(hint))?);
    }
    Ok(listeners)
}

/// A listener, or what it takes to make one.
#[derive(Debug)]
pub(super) enum Place {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
    /// A TCP socket that listens already, and where.
    InheritedTcp(SocketAddr, std::net::TcpListener),
    /// A Unix socket that listens already.
    InheritedUnix(std::os::unix::net::UnixListener),
}

impl Place {
    /// The address, for TCP.
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::InheritedTcp(address, _) => Some(*address),
            Self::Unix(_) | Self::InheritedUnix(_) => None,
        }
    }

    async fn bind(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            Self::Unix(path) => {
                admin::clear_stale(&path).await;
                let listener = UnixListener::bind(&path)?;
                Ok(Listener::Unix(listener, Some(path)))
            }
            Self::InheritedTcp(_, socket) => {
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket).map(Listener::Tcp)
            }
            Self::InheritedUnix(socket) => {
                socket.set_nonblocking(true)?;
                // Its file is for whoever made it to remove.
                Ok(Listener::Unix(UnixListener::from_std(socket)?, None))
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::InheritedTcp(address, _) => write!(f, "the inherited socket at {address}"),
            Self::InheritedUnix(_) => f.write_str("the inherited Unix socket"),
        }
    }
}

/// Where a listener is to be, as the operator names it.
#[derive(Clone, Debug)]
pub(super) enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
    /// A socket that the process is started with.
    Inherited(RawFd),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("unix: needs a path".into())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if let Some(number) = text.strip_prefix("fd:") {
            return number
                .parse::<u16>()
                .map(|number| Self::Inherited(number.into()))
                .map_err(|_| "fd: needs the number of a descriptor".into());
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| "expected IP:PORT, unix:PATH or fd:N".into())
    }
}
