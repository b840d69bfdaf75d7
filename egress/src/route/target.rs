//! What a request asks for, in the one form that is decided on and sent.
//!
//! [`Target::from_request`] is where the outer proxy request and the request inside a tunnel meet. It pins Host and
//! `:authority`, in HTTP/1 and HTTP/2 alike, to one origin. A printed URI is never parsed again.

use std::fmt;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Version};

use super::host::{Host, InvalidHost};

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain text, and only where a route says so.
    Http,
    /// TLS on both sides.
    Https,
}

impl Scheme {
    /// The port that the scheme implies.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// The scheme as a URI spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Scheme, host and port (RFC 6454).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// The host in canonical form.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

impl Origin {
    /// Parses `host` or `host:port`.
    ///
    /// # Errors
    ///
    /// [`InvalidTarget`] for userinfo, an empty, zero, padded or overlong port, and what [`Host::parse`] refuses.
    pub fn parse(scheme: Scheme, authority: &str) -> Result<Self, InvalidTarget> {
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of a bracketed address may be one of its own.
            Some((_, tail)) if tail.ends_with(']') => (authority, scheme.default_port()),
            Some((host, port)) => (host, parse_port(port)?),
            None => (authority, scheme.default_port()),
        };
        Ok(Self {
            scheme,
            host: Host::parse(host)?,
            port,
        })
    }

    /// Whether an authority is plainly this origin's: its name as it stands here, with its port or, where that is the
    /// scheme's, without. There are other spellings, which only the parser knows.
    fn is_written(&self, authority: &str) -> bool {
        let rest = self
            .host
            .as_name()
            .and_then(|name| authority.strip_prefix(name));
        match rest {
            Some("") => self.port == self.scheme.default_port(),
            Some(rest) => {
                rest.strip_prefix(':')
                    .and_then(|port| parse_port(port).ok())
                    == Some(self.port)
            }
            None => false,
        }
    }

    /// `host`, or `host:port` where the port is not the scheme's: what goes into Host and `:authority`.
    pub fn authority(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(move |f| {
            write!(f, "{}", self.host)?;
            if self.port == self.scheme.default_port() {
                Ok(())
            } else {
                write!(f, ":{}", self.port)
            }
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn parse_port(text: &str) -> Result<u16, InvalidTarget> {
    match text.as_bytes() {
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            text.parse().map_err(|_| InvalidTarget::Port)
        }
        _ => Err(InvalidTarget::Port),
    }
}

/// How a request reached the sidecar.
#[derive(Clone, Debug)]
pub enum Via {
    /// Straight to the proxy's listener: absolute-form requests for plain-text origins.
    Proxy,
    /// To a listener for plain requests of clients that know of no proxy: each request's Host is its origin.
    Steered,
    /// Inside a tunnel that was opened to this origin and whose TLS ended here.
    Tunnel(Origin),
}

/// A WebSocket handshake or any other request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ordinary exchange.
    Exchange,
    /// `Upgrade: websocket` (RFC 6455).
    WebSocket,
}

/// A request's target: origin, method, path and query.
#[derive(Clone, Debug)]
pub struct Target {
    origin: Origin,
    method: Method,
    path_and_query: PathAndQuery,
    kind: Kind,
}

impl Target {
    /// Reads the target of a request, which must name one origin and no other.
    ///
    /// # Errors
    ///
    /// [`InvalidTarget::Misdirected`] where a request in a tunnel names another origin than the tunnel's; every other
    /// variant for a request that names none, or more than one, or one in a form that clients and servers read apart.
    pub fn from_request<B>(
        request: &Request<B>,
        via: &Via,
        kind: Kind,
    ) -> Result<Self, InvalidTarget> {
        let origin = match via {
            Via::Proxy => proxied_origin(request)?,
            Via::Steered => steered_origin(request)?,
            Via::Tunnel(origin) => {
                check_tunnelled(request, origin)?;
                origin.clone()
            }
        };
        let path_and_query = request.uri().path_and_query().ok_or(InvalidTarget::Form)?;
        Self::of(
            origin,
            request.method().clone(),
            path_and_query.clone(),
            kind,
        )
    }

    /// A target from its parts, for `explain`.
    ///
    /// # Errors
    ///
    /// [`InvalidTarget::Form`] or [`InvalidTarget::Byte`] for a path that does not begin with `/` or holds bytes that no
    /// request line can.
    pub fn new(
        origin: Origin,
        method: Method,
        path_and_query: &str,
        kind: Kind,
    ) -> Result<Self, InvalidTarget> {
        let path_and_query = path_and_query.parse().map_err(|_| InvalidTarget::Form)?;
        Self::of(origin, method, path_and_query, kind)
    }

    fn of(
        origin: Origin,
        method: Method,
        path_and_query: PathAndQuery,
        kind: Kind,
    ) -> Result<Self, InvalidTarget> {
        if !path_and_query.as_str().starts_with('/') {
            // `*`, and an authority-form target that hyper took for a path.
            return Err(InvalidTarget::Form);
        }
        if !path_and_query.as_str().is_ascii() {
            // The gate lets no such byte pass in HTTP/1. The `http` crate takes UTF-8, and would write it to an upstream.
            return Err(InvalidTarget::Byte);
        }
        Ok(Self {
            origin,
            method,
            path_and_query,
            kind,
        })
    }

    /// Where the request goes.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path, byte for byte as the agent sent it.
    pub fn path(&self) -> &str {
        self.path_and_query.path()
    }

    /// What follows the `?`.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query.query()
    }

    /// Path and query as they go out.
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.path_and_query
    }

