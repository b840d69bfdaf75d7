//! The admin socket: status, requests as they come, metrics, reload and health, for the operator. The agent must not be able to reach it.

pub mod client;
pub mod events;
mod exposition;
pub mod guard;
mod metrics;
pub mod reload;
pub mod service_manager;
pub mod status;
pub mod ticket;
pub mod watch;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::{Either as Body, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::either::Either;

use self::ticket::Desk;
use crate::proxy::State;

/// Where a socket of the operator's is: `unix:PATH`, or `IP:PORT` on loopback.
#[derive(Clone, Debug)]
pub enum AdminAddress {
    /// A Unix socket, which only its owner can open.
    Unix(PathBuf),
    /// A loopback address, which every process of the network namespace can open.
    Tcp(SocketAddr),
}

/// A bound socket of the operator's.
#[derive(Debug)]
pub enum AdminListener {
    /// A Unix socket.
    Unix(UnixListener),
    /// TCP.
    Tcp(TcpListener),
}

impl AdminListener {
    /// The address, for TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// The next connection. What cannot be accepted is passed over.
    pub async fn accept(&self) -> Either<UnixStream, TcpStream> {
        loop {
            let stream = match self {
                Self::Unix(listener) => listener.accept().await.map(|(it, _)| Either::Left(it)),
                Self::Tcp(listener) => listener.accept().await.map(|(it, _)| Either::Right(it)),
            };
            match stream {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// Binds the operator's socket that `option` names.
///
/// # Errors
///
/// [`Error::Bind`].
pub async fn bind(address: &AdminAddress, option: &'static str) -> Result<AdminListener, Error> {
    let bound = match address {
        AdminAddress::Unix(path) => {
            clear_stale(path).await;
            bind_private(path).map(AdminListener::Unix)
        }
        AdminAddress::Tcp(address) => TcpListener::bind(address).await.map(AdminListener::Tcp),
    };
    bound.map_err(|source| Error::Bind {
        address: address.clone(),
        option,
        source,
    })
}

/// A socket with mode 0600 from its first moment on: bound under a name that nobody knows, and then moved.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    use rustix::fs::Mode;
    // Moving replaces what is there, which may be another sidecar's socket or a file of the operator's.
    if path.symlink_metadata().is_ok() {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    let staged = path.with_extension(format!("new-{}", std::process::id()));
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let mode = Mode::RUSR | Mode::WUSR;
    // On Linux the file gets the socket's mode, and changing a file's by its name is given up by then.
    #[cfg(target_os = "linux")]
    rustix::fs::fchmod(&socket, mode)?;
    socket.bind(&SockAddr::unix(&staged)?)?;
    #[cfg(not(target_os = "linux"))]
    rustix::fs::chmod(&staged, mode)?;
    std::fs::rename(&staged, path)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

/// Operators that may wait for an answer at once.
const BACKLOG: i32 = 128;

/// Removes a Unix socket that nobody listens on any more: what a killed process leaves behind.
pub async fn clear_stale(path: &Path) {
    if is_socket(path) && UnixStream::connect(path).await.is_err() {
        _ = std::fs::remove_file(path);
    }
}

/// Whether a Unix socket is there, and not a file of another kind.
pub fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Answers on the admin socket for as long as the process runs.
/// `desk` gives out tickets to the page, where there is one.
pub async fn serve(listener: AdminListener, state: Arc<State>, desk: Option<Arc<Desk>>) {
    let places = Arc::new(Semaphore::new(events::WATCHERS));
    // Descriptors are the proxy's, too.
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let connection = connections.clone().acquire_owned().await;
        let stream = listener.accept().await;
        let is_shared = matches!(stream, Either::Right(_));
        let (state, places, desk) = (state.clone(), places.clone(), desk.clone());
        let is_watched = Arc::new(AtomicBool::new(false));
        let watched = is_watched.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (state, places, watched) = (state.clone(), places.clone(), watched.clone());
            let desk = desk.clone();
            async move {
                if is_shared && !may_ask(request.headers()) {
                    let text =
                        "this is no page's business, and nobody's who does not name this machine\n";
                    let refused = plain(StatusCode::FORBIDDEN, TEXT, text.into());
                    return Ok(refused.map(Body::Left));
                }
                Ok::<_, Infallible>(match is_for_events(&request) {
                    true => watch(&state, &request, &places, &watched),
                    false => answer(&state, desk.as_deref(), &request)
                        .await
                        .map(Body::Left),
                })
            }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _connection = connection;
            let mut serving = pin!(serving);
            let ended = tokio::time::timeout(CONNECTION_LIFE, serving.as_mut()).await;
            if ended.is_err() && is_watched.load(Ordering::Relaxed) {
                _ = serving.await;
            }
        });
    }
}

/// Whether a request over TCP may be answered: a browser reaches a port of loopback for any page that it shows, also by a
/// name that the page's owner leads there.
fn may_ask(headers: &HeaderMap) -> bool {
    guard::is_here(headers) && !guard::is_a_page(headers)
}

fn is_for_events<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET && request.uri().path() == "/events"
}

/// Requests as they come, for as long as somebody reads.
fn watch<B>(
    state: &Arc<State>,
    request: &Request<B>,
    places: &Arc<Semaphore>,
    is_watched: &AtomicBool,
) -> Response<Body<Full<Bytes>, Channel<Bytes>>> {
    let Some(begin) = events::Begin::asked(request.uri().query()) else {
        let text = "GET /events, /events?kept or /events?after=POSITION\n";
        return plain(StatusCode::BAD_REQUEST, TEXT, text.into()).map(Body::Left);
    };
    let Some(response) = events::answer(state, begin, places) else {
        let text = "as many watch as may\n";
        return plain(StatusCode::SERVICE_UNAVAILABLE, TEXT, text.into()).map(Body::Left);
    };
    is_watched.store(true, Ordering::Relaxed);
    response.map(Body::Right)
}

/// Connections of the operator's at once.
const CONNECTIONS: usize = 128;

const CONNECTION_LIFE: Duration = Duration::from_secs(60);

async fn answer<B>(
    state: &Arc<State>,
    desk: Option<&Desk>,
    request: &Request<B>,
) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/status") => (StatusCode::OK, JSON, status::status(state).to_string()),
        (&Method::GET, "/healthz") => match status::hindrances(state).is_empty() {
            true => (StatusCode::OK, TEXT, "ok\n".into()),
            false => (
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "not every request can be served: /readyz says why\n".into(),
            ),
        },
        (&Method::GET, "/readyz") => {
            let hindrances = status::hindrances(state);
            match hindrances.is_empty() {
                true => (StatusCode::OK, TEXT, "ready\n".into()),
                false => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    TEXT,
                    hindrances.join("\n") + "\n",
                ),
            }
        }
        (&Method::GET, "/metrics") => (
            StatusCode::OK,
            exposition::MEDIA_TYPE,
            metrics::metrics(state),
        ),
        (&Method::POST, "/reload") => {
            let (status, text) = reload::told(reload::reload(state).await);
            (status, TEXT, text)
        }
        (&Method::POST, "/ui-url") => match desk.map(Desk::issue) {
            Some(Ok(address)) => (StatusCode::OK, TEXT, address + "\n"),
            Some(Err(_)) => {
                let text = "the system has no random numbers\n";
                (StatusCode::INTERNAL_SERVER_ERROR, TEXT, text.into())
            }
            None => (StatusCode::CONFLICT, TEXT, "no --ui was given\n".into()),
        },
        _ => (
            StatusCode::NOT_FOUND,
            TEXT,
            "GET /status, GET /events, GET /metrics, GET /healthz, GET /readyz, POST /reload, POST /ui-url\n"
                .into(),
        ),
    };
    plain(status, kind, body)
}

