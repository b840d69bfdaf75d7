//! What becomes of a request, in the terms in which two files are compared.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;

use crate::advice::decision::{Decision, injected};
use crate::advice::reach::{Change, Reach};
use crate::config::render;
use crate::route::Rule;

/// What a file has become of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    /// It is refused.
    Denied,
    /// Its tunnel passes through unseen.
    PassedThrough {
        /// How it is dialled.
        rest: String,
    },
    /// It is admitted.
    Allowed {
        /// The credential's header and slot.
        injection: Option<String>,
        /// Everything else that the route does to it, as its keys.
        rest: String,
    },
}

impl Effect {
    /// What a decision comes to.
    pub(crate) fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Denied(_) => Self::Denied,
            Decision::PassedThrough(route) => Self::PassedThrough {
                rest: rest(&route.rule),
            },
            Decision::Allowed(route) => Self::Allowed {
                injection: route
                    .rule
                    .injection
                    .as_ref()
                    .map(|injection| injected(Some(injection))),
                rest: rest(&route.rule),
            },
        }
    }

    /// How it changes from this to another, if it does.
    pub(crate) fn change_to(&self, after: &Self) -> Option<Change> {
        let altered = (self != after).then_some(Change::Altered);
        self.reach().change_to(after.reach()).or(altered)
    }

    fn reach(&self) -> Reach<'_> {
        match self {
            Self::Denied => Reach::Denied,
            Self::PassedThrough { .. } => Reach::Admitted(None),
            Self::Allowed { injection, .. } => Reach::Admitted(injection.as_deref()),
        }
    }

    /// In words.
    pub(crate) fn to_text(&self) -> String {
        let (what, rest) = match self {
            Self::Denied => return "denied".into(),
            Self::PassedThrough { rest } => ("passed through unseen".to_owned(), rest),
            Self::Allowed { injection, rest } => match injection {
                Some(injection) => (format!("allowed with {injection}"), rest),
                None => ("allowed, nothing injected".to_owned(), rest),
            },
        };
        match rest.as_str() {
            "{}" => what,
            rest => format!("{what}, {rest}"),
        }
    }
}

/// The keys of a route that say what happens to a request, and not to which.
fn rest(rule: &Rule) -> String {
    const KEYS: [&str; 6] = [
        "websocket_extensions",
        "ssrf_ip_allowlist",
        "connect_to",
        "cookies",
        "query_credentials",
        "redact",
    ];
    let Value::Object(mut keys) = render::json(rule) else {
        return String::new();
    };
    keys.retain(|key, _| KEYS.contains(&key.as_str()));
    if !rule.upstream_ca.is_empty() {
        // The file's name says nothing about what is in it.
        let mut hasher = DefaultHasher::new();
        rule.upstream_ca.hash(&mut hasher);
        let certificates = format!(
            "{} certificates, {:016x}",
            rule.upstream_ca.len(),
            hasher.finish()
        );
        keys.insert("upstream_ca".into(), certificates.into());
    }
    Value::Object(keys).to_string()
}
