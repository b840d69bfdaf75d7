//! Routes, and the one function that decides what a request may do: [`Routes::decide`].
//!
//! Pure: values in, verdict and reason out. A [`Permit`] is the proof that a route admitted a target; it has private
//! fields and is made nowhere else, so nothing that needs one can be reached by an undecided request.

pub mod carriers;
pub mod denial;
pub mod host;
pub mod observation;
pub mod passing;
pub mod path;
pub mod query;
pub mod target;
pub mod url;

mod rank;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Method;
use http::header::HeaderName;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;

use self::denial::{Denial, Reason};
use self::host::{Host, HostPattern, parent_of};
use self::observation::Observation;
use self::passing::{Cookies, Extensions, QueryCredentials, Redact};
use self::path::{EncodedSlash, PathPattern, hazard_of};
use self::rank::{Candidate, query_admits};
use self::target::{Kind, Origin, Scheme, Target};
use crate::credential::SlotName;
use crate::outcome::Outcomes;

/// All routes of a policy, found by host; and, for a while, an [`Observation`] of what none of them admits.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    exact: HashMap<Host, Vec<Candidate>>,
    below: HashMap<Arc<str>, Vec<Candidate>>,
    all: Vec<Arc<Route>>,
    by_id: HashMap<RouteId, Arc<Route>>,
    observation: Option<Observation>,
}

impl Routes {
    /// Orders the rules and gives each route its identity. A rule that `previous` had already keeps its identity, so that
    /// its connections survive a reload, and an observation goes on as long as it was to.
    ///
    /// # Errors
    ///
    /// Every [`Tie`]: two routes of equal rank that may admit the same request.
    pub fn new(rules: Vec<(Rule, Line)>, previous: Option<&Self>) -> Result<Self, Vec<Tie>> {
        let all = rank::identify(rules, previous);
        let by_id = all.iter().map(|route| (route.id, route.clone())).collect();
        let mut routes = Self {
            all,
            by_id,
            observation: previous.and_then(|previous| previous.observation.clone()),
            ..Self::default()
        };
        for route in &routes.all {
            let candidates = match &route.rule.host {
                HostPattern::Exact(host) => routes.exact.entry(host.clone()).or_default(),
                HostPattern::OneLabelBelow(suffix) => {
                    routes.below.entry(suffix.clone()).or_default()
                }
            };
            candidates.extend(Candidate::of(route));
        }
        let mut ties = Vec::new();
        for candidates in routes.exact.values_mut().chain(routes.below.values_mut()) {
            rank::sort(candidates, &mut ties);
        }
        ties.sort_by_key(|tie| (tie.second, tie.first));
        if ties.is_empty() {
            Ok(routes)
        } else {
            Err(ties)
        }
    }

    /// Decides a request. This is the only maker of a [`Permit`].
    ///
    /// What no route admits is decided by the observation, while there is one. It injects nothing.
    ///
    /// # Errors
    ///
    /// A [`Denial`] with the reason of the route that came nearest to admitting the target.
    pub fn decide(&self, target: Target) -> Result<Permit, Denial> {
        let decided = match (self.routed(&target), &self.observation) {
            (Err(denial), Some(_)) => observation::decide(&target, denial, self),
            (decided, _) => decided,
        };
        decided.map(|route| Permit { route, target })
    }

    /// The route that admits a target.
    fn routed(&self, target: &Target) -> Result<Arc<Route>, Denial> {
        let mut nearest = Denial {
            reason: Reason::Host,
            route: None,
        };
        let mut admitted = None;
        for candidate in self.candidates(&target.origin().host) {
            match candidate.admits(target) {
                Ok(()) => {
                    admitted = Some(candidate.route.clone());
                    break;
                }
                Err(reason) if reason.nearness() > nearest.reason.nearness() => {
                    nearest = Denial {
                        reason,
                        route: Some(candidate.route.clone()),
                    };
                }
                Err(_) => {}
            }
        }
        let Some(route) = admitted else {
            return Err(nearest);
        };
        // Not one of the conditions by which a route is found: a request that is refused here is not for the next one.
        match route.rule.query_hazard(target) {
            Some(hazard) => Err(Denial {
                reason: Reason::QueryHazard(hazard),
                route: Some(route),
            }),
            None => Ok(route),
        }
    }

