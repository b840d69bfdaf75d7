//! Observation: what no route admits is let through for a while, so that an operator learns what an agent needs.
//!
//! It widens the hosts, paths and methods that routes name, and nothing else. What it lets through goes out without any
//! credential: none is injected, and the agent's own are taken off where they are known. Pure; its end is a change of the
//! routes, as a reload is.

use std::sync::Arc;
use std::time::Instant;

use super::denial::{Denial, Reason};
use super::host::HostPattern;
use super::passing::{Cookies, Extensions, QueryCredentials, Redact};
use super::path::{EncodedSlash, hazard_of};
use super::target::{Origin, Target};
use super::{Route, RouteId, Routes, Rule, Tls, USUAL_METHODS, carriers};

/// The code of what is let through, in the log and in the audit file.
pub const CODE: &str = "observed";

/// An observation under way.
#[derive(Clone, Debug)]
pub struct Observation {
    until: Instant,
}

impl Observation {
    /// One that is to end then. Whoever holds the routes ends it, by putting [`Routes::enforcing`] in force.
    pub fn until(until: Instant) -> Self {
        Self { until }
    }

    /// When it is to end.
    pub fn end(&self) -> Instant {
        self.until
    }
}

impl Routes {
    /// The same with an observation of what they do not admit.
    pub fn observed(self, observation: Observation) -> Self {
        Self {
            observation: Some(observation),
            ..self
        }
    }

    /// The same without one.
    pub fn enforcing(&self) -> Self {
        Self {
            observation: None,
            ..self.clone()
        }
    }

    /// The observation under way.
    pub fn observation(&self) -> Option<&Observation> {
        self.observation.as_ref()
    }

    /// Whether a tunnel to an origin is open by the observation alone.
    pub fn is_observed(&self, origin: &Origin) -> bool {
        self.observation.is_some() && self.tls_of(origin).is_err() && is_open(origin, self)
    }
}

/// Decides what the routes have denied: by a route for the target's own origin that injects nothing.
pub(super) fn decide(
    target: &Target,
    denial: Denial,
    routes: &Routes,
) -> Result<Arc<Route>, Denial> {
    let origin = target.origin();
    let is_widened = match denial.reason {
        Reason::Host | Reason::Port | Reason::Path | Reason::Method => true,
        // Whoever wrote the route thought of these, or nobody should.
        Reason::Hazard(_) | Reason::Query | Reason::QueryHazard(_) | Reason::WebSocket => false,
    };
    if !is_widened || !is_open(origin, routes) {
        return Err(denial);
    }
    let refused = |reason| Denial {
        reason,
        route: denial.route.clone(),
    };
    let rule = rule(origin, routes);
    if let Some(hazard) = hazard_of(target.path(), rule.encoded_slash) {
        return Err(refused(Reason::Hazard(hazard)));
    }
    if !rule.admits_method(target.method()) {
        return Err(refused(Reason::Method));
    }
    if let Some(hazard) = rule.query_hazard(target) {
        return Err(refused(Reason::QueryHazard(hazard)));
    }
    Ok(Arc::new(Route {
        id: RouteId::OBSERVED,
        line: 0,
        rule,
        outcomes: Arc::default(),
    }))
}

/// Whether anything at an origin may be observed.
fn is_open(origin: &Origin, routes: &Routes) -> bool {
    // For an address there is no leaf, and whoever means a service knows its name.
    if origin.host.as_name().is_none() {
        return false;
    }
    let mut is_usual = origin.port == origin.scheme.default_port();
    for candidate in routes.candidates(&origin.host) {
        let rule = &candidate.route.rule;
        let is_its_own = (rule.scheme, rule.port) == (origin.scheme, origin.port);
        // The route's way to the host is not the observation's: without it the request would come to another server than
        // the route's, and with it to a private one.
        let has_a_way = rule.connect_to.is_some()
            || !rule.ssrf_ip_allowlist.is_empty()
            || !rule.upstream_ca.is_empty();
        // The agent's own credential could not be told from other headers.
        let is_unknown = rule
            .injection
            .as_ref()
            .is_some_and(|injection| !carriers::is_header(injection.header.as_str()));
        if has_a_way || is_unknown || (is_its_own && rule.tls == Tls::Passthrough) {
            return false;
        }
        is_usual |= is_its_own;
    }
    is_usual
}

/// What holds for all that is observed at an origin: as on a route that injects something, but for the credential.
fn rule(origin: &Origin, routes: &Routes) -> Rule {
    let is_named = routes.candidates(&origin.host).next().is_some();
    Rule {
        host: HostPattern::Exact(origin.host.clone()),
        scheme: origin.scheme,
        port: origin.port,
        paths: None,
        // Named, although they are what a route without `methods` admits: so a connection that carried a body is not used
        // again, and what an upstream might take for a second request in it, which no record would have, never is one.
        methods: Some(USUAL_METHODS.to_vec()),
        query: Vec::new(),
        injection: None,
        tls: Tls::Intercept,
        websocket: true,
        websocket_extensions: Extensions::Pass,
        // Where no route has path rules, a slash can get round none.
        encoded_slash: match is_named {
            true => EncodedSlash::Refuse,
            false => EncodedSlash::Accept,
        },
        ssrf_ip_allowlist: Vec::new(),
        connect_to: None,
        upstream_ca: Vec::new(),
        cookies: Cookies::usual(true),
        query_credentials: QueryCredentials::usual(true),
        redact: Redact::usual(false),
        description: None,
    }
}
