//! From a permit to a TCP connection: one look-up, every answer checked, and only checked addresses dialled.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{Method, Request};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use super::OwnListeners;
use super::lookups::Lookups;
use super::prompt::Prompt;
use crate::addr;
use crate::credential::Secret;
use crate::proxy::limits::Limits;
use crate::proxy::reject::{Cause, Reject, Wait};
use crate::route::target::{Origin, Scheme};
use crate::route::{ConnectTo, Permit, RouteId};

/// A connection to an upstream: plain, or TLS.
pub type Stream = tokio_util::either::Either<Prompt, TlsStream<Prompt>>;

/// Resolves, checks and connects.
#[derive(Debug)]
pub struct Dialer {
    proxy: Option<ProxyUrl>,
    own: OwnListeners,
    lookups: Lookups,
    limits: Limits,
}

/// RFC 8305, section 5: the pause before the next address is tried beside the ones under way.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

impl Dialer {
    /// A dialer that goes through `proxy`, where one is given, and never to one of the `own` listeners.
    pub fn new(proxy: Option<ProxyUrl>, own: OwnListeners, limits: Limits) -> Self {
        Self {
            proxy,
            own,
            lookups: Lookups::new(),
            limits,
        }
    }

    /// Connects to the permit's origin, or to what its route says to dial instead.
    pub(super) async fn dial(&self, permit: &Permit) -> Result<TcpStream, Reject> {
        let origin = permit.target().origin();
        let attempt = async {
            match &self.proxy {
                Some(proxy) => self.through(proxy, permit).await,
                None => self.connect_any(&self.addresses(permit).await?).await,
            }
        };
        match timeout(self.limits.connect, attempt).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(reject)) => Err(reject.at(origin)),
            Err(_) => Err(Reject::new(Cause::UpstreamTimeout(Wait::Connection))
                .at(origin)
                .because("no connection in time")),
        }
    }

    /// The addresses that may be dialled for a permit.
    async fn addresses(&self, permit: &Permit) -> Result<Vec<SocketAddr>, Reject> {
        let rule = &permit.route().rule;
        let origin = permit.target().origin();
        let (host, port) = match &rule.connect_to {
            Some(ConnectTo::Address(address)) => return Ok(vec![*address]),
            Some(ConnectTo::Name(host, port)) => (host, *port),
            None => (&origin.host, origin.port),
        };
        let answers = self
            .lookup(permit.route().id, &host.to_string(), port)
            .await?;
        let ips: Vec<IpAddr> = answers.iter().map(SocketAddr::ip).collect();
        addr::screen(&ips, &rule.ssrf_ip_allowlist).map_err(|(ip, class)| {
            Reject::new(Cause::Address(class))
                .because(format!("{host} resolves to {ip}, which is {class}"))
        })?;
        Ok(answers)
    }

    async fn lookup(
        &self,
        route: RouteId,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Reject> {
        let unresolved = |error: io::Error| Reject::new(Cause::Unresolved).because(error);
        let turn = self
            .lookups
            .turn(route)
            .await
            .ok_or_else(|| Reject::new(Cause::Stopping))?;
        let name = format!("{host}:{port}");
        // A task of its own keeps the turn for as long as the look-up blocks its thread, also after its caller gave up.
        let looking = tokio::spawn(async move {
            let _turn = turn;
            lookup_host(name).await.map(Iterator::collect)
        });
        let answers: io::Result<Vec<SocketAddr>> = looking.await.map_err(io::Error::from).flatten();
        let answers = answers.map_err(unresolved)?;
        if answers.is_empty() {
            return Err(unresolved(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            )));
        }
        Ok(answers)
    }

    /// Happy Eyeballs (RFC 8305): families in turn, the next attempt when one fails or takes long, the first to connect
    /// wins.
    async fn connect_any(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Reject> {
        let mut waiting = interleaved(addresses).into_iter();
        let mut attempts = JoinSet::new();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
        loop {
            if let Some(address) = waiting.next() {
                attempts.spawn(async move { (address, TcpStream::connect(address).await) });
            }
            let ended = tokio::select! {
                ended = attempts.join_next() => ended,
                () = sleep(ATTEMPT_DELAY), if waiting.len() > 0 => continue,
            };
            match ended {
                Some(Ok((_, Ok(stream)))) => return self.checked(stream),
                Some(Ok((address, Err(error)))) => {
                    last = io::Error::new(error.kind(), format!("{address}: {error}"))
                }
                Some(Err(error)) => last = error.into(),
                None if waiting.len() == 0 => {
                    return Err(Reject::new(Cause::Unreachable).because(last));
                }
                None => {}
            }
        }
    }

    /// Refuses a connection that ended up at this sidecar, by whatever address.
    fn checked(&self, stream: TcpStream) -> Result<TcpStream, Reject> {
        let unreachable = |error: io::Error| Reject::new(Cause::Unreachable).because(error);
        // A socket of the IPv6 family shows the IPv4 address that it leads to in mapped form.
        let peer = stream.peer_addr().map_err(unreachable)?;
        let (ip, port) = (peer.ip().to_canonical(), peer.port());
        let local = stream.local_addr().map_err(unreachable)?.ip();
        let same_machine = ip == local.to_canonical() || ip.is_loopback();
        let is_own = |own: &SocketAddr| {
            let listens = own.ip().to_canonical();
            own.port() == port && (listens == ip || listens.is_unspecified())
        };
        if same_machine && self.own.iter().any(is_own) {
            return Err(Reject::new(Cause::Loop));
        }
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(stream)
    }

    /// A tunnel through the operator's own proxy, which resolves the name itself.
    async fn through(&self, proxy: &ProxyUrl, permit: &Permit) -> Result<TcpStream, Reject> {
        let refused = |error: Box<dyn std::error::Error + Send + Sync>| {
            Reject::new(Cause::UpstreamProxy).because(error)
        };
        // The operator named the proxy, so its address is not screened.
        let addresses = self
            .lookup(
                permit.route().id,
                &proxy.origin.host.to_string(),
                proxy.origin.port,
            )
            .await?;
        let stream = self.connect_any(&addresses).await?;
        let (mut sender, connection) = self
            .limits
            .http1_client()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| refused(error.into()))?;
        tokio::spawn(connection.with_upgrades());
        let request = proxy
            .connect_request(&destination(permit))
            .map_err(|error| refused(error.into()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| refused(error.into()))?;
        if response.status() != http::StatusCode::OK {
            return Err(refused(
                format!("it answered CONNECT with {}", response.status()).into(),
            ));
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|error| refused(error.into()))?;
        let parts = upgraded
            .downcast::<TokioIo<TcpStream>>()
            .map_err(|_| refused("not a TCP connection".into()))?;
        if !parts.read_buf.is_empty() {
            return Err(refused("it sent bytes before the tunnel was used".into()));
        }
        Ok(parts.io.into_inner())
    }
}