    /// Whether a tunnel may be opened to an origin, and what happens in it.
    ///
    /// # Errors
    ///
    /// A [`Denial`] by [`Reason::Host`] or [`Reason::Port`].
    pub fn admits(&self, origin: &Origin) -> Result<Tls, Denial> {
        match self.tls_of(origin) {
            Err(_) if self.is_observed(origin) => Ok(Tls::Intercept),
            admitted => admitted,
        }
    }

    /// What the routes say of a tunnel to an origin.
    fn tls_of(&self, origin: &Origin) -> Result<Tls, Denial> {
        let mut denial = Denial {
            reason: Reason::Host,
            route: None,
        };
        for candidate in self.candidates(&origin.host) {
            let rule = &candidate.route.rule;
            if rule.scheme == origin.scheme && rule.port == origin.port {
                return Ok(rule.tls);
            }
            denial = Denial {
                reason: Reason::Port,
                route: Some(candidate.route.clone()),
            };
        }
        Err(denial)
    }

    /// Whether any route is for a host, by whatever port, scheme or path, or its name is observed.
    pub fn names(&self, host: &Host) -> bool {
        self.candidates(host).next().is_some()
            || (self.observation.is_some() && host.as_name().is_some())
    }

    /// The first `passthrough` route for an origin, as the permit that dialling demands. The caller has checked that the
    /// client hello names this origin.
    ///
    /// # Errors
    ///
    /// A [`Denial`], where no such route is there (any more).
    pub fn admit_passthrough(&self, origin: &Origin) -> Result<Permit, Denial> {
        // A route that ranks higher may intercept the origin by now.
        if self.admits(origin)? != Tls::Passthrough {
            return Err(Denial {
                reason: Reason::Host,
                route: None,
            });
        }
        let whole =
            Target::new(origin.clone(), Method::CONNECT, "/", Kind::Exchange).map_err(|_| {
                Denial {
                    reason: Reason::Host,
                    route: None,
                }
            })?;
        self.candidates(&origin.host)
            .find(|candidate| {
                let rule = &candidate.route.rule;
                rule.scheme == origin.scheme
                    && rule.port == origin.port
                    && rule.tls == Tls::Passthrough
            })
            .map(|candidate| Permit {
                route: candidate.route.clone(),
                target: whole,
            })
            .ok_or(Denial {
                reason: Reason::Host,
                route: None,
            })
    }

    /// All routes, in the order of their file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Route>> {
        self.all.iter()
    }

    /// The route of an identity.
    pub fn get(&self, id: RouteId) -> Option<&Arc<Route>> {
        self.by_id.get(&id)
    }

    /// Exact hosts before wildcards; each in the order of rank.
    fn candidates(&self, host: &Host) -> impl Iterator<Item = &Candidate> {
        let exact = self.exact.get(host).into_iter().flatten();
        // Looked up where no exact host decides.
        let below = std::iter::once_with(|| self.below.get(parent_of(host)?)).flatten();
        exact.chain(below.flatten())
    }
}

/// Proof that a route admits a target, or that it is observed.
#[derive(Clone, Debug)]
pub struct Permit {
    route: Arc<Route>,
    target: Target,
}

impl Permit {
    /// The route that decided. That of an observed target stands in no file, and has the identity
    /// [`RouteId::OBSERVED`].
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Whether no route admits the target, so that it is let through for as long as an observation lasts.
    pub fn is_observed(&self) -> bool {
        self.route.id == RouteId::OBSERVED
    }

    /// What was decided on.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// One route of a policy: a rule with its identity and its place in the file.
#[derive(Debug)]
pub struct Route {
    /// Unique in this process; kept over a reload that leaves the rule as it is.
    pub id: RouteId,
    /// Where it stands.
    pub line: Line,
    /// What it says.
    pub rule: Rule,
    /// What became of the requests that it admitted. Kept as its identity is.
    pub outcomes: Arc<Outcomes>,
}

/// As the operator finds it: its host and its line.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {})", self.rule.host, self.line)
    }
}

/// A route's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(u64);

impl RouteId {
    /// What all that is observed shares. No route of a file has it: they are numbered from 1 on.
    pub const OBSERVED: Self = Self(0);
}

#[cfg(test)]
impl RouteId {
    /// One that no route has.
    pub(crate) fn of_a_test(number: u64) -> Self {
        Self(u64::MAX - number)
    }
}

/// A line of the routes file, counted from 1.
pub type Line = u32;

