//! The way from the machine to its sidecar, on the host's side: the listener that the sidecar is handed, and the token by
//! which it knows the machine.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::cli::Failure;
use crate::credential::Secret;
use crate::launch::handover::Handed;
use crate::launch::place::smolvm::{Reach, TOKEN};

/// Where the sidecar takes the machine's connections.
pub(super) enum Way {
    /// The machine's network hands them over, with a token.
    Interceptor {
        listener: TcpListener,
        address: String,
        token: Secret,
    },
    /// The machine has its socket.
    Socket {
        listener: UnixListener,
        path: PathBuf,
    },
}

impl Way {
    /// Begins to listen. `directory` is this launch's own.
    pub(super) fn open(reach: Reach, directory: &Path) -> Result<Self, Failure> {
        let open = || {
            Ok(match reach {
                Reach::Interceptor => {
                    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                    Self::Interceptor {
                        address: listener.local_addr()?.to_string(),
                        listener,
                        token: token()?,
                    }
                }
                Reach::Socket => {
                    let path = directory.join("proxy.sock");
                    Self::Socket {
                        listener: UnixListener::bind(&path)?,
                        path,
                    }
                }
            })
        };
        open().map_err(|error: io::Error| {
            Failure::runtime(anyhow!(error).context("cannot listen for the machine"))
        })
    }

    /// The listener, with the flag of `egress serve` that takes it.
    pub(super) fn socket(&self) -> io::Result<(&'static str, OwnedFd)> {
        Ok(match self {
            Self::Interceptor { listener, .. } => ("--interceptor", listener.try_clone()?.into()),
            Self::Socket { listener, .. } => ("--listen", listener.try_clone()?.into()),
        })
    }

    /// What the sidecar is handed: the slots, and the token beside them.
    pub(super) fn slots(&self, handed: &Handed) -> Zeroizing<Vec<u8>> {
        match (self, TOKEN.parse()) {
            (Self::Interceptor { token, .. }, Ok(name)) => handed.line_with(&name, token),
            _ => handed.line(),
        }
    }

    /// The interceptor's address and token, for the machine's network.
    pub(super) fn interceptor(&self) -> Option<(&str, &Secret)> {
        match self {
            Self::Interceptor { address, token, .. } => Some((address, token)),
            Self::Socket { .. } => None,
        }
    }

    /// The socket that is mounted.
    pub(super) fn mounted(&self) -> Option<&Path> {
        match self {
            Self::Interceptor { .. } => None,
            Self::Socket { path, .. } => Some(path),
        }
    }
}

/// 32 random bytes in hex, fresh for each machine.
fn token() -> io::Result<Secret> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut *bytes).map_err(|_| io::Error::other("no random bytes"))?;
    let mut text = Zeroizing::new(String::with_capacity(64));
    for byte in bytes.iter() {
        for nibble in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
    }
    Ok(Secret::new(text.as_str()))
}

#[cfg(test)]
mod tests {
    use super::token;

    #[test]
    fn a_token_is_64_hex_digits_and_never_the_same() {
        let (one, other) = (
            token().expect("random bytes"),
            token().expect("random bytes"),
        );
        assert_eq!(one.expose().len(), 64);
        assert!(one.expose().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, other);
    }
}
