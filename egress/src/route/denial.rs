//! Why no route admits a target: the condition that failed, its stable code, and what can be done about it.

use std::sync::Arc;

use super::Route;
use super::path::Hazard;
use super::query::QueryHazard;

/// Why no route admits a target.
#[derive(Clone, Debug)]
pub struct Denial {
    /// What failed.
    pub reason: Reason,
    /// The route that came nearest.
    pub route: Option<Arc<Route>>,
}

/// The condition that failed on the route that came nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No route names the host.
    Host,
    /// A route names the host, with another port or scheme.
    Port,
    /// The path has a feature that servers read in two ways, and the route has path rules.
    Hazard(Hazard),
    /// No route for the host covers the path.
    Path,
    /// The route covers the path, not the method.
    Method,
    /// A query condition does not hold.
    Query,
    /// The query has, or may have, a credential, and the route injects its own.
    QueryHazard(QueryHazard),
    /// The route admits the request, but not as a WebSocket.
    WebSocket,
}

impl Reason {
    /// The stable code that answers, logs and `explain` share.
    pub fn code(self) -> &'static str {
        match self {
            Self::Host => "host_not_allowed",
            Self::Port => "port_not_allowed",
            Self::Hazard(_) => "path_ambiguous",
            Self::Path => "path_not_allowed",
            Self::Method => "method_not_allowed",
            Self::Query => "query_not_allowed",
            Self::QueryHazard(QueryHazard::Credential) => "query_credential",
            Self::QueryHazard(_) => "query_ambiguous",
            Self::WebSocket => "websocket_not_allowed",
        }
    }

    /// What failed, in words that repeat nothing of the request.
    pub fn text(self) -> &'static str {
        match self {
            Self::Host => "no route names this host",
            Self::Port => "no route names this host with this port and scheme",
            Self::Hazard(_) => "the path can be read in two ways",
            Self::Path => "no route for this host admits this path",
            Self::Method => "no route for this host and path admits this method",
            Self::Query => "the route for this path has conditions on the query that do not hold",
            Self::QueryHazard(QueryHazard::Credential) => {
                "the query has a parameter that carries a credential"
            }
            Self::QueryHazard(_) => "the query can be read in two ways",
            Self::WebSocket => "the route does not admit WebSockets",
        }
    }

    /// What can be done about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Host => "the operator can add a route for this host",
            Self::Port => "the operator can add a route with this port and scheme",
            Self::Hazard(_) => {
                "send the path in plain form: no dot segments, empty segments, encoded slashes, backslashes or semicolons"
            }
            Self::Path => "the operator can add the path to the route's `path_allowlist`",
            Self::Method => {
                "the operator can add the method to the route's `methods`, unless it is TRACE"
            }
            Self::Query => "the operator can change the route's `query`",
            Self::QueryHazard(QueryHazard::Credential) => {
                "leave the parameter out: the route adds the credential itself; the operator can set `query_credentials: allow`"
            }
            Self::QueryHazard(_) => {
                "encode the query once, and the names in it as UTF-8; the operator can set `query_credentials: allow`"
            }
            Self::WebSocket => {
                "fall back to plain HTTP; the operator can set `websocket: true` on the route"
            }
        }
    }

    pub(super) fn nearness(self) -> u8 {
        match self {
            Self::Host => 0,
            Self::Port => 1,
            Self::Path => 2,
            Self::Hazard(_) => 3,
            Self::Method => 4,
            Self::Query => 5,
            Self::WebSocket => 6,
            Self::QueryHazard(_) => 7,
        }
    }
}
