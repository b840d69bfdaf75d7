//! A small CONNECT proxy, to stand in for the one that an operator's network has: it records what it was asked for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::agent::read_head;

/// A running proxy. It stops when it is dropped.
pub(crate) struct Forward {
    addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Forward {
    /// Opens every tunnel to `target`, whatever it was asked for.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        Self::start(Some(target), "HTTP/1.1 200 Connection established\r\n\r\n").await
    }

    /// Answers every CONNECT with `answer`, and closes.
    pub(crate) async fn refusing(answer: &'static str) -> Self {
        Self::start(None, answer).await
    }

    async fn start(target: Option<SocketAddr>, answer: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a loopback port");
        let addr = listener.local_addr().expect("a bound socket");
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let record = heads.clone();
        let accepting = tokio::spawn(async move {
            let mut tunnels = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let record = record.clone();
                tunnels.spawn(async move {
                    let head = String::from_utf8_lossy(&read_head(&mut stream).await).into_owned();
                    record.lock().expect("no holder panicked").push(head);
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let Some(target) = target else { return };
                    let mut upstream = TcpStream::connect(target)
                        .await
                        .expect("the target listens");
                    let _ = copy_bidirectional(&mut stream, &mut upstream).await;
                });
                while tunnels.try_join_next().is_some() {}
            }
        });
        Self {
            addr,
            heads,
            accepting,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no holder panicked").clone()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