    /// Whether this is a WebSocket handshake.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// Why a request has no usable target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// A request in a tunnel names another origin: 421 (RFC 9110, section 15.5.20).
    #[error("the request names another host than its tunnel was opened to")]
    Misdirected,
    /// Neither the form that the place demands, nor a path that begins with `/`.
    #[error("the request target has the wrong form")]
    Form,
    /// A byte beyond ASCII, which RFC 3986 wants encoded, in the path or the query.
    #[error("the path or the query has a byte that must be percent-encoded")]
    Byte,
    /// No Host in HTTP/1.1, no `:authority` in HTTP/2.
    #[error("the request names no host")]
    NoHost,
    /// Two Host fields, or a Host that differs from the authority.
    #[error("the request names more than one host")]
    TwoHosts,
    /// `user@host`.
    #[error("the authority has a user part")]
    UserInfo,
    /// An empty, zero, padded or too large port.
    #[error("the port is not a number from 1 to 65535 in plain form")]
    Port,
    /// What the host parser said.
    #[error(transparent)]
    Host(#[from] InvalidHost),
}

/// The origin of an absolute-form `http://` request, which a Host field may repeat and not contradict.
fn proxied_origin<B>(request: &Request<B>) -> Result<Origin, InvalidTarget> {
    if request.uri().scheme_str() != Some("http") {
        return Err(InvalidTarget::Form);
    }
    let origin = authority_origin(Scheme::Http, request.uri().authority())?;
    match host_field(request)? {
        Some(host) if Origin::parse(Scheme::Http, host)? != origin => Err(InvalidTarget::TwoHosts),
        // RFC 9112, section 3.2: a client must send Host also with the absolute form.
        None if request.version() == Version::HTTP_11 => Err(InvalidTarget::NoHost),
        _ => Ok(origin),
    }
}

/// The origin that Host names, at port 80: the client believes to talk to that server. The absolute form, which a server
/// has to take (RFC 9112, section 3.2.2), may repeat it and not contradict.
fn steered_origin<B>(request: &Request<B>) -> Result<Origin, InvalidTarget> {
    let host = host_field(request)?.ok_or(InvalidTarget::NoHost)?;
    let origin = Origin::parse(Scheme::Http, host)?;
    let uri = request.uri();
    if uri.scheme_str().is_some_and(|scheme| scheme != "http") {
        return Err(InvalidTarget::Form);
    }
    if (uri.scheme().is_some() || uri.authority().is_some())
        && authority_origin(Scheme::Http, uri.authority())? != origin
    {
        return Err(InvalidTarget::TwoHosts);
    }
    if origin.port != Scheme::Http.default_port() {
        return Err(InvalidTarget::Misdirected);
    }
    Ok(origin)
}

/// Holds a request in a tunnel to the tunnel's origin, on every request anew.
fn check_tunnelled<B>(request: &Request<B>, tunnel: &Origin) -> Result<(), InvalidTarget> {
    let host = host_field(request)?
        .map(|text| origin_like(tunnel, text))
        .transpose()?;
    let named = if request.version() == Version::HTTP_2 {
        if request.uri().scheme_str() != Some(tunnel.scheme.as_str()) {
            return Err(InvalidTarget::Form);
        }
        let authority = origin_like(tunnel, authority_text(request.uri().authority())?)?;
        if host.is_some_and(|host| host != authority) {
            return Err(InvalidTarget::TwoHosts);
        }
        authority
    } else {
        if request.uri().authority().is_some() || request.uri().scheme().is_some() {
            // Absolute form belongs in front of a proxy, and the agent has a tunnel here. Naming the tunnel's own origin
            // would be harmless; a second way to name a host is not worth having.
            return Err(InvalidTarget::Form);
        }
        host.ok_or(InvalidTarget::NoHost)?
    };
    if named == *tunnel {
        Ok(())
    } else {
        Err(InvalidTarget::Misdirected)
    }
}

/// Parses an authority, which is nearly always the tunnel's own as we would write it.
fn origin_like(tunnel: &Origin, authority: &str) -> Result<Origin, InvalidTarget> {
    match tunnel.is_written(authority) {
        true => Ok(tunnel.clone()),
        false => Origin::parse(tunnel.scheme, authority),
    }
}

fn authority_origin(
    scheme: Scheme,
    authority: Option<&Authority>,
) -> Result<Origin, InvalidTarget> {
    Origin::parse(scheme, authority_text(authority)?)
}

/// An authority without a user part, which has to be there.
fn authority_text(authority: Option<&Authority>) -> Result<&str, InvalidTarget> {
    let authority = authority.ok_or(InvalidTarget::NoHost)?.as_str();
    if authority.contains('@') {
        return Err(InvalidTarget::UserInfo);
    }
    Ok(authority)
}

/// The one Host field, where there is one.
fn host_field<B>(request: &Request<B>) -> Result<Option<&str>, InvalidTarget> {
    let mut fields = request.headers().get_all(HOST).iter();
    let Some(host) = fields.next() else {
        return Ok(None);
    };
    if fields.next().is_some() {
        return Err(InvalidTarget::TwoHosts);
    }
    let host = host.to_str().map_err(|_| InvalidHost::Byte)?;
    if host.contains('@') {
        return Err(InvalidTarget::UserInfo);
    }
    Ok(Some(host))
}

#[cfg(test)]
mod tests;
