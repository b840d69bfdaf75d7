//! `--dns`: where names are asked for, over UDP and TCP.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use rustix::net::SocketType;
use tokio::net::{TcpListener, UdpSocket};

use super::super::Failure;
use super::listen;
pub(super) use crate::proxy::dns::Socket;

/// Where names are asked for, as the operator names it.
#[derive(Clone, Debug)]
pub(super) enum DnsAddress {
    /// UDP and TCP.
    Both(SocketAddr),
    /// A socket of either kind that the process is started with.
    Inherited(RawFd),
}

/// A socket, or what it takes to make one.
#[derive(Debug)]
pub(super) enum Place {
    Both(SocketAddr),
    Udp(SocketAddr, std::net::UdpSocket),
    Tcp(SocketAddr, std::net::TcpListener),
}

impl Place {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Both(address) | Self::Udp(address, _) | Self::Tcp(address, _) => *address,
        }
    }

    async fn bind(self) -> io::Result<Vec<Socket>> {
        match self {
            Self::Both(address) => {
                // Of a port that the system chose, the process may bind the UDP one afterwards, but no other TCP one. A free
                // port for the one is most likely free for the other.
                let tcp = TcpListener::bind(address).await?;
                let udp = UdpSocket::bind(tcp.local_addr()?).await?;
                Ok(vec![Socket::Udp(udp), Socket::Tcp(tcp)])
            }
            Self::Udp(_, socket) => {
                socket.set_nonblocking(true)?;
                Ok(vec![Socket::Udp(UdpSocket::from_std(socket)?)])
            }
            Self::Tcp(_, socket) => {
                socket.set_nonblocking(true)?;
                Ok(vec![Socket::Tcp(TcpListener::from_std(socket)?)])
            }
        }
    }
}

/// Takes inherited sockets over. Call it before a second thread runs.
pub(super) fn take(addresses: &[DnsAddress]) -> Result<Vec<Place>, Failure> {
    let place = |address: &DnsAddress| match address {
        DnsAddress::Both(address) => Ok(Place::Both(*address)),
        DnsAddress::Inherited(number) => inherited(*number)
            .with_context(|| format!("--dns {address}"))
            .map_err(|error| Failure::usage(error).hint(listen::INHERITED)),
    };
    addresses.iter().map(place).collect()
}

fn inherited(number: RawFd) -> anyhow::Result<Place> {
    let (fd, kind) = listen::inherited_socket(number)?;
    if kind == SocketType::STREAM {
        return match listen::listener(fd)? {
            listen::Place::InheritedTcp(address, socket) => Ok(Place::Tcp(address, socket)),
            _ => Err(anyhow!("the socket is no TCP socket")),
        };
    }
    let socket = std::net::UdpSocket::from(fd);
    match socket.local_addr() {
        Ok(address) if kind == SocketType::DGRAM && address.port() != 0 => {
            Ok(Place::Udp(address, socket))
        }
        _ => Err(anyhow!("the socket is no bound UDP socket")),
    }
}

/// Makes the sockets of every place.
pub(super) async fn bind_all(places: Vec<Place>) -> Result<Vec<Socket>, Failure> {
    let mut sockets = Vec::new();
    for place in places {
        let address = place.address();
        let bound = place
            .bind()
            .await
            .with_context(|| format!("cannot answer names at {address}"));
        sockets.extend(bound.map_err(|error| {
            Failure::runtime(error)
                .hint("choose another address with --dns; ports below 1024 are root's")
        })?);
    }
    Ok(sockets)
}

impl FromStr for DnsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(number) = text.strip_prefix("fd:") {
            return number
                .parse::<u16>()
                .map(|number| Self::Inherited(number.into()))
                .map_err(|_| "fd: needs the number of a descriptor".into());
        }
        text.parse()
            .map(Self::Both)
            .map_err(|_| "expected IP:PORT or fd:N".into())
    }
}

impl fmt::Display for DnsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Both(address) => address.fmt(f),
            Self::Inherited(number) => write!(f, "fd:{number}"),
        }
    }
}
