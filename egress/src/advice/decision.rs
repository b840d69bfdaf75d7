//! What the data path would do with a request: the same two questions in the same order, and nothing of its own.

use std::sync::Arc;

use crate::route::denial::Denial;
use crate::route::target::Target;
use crate::route::{AuthScheme, Injection, Route, Routes, Tls};

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Decision {
    /// A route admits the request.
    Allowed(Arc<Route>),
    /// A route admits the tunnel, and no request in it is seen.
    PassedThrough(Arc<Route>),
    /// No route admits it.
    Denied(Denial),
}

impl Decision {
    /// Decides about the tunnel first, then about the request in it.
    pub(crate) fn of(routes: &Routes, target: Target) -> Self {
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
    pub(crate) fn route(&self) -> Option<&Arc<Route>> {
        match self {
            Self::Allowed(route) | Self::PassedThrough(route) => Some(route),
            Self::Denied(_) => None,
        }
    }
}

/// The header that would be added, with the slot's name where its value would be.
pub(crate) fn injected(injection: Option<&Injection>) -> String {
    let Some(Injection {
        header,
        scheme,
        slot,
    }) = injection
    else {
        return "nothing".into();
    };
    match scheme {
        AuthScheme::Bearer => format!("{header}: Bearer <{slot}>"),
        AuthScheme::Basic { user } => {
            format!("{header}: Basic base64({}:<{slot}>)", user.escape_debug())
        }
        AuthScheme::Token => format!("{header}: token <{slot}>"),
        AuthScheme::Raw => format!("{header}: <{slot}>"),
    }
}