/// What a further proxy is asked to connect to.
fn destination(permit: &Permit) -> String {
    match &permit.route().rule.connect_to {
        Some(ConnectTo::Address(address)) => address.to_string(),
        Some(ConnectTo::Name(host, port)) => format!("{host}:{port}"),
        None => permit.target().origin().to_string(),
    }
}

/// IPv6 and IPv4 in turn, beginning with the family that the resolver puts first (RFC 8305, section 4).
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = addresses
        .iter()
        .copied()
        .partition(|a| a.is_ipv6() == first_is_v6);
    let mut other = other.into_iter();
    let mut order: Vec<SocketAddr> = preferred
        .into_iter()
        .flat_map(|address| [Some(address), other.next()])
        .flatten()
        .collect();
    order.extend(other);
    order
}

/// A further proxy: `http://[USER:PASSWORD@]HOST:PORT`.
#[derive(Clone, Debug)]
pub struct ProxyUrl {
    origin: Origin,
    authorization: Option<Secret>,
}

impl ProxyUrl {
    /// Where it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What asks it for a tunnel to `HOST:PORT`, with its user and password.
    ///
    /// # Errors
    ///
    /// A destination that cannot stand in a request.
    pub fn connect_request(&self, destination: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(destination)
            .header(HOST, destination);
        if let Some(authorization) = &self.authorization {
            let mut value = HeaderValue::from_str(authorization.expose())?;
            value.set_sensitive(true);
            request = request.header(PROXY_AUTHORIZATION, value);
        }
        request.body(Empty::new())
    }
}

