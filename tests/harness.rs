//! What the black-box tests share: a PKI for upstreams, a recording upstream, the sidecar as a child process, a client
//! of our own, and the real clients. It never looks inside the crate, and it waits on events, never on the clock.

pub(crate) mod agent;
pub(crate) mod attempts;
pub(crate) mod cases;
pub(crate) mod chatgpt;
pub(crate) mod clients;
pub(crate) mod command;
pub(crate) mod docker;
pub(crate) mod forward;
pub(crate) mod line;
pub(crate) mod network;
pub(crate) mod openssl;
pub(crate) mod pki;
pub(crate) mod raw_http2;
pub(crate) mod recorder;
pub(crate) mod resolver;
pub(crate) mod rig;
pub(crate) mod rows;
pub(crate) mod scrape;
pub(crate) mod scripted;
pub(crate) mod sidecar;
pub(crate) mod smolvm;
#[cfg(feature = "top")]
pub(crate) mod terminal;
pub(crate) mod upstream;
pub(crate) mod versions;
pub(crate) mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpSocket;

/// Longer than anything on loopback takes on a busy machine, and short enough that a hang is not a coffee break.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for `event`, and fails the test with the name of what did not happen.
pub(crate) async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("no {what} within {DEADLINE:?}"),
    }
}

/// An address that refuses connections for as long as the socket is there: it is bound, and nobody listens on it.
pub(crate) fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(any).expect("a loopback port");
    let address = socket.local_addr().expect("a bound socket");
    (socket, address)
}
