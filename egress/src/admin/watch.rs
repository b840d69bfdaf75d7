//! A sidecar's requests as they come, seen by who watches: asked for again where the sidecar went away, from the same place
//! on. What is read is bounded, whoever it is that listens there.

mod sse;

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use self::sse::{Event, Parser};
use super::events::{Begin, MEDIA_TYPE, Position, VERSION};
use super::{AdminAddress, client, kind};

/// Watches a sidecar over its admin socket.
#[derive(Debug)]
pub struct Watch {
    address: AdminAddress,
    begin: Begin,
    stream: Option<Stream>,
    /// How long the next attempt waits; none before the first, which has to succeed.
    wait: Option<Duration>,
}

/// What who watches learns.
#[derive(Debug, PartialEq)]
pub enum Told {
    /// The sidecar answers, for the first time or again.
    Up {
        /// How many of its requests had ended before those that follow.
        earlier: u64,
    },
    /// A request has ended: its row, as an object.
    Request(Value),
    /// So many requests are missing here.
    Gap(u64),
    /// The sidecar is gone, for this reason, and is looked for again.
    Lost(String),
}

impl Watch {
    /// Asks nothing yet.
    pub fn new(address: AdminAddress, begin: Begin) -> Self {
        Self {
            address,
            begin,
            stream: None,
            wait: None,
        }
    }

    /// What comes next. To be called again after an answer alone: what was begun is lost where the future is dropped.
    ///
    /// # Errors
    ///
    /// Any [`Error`] at first. Once there was a sidecar, those alone that waiting does not mend.
    pub async fn next(&mut self) -> Result<Told, Error> {
        if let Some(stream) = &mut self.stream {
            let told = match stream.next(&self.address).await {
                Err(Error::Lost(reason)) => {
                    self.stream = None;
                    return Ok(Told::Lost(reason));
                }
                told => told?,
            };
            self.begin = Begin::At(stream.position);
            self.wait = Some(FIRST_WAIT);
            return Ok(told);
        }
        loop {
            if let Some(wait) = self.wait {
                sleep(wait).await;
                self.wait = Some(LONGEST_WAIT.min(wait * 2));
            }
            match Stream::open(&self.address, self.begin).await {
                Ok(stream) => {
                    let earlier = stream.position.number;
                    self.begin = Begin::At(stream.position);
                    self.wait = self.wait.or(Some(FIRST_WAIT));
                    self.stream = Some(stream);
                    return Ok(Told::Up { earlier });
                }
                Err(error) if self.wait.is_some() && error.may_pass() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// How long a sidecar may say nothing. It shows every ten seconds that it is there.
const SILENCE: Duration = Duration::from_secs(30);

/// One answer of a sidecar, for as long as it goes on.
#[derive(Debug)]
struct Stream {
    body: Incoming,
    parser: Parser,
    position: Position,
}

impl Stream {
    /// Asks for events, and reads the one that they begin with.
    async fn open(address: &AdminAddress, begin: Begin) -> Result<Self, Error> {
        let foreign = || Error::Foreign(address.clone());
        let path = format!("/events{begin}");
        let asked = timeout(SILENCE, client::send(address, Method::GET, &path));
        let response = match asked.await {
            Ok(sent) => sent.map_err(|source| super::Error::Ask {
                address: address.clone(),
                source,
            })?,
            Err(_) => return Err(Error::Lost(silent())),
        };
        let (head, body) = response.into_parts();
        match head.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Error::Older(address.clone())),
            StatusCode::SERVICE_UNAVAILABLE => return Err(Error::Full(address.clone())),
            _ => return Err(foreign()),
        }
        let kind = head.headers.get(CONTENT_TYPE);
        if kind.is_none_or(|kind| kind != MEDIA_TYPE) {
            return Err(foreign());
        }
        let mut stream = Self {
            body,
            parser: Parser::default(),
            position: Position::default(),
        };
        let hello = stream.event(address).await?;
        if hello.name != "hello" {
            return Err(foreign());
        }
        let data: Value = serde_json::from_str(&hello.data).map_err(|_| foreign())?;
        let version = data.get("version").and_then(Value::as_u64);
        let version = version.ok_or_else(foreign)?;
        if version != u64::from(VERSION) {
            return Err(Error::Newer(address.clone(), version));
        }
        let position = data.get("position").and_then(Value::as_str);
        let position = position.and_then(|position| position.parse().ok());
        stream.position = position.ok_or_else(foreign)?;
        Ok(stream)
    }

    /// What is told next. Events of a kind that is not known are passed over: they were added later.
    async fn next(&mut self, address: &AdminAddress) -> Result<Told, Error> {
        let foreign = || Error::Foreign(address.clone());
        loop {
            let event = self.event(address).await?;
            if !matches!(&*event.name, "request" | "gap") {
                continue;
            }
            let data: Value = serde_json::from_str(&event.data).map_err(|_| foreign())?;
            let told = match &*event.name {
                "gap" => data.get("missed").and_then(Value::as_u64).map(Told::Gap),
                _ => data.is_object().then_some(Told::Request(data)),
            };
            let told = told.ok_or_else(foreign)?;
            self.position = event.id.parse().map_err(|()| foreign())?;
            return Ok(told);
        }
    }

    async fn event(&mut self, address: &AdminAddress) -> Result<Event, Error> {
        loop {
            let event = self.parser.next();
            if let Some(event) = event.map_err(|_| Error::Foreign(address.clone()))? {
                return Ok(event);
            }
            match timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.parser.push(data);
                    }
                }
                Ok(Some(Err(_)) | None) => return Err(Error::Lost("it has ended".into())),
                Err(_) => return Err(Error::Lost(silent())),
            }
        }
    }
}

fn silent() -> String {
    format!("it has said nothing for {} s", SILENCE.as_secs())
}

/// Why a sidecar cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody can be asked.
    #[error(transparent)]
    Ask(#[from] super::Error),
    /// It is gone.
    #[error("the sidecar is gone: {0}")]
    Lost(String),
    /// As many watch as may.
    #[error("as many watch the sidecar on {0} as may")]
    Full(AdminAddress),
    /// It knows of no events.
    #[error("what listens on {0} does not tell requests as they come")]
    Older(AdminAddress),
    /// It tells them in another way.
    #[error(
        "the sidecar on {0} tells requests in version {1}, and only version {VERSION} is known"
    )]
    Newer(AdminAddress, u64),
    /// It is no sidecar.
    #[error("what listens on {0} is no sidecar's admin socket")]
    Foreign(AdminAddress),
}

impl Error {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::Ask(error) => return error.hint(),
            Self::Lost(_) => "look at its log",
            Self::Full(_) => "end another `egress tail` or `egress top`",
            Self::Older(_) => {
                "a sidecar older than this command does not: start it anew with this version, or ask it with `egress status`"
            }
            Self::Newer(..) => "use the `egress` that the sidecar was started with",
            Self::Foreign(_) => "name what the sidecar was given as --admin",
        };
        hint.into()
    }

    /// Whether a sidecar that comes up again would mend it.
    fn may_pass(&self) -> bool {
        match self {
            Self::Ask(super::Error::Ask { source, .. }) => {
                kind(&**source) != Some(std::io::ErrorKind::PermissionDenied)
            }
            Self::Lost(_) | Self::Full(_) => true,
            Self::Ask(_) | Self::Older(_) | Self::Newer(..) | Self::Foreign(_) => false,
        }
    }
}
