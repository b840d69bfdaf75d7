//! Upstream connections that wait for their next request.
//!
//! A connection is kept under the route, the credential's generation and the origin that opened it, so that no request
//! ever travels on a connection that another route or another credential made. An HTTP/1.1 connection comes back only
//! after a whole exchange: the answer read to its end, and the request written to its end. What comes on it before the next
//! request is written ends it ([`Prompt`](super::prompt::Prompt)).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::uri::Authority;
use http::{Request, Response};
use hyper::client::conn::http1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::body::{BodyError, Upload};
use super::answer::Answer;
use super::http2::{Shared, Stream};
use super::interim::Interim;
use crate::policy::Lasting;
use crate::route::target::Origin;

/// All idle connections, and the shared ones.
#[derive(Debug)]
pub struct Pool {
    places: Mutex<HashMap<Key, Arc<Place>>>,
    idle: Duration,
    /// A permit for each connection that may be kept, of all keys: an agent can make many keys where a route admits many
    /// hosts.
    room: Arc<Semaphore>,
}

/// How many connections wait for their next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// HTTP/1.1 connections, of which each takes one request at a time.
    pub idle: usize,
    /// HTTP/2 connections, with requests on them or without.
    pub shared: usize,
}

/// What a connection is good for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) lasting: Lasting,
    pub(super) origin: Origin,
}

/// The connections of one key.
#[derive(Debug)]
pub(super) struct Place {
    /// What goes into Host and `:authority`.
    pub(super) authority: Authority,
    idle: Duration,
    room: Arc<Semaphore>,
    waiting: Mutex<Vec<Waiting>>,
    shared: Mutex<Vec<Shared>>,
    speaks_h2: AtomicBool,
    dialling: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Waiting {
    connection: Http1,
    since: Instant,
    _kept: OwnedSemaphorePermit,
}

/// A connection that is ready for one request.
#[derive(Debug)]
pub(super) enum Connection {
    H1(Http1),
    H2(Shared, Stream),
}

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Upload>,
    pub(super) interim: Interim,
    pub(super) peer: Option<SocketAddr>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: BodyError,
    /// The request, where nothing of it was written.
    pub(super) unsent: Option<Request<Upload>>,
}

/// How many keys there may be before those without a connection are forgotten. An agent makes one with each host under a
/// wildcard, whether it exists or not.
const MAX_PLACES: usize = 2048;
/// How many idle HTTP/1.1 connections a key keeps.
const MAX_WAITING: usize = 128;

impl Pool {
    /// Keeps at most so many connections, for so long.
    pub(super) fn new(idle: Duration, most: usize) -> Self {
        Self {
            places: Mutex::default(),
            idle,
            room: Arc::new(Semaphore::new(most)),
        }
    }

    /// Where the connections of the key are, and come back to. Take it before a request goes out: a reload meanwhile leaves
    /// them homeless.
    pub(super) fn place(&self, key: &Key) -> Arc<Place> {
        let mut places = lock(&self.places);
        if let Some(place) = places.get(key) {
            return place.clone();
        }
        if places.len() >= MAX_PLACES {
            places.retain(|_, place| place.is_needed());
        }
        let place = places.entry(key.clone());
        place
            .or_insert_with(|| Arc::new(Place::new(&key.origin, self.room.clone(), self.idle)))
            .clone()
    }

    /// Forgets the connections of every key that is not upheld. Exchanges under way finish; their connections do not come
    /// back.
    pub(super) fn retain(&self, mut upheld: impl FnMut(&Key) -> bool) {
        lock(&self.places).retain(|key, _| upheld(key));
    }

    /// How many connections are kept.
    pub(super) fn kept(&self) -> Kept {
        let places = lock(&self.places);
        places.values().fold(Kept::default(), |kept, place| Kept {
            idle: kept.idle + lock(&place.waiting).len(),
            shared: kept.shared + lock(&place.shared).len(),
        })
    }

    /// Closes what has been idle for too long, and forgets keys without connections.
    pub(super) fn reap(&self) {
        lock(&self.places).retain(|_, place| {
            lock(&place.waiting).retain(|waiting| {
                waiting.since.elapsed() < self.idle && !waiting.connection.sender.is_closed()
            });
            lock(&place.shared)
                .retain_mut(|shared| !shared.is_closed() && !shared.idle_for(self.idle));
            place.is_needed()
        });
    }
}

/// The place of a connection, for as long as the policy upholds it. The default is none at all.
#[derive(Debug, Default)]
pub(super) struct Home(Weak<Place>);

impl Place {
    fn new(origin: &Origin, room: Arc<Semaphore>, idle: Duration) -> Self {
        Self {
            authority: authority(origin),
            idle,
            room,
            waiting: Mutex::default(),
            shared: Mutex::default(),
            speaks_h2: AtomicBool::new(false),
            dialling: Arc::default(),
        }
    }

    /// A connection that is open and whole, where there is one.
    pub(super) async fn checkout(&self) -> Option<Connection> {
        if let Some(shared) = self.shared() {
            return Some(shared);
        }
        loop {
            let mut waiting = lock(&self.waiting).pop()?;
            if waiting.since.elapsed() < self.idle
                && waiting.connection.sender.ready().await.is_ok()
            {
                return Some(Connection::H1(waiting.connection));
            }
        }
    }

