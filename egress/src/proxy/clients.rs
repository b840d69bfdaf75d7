//! Who is connected, and how much each client, and all of them, have open and under way.
//!
//! It counts and says no; it keeps nobody waiting.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::Limits;
use super::quota::Quota;
use crate::audit::Client;

/// The clients of all entrances.
#[derive(Debug)]
pub struct Clients {
    shares: Mutex<HashMap<Place, Arc<Share>>>,
    all: Arc<All>,
    turned_away: Mutex<Quota>,
    outside: Mutex<Quota>,
}

/// What counts as one client. Who has an IPv6 address most often has a network of 2^64 of them, and who is on this machine
/// has all of loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Address(IpAddr),
    Loopback,
    /// Of a Unix socket.
    Local,
}

/// A permit for each of what all may have.
#[derive(Debug)]
struct All {
    limits: Limits,
    requests: Arc<Semaphore>,
    http2: Arc<Semaphore>,
}

/// A permit for each of what one client may have.
#[derive(Debug)]
pub struct Share {
    all: Arc<All>,
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

impl Clients {
    /// Nobody yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            shares: Mutex::default(),
            all: Arc::new(All {
                limits,
                requests: Arc::new(Semaphore::new(limits.requests)),
                http2: Arc::new(Semaphore::new(limits.http2)),
            }),
            turned_away: Mutex::new(Quota::new(Instant::now())),
            outside: Mutex::new(Quota::new(Instant::now())),
        }
    }

    /// Lets one more connection of a client in. `None` where it has as many as it may.
    pub(super) fn enter(&self, client: &Client) -> Option<Entry> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place::of(client);
        let share = match shares.get(&place) {
            Some(share) => share.clone(),
            None => {
                // Those that are gone are forgotten when somebody new comes, so there are never many.
                shares.retain(|_, share| Arc::strong_count(share) > 1);
                let most = self.all.limits.per_client;
                let share = Arc::new(Share {
                    all: self.all.clone(),
                    connections: Arc::new(Semaphore::new(most)),
                    requests: Arc::new(Semaphore::new(most)),
                });
                shares.insert(place, share.clone());
                share
            }
        };
        let open = share.connections.clone().try_acquire_owned().ok()?;
        Some(Entry { _open: open, share })
    }

    /// Says that a client was turned away, unless that was said too often of late.
    pub(super) fn turned_away(&self, client: &Client) {
        if let Some(left_out) = take(&self.turned_away) {
            tracing::warn!(
                %client,
                most = self.all.limits.per_client,
                left_out,
                "a client has as many connections as --max-per-client allows; a further one was closed"
            );
        }
    }

    /// Says that a client from no admitted network was turned away, unless that was said too often of late.
    pub(super) fn came_from_outside(&self, client: &Client) {
        if let Some(left_out) = take(&self.outside) {
            tracing::warn!(
                %client,
                left_out,
                "a client outside --allow-client was turned away"
            );
        }
    }
}

impl Place {
    fn of(client: &Client) -> Self {
        match client {
            Client::Address(address) if address.is_loopback() => Self::Loopback,
            Client::Address(IpAddr::V6(address)) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                Self::Address(Ipv6Addr::from_bits(network).into())
            }
            Client::Address(address) => Self::Address(*address),
            Client::Local => Self::Local,
        }
    }
}

fn take(quota: &Mutex<Quota>) -> Option<u64> {
    let mut quota = quota.lock().unwrap_or_else(PoisonError::into_inner);
    quota.take(Instant::now())
}

/// A connection of a client, which ends with it.
#[derive(Debug)]
pub(super) struct Entry {
    _open: OwnedSemaphorePermit,
    share: Arc<Share>,
}

impl Entry {
    /// What the client has.
    pub(super) fn share(&self) -> Arc<Share> {
        self.share.clone()
    }
}

impl Share {
    /// Begins a request. `None` where the client, or all of them, have as many under way as they may.
    pub(super) fn request(self: &Arc<Self>) -> Option<Arc<Turn>> {
        let of_client = self.requests.clone().try_acquire_owned().ok()?;
        let of_all = self.all.requests.clone().try_acquire_owned().ok()?;
        Some(Arc::new(Turn {
            _under_way: [of_client, of_all],
            _share: self.clone(),
        }))
    }

    /// Begins a connection that speaks HTTP/2. `None` where there are as many as there may be.
    pub(super) fn http2(&self) -> Option<OwnedSemaphorePermit> {
        self.all.http2.clone().try_acquire_owned().ok()
    }
}

/// A request under way. It is held by all that is kept for the request, and ends with the last of it.
#[derive(Debug)]
pub struct Turn {
    _under_way: [OwnedSemaphorePermit; 2],
    /// A client is not forgotten while a request of theirs goes on.
    _share: Arc<Share>,
}

#[cfg(test)]
mod tests {
    use super::Clients;
    use crate::audit::Client;
    use crate::proxy::limits::Limits;

    fn clients(per_client: usize, requests: usize) -> Clients {
        Clients::new(Limits {
            per_client,
            requests,
            http2: 1,
            ..Limits::default()
        })
    }

    fn client(address: &str) -> Client {
        Client::Address(address.parse().unwrap())
    }

    #[test]
    fn a_client_at_its_cap_is_turned_away_and_others_are_not() {
        let clients = clients(2, 9);
        let one = client("192.0.2.1");
        let held = [clients.enter(&one), clients.enter(&one)];
        assert!(held.iter().all(Option::is_some));
        assert!(clients.enter(&one).is_none());
        assert!(clients.enter(&client("192.0.2.2")).is_some());
        assert!(clients.enter(&Client::Local).is_some());
        drop(held);
        assert!(clients.enter(&one).is_some());
    }

    #[test]
    fn the_addresses_of_one_network_are_one_client() {
        let clients = clients(1, 9);
        let _held = clients.enter(&client("2001:db8::1")).unwrap();
        assert!(clients.enter(&client("2001:db8::ffff:1")).is_none());
        assert!(clients.enter(&client("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn the_addresses_of_loopback_are_one_client() {
        let clients = clients(1, 9);
        let _held = clients.enter(&client("127.0.0.1")).unwrap();
        assert!(clients.enter(&client("127.9.8.7")).is_none());
        assert!(clients.enter(&client("::1")).is_none());
        assert!(clients.enter(&client("128.0.0.1")).is_some());
        assert!(clients.enter(&Client::Local).is_some());
    }

    #[test]
    fn requests_are_counted_by_client_and_in_all() {
        let clients = clients(2, 3);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| clients.enter(&client(text)));
        let (one, other) = (one.unwrap().share(), other.unwrap().share());
        let first = [one.request().unwrap(), one.request().unwrap()];
        assert!(one.request().is_none());
        let third = other.request().unwrap();
        assert!(other.request().is_none());
        drop(first);
        assert!(other.request().is_some());
        drop(third);
        assert!(one.http2().is_some());
        let _held = one.http2();
        assert!(other.http2().is_none());
    }

    #[test]
    fn who_is_gone_is_forgotten_but_not_while_a_request_of_theirs_goes_on() {
        let clients = clients(1, 9);
        let gone = clients.enter(&client("192.0.2.1")).unwrap();
        let turn = gone.share().request();
        drop(gone);
        for other in 2..9 {
            drop(clients.enter(&client(&format!("192.0.2.{other}"))));
        }
        assert_eq!(clients.shares.lock().unwrap().len(), 2);
        let back = clients.enter(&client("192.0.2.1")).unwrap();
        assert!(back.share().request().is_none());
        drop(turn);
        assert!(back.share().request().is_some());
    }
}