fn plain(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// A duration as people say it, in its two largest units.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Why the admin socket is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sidecar cannot listen there.
    #[error("cannot listen on {address} for {option}")]
    Bind {
        /// Where.
        address: AdminAddress,
        /// The option that names the address.
        option: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// No sidecar answers there.
    #[error("cannot ask the sidecar on {address}")]
    Ask {
        /// Where.
        address: AdminAddress,
        /// What came instead of an answer.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl Error {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Bind { option, source, .. } => {
                let reason = match source.kind() {
                    io::ErrorKind::AddrInUse => "something is there already, and is left alone; ",
                    io::ErrorKind::NotFound => "the socket's directory has to be there already; ",
                    _ => "",
                };
                format!("{reason}choose another address with {option}")
            }
            Self::Ask { source, .. } => match kind(&**source) {
                Some(io::ErrorKind::PermissionDenied) => {
                    "the socket is another user's: run this as that user or as root".into()
                }
                _ => "is it running, with this address as its --admin?".into(),
            },
        }
    }
}

/// What the system said, where it was the system.
fn kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    error.downcast_ref().map(io::Error::kind)
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("unix: needs a path".into())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| "expected unix:PATH or IP:PORT, here or in EGRESS_ADMIN")?;
        if address.ip().to_canonical().is_loopback() {
            Ok(Self::Tcp(address))
        } else {
            Err("it must be on loopback, or better a Unix socket".into())
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}
