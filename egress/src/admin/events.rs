//! Requests as they come, for who watches over the admin socket: server-sent events (WHATWG HTML, "Server-sent events").
//!
//! The first event is `hello`, with the version of this interface. Each `request` is a row of the audit file without its
//! number, and with an id to go on from. A `gap` says how many were missed by who read too slowly, or came too late.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::channel::{Channel, Sender};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::audit::entry::Entry;
use crate::audit::object::object;
use crate::proxy::State;

/// A place in what a sidecar has to tell. Text: `RUN-NUMBER`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Which run of the sidecar, by the milliseconds at which it came up.
    run: u64,
    /// How many requests had ended before.
    pub(super) number: u64,
}

impl Position {
    /// Where the sidecar's first request is.
    fn beginning(state: &State) -> Self {
        let since = state.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            run: u64::try_from(since.as_millis()).unwrap_or_default(),
            number: 0,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.run, self.number)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (run, number) = text.split_once('-').ok_or(())?;
        Ok(Self {
            run: u64::from_str_radix(run, 16).map_err(|_| ())?,
            number: number.parse().map_err(|_| ())?,
        })
    }
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// With what comes from now on.
    Now,
    /// With all that is kept.
    Kept,
    /// After what was told before. A position of an earlier run is before all of this one.
    At(Position),
}

/// As the query that [`Begin::asked`] reads.
impl fmt::Display for Begin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => Ok(()),
            Self::Kept => f.write_str("?kept"),
            Self::At(position) => write!(f, "?after={position}"),
        }
    }
}

impl Begin {
    /// From the query of a URL: `after=POSITION`, `kept`, or none.
    pub fn asked(query: Option<&str>) -> Option<Self> {
        match query.unwrap_or_default() {
            "" => Some(Self::Now),
            "kept" => Some(Self::Kept),
            query => query.strip_prefix("after=")?.parse().ok().map(Self::At),
        }
    }
}

/// An answer with events, where there is a place for one more who reads.
pub fn answer(
    state: &Arc<State>,
    begin: Begin,
    places: &Arc<Semaphore>,
) -> Option<Response<Channel<Bytes>>> {
    let place = places.clone().try_acquire_owned().ok()?;
    let mut response = Response::new(stream(state.clone(), begin, place));
    let kind = HeaderValue::from_static(MEDIA_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Some(response)
}

/// A stream of events. It ends when nobody reads it any more, or when the sidecar does. `place` is that of the one who reads.
fn stream(state: Arc<State>, begin: Begin, place: OwnedSemaphorePermit) -> Channel<Bytes> {
    let (sender, body) = Channel::new(PIECES);
    tokio::spawn(async move {
        let _place = place;
        // There is nobody to be told that nobody reads.
        _ = tell(&state, begin, sender).await;
    });
    body
}

/// How many may watch at once.
pub const WATCHERS: usize = 16;
/// What a stream of events is.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// Pieces that wait for the reader, each of [`PORTION`] entries at the most. What else there is waits in the feed, or is missed.
const PIECES: usize = 2;
const PORTION: usize = 64;
/// How long entries gather: a watcher is woken ten times a second, however many requests there are.
const REST: Duration = Duration::from_millis(100);
/// How often a silent stream shows that it is still there.
const SIGN: Duration = Duration::from_secs(10);

/// Nobody reads any more.
struct Gone;

async fn tell(state: &State, begin: Begin, mut sender: Sender<Bytes>) -> Result<(), Gone> {
    let feed = &state.audit.feed;
    let mut at = Position::beginning(state);
    at.number = match begin {
        Begin::Now => feed.from(u64::MAX, 0).end,
        Begin::Kept => feed.from(0, 0).end,
        Begin::At(position) if position.run == at.run => position.number,
        Begin::At(_) => 0,
    };
    let hello = json!({ "version": VERSION, "egress": env!("CARGO_PKG_VERSION"), "position": at.to_string() });
    send(&mut sender, event("hello", None, &hello)).await?;
    loop {
        let portion = feed.from(at.number, PORTION);
        at.number = portion.end - portion.entries.len() as u64;
        let mut text = String::new();
        if portion.missed > 0 {
            text += &event("gap", Some(at), &json!({ "missed": portion.missed }));
        }
        for entry in &portion.entries {
            at.number += 1;
            text += &event("request", Some(at), &request(entry));
        }
        if !text.is_empty() {
            send(&mut sender, text).await?;
        }
        if portion.entries.len() == PORTION {
            continue;
        }
        tokio::time::sleep(REST).await;
        tokio::select! {
            () = feed.reached(at.number) => {}
            () = tokio::time::sleep(SIGN) => send(&mut sender, ":\n\n".into()).await?,
        }
    }
}

/// Of the lines that a stream begins with, and of the objects in it. What is added to an object leaves it as it is.
pub const VERSION: u32 = 1;

async fn send(sender: &mut Sender<Bytes>, text: String) -> Result<(), Gone> {
    sender.send_data(text.into()).await.map_err(|_| Gone)
}

/// JSON holds no line break, so the data is one line.
fn event(name: &str, position: Option<Position>, data: &Value) -> String {
    match position {
        Some(position) => format!("event: {name}\nid: {position}\ndata: {data}\n\n"),
        None => format!("event: {name}\ndata: {data}\n\n"),
    }
}

/// A finished request, as the audit file has it.
pub fn request(entry: &Entry) -> Value {
    let mut object = object(&entry.row(None));
    if let Value::Object(members) = &mut object {
        // It is given by who writes the file.
        members.remove("number");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::Position;

    #[test]
    fn a_position_is_read_as_it_is_shown() {
        let position = Position {
            run: 0x19a_0123_4567,
            number: 42,
        };
        assert_eq!(position.to_string().parse(), Ok(position));
        for wrong in ["", "1", "-", "x-1", "1-x", "1--1"] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
    }
}
