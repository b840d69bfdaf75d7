//! Listeners, the accept loops, and the end of the sidecar.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::either::Either;

use super::State;
use super::clients::Entry;
use super::connect;
use super::connection::{Connection, Takeover, serve_h1};
use super::socket::{Idle, Socket};
use super::steer;
use super::steer::preamble::{self, Carried};
use crate::audit::Client;
use crate::route::target::Via;

/// What clients say first at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// A request to a proxy.
    Proxy,
    /// A client hello, whose server name is the origin.
    SteerTls,
    /// A request to the origin that its Host names.
    SteerHttp,
    /// smolvm's preamble, and then one of the two before.
    Interceptor,
}

/// Where clients connect.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, with the file that is removed at the end.
    Unix(UnixListener, Option<PathBuf>),
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("?"),
            },
            Self::Unix(_, Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(listener, None) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                write!(f, "unix:{}", path.unwrap_or(Path::new("")).display())
            }
        }
    }
}

impl Listener {
    /// The address, for TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    async fn accept(&self) -> io::Result<(Either<TcpStream, UnixStream>, Client)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Without it an answer's last packet waits for the agent's delayed acknowledgement: 40 ms.
                stream.set_nodelay(true)?;
                Ok((
                    Either::Left(stream),
                    Client::Address(peer.ip().to_canonical()),
                ))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Either::Right(stream), Client::Local))
            }
        }
    }
}

/// Serves clients until `stop` resolves; then waits for what is under way, and at most for the drain deadline.
pub async fn serve(
    state: Arc<State>,
    listeners: Vec<(Entrance, Listener)>,
    stop: impl Future<Output = ()>,
) {
    let slots = Arc::new(Semaphore::new(state.limits.connections));
    let loops: Vec<_> = listeners
        .into_iter()
        .map(|(entrance, listener)| {
            tokio::spawn(accept_loop(
                state.clone(),
                entrance,
                listener,
                slots.clone(),
            ))
        })
        .collect();
    let housekeeping = tokio::spawn(housekeeping(state.clone()));
    stop.await;
    // Before the listeners close: who sees that they are closed is served no more on an open connection either.
    state.epoch.send_modify(|epoch| epoch.stopping = true);
    for accepting in &loops {
        accepting.abort();
    }
    for accepting in loops {
        _ = accepting.await;
    }
    housekeeping.abort();
    state.tasks.close();
    let open = state.tasks.len();
    if tokio::time::timeout(state.limits.drain, state.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            left = state.tasks.len(),
            of = open,
            "connections were cut off at the drain deadline"
        );
    }
}

async fn accept_loop(
    state: Arc<State>,
    entrance: Entrance,
    listener: Listener,
    slots: Arc<Semaphore>,
) {
    let _unlink = Unlink::of(&listener);
    // Nobody can present a login to a server that is no proxy in its eyes: only the network is left to tell clients by.
    let is_steered = matches!(entrance, Entrance::SteerTls | Entrance::SteerHttp);
    let asks_network_alone = is_steered && state.access.asks_for_login();
    // Who reaches a loopback listener or a Unix socket is on this machine already.
    let is_guarded = listener
        .address()
        .is_some_and(|address| asks_network_alone || !address.ip().to_canonical().is_loopback());
    let mut is_failing = false;
    loop {
        // At the cap nothing is accepted: clients wait in the kernel's queue instead of being turned away.
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("connections are accepted again");
                }
                let Some(entry) = state.clients.enter(&client) else {
                    let turned_away = &state.audit.counters.turned_away;
                    turned_away.fetch_add(1, Ordering::Relaxed);
                    state.clients.turned_away(&client);
                    continue;
                };
                let state = state.clone();
                state.tasks.clone().spawn(async move {
                    let _slot = slot;
                    serve_client(state, entrance, stream, client, &entry, is_guarded).await;
                });
            }
            Err(error) => {
                // Out of file descriptors, most often. Some are given back soon; who holds them back is not to fill the log.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "connections cannot be accepted");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

async fn serve_client(
    state: Arc<State>,
    entrance: Entrance,
    stream: Either<TcpStream, UnixStream>,
    client: Client,
    entry: &Entry,
    is_guarded: bool,
) {
    let counters = &state.audit.counters;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    if let Client::Address(peer) = client
        && is_guarded
        && !state.access.admits(peer)
    {
        state.clients.came_from_outside(&client);
        return;
    }
    counters.open_connections.fetch_add(1, Ordering::Relaxed);
    let mut socket = Idle::new(stream, state.limits.tunnel_idle);
    let connection = |via| Connection::new(state.clone(), via, client.clone(), entry.share());
    // Each boxed, as in all that follows: a future is as large as the largest of its steps, and most clients are at one that
    // is small, which is to wait.
    match entrance {
        Entrance::Proxy => Box::pin(proxy(&connection(Via::Proxy), socket)).await,
        Entrance::SteerTls => Box::pin(steer::tls(&connection(Via::Steered), socket)).await,
        Entrance::SteerHttp => Box::pin(steer::http(&connection(Via::Steered), socket)).await,
        Entrance::Interceptor => {
            let connection = connection(Via::Steered);
            match Box::pin(preamble::accept(&connection, &mut socket)).await {
                Some(Carried::Tls) => Box::pin(steer::tls(&connection, socket)).await,
                Some(Carried::Http) => Box::pin(steer::http(&connection, socket)).await,
                None => {}
            }
        }
    }
    counters.open_connections.fetch_sub(1, Ordering::Relaxed);
}

async fn proxy(connection: &Arc<Connection>, socket: Socket) {
    match Box::pin(serve_h1(connection, socket)).await {
        None => {}
        Some((Takeover::Tunnel(origin, tls), agent)) => {
            Box::pin(connect::tunnel(connection, agent, origin, tls)).await
        }
        Some((Takeover::WebSocket(socket), agent)) => {
            Box::pin(socket.run(&connection.state, agent)).await
        }
    }
}

/// Closes idle upstream connections.
async fn housekeeping(state: Arc<State>) {
    loop {
        sleep(state.limits.pool_idle / 2).await;
        // A request that was decided before a reload may have opened a connection after it.
        state.upstream.retain(&state.policy.load());
        state.upstream.reap();
    }
}

/// Removes a Unix socket's file at the end.
struct Unlink(PathBuf);

impl Unlink {
    fn of(listener: &Listener) -> Option<Self> {
        match listener {
            Listener::Tcp(_) => None,
            Listener::Unix(_, path) => path.clone().map(Self),
        }
    }
}

impl Drop for Unlink {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}
