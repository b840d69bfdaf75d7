//! Where clients connect: the addresses of `--listen` and its like, and the sockets that they become.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use rustix::net::{AddressFamily, SocketType, getsockname, sockopt};
use tokio::net::{TcpListener, UnixListener};

use super::super::Failure;
use super::dns;
use crate::admin;
use crate::os;
use crate::proxy::{Entrance, Listener};

/// By what clients are told apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guards {
    /// `--allow-client`.
    pub(super) networks: bool,
    /// `--client-auth-file`.
    pub(super) logins: bool,
}

/// Refuses a listener that anybody on a network could use, and one that would let clients pass by a login.
pub(super) fn check(
    places: &[(Entrance, Place)],
    names: &[dns::Place],
    guards: Guards,
) -> Result<(), Failure> {
    for (at, (entrance, place)) in places.iter().enumerate() {
        if let Some((other, _)) = places.iter().take(at).find(|(_, other)| other.is(place)) {
            let (own, other) = (flag(*entrance), flag(*other));
            let error = anyhow!("{own} {place} is where {other} listens already");
            return Err(Failure::usage(error).hint("give each listener an address of its own"));
        }
        let is_steered = matches!(entrance, Entrance::SteerTls | Entrance::SteerHttp);
        if is_steered && guards.logins && !(guards.networks && place.address().is_some()) {
            let error = anyhow!(
                "{} {place}: a client that knows of no proxy cannot be asked for a password of --client-auth-file",
                flag(*entrance)
            );
            return Err(Failure::usage(error)
                .hint("name the clients of that listener with --allow-client CIDR, or run a sidecar of its own for them"));
        }
        // A token or a password tells clients too.
        let is_guarded = match entrance {
            Entrance::Proxy => guards.networks || guards.logins,
            Entrance::SteerTls | Entrance::SteerHttp => guards.networks,
            Entrance::Interceptor => true,
        };
        if let Some(address) = place.address().filter(|_| !is_guarded) {
            let error = anyhow!(
                "{address} is not loopback, and anybody who reaches it could use the credentials"
            );
            let hint = match entrance {
                Entrance::Proxy => {
                    "name the clients with --allow-client CIDR, or ask them for a password with --client-auth-file"
                }
                _ => "name the clients with --allow-client CIDR",
            };
            require_loopback(address, || Failure::usage(error).hint(hint))?;
        }
    }
    for place in names.iter().filter(|_| !guards.networks) {
        let address = place.address();
        let error = anyhow!("{address} is not loopback, and anybody could ask it for names");
        let hint = "name the clients with --allow-client CIDR";
        require_loopback(address, || Failure::usage(error).hint(hint))?;
    }
    Ok(())
}

fn require_loopback(address: SocketAddr, failure: impl FnOnce() -> Failure) -> Result<(), Failure> {
    if address.ip().to_canonical().is_loopback() {
        Ok(())
    } else {
        Err(failure())
    }
}

/// The option that makes listeners of a kind.
pub(super) fn flag(entrance: Entrance) -> &'static str {
    match entrance {
        Entrance::Proxy => "--listen",
        Entrance::SteerTls => "--steer-tls",
        Entrance::SteerHttp => "--steer-http",
        Entrance::Interceptor => "--interceptor",
    }
}

/// Takes inherited sockets over; addresses stay what they are. Call it before a second thread runs.
pub(super) fn take(
    entrance: Entrance,
    addresses: &[ListenAddress],
) -> Result<Vec<(Entrance, Place)>, Failure> {
    let place = |address: &ListenAddress| match address {
        ListenAddress::Tcp(address) => Ok(Place::Tcp(*address)),
        ListenAddress::Unix(path) => Ok(Place::Unix(path.clone())),
        ListenAddress::Inherited(number) => inherited_listener(*number)
            .with_context(|| format!("{} fd:{number}", flag(entrance)))
            .map_err(|error| Failure::usage(error).hint(INHERITED)),
    };
    addresses
        .iter()
        .map(|address| Ok((entrance, place(address)?)))
        .collect()
}

/// What is to be done where a descriptor is not what it should be.
pub(super) const INHERITED: &str = "whatever starts this program has to leave a socket open under that number, and it has to be bound, a stream listening";

fn inherited_listener(number: RawFd) -> anyhow::Result<Place> {
    match inherited_socket(number)? {
        (fd, SocketType::STREAM) => listener(fd),
        _ => Err(anyhow!("the socket is no stream socket")),
    }
}

/// Takes over a descriptor that is a socket.
pub(super) fn inherited_socket(number: RawFd) -> anyhow::Result<(OwnedFd, SocketType)> {
    if number < 3 {
        return Err(anyhow!("the standard descriptors are no listeners"));
    }
    let fd = os::take_descriptor(number)?;
    match sockopt::socket_type(&fd) {
        Ok(kind) => Ok((fd, kind)),
        Err(error) if error == rustix::io::Errno::NOTSOCK => {
            Err(anyhow!("the descriptor is no socket"))
        }
        Err(error) => Err(error.into()),
    }
}

/// What a stream socket is that listens.
pub(super) fn listener(fd: OwnedFd) -> anyhow::Result<Place> {
    if !is_listening(&fd)? {
        return Err(anyhow!("the socket does not listen"));
    }
    match getsockname(&fd)?.address_family() {
        AddressFamily::INET | AddressFamily::INET6 => {
            let socket = std::net::TcpListener::from(fd);
            Ok(Place::InheritedTcp(socket.local_addr()?, socket))
        }
        AddressFamily::UNIX => Ok(Place::InheritedUnix(fd.into())),
        _ => Err(anyhow!("the socket is neither a TCP nor a Unix socket")),
    }
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
pub(super) async fn bind_all(
    places: Vec<(Entrance, Place)>,
) -> Result<Vec<(Entrance, Listener)>, Failure> {
    let mut listeners = Vec::new();
    for (entrance, place) in places {
        let (shown, socket) = (place.to_string(), place.socket().map(Path::to_path_buf));
        let bound = place.bind().await.map_err(|error| {
            let reason = match error.kind() {
                io::ErrorKind::AddrInUse => match &socket {
                    Some(path) if !admin::is_socket(path) => {
                        "something is there that is no socket, and is left alone; "
                    }
                    _ => "another process listens there; ",
                },
                io::ErrorKind::NotFound => "the socket's directory has to be there already; ",
                _ => "",
            };
            let hint = format!("{reason}choose another address with {}", flag(entrance));
            let error = anyhow!(error).context(format!("cannot listen on {shown}"));
            Failure::runtime(error).hint(hint)
        });
        listeners.push((entrance, bound?));
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
    /// The Unix socket that is to be made.
    pub(super) fn socket(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// The address, for TCP.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::InheritedTcp(address, _) => Some(*address),
            Self::Unix(_) | Self::InheritedUnix(_) => None,
        }
    }

    /// Whether this is where the other is. Port 0 is another port each time.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => one == other && one.port() != 0,
            (Self::Unix(one), Self::Unix(other)) => one == other,
            _ => false,
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
