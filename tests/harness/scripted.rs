//! An upstream that misbehaves byte by byte: the test writes what it does with each connection.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use super::agent::read_head;

/// One connection: plain, or TLS.
pub(crate) type Wire = Either<TcpStream, Box<tokio_rustls::server::TlsStream<TcpStream>>>;

/// A running script. It stops when it is dropped.
pub(crate) struct Scripted {
    addr: SocketAddr,
    connections: Arc<AtomicU64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Scripted {
    /// Runs `script` on each connection, with its ordinal from 1.
    pub(crate) async fn start<F, R>(tls: Option<Arc<ServerConfig>>, script: F) -> Self
    where
        F: Fn(u64, Wire) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a loopback port");
        let addr = listener.local_addr().expect("a bound socket");
        let connections = Arc::new(AtomicU64::new(0));
        let counter = connections.clone();
        let accepting = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            let tls = tls.map(TlsAcceptor::from);
            while let Ok((tcp, _)) = listener.accept().await {
                // What a script says is with the sidecar's kernel before it says that it has said it.
                tcp.set_nodelay(true).expect("an open socket");
                let ordinal = counter.fetch_add(1, Ordering::SeqCst) + 1;
                let wire = match &tls {
                    None => Wire::Left(tcp),
                    Some(tls) => match tls.accept(tcp).await {
                        Ok(stream) => Wire::Right(Box::new(stream)),
                        Err(_) => continue,
                    },
                };
                running.spawn(script(ordinal, wire));
                while running.try_join_next().is_some() {}
            }
        });
        Self {
            addr,
            connections,
            accepting,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// TCP connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Reads one head without a body. `None` where the connection ended before one came.
pub(crate) async fn request(wire: &mut Wire) -> Option<String> {
    let head = String::from_utf8(read_head(wire).await).expect("a head is ASCII");
    head.ends_with("\r\n\r\n").then_some(head)
}

/// Writes in one piece. A peer that is gone is seen by what it did, not here.
pub(crate) async fn say(wire: &mut Wire, bytes: impl AsRef<[u8]>) {
    let _ = wire.write_all(bytes.as_ref()).await;
    let _ = wire.flush().await;
}

/// Closes with a reset instead of an end (RFC 9293, section 3.5.3).
pub(crate) fn reset(wire: Wire) {
    let tcp = into_tcp(wire);
    let socket = socket2::SockRef::from(&tcp);
    socket
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("an open socket");
}

/// Closes without the `close_notify` that ends TLS (RFC 8446, section 6.1).
pub(crate) fn cut(wire: Wire) {
    drop(into_tcp(wire));
}

fn into_tcp(wire: Wire) -> TcpStream {
    match wire {
        Wire::Left(tcp) => tcp,
        Wire::Right(tls) => tls.into_inner().0,
    }
}

/// Everything until the peer closes, one way or another.
pub(crate) async fn rest(wire: &mut Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = wire.read_to_end(&mut bytes).await;
    bytes
}
