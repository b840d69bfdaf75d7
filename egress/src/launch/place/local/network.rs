//! The box's network: a loopback interface, and on it the sidecar's listeners. There is nothing else, and so no way out.
//!
//! The listeners are made here, inside the namespace, and handed to the sidecar, which serves them from outside: a socket
//! stays in the namespace that it was made in (network_namespaces(7)).

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The sidecar's address in the box. All of 127/8 is the loopback interface's; .1 is left to the agent's own servers.
pub(super) const SIDECAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The port of the proxy, the usual one of such.
pub(super) const PROXY_PORT: u16 = 3128;

/// The box's listeners, in the order in which they travel.
#[derive(Debug)]
pub(super) struct Listeners {
    /// For clients that know the proxy.
    pub(super) proxy: OwnedFd,
    /// For TLS of clients that do not.
    pub(super) tls: OwnedFd,
    /// For plain HTTP of clients that do not.
    pub(super) http: OwnedFd,
    /// DNS over UDP.
    pub(super) dns_udp: OwnedFd,
    /// DNS over TCP.
    pub(super) dns_tcp: OwnedFd,
}

impl Listeners {
    /// Brings the loopback interface up, and listens on it.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(super) fn open() -> io::Result<Self> {
        loopback_up()?;
        let tcp = |port| TcpListener::bind(SocketAddrV4::new(SIDECAR, port)).map(OwnedFd::from);
        Ok(Self {
            proxy: tcp(PROXY_PORT)?,
            tls: tcp(443)?,
            http: tcp(80)?,
            dns_udp: UdpSocket::bind(SocketAddrV4::new(SIDECAR, 53))?.into(),
            dns_tcp: tcp(53)?,
        })
    }

    pub(super) fn as_array(&self) -> [&OwnedFd; 5] {
        [
            &self.proxy,
            &self.tls,
            &self.http,
            &self.dns_udp,
            &self.dns_tcp,
        ]
    }

    pub(super) fn from_array([proxy, tls, http, dns_udp, dns_tcp]: [OwnedFd; 5]) -> Self {
        Self {
            proxy,
            tls,
            http,
            dns_udp,
            dns_tcp,
        }
    }
}

/// Sets `IFF_UP` on the loopback interface, which is always the first one (rtnetlink(7), RTM_NEWLINK).
fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut request = Vec::with_capacity(LENGTH as usize);
    // struct nlmsghdr: length, type, flags, sequence number, port.
    request.extend(LENGTH.to_ne_bytes());
    request.extend(RTM_NEWLINK.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    request.extend(1_u32.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    // struct ifinfomsg: family, padding, device type, index, flags, which flags to change.
    request.extend([0, 0]);
    request.extend(0_u16.to_ne_bytes());
    request.extend(1_i32.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes());
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut answer = [0; 64];
    let (_, length) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // struct nlmsgerr stands behind the header, and begins with a negative error number, or 0 for a success.
    let code = answer
        .get(16..20)
        .filter(|_| length >= 20)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

const LENGTH: u32 = 32;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFF_UP: u32 = 1;
