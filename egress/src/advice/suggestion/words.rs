//! What is said about a refusal that no new route is suggested for.

use http::Method;

use super::group::exact;
use super::refusal::{ADDRESS, Ask, CUT, NOT_PUBLIC, Terms};
use crate::advice::recorded::Seen;
use crate::config::render;
use crate::route::path::{EncodedSlash, PathPattern};
use crate::route::{Route, Rule};

/// The heading over what a route could be extended to.
pub(crate) fn extension_head(route: &Route) -> String {
    let (host, line) = (&route.rule.host, route.line);
    match &route.rule.injection {
        Some(injection) => format!(
            "WARNING: the route for {host} in line {line} injects {}. What is added to it goes out with that credential:",
            injection.slot
        ),
        None => format!("The route for {host} in line {line} could be extended:"),
    }
}

/// What a route lacks to admit something.
pub(crate) fn extended(rule: &Rule, ask: &Ask, seen: &Seen) -> String {
    let Terms {
        methods,
        websocket,
        slash,
    } = &ask.terms;
    let mut steps = Vec::new();
    let covers =
        |patterns: &[PathPattern]| patterns.iter().any(|pattern| pattern.matches(&ask.path));
    if rule
        .paths
        .as_deref()
        .is_some_and(|patterns| !covers(patterns))
    {
        let pattern: Vec<_> = exact(&ask.path).into_iter().collect();
        steps.push(format!(
            "add {} to `path_allowlist`",
            render::paths(&pattern)
        ));
    }
    let knows = |method: &String| {
        let method = Method::from_bytes(method.as_bytes());
        method.is_ok_and(|method| rule.admits_method(&method))
    };
    let lacking: Vec<&str> = methods
        .iter()
        .filter(|method| !knows(method))
        .map(String::as_str)
        .collect();
    if !lacking.is_empty() {
        let lacking = lacking.join(", ");
        steps.push(format!(
            "add {lacking} to `methods`, which goes for all its paths"
        ));
    }
    if *websocket && !rule.websocket {
        steps.push("set `websocket: true`".into());
    }
    if *slash && rule.encoded_slash == EncodedSlash::Refuse {
        steps.push("set `encoded_slash: true`".into());
    }
    if !rule.query.is_empty() {
        steps.push("its `query` is asked for, too".into());
    }
    let methods = Vec::from_iter(methods.iter().map(String::as_str)).join(", ");
    let (origin, path) = (ask.origin.authority(), &ask.path);
    format!(
        "  {methods} {origin}{path}, asked for {seen}: {}",
        steps.join("; ")
    )
}

/// What to do about a refusal that is not for want of a route.
pub(crate) fn advice(code: &str) -> &'static str {
    match code {
        "path_ambiguous" => {
            "the agent has to send the path in plain form; where `%2F` is data, set `encoded_slash: true`"
        }
        "query_not_allowed" => {
            "a record holds no query; compare the route's `query` with what is needed"
        }
        "query_credential" | "query_ambiguous" => {
            "the agent has to leave the credential out; where it is none, set `query_credentials: allow`"
        }
        NOT_PUBLIC => {
            "the host is in a network that is not public; if it is meant, write a route with `ssrf_ip_allowlist`"
        }
        "method_not_allowed" => {
            "no route admits TRACE, CONNECT or a method that is not in upper case"
        }
        CUT => "the path was too long to be recorded whole",
        ADDRESS => {
            "give the name that its certificate has as `host`, with `connect_to: address:port`"
        }
        "client_auth_required" => "the agent has to send the proxy's credential",
        "agent_tls" => "the agent has to trust the bottle's CA; see `egress env`",
        _ => "it is the request's form; docs/operations.md has the code",
    }
}
