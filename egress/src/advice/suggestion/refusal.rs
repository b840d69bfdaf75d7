//! What one refusal, or one observed request, calls for: a route, a wider one that is there already, or something that no route can do.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Method;

use crate::addr::classify;
use crate::advice::decision::Decision;
use crate::advice::recorded::{Asked, Request};
use crate::outcome::Verdict;
use crate::route::denial::Reason;
use crate::route::host::Host;
use crate::route::path::{EncodedSlash, hazard_of};
use crate::route::target::{Kind, Origin, Scheme, Target};
use crate::route::{Route, Routes, Tls};

/// What a request calls for that no route admitted.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A route for this.
    Route(Ask),
    /// A route that opens the tunnel. What would have been asked for in it is not known.
    Tunnel(Origin),
    /// A route that is there already and could be extended to this.
    Extension(Arc<Route>, Ask),
    /// Nothing any more: the routes admit it by now.
    Settled,
    /// Something that no route can do; the code says what.
    Other(String),
}

/// What a route has to admit.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Where.
    pub(crate) origin: Origin,
    /// Which path, without a hazard.
    pub(crate) path: String,
    /// How.
    pub(crate) terms: Terms,
}

/// What is asked for about one path.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Terms {
    /// The methods.
    pub(crate) methods: BTreeSet<String>,
    /// Whether WebSockets are among the requests.
    pub(crate) websocket: bool,
    /// Whether the path has an encoded slash, as data.
    pub(crate) slash: bool,
}

/// The code of a path that was too long to be recorded whole.
pub(crate) const CUT: &str = "path_cut";
/// The code of an address over https, for which no route can be.
pub(crate) const ADDRESS: &str = "address_over_https";
/// The code of an address that is not public, where no route names its network: the guard would refuse it beside any route,
/// and an agent chooses which one it asks for.
pub(crate) const NOT_PUBLIC: &str = "address_not_allowed";
/// As much of a path as a record holds.
const LONGEST_PATH: usize = 512;

impl Refusal {
    /// What a record calls for; `None` where a route admitted it.
    pub(crate) fn of(request: &Request, routes: Option<&Routes>) -> Option<Self> {
        let is_wanted = request.verdict == Verdict::Denied || request.is_observed();
        is_wanted.then(|| {
            Self::sort(request, routes).unwrap_or_else(|code| Self::Other(code.to_owned()))
        })
    }

    fn sort<'r>(request: &'r Request, routes: Option<&Routes>) -> Result<Self, &'r str> {
        let code = request.code.as_str();
        let asked = request.asked().map_err(|_| code)?;
        let can_admit = [
            Reason::Host,
            Reason::Port,
            Reason::Path,
            Reason::Method,
            Reason::WebSocket,
        ];
        if !request.is_observed() && !can_admit.iter().any(|reason| reason.code() == code) {
            return Err(code);
        }
        let target = match asked {
            Asked::Tunnel(origin) if is_address_over_tls(&origin) => return Err(ADDRESS),
            Asked::Tunnel(origin) => {
                let opened = routes.is_some_and(|routes| routes.admits(&origin).is_ok());
                return Ok(match opened {
                    true => Self::Settled,
                    false => Self::Tunnel(origin),
                });
            }
            Asked::Request(target) => target,
        };
        let denial = match routes.map(|routes| Decision::of(routes, target.clone())) {
            Some(Decision::Denied(denial)) if can_admit.contains(&denial.reason) => Some(denial),
            Some(Decision::Denied(denial)) => return Err(denial.reason.code()),
            Some(_) => return Ok(Self::Settled),
            None => None,
        };
        let ask = Ask::of(target)?;
        let near = routes.zip(denial);
        match near.and_then(|(routes, denial)| extended(routes, denial.route.as_ref(), &ask)) {
            Some(route) => Ok(Self::Extension(route, ask)),
            None if is_private(&ask.origin) => Err(NOT_PUBLIC),
            None => Ok(Self::Route(ask)),
        }
    }
}

impl Ask {
    /// What a route has to admit for a request, if one can.
    fn of(target: Target) -> Result<Self, &'static str> {
        let method = target.method();
        let is_upper = !method
            .as_str()
            .bytes()
            .any(|byte| byte.is_ascii_lowercase());
        if !is_upper || matches!(*method, Method::TRACE | Method::CONNECT) {
            return Err(Reason::Method.code());
        }
        if is_address_over_tls(target.origin()) {
            return Err(ADDRESS);
        }
        let path = target.path();
        if path.len() >= LONGEST_PATH {
            return Err(CUT);
        }
        if let Some(hazard) = hazard_of(path, EncodedSlash::Accept) {
            return Err(Reason::Hazard(hazard).code());
        }
        Ok(Self {
            terms: Terms {
                methods: [method.as_str().to_owned()].into(),
                websocket: target.kind() == Kind::WebSocket,
                slash: hazard_of(path, EncodedSlash::Refuse).is_some(),
            },
            path: path.to_owned(),
            origin: target.origin().clone(),
        })
    }
}

/// The route that is to be extended, where a second one beside it would send requests out without what it gives them: a
/// credential, or the way to a private upstream.
fn extended(routes: &Routes, nearest: Option<&Arc<Route>>, ask: &Ask) -> Option<Arc<Route>> {
    let gives = |route: &&Arc<Route>| {
        let rule = &route.rule;
        let origin = &ask.origin;
        let is_for_it = rule.host.matches(&origin.host)
            && (rule.scheme, rule.port) == (origin.scheme, origin.port)
            && rule.tls == Tls::Intercept;
        is_for_it
            && (rule.injection.is_some()
                || rule.connect_to.is_some()
                || !rule.ssrf_ip_allowlist.is_empty()
                || !rule.upstream_ca.is_empty())
    };
    nearest
        .filter(gives)
        .or_else(|| routes.iter().find(gives))
        .cloned()
}

fn is_private(origin: &Origin) -> bool {
    matches!(origin.host, Host::Address(address) if !classify(address).is_public())
}

/// TLS clients send no server name for an address, so no route over https can be for one.
fn is_address_over_tls(origin: &Origin) -> bool {
    origin.scheme == Scheme::Https && matches!(origin.host, Host::Address(_))
}