/// What one route says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Which hosts.
    pub host: HostPattern,
    /// `http` or `https`.
    pub scheme: Scheme,
    /// The upstream's port.
    pub port: u16,
    /// Which paths; `None` is every path, and no path rules.
    pub paths: Option<Vec<PathPattern>>,
    /// Which methods; `None` is every method of RFC 9110 and PATCH, but for TRACE and CONNECT.
    pub methods: Option<Vec<Method>>,
    /// Query parameters that must be there exactly once, with exactly this (decoded) value.
    pub query: Vec<(String, String)>,
    /// The credential to insert.
    pub injection: Option<Injection>,
    /// What happens in a tunnel.
    pub tls: Tls,
    /// Whether WebSocket handshakes are admitted.
    pub websocket: bool,
    /// What becomes of the extensions that a WebSocket handshake offers.
    pub websocket_extensions: Extensions,
    /// Whether `%2F` is data.
    pub encoded_slash: EncodedSlash,
    /// Networks that the host may resolve into although they are not public.
    pub ssrf_ip_allowlist: Vec<IpNet>,
    /// What to dial instead of resolving the host.
    pub connect_to: Option<ConnectTo>,
    /// Certificates trusted for this route besides the roots.
    pub upstream_ca: Vec<CertificateDer<'static>>,
    /// Which cookies go through, both ways.
    pub cookies: Cookies,
    /// What becomes of a request with a credential in its query.
    pub query_credentials: QueryCredentials,
    /// What becomes of the injected credential where an answer says it back.
    pub redact: Redact,
    /// Free text.
    pub description: Option<String>,
}

impl Rule {
    /// Whether it matters which requests reach the upstream: not all that there can be are admitted, or a credential goes
    /// with them.
    pub fn decides(&self) -> bool {
        self.paths.is_some()
            || self.methods.is_some()
            || !self.query.is_empty()
            || self.injection.is_some()
    }
}

/// What happens in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tls {
    /// The agent's TLS ends here, and every request is decided.
    Intercept,
    /// The bytes go through after the server name was checked.
    Passthrough,
}

/// Which credential goes where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Injection {
    /// The header that carries it.
    pub header: HeaderName,
    /// Its form.
    pub scheme: AuthScheme,
    /// Where its value comes from.
    pub slot: SlotName,
}

/// The form of a credential in its header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AuthScheme {
    /// `Bearer TOKEN` (RFC 6750).
    Bearer,
    /// `Basic base64(USER:TOKEN)` (RFC 7617).
    Basic {
        /// The user part, without a colon.
        user: String,
    },
    /// `token TOKEN`, as GitHub's older clients write it.
    Token,
    /// The token alone.
    Raw,
}

/// What to dial instead of the route's host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConnectTo {
    /// This address, whatever its class: the operator wrote it down.
    Address(SocketAddr),
    /// This name, resolved and checked like any other.
    Name(Host, u16),
}

/// Two routes of equal rank that may admit the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie {
    /// The one that stands first in the file.
    pub first: Line,
    /// The other.
    pub second: Line,
}

impl Candidate {
    /// Whether the route admits the target, by this path pattern.
    fn admits(&self, target: &Target) -> Result<(), Reason> {
        let rule = &self.route.rule;
        let origin = target.origin();
        // A passthrough route has nothing to say about requests: none of them is seen.
        if rule.scheme != origin.scheme || rule.port != origin.port || rule.tls == Tls::Passthrough
        {
            return Err(Reason::Port);
        }
        if let Some(pattern) = self.path() {
            if let Some(hazard) = hazard_of(target.path(), rule.encoded_slash) {
                return Err(Reason::Hazard(hazard));
            }
            if !pattern.matches(target.path()) {
                return Err(Reason::Path);
            }
        }
        if !rule.admits_method(target.method()) {
            return Err(Reason::Method);
        }
        if !query_admits(&rule.query, target.query()) {
            return Err(Reason::Query);
        }
        if target.kind() == Kind::WebSocket && !rule.websocket {
            return Err(Reason::WebSocket);
        }
        Ok(())
    }
}

impl Rule {
    /// Whether the rule is for a method.
    pub(crate) fn admits_method(&self, method: &Method) -> bool {
        match &self.methods {
            Some(methods) => methods.contains(method),
            None => USUAL_METHODS.contains(method),
        }
    }
}

/// The methods of RFC 9110 and PATCH, but for TRACE and CONNECT.
static USUAL_METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
    Method::OPTIONS,
];

impl From<(IpAddr, u16)> for ConnectTo {
    fn from(address: (IpAddr, u16)) -> Self {
        Self::Address(address.into())
    }
}

#[cfg(test)]
mod tests;
