//! The admin socket: status, requests as they come, metrics, reload and health, for the operator. The agent must not be able to reach it.

pub mod client;
pub mod events;
mod exposition;
mod metrics;
pub mod reload;
pub mod service_manager;
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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::{Either as Body, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::either::Either;

use crate::audit::object::rfc3339;
use crate::credential::{Source, time_left};
use crate::proxy::State;
use crate::route::target::Scheme;

/// Where the admin socket is: `unix:PATH`, or `IP:PORT` on loopback.
#[derive(Clone, Debug)]
pub enum AdminAddress {
    /// A Unix socket, which only its owner can open.
    Unix(PathBuf),
    /// A loopback address, which every process of the network namespace can open.
    Tcp(SocketAddr),
}

/// A bound admin socket.
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
}

/// Binds the admin socket.
///
/// # Errors
///
/// [`Error::Bind`].
pub async fn bind(address: &AdminAddress) -> Result<AdminListener, Error> {
    let bound = match address {
        AdminAddress::Unix(path) => {
            clear_stale(path).await;
            bind_private(path).map(AdminListener::Unix)
        }
        AdminAddress::Tcp(address) => TcpListener::bind(address).await.map(AdminListener::Tcp),
    };
    bound.map_err(|source| Error::Bind {
        address: address.clone(),
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
pub async fn serve(listener: AdminListener, state: Arc<State>) {
    let places = Arc::new(Semaphore::new(events::WATCHERS));
    loop {
        let stream = match &listener {
            AdminListener::Unix(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Either::Left(stream)),
            AdminListener::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Either::Right(stream)),
        };
        let Ok(stream) = stream else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (state, places) = (state.clone(), places.clone());
        let is_watched = Arc::new(AtomicBool::new(false));
        let watched = is_watched.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (state, places, watched) = (state.clone(), places.clone(), watched.clone());
            async move {
                Ok::<_, Infallible>(match is_for_events(&request) {
                    true => watch(&state, &request, &places, &watched),
                    false => answer(&state, &request).await.map(Body::Left),
                })
            }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let mut serving = pin!(serving);
            let ended = tokio::time::timeout(CONNECTION_LIFE, serving.as_mut()).await;
            if ended.is_err() && is_watched.load(Ordering::Relaxed) {
                _ = serving.await;
            }
        });
    }
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
    let Ok(place) = places.clone().try_acquire_owned() else {
        let text = "as many watch as may\n";
        return plain(StatusCode::SERVICE_UNAVAILABLE, TEXT, text.into()).map(Body::Left);
    };
    is_watched.store(true, Ordering::Relaxed);
    let mut response = Response::new(Body::Right(events::stream(state.clone(), begin, place)));
    let kind = HeaderValue::from_static(events::MEDIA_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

const CONNECTION_LIFE: Duration = Duration::from_secs(60);

async fn answer<B>(state: &Arc<State>, request: &Request<B>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/status") => (StatusCode::OK, JSON, status(state).to_string()),
        (&Method::GET, "/healthz") => match is_healthy(state) {
            true => (StatusCode::OK, TEXT, "ok\n".into()),
            false => (
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "a slot has no usable value\n".into(),
            ),
        },
        (&Method::GET, "/readyz") => {
            let mut unusable = state.policy.load().unusable(SystemTime::now());
            if state.audit.refuses() {
                unusable.push("the audit file cannot be written".into());
            }
            match unusable.is_empty() {
                true => (StatusCode::OK, TEXT, "ready\n".into()),
                false => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    TEXT,
                    unusable.join("\n") + "\n",
                ),
            }
        }
        (&Method::GET, "/metrics") => (
            StatusCode::OK,
            exposition::MEDIA_TYPE,
            metrics::metrics(state),
        ),
        (&Method::POST, "/reload") => {
            match reload::reload(state).await {
                // As `/healthz` answers, too: the routes are in force, and some of them send nothing.
                Ok(Ok(changes)) if !changes.unusable.is_empty() => {
                    (StatusCode::SERVICE_UNAVAILABLE, TEXT, changes.to_string())
                }
                Ok(Ok(changes)) => (StatusCode::OK, TEXT, changes.to_string()),
                Ok(Err(faults)) => (StatusCode::UNPROCESSABLE_ENTITY, TEXT, faults.to_string()),
                Err(error) => (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    TEXT,
                    format!("{error}\n"),
                ),
            }
        }
        _ => (
            StatusCode::NOT_FOUND,
            TEXT,
            "GET /status, GET /events, GET /metrics, GET /healthz, GET /readyz, POST /reload\n"
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

fn is_healthy(state: &State) -> bool {
    let policy = state.policy.load();
    policy.unusable(SystemTime::now()).is_empty()
}

fn status(state: &State) -> Value {
    let now = SystemTime::now();
    let policy = state.policy.load_full();
    let slots: Vec<Value> = policy.slots.iter().map(|slot| {
        json!({
            "name": slot.name().as_str(),
            "source": match slot.source() { Source::Environment => "environment".into(), Source::File(path) => path.display().to_string(), Source::Handed => "launcher".into() },
            "state": match slot.lease(now) { Ok(_) => "ok".into(), Err(reason) => reason.to_string() },
            "expires": slot.expiry().map(rfc3339),
            "seconds_left": time_left(slot.expiry(), now).map(|left| left.as_secs()),
        })
    }).collect();
    let counters = &state.audit.counters;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let denials: Vec<Value> = state
        .audit
        .denials()
        .into_iter()
        .map(|denied| {
            json!({
                "time": rfc3339(denied.time + denied.total),
                "method": denied.method(),
                "scheme": denied.scheme.map(Scheme::as_str),
                "host": denied.host,
                "path": denied.path,
                "code": denied.code,
                "id": denied.id.map(|id| id.to_string()),
            })
        })
        .collect();
    let confinement: Vec<Value> = state
        .confinement
        .iter()
        .map(|measure| json!({ "name": measure.name, "state": measure.state.to_string() }))
        .collect();
    json!({
        "version": 1,
        "egress": env!("CARGO_PKG_VERSION"),
        "healthy": is_healthy(state),
        "observe_seconds_left": state.observing().map(|left| left.as_secs()),
        "pid": std::process::id(),
        "uptime_seconds": now.duration_since(state.started).unwrap_or_default().as_secs(),
        "routes": policy.routes.iter().len(),
        "routes_file": state.source.routes.display().to_string(),
        "ca": state.issuer.root().fingerprint_sha256(),
        "ca_expires": rfc3339(state.issuer.root().not_after()),
        "memory_ceiling": state.limits.ceiling().total(),
        "leaves_minted": state.issuer.minted(),
        "last_reload_fault": state.source.fault(),
        "slots": slots,
        "counters": {
            "connections": count(&counters.connections),
            "turned_away": count(&counters.turned_away),
            "open_connections": count(&counters.open_connections),
            "open_splices": count(&counters.open_splices),
            "requests": counters.requests(),
            "denied": counters.denied(),
            "failed": counters.failed(),
            "names": count(&counters.names),
            "names_denied": count(&counters.names_denied),
            "log_records_lost": count(&counters.log_records_lost),
            "reloads": count(&counters.reloads),
            "reload_failures": count(&counters.reload_failures),
        },
        "audit": state.audit.journal().map(|journal| json!({
            "waiting": journal.waiting(),
            "lost": journal.lost(),
            "failing": journal.is_failing(),
        })),
        "denials": denials,
        "confinement": confinement,
    })
}

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
    #[error("cannot listen on {address} for --admin")]
    Bind {
        /// Where.
        address: AdminAddress,
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
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Bind { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "something is there already, and is left alone; choose another address with --admin"
                }
                io::ErrorKind::NotFound => {
                    "the socket's directory has to be there already; choose another address with --admin"
                }
                _ => "choose another address with --admin",
            },
            Self::Ask { source, .. } => match kind(&**source) {
                Some(io::ErrorKind::PermissionDenied) => {
                    "the socket is another user's: run this as that user or as root"
                }
                _ => "is it running, with this address as its --admin?",
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
        let address: SocketAddr = text.parse().map_err(|_| "expected unix:PATH or IP:PORT")?;
        if address.ip().to_canonical().is_loopback() {
            Ok(Self::Tcp(address))
        } else {
            Err("the admin socket must be on loopback, or better a Unix socket".into())
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