    /// The turn to dial, where the origin spoke HTTP/2 before.
    pub(super) fn turn(&self) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let is_known = self.speaks_h2.load(Ordering::Relaxed);
        is_known.then(|| self.dialling.clone())
    }

    /// Lets other requests use an HTTP/2 connection too.
    pub(super) fn share(&self, connection: &Connection) {
        let Connection::H2(shared, _) = connection else {
            return;
        };
        self.speaks_h2.store(true, Ordering::Relaxed);
        if let Ok(kept) = self.room.clone().try_acquire_owned() {
            let mut shared = shared.clone();
            shared.kept = Some(Arc::new(kept));
            lock(&self.shared).push(shared);
        }
    }

    /// Where connections come back to, for as long as the policy upholds them.
    pub(super) fn home(self: &Arc<Self>) -> Home {
        Home(Arc::downgrade(self))
    }

    /// Whether there are connections, or will be: a reference beside the pool's is an exchange under way, whose connection
    /// is to come back here.
    fn is_needed(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
            || Arc::weak_count(self) > 0
            || !lock(&self.waiting).is_empty()
            || !lock(&self.shared).is_empty()
    }

    /// The shared connection, where there is one.
    pub(super) fn shared(&self) -> Option<Connection> {
        // The first one with room, so that others run dry and are closed. Requests that share a connection share its reads and
        // writes, too, which are half of what a request costs.
        let mut all = lock(&self.shared);
        let mut place = 0;
        while let Some(shared) = all.get_mut(place) {
            if shared.is_closed() {
                all.remove(place);
            } else if shared.has_room() {
                shared.touch();
                return Some(Connection::h2(shared.clone()));
            } else {
                place += 1;
            }
        }
        None
    }
}

impl Connection {
    /// One more stream of a shared connection.
    pub(super) fn h2(shared: Shared) -> Self {
        let stream = shared.stream();
        Self::H2(shared, stream)
    }

    /// The address of the other end.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::H1(connection) => connection.peer,
            Self::H2(shared, _) => shared.peer(),
        }
    }

    pub(super) fn speaks_h2(&self) -> bool {
        matches!(self, Self::H2(..))
    }

    /// What brings the connection back after its exchange, where it is not there all along.
    pub(super) fn checkin(self, home: Home) -> Option<Checkin> {
        match self {
            Self::H1(connection) => Some(Checkin { home, connection }),
            Self::H2(..) => None,
        }
    }

    pub(super) async fn try_send(
        &mut self,
        mut request: Request<Upload>,
    ) -> Result<Response<Answer>, Failed> {
        match self {
            Self::H1(connection) => {
                connection.interim.count(&mut request);
                let answered = connection.sender.try_send_request(request).await;
                let answer = answered.map_err(|mut failed| Failed {
                    unsent: failed.take_message(),
                    error: failed.into_error().into(),
                })?;
                Ok(answer.map(Answer::Http1))
            }
            Self::H2(shared, stream) => {
                let answer = shared.exchange(request, stream).await?;
                Ok(answer.map(Answer::Http2))
            }
        }
    }
}

/// Brings an HTTP/1.1 connection back to the pool. Dropped without [`complete`](Self::complete), it closes it.
#[derive(Debug)]
pub struct Checkin {
    home: Home,
    connection: Http1,
}

impl Checkin {
    /// Call it when the answer was read to its end.
    pub fn complete(self) {
        let Self { home, connection } = self;
        // A place that a reload dropped takes nothing back.
        let Some(place) = home.0.upgrade().filter(|_| !connection.sender.is_closed()) else {
            return;
        };
        let mut waiting = lock(&place.waiting);
        if waiting.len() < MAX_WAITING
            && let Ok(kept) = place.room.clone().try_acquire_owned()
        {
            waiting.push(Waiting {
                connection,
                since: Instant::now(),
                _kept: kept,
            });
        }
    }
}

/// An origin as Host and `:authority` have it.
pub(super) fn authority(origin: &Origin) -> Authority {
    let text = origin.authority().to_string();
    Authority::try_from(text).expect("a host's canonical form and a port are an authority")
}

/// Nothing that holds these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Key, MAX_PLACES, Pool, lock};
    use crate::policy::Lasting;
    use crate::route::RouteId;
    use crate::route::target::{Origin, Scheme};

    #[test]
    fn keys_without_a_connection_are_forgotten_but_not_those_of_exchanges_under_way() {
        let pool = Pool::new(Duration::from_secs(60), 8);
        let key = |number: usize| Key {
            lasting: Lasting {
                route: RouteId::of_a_test(0),
                generation: None,
            },
            origin: Origin::parse(Scheme::Http, &format!("h{number}.test:80")).expect("an origin"),
        };
        let before = pool.place(&key(0));
        let under_way = [before.home(), pool.place(&key(1)).home()];
        drop(before);
        for number in 2..5 * MAX_PLACES {
            drop(pool.place(&key(number)));
            assert!(lock(&pool.places).len() <= MAX_PLACES);
        }
        assert!(under_way.iter().all(|home| home.0.upgrade().is_some()));
    }
}
