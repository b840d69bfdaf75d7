//! The page: what a running sidecar does, for a browser of the operator's. It is off unless `--ui` names a place for it.
//!
//! Whoever reads it sees what agents asked for, and may have the routes file read again. So it listens on loopback or a Unix
//! socket alone, and asks for a pass: a ticket from the operator opens it once, and a cookie keeps it open. Agents do not get
//! here by way of the proxy, which knows this listener as its own.

mod data;
mod guard;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION, SET_COOKIE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::admin::guard::is_here;
use crate::admin::ticket::{Desk, Passes};
use crate::admin::{self, AdminListener, events, status};
use crate::proxy::State;

/// The page of one sidecar.
#[derive(Debug)]
pub struct Page {
    state: Arc<State>,
    desk: Arc<Desk>,
    sessions: Passes,
    /// The cookie's name. Cookies do not tell ports apart, and several sidecars may have a page on one machine.
    cookie: String,
    watchers: Arc<Semaphore>,
}

type Body = Either<Full<Bytes>, Channel<Bytes>>;

/// How long a browser stays let in.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// How many browsers are, at once: a further one takes the place of the first.
const SESSIONS: usize = 8;
/// How many watch at once.
const WATCHERS: usize = 8;
/// How many connections there are at once. Others wait.
const CONNECTIONS: usize = 32;
/// For the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// For a connection, which has one request. A stream goes on by a new one, if the browser is still let in.
const CONNECTION_LIFE: Duration = Duration::from_secs(3600);

impl Page {
    /// The page of this sidecar, with the tickets of this desk.
    ///
    /// # Errors
    ///
    /// [`Unspecified`], where the system has no random numbers.
    pub fn new(state: Arc<State>, desk: Arc<Desk>) -> Result<Self, Unspecified> {
        let mut bytes = [0; 4];
        aws_lc_rs::rand::fill(&mut bytes)?;
        Ok(Self {
            state,
            desk,
            sessions: Passes::new(SESSIONS, SESSION),
            cookie: format!("egress-{:08x}", u32::from_be_bytes(bytes)),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
        })
    }
}

/// Shows the page for as long as the process runs.
pub async fn serve(listener: AdminListener, page: Arc<Page>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = listener.accept().await;
        let page = page.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let page = page.clone();
            async move {
                let mut response = answer(&page, &request).await;
                guard::harden(response.headers_mut());
                Ok::<_, Infallible>(response)
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _place = place;
            _ = timeout(CONNECTION_LIFE, serving).await;
        });
    }
}

async fn answer<B>(page: &Page, request: &Request<B>) -> Response<Body> {
    let (method, headers, uri) = (request.method(), request.headers(), request.uri());
    if uri.authority().is_some() || !is_here(headers) {
        let text = "the page is at localhost or 127.0.0.1, and under no other name\n";
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    }
    let path = uri.path();
    if let (&Method::GET, "/", Some(ticket)) = (method, path, guard::ticket(uri.query())) {
        return open(page, ticket);
    }
    if !guard::passes(headers, &page.cookie).any(|pass| page.sessions.holds(pass)) {
        return plain(StatusCode::FORBIDDEN, CLOSED);
    }
    if !guard::is_own(method, headers) {
        let text = "another site's page asked for this: open the page's own address by itself\n";
        return plain(StatusCode::FORBIDDEN, text);
    }
    let (state, query) = (&page.state, uri.query());
    match (method, path) {
        (&Method::GET, "/") => full(StatusCode::OK, HTML, include_str!("ui/page.html")),
        (&Method::GET, "/page.css") => full(StatusCode::OK, CSS, include_str!("ui/page.css")),
        (&Method::GET, "/page.js") => full(StatusCode::OK, JS, include_str!("ui/page.js")),
        (&Method::GET, "/events") => watch(page, query, headers),
        (&Method::GET, "/status") => json(StatusCode::OK, &status::status(state)),
        (&Method::GET, "/routes") => json(StatusCode::OK, &data::routes(state)),
        (&Method::GET, "/refusals") => match data::refusals(state).await {
            Ok(refusals) => json(StatusCode::OK, &refusals),
            Err(error) => failed(&error),
        },
        (&Method::POST, "/preview") => match data::preview(state).await {
            Ok(Ok(preview)) => json(StatusCode::OK, &preview),
            Ok(Err(faults)) => plain(StatusCode::UNPROCESSABLE_ENTITY, faults.to_string()),
            Err(error) => failed(&error),
        },
        (&Method::POST, "/reload") => reload(state, query).await,
        (&Method::GET | &Method::POST, _) => {
            plain(StatusCode::NOT_FOUND, "there is no such page\n")
        }
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "GET and POST alone\n"),
    }
}

/// What to do where no ticket, and no cookie, opens the page.
const CLOSED: &str = "this address opened the page once, or expired: run `egress ui --admin ADDRESS` beside the sidecar, and open what it prints\n";

/// Lets a browser in, for a ticket. The answer leads to an address without it, which is what stays in the browser's history.
fn open(page: &Page, ticket: &str) -> Response<Body> {
    if !page.desk.take(ticket) {
        return plain(StatusCode::FORBIDDEN, CLOSED);
    }
    let cookie = page.sessions.issue().ok().and_then(|pass| {
        let (name, life) = (&page.cookie, SESSION.as_secs());
        let cookie = format!("{name}={pass}; Path=/; Max-Age={life}; HttpOnly; SameSite=Strict");
        HeaderValue::try_from(cookie).ok()
    });
    let Some(cookie) = cookie else {
        return failed("the system has no random numbers");
    };
    let mut response = plain(StatusCode::SEE_OTHER, "");
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static("/"));
    headers.insert(SET_COOKIE, cookie);
    response
}

/// Requests as they come. A browser that lost its connection says after which one.
fn watch(page: &Page, query: Option<&str>, headers: &HeaderMap) -> Response<Body> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let begin = match last.and_then(|position| position.parse().ok()) {
        Some(position) => events::Begin::At(position),
        None => match events::Begin::asked(query) {
            Some(begin) => begin,
            None => return plain(StatusCode::BAD_REQUEST, "not a place in the stream\n"),
        },
    };
    match events::answer(&page.state, begin, &page.watchers) {
        Some(response) => response.map(Either::Right),
        None => plain(StatusCode::SERVICE_UNAVAILABLE, "as many watch as may\n"),
    }
}

/// Puts in force what was shown, and nothing else.
async fn reload(state: &Arc<State>, query: Option<&str>) -> Response<Body> {
    let Some(digest) = query.and_then(|query| query.strip_prefix("digest=")) else {
        return plain(
            StatusCode::BAD_REQUEST,
            "the digest of what was shown is missing\n",
        );
    };
    let (status, text) = match admin::reload::reload_as_shown(state, digest).await {
        Ok(Some(result)) => admin::reload::told(Ok(result)),
        Ok(None) => {
            let text = "the routes file has changed since: look at the difference again\n";
            return plain(StatusCode::CONFLICT, text);
        }
        Err(error) => admin::reload::told(Err(error)),
    };
    plain(status, text)
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

fn failed(error: impl ToString) -> Response<Body> {
    let text = error.to_string() + "\n";
    plain(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    full(status, TEXT, text)
}

fn json(status: StatusCode, value: &Value) -> Response<Body> {
    full(status, JSON, value.to_string())
}

fn full(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
