//! Where clients connect: the addresses of `--listen`, and the sockets that they become.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use tokio::net::{TcpListener, UnixListener};

use super::super::Failure;
use crate::admin;
use crate::proxy::Listener;

/// Refuses a listener that anybody on a network could use, unless the clients are guarded by network or password.
pub(super) fn check(addresses: &[ListenAddress], guarded: bool) -> Result<(), Failure> {
    for address in addresses {
        if let ListenAddress::Tcp(address) = address
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

/// Binds every address.
pub(super) async fn bind_all(addresses: &[ListenAddress]) -> Result<Vec<Listener>, Failure> {
    let mut listeners = Vec::new();
    for address in addresses {
        let bound = match address {
            ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            ListenAddress::Unix(path) => {
                admin::clear_stale(path).await;
                UnixListener::bind(path).map(|listener| Listener::Unix(listener, path.clone()))
            }
        };
        let hint = match &bound {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                "another process listens there; choose with --listen"
            }
            _ => "choose another address with --listen",
        };
        let bound = bound.with_context(|| format!("cannot listen on {address}"));
        listeners.push(bound.map_err(|error| Failure::runtime(error).hint(hint))?);
    }
    Ok(listeners)
}

/// Where a listener is to be.
#[derive(Clone, Debug)]
pub(super) enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
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
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| "expected IP:PORT or unix:PATH".into())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
