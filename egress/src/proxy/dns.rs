//! A name server for clients that ignore the proxy variables: the names that routes admit lie at the steered listeners, and
//! all others do not exist. It forwards nothing, so no byte leaves by way of a name.

pub mod answer;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

pub use self::answer::Addresses;

use super::State;
use super::quota::Quota;
use crate::audit::Client;
use crate::outcome::Verdict;
use crate::route::denial::Reason;

/// Where names are asked for.
#[derive(Debug)]
pub enum Socket {
    /// Datagrams.
    Udp(UdpSocket),
    /// Streams, which a client uses where it likes to.
    Tcp(TcpListener),
}

impl Socket {
    /// Where it is.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tcp(listener) => listener.local_addr(),
        }
    }

    /// Where it is, for one that takes streams.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp(_) => None,
            Self::Tcp(listener) => listener.local_addr().ok(),
        }
    }
}

/// The name server.
#[derive(Debug)]
pub struct Server {
    state: Arc<State>,
    addresses: Addresses,
    quota: Mutex<Quota>,
    streams: Arc<Semaphore>,
}

impl Server {
    /// A server that gives these addresses.
    pub fn new(state: Arc<State>, addresses: Addresses) -> Arc<Self> {
        Arc::new(Self {
            state,
            addresses,
            quota: Mutex::new(Quota::new(Instant::now())),
            streams: Arc::new(Semaphore::new(STREAMS)),
        })
    }

    /// Answers on a socket for as long as the process runs.
    pub async fn serve(self: Arc<Self>, socket: Socket) {
        match socket {
            Socket::Udp(socket) => self.datagrams(socket).await,
            Socket::Tcp(listener) => self.streams(listener).await,
        }
    }

    async fn datagrams(&self, socket: UdpSocket) {
        let is_guarded = is_guarded(socket.local_addr());
        let mut buffer = [0; LONGEST_QUERY];
        loop {
            let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
                // What an earlier answer met with, or the memory that is short; neither lasts.
                sleep(PAUSE).await;
                continue;
            };
            if is_guarded && !self.state.access.admits(peer.ip()) {
                continue;
            }
            let message = buffer.get(..length).unwrap_or_default();
            if let Some(answer) = self.answer(message, peer.ip()) {
                // Who asks over UDP asks again.
                _ = socket.try_send_to(answer.as_ref(), peer);
            }
        }
    }

    async fn streams(self: Arc<Self>, listener: TcpListener) {
        let is_guarded = is_guarded(listener.local_addr());
        loop {
            let Ok(permit) = self.streams.clone().acquire_owned().await else {
                return;
            };
            let Ok((stream, peer)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            if is_guarded && !self.state.access.admits(peer.ip()) {
                continue;
            }
            let server = self.clone();
            tokio::spawn(async move {
                _ = messages(stream, |message| server.answer(message, peer.ip())).await;
                drop(permit);
            });
        }
    }

    fn answer(&self, message: &[u8], peer: IpAddr) -> Option<answer::Bytes> {
        let counters = &self.state.audit.counters;
        counters.names.fetch_add(1, Ordering::Relaxed);
        let policy = self.state.policy.load();
        let answered = answer::answer(message, &policy.routes, self.addresses);
        if let Some(name) = answered.refused {
            counters.names_denied.fetch_add(1, Ordering::Relaxed);
            self.refused(&name, peer);
        }
        answered.bytes
    }

    /// Leaves a record of a name that no route admits, unless there were too many of late.
    fn refused(&self, name: &str, peer: IpAddr) {
        let taken = self
            .quota
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(Instant::now());
        let Some(unrecorded) = taken else {
            return;
        };
        if unrecorded > 0 {
            tracing::warn!(unrecorded, "further names were refused, too many to record");
        }
        let mut record = self
            .state
            .audit
            .begin(&Client::Address(peer.to_canonical()));
        if let Ok(method) = Method::from_bytes(b"DNS") {
            record.asks(&method, name, "");
        }
        record.answered(Verdict::Denied, Reason::Host.code(), 0);
    }
}

/// Answers messages behind their lengths (RFC 1035, section 4.2.2), one after the other.
async fn messages<S, A>(stream: S, answer: impl Fn(&[u8]) -> Option<A>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: AsRef<[u8]>,
{
    timeout(STREAM_LIFE, endless(stream, answer)).await?
}

async fn endless<S, A>(mut stream: S, answer: impl Fn(&[u8]) -> Option<A>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: AsRef<[u8]>,
{
    let mut buffer = [0; LONGEST_QUERY];
    loop {
        let read = async {
            let length = usize::from(stream.read_u16().await?);
            let message = buffer.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
            stream.read_exact(message).await?;
            Ok::<_, io::Error>(answer(message))
        };
        let Some(answer) = timeout(STREAM_IDLE, read).await?? else {
            return Ok(());
        };
        let bytes = answer.as_ref();
        let mut whole = Vec::with_capacity(bytes.len() + 2);
        whole.extend(u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
        whole.extend(bytes);
        timeout(STREAM_IDLE, stream.write_all(&whole)).await??;
    }
}

/// A query is a header, a name of 255 bytes at the most, and an OPT record with a few options.
const LONGEST_QUERY: usize = 4096;
/// Streams at once.
const STREAMS: usize = 64;
/// For the next whole query on a stream, and for an answer to be taken.
const STREAM_IDLE: Duration = Duration::from_secs(10);
/// For all of a stream: who asks now and then would keep others out for as long as they like.
const STREAM_LIFE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// Who reaches a loopback address is on this machine already.
fn is_guarded(address: io::Result<SocketAddr>) -> bool {
    address.map_or(true, |address| !address.ip().to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Duration, Instant, sleep};

    use super::{STREAM_LIFE, messages};

    #[tokio::test(start_paused = true)]
    async fn a_stream_on_which_somebody_asks_now_and_then_ends() {
        let (mut client, server) = duplex(4096);
        let begun = Instant::now();
        let asking = async {
            let mut answer = [0; 4];
            while client.write_all(&[0, 2, 7, 7]).await.is_ok()
                && client.read_exact(&mut answer).await.is_ok()
            {
                assert!(begun.elapsed() <= STREAM_LIFE, "it goes on");
                sleep(Duration::from_secs(6)).await;
            }
        };
        let answering = messages(server, |message| Some(message.to_vec()));
        let ended = tokio::join!(answering, asking).0;
        assert!(ended.is_err());
    }
}
