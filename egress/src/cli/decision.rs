//! What the data path would do with a request: the same two questions in the same order, and nothing of its own.

use std::sync::Arc;

use crate::route::target::Target;
use crate::route::{Denial, Route, Routes, Tls};

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    /// A route admits the request.
    Allowed(Arc<Route>),
    /// A route admits the tunnel, and no request in it is seen.
    PassedThrough(Arc<Route>),
    /// No route admits it.
    Denied(Denial),
}

impl Decision {
    /// Decides about the tunnel first, then about the request in it.
    pub(super) fn of(routes: &Routes, target: Target) -> Self {
        let decided = match routes.admits(target.origin()) {
            Ok(Tls::Intercept) => routes
                .decide(target)
                .map(|permit| Self::Allowed(permit.route().clone())),
            Ok(Tls::Passthrough) => routes
                .admit_passthrough(target.origin())
                .map(|permit| Self::PassedThrough(permit.route().clone())),
            Err(denial) => Err(denial),
        };
        decided.unwrap_or_else(Self::Denied)
    }

    /// The route that admits it.
    pub(super) fn route(&self) -> Option<&Arc<Route>> {
        match self {
            Self::Allowed(route) | Self::PassedThrough(route) => Some(route),
            Self::Denied(_) => None,
        }
    }
}
