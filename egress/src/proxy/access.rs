//! Who may use the proxy: by network, by password, or by being able to open its Unix socket.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use http::header::PROXY_AUTHORIZATION;
use ipnet::IpNet;

use super::reject::{Cause, Reject};
use crate::credential::Secret;

/// Who may use the proxy.
#[derive(Debug, Default)]
pub struct Access {
    networks: Vec<IpNet>,
    /// Whole `Basic` credentials, as a client writes them.
    logins: Vec<Secret>,
}

impl Access {
    /// Clients from these networks (all of them where none is named), and with one of these `USER:PASSWORD` pairs (none
    /// is asked for where there is none).
    pub fn new(networks: Vec<IpNet>, logins: impl IntoIterator<Item = Secret>) -> Self {
        let basic = |pair: Secret| Secret::new(BASE64_STANDARD.encode(pair.expose()));
        Self {
            networks,
            logins: logins.into_iter().map(basic).collect(),
        }
    }

    /// Whether a peer's address is one of those that may connect to a listener that a network reaches.
    pub fn admits(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&peer))
    }

    /// Whether clients are asked for a login.
    pub fn asks_for_login(&self) -> bool {
        !self.logins.is_empty()
    }

    /// Checks `Proxy-Authorization`, in constant time for each login.
    ///
    /// # Errors
    ///
    /// [`Cause::ClientAuth`], where logins are asked for and the request has none of them, or more than one field.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Reject> {
        if self.logins.is_empty() {
            return Ok(());
        }
        let mut fields = headers.get_all(PROXY_AUTHORIZATION).iter();
        let (field, other) = (fields.next(), fields.next());
        let given = field
            .filter(|_| other.is_none())
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
            .map(|(_, credentials)| Secret::new(credentials.trim()));
        let Some(given) = given else {
            return Err(Reject::new(Cause::ClientAuth));
        };
        // Every login is compared, so that the time does not tell which one came near.
        let matches = self.logins.iter().filter(|login| **login == given).count();
        if matches > 0 {
            Ok(())
        } else {
            Err(Reject::new(Cause::ClientAuth))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::Access;
    use crate::credential::Secret;

    #[test]
    fn a_login_is_asked_for_exactly() {
        let access = Access::new(
            Vec::new(),
            [Secret::new("agent:one"), Secret::new("agent:two")],
        );
        let check = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("proxy-authorization", HeaderValue::from_static(value));
            }
            access.check(&headers).is_ok()
        };
        assert!(!check(&[]));
        assert!(!check(&["Basic"]));
        assert!(!check(&["Basic YWdlbnQ6"]));
        assert!(!check(&["Bearer YWdlbnQ6b25l"]));
        assert!(!check(&["Basic YWdlbnQ6b25l", "Basic YWdlbnQ6b25l"]));
        assert!(check(&["Basic YWdlbnQ6b25l"]));
        assert!(check(&["basic YWdlbnQ6dHdv"]));
        assert!(Access::default().check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn networks_bound_the_peers() {
        let access = Access::new(vec!["10.1.0.0/16".parse().unwrap()], []);
        assert!(access.admits("10.1.2.3".parse().unwrap()));
        assert!(access.admits("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!access.admits("127.0.0.1".parse().unwrap()));
        assert!(!access.admits("10.2.0.1".parse().unwrap()));
        assert!(!access.admits("::1:10.1.2.3".parse().unwrap()));
    }
}