impl FromStr for ProxyUrl {
    type Err = InvalidProxyUrl;

    fn from_str(url: &str) -> Result<Self, InvalidProxyUrl> {
        let rest = url.strip_prefix("http://").ok_or(InvalidProxyUrl::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, authority) = match rest.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, rest),
        };
        let origin =
            Origin::parse(Scheme::Http, authority).map_err(|_| InvalidProxyUrl::Authority)?;
        let pair = user
            .map(|pair| percent_decoded(pair).ok_or(InvalidProxyUrl::Login))
            .transpose()?;
        let authorization =
            pair.map(|pair| Secret::new(format!("Basic {}", BASE64_STANDARD.encode(&*pair))));
        Ok(Self {
            origin,
            authorization,
        })
    }
}

/// User and password as they are: a URL spells `@`, `:` and `/` in them as `%40`, `%3A` and `%2F`.
fn percent_decoded(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (first, escaped) = text
        .split_once('%')
        .map_or((text, None), |(a, b)| (a, Some(b)));
    let mut bytes = Zeroizing::new(first.as_bytes().to_vec());
    for piece in escaped.into_iter().flat_map(|rest| rest.split('%')) {
        let (digits, plain) = piece.split_at_checked(2)?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
        bytes.extend_from_slice(plain.as_bytes());
    }
    Some(bytes)
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.origin)
    }
}

/// Why a text is no URL of a further proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxyUrl {
    /// `https://`, `socks5://`, or none.
    #[error("the proxy's URL must begin with http://")]
    Scheme,
    /// No host, a bad port, or a path.
    #[error("the proxy's URL must be http://[USER:PASSWORD@]HOST:PORT")]
    Authority,
    /// A `%` in the user or password that two hex digits do not follow.
    #[error("a % in the proxy's user or password is written %25")]
    Login,
}

#[cfg(test)]
mod tests {
    use super::{InvalidProxyUrl, ProxyUrl, interleaved, percent_decoded};

    #[test]
    fn families_take_turns() {
        let parse = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.parse().unwrap())
                .collect::<Vec<_>>()
        };
        let order = interleaved(&parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]));
        assert_eq!(
            order,
            parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"])
        );
        let order = interleaved(&parse(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]));
        assert_eq!(order, parse(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]));
        assert!(interleaved(&[]).is_empty());
    }

    #[test]
    fn a_proxy_url_names_one_host() {
        let url = |text: &str| text.parse::<ProxyUrl>();
        assert_eq!(
            url("https://proxy.test:1").unwrap_err(),
            InvalidProxyUrl::Scheme
        );
        assert_eq!(url("proxy.test:1").unwrap_err(), InvalidProxyUrl::Scheme);
        assert_eq!(
            url("http://proxy.test:1/x").unwrap_err(),
            InvalidProxyUrl::Authority
        );
        assert_eq!(url("http://").unwrap_err(), InvalidProxyUrl::Authority);
        let proxy = url("http://user:p%40ss@proxy.test:3128/").unwrap();
        assert_eq!(proxy.to_string(), "http://proxy.test:3128");
        assert!(!format!("{proxy:?}").contains("p%40ss"));
        let request = proxy.connect_request("api.test:443").unwrap();
        assert_eq!(
            request.headers()["proxy-authorization"],
            "Basic dXNlcjpwQHNz"
        );
    }

    #[test]
    fn a_proxys_login_is_decoded() {
        let decoded = |text: &str| percent_decoded(text).map(|bytes| bytes.to_vec());
        assert_eq!(decoded("user:pass"), Some(b"user:pass".to_vec()));
        assert_eq!(decoded("u%3a:%40%25%2F"), Some(b"u::@%/".to_vec()));
        for wrong in ["%", "a%4", "%zz", "%+1", "%%41", "%4\u{e9}"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
        let wrong = "http://user:%zz@proxy.test:1".parse::<ProxyUrl>();
        assert_eq!(wrong.unwrap_err(), InvalidProxyUrl::Login);
    }
}
