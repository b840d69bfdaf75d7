//! What is said about a decision: the verdict, the route, and what failed or what would be changed.

use std::fmt::Write as _;
use std::sync::Arc;

use http::header::{COOKIE, SEC_WEBSOCKET_EXTENSIONS};
use serde_json::{Value, json};

use crate::advice::decision::{Decision, injected};
use crate::proxy::headers::CREDENTIALS;
use crate::route::denial::{Denial, Reason};
use crate::route::host::{Host, HostPattern};
use crate::route::passing::{Cookies, Extensions};
use crate::route::path::PathPattern;
use crate::route::query::QueryHazard;
use crate::route::target::{Kind, Origin, Target};
use crate::route::{AuthScheme, ConnectTo, Injection, Route, Routes, Rule};

/// The version of the JSON form.
const JSON_VERSION: u32 = 1;

/// A decision about a target, in words.
#[derive(Debug)]
pub(super) struct Explanation {
    file: Arc<str>,
    target: Target,
    verdict: Verdict,
}

#[derive(Debug)]
enum Verdict {
    /// A route admits the request.
    Allowed(Arc<Route>),
    /// A route admits the tunnel, and no request in it is seen.
    PassedThrough(Arc<Route>),
    /// No route admits it.
    Denied(Denied),
}

#[derive(Debug)]
struct Denied {
    reason: Reason,
    nearest: Option<Arc<Route>>,
    /// The condition that failed, with what the route says and what the request has.
    failed: Option<String>,
    hint: String,
}

impl Explanation {
    /// Decides, as the data path would: about the tunnel first, then about the request in it.
    pub(super) fn of(file: &Arc<str>, routes: &Routes, target: Target) -> Self {
        let verdict = match Decision::of(routes, target.clone()) {
            Decision::Allowed(route) => Verdict::Allowed(route),
            Decision::PassedThrough(route) => Verdict::PassedThrough(route),
            Decision::Denied(denial) => Verdict::Denied(Denied::new(&denial, routes, &target)),
        };
        Self {
            file: file.clone(),
            target,
            verdict,
        }
    }

    pub(super) fn is_admitted(&self) -> bool {
        !matches!(self.verdict, Verdict::Denied(_))
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{}: {}\n", self.verdict.as_str(), self.request());
        let mut line = |title: &str, content: &str| {
            let _ = writeln!(text, "  {title:<9} {content}");
        };
        match &self.verdict {
            Verdict::Allowed(route) => {
                line("route", &self.name(route));
                if let Some(pattern) = matching(route, &self.target) {
                    line("path", &format!("covered by {pattern}"));
                }
                if let Some(connect_to) = &route.rule.connect_to {
                    line("dials", &dialled(connect_to));
                }
                let stripped = stripped(&route.rule, &self.target).join(", ");
                line("strips", &format!("{stripped}, and the like"));
                let kept = kept_cookies(&route.rule).filter(|names| !names.is_empty());
                if let Some(names) = kept {
                    line("keeps", &format!("the cookies {}", names.join(", ")));
                }
                line("injects", &injected(route.rule.injection.as_ref()));
            }
            Verdict::PassedThrough(route) => {
                line("route", &self.name(route));
                line(
                    "tunnel",
                    "passed through unseen, once its server name is checked",
                );
                line("strips", "nothing");
                line("injects", "nothing");
            }
            Verdict::Denied(denied) => {
                line("code", denied.reason.code());
                line("reason", denied.reason.text());
                if let Some(route) = &denied.nearest {
                    line("nearest", &self.name(route));
                }
                if let Some(failed) = &denied.failed {
                    line("failed", failed);
                }
                let _ = writeln!(text, "hint: {}", denied.hint);
            }
        }
        text
    }

    pub(super) fn to_json(&self) -> Value {
        let origin = self.target.origin();
        let mut object = json!({
            "version": JSON_VERSION,
            "verdict": self.verdict.as_str(),
            "request": {
                "method": self.target.method().as_str(),
                "scheme": origin.scheme.as_str(),
                "host": origin.host.to_string(),
                "port": origin.port,
                "path": self.target.path(),
                "query": self.target.query(),
                "websocket": self.target.kind() == Kind::WebSocket,
            },
        });
        let more = match &self.verdict {
            Verdict::Allowed(route) => json!({
                "route": self.route_json(route),
                "path_pattern": matching(route, &self.target).map(ToString::to_string),
                "connect_to": route.rule.connect_to.as_ref().map(dialled),
                "stripped": stripped(&route.rule, &self.target),
                "kept_cookies": kept_cookies(&route.rule),
                "injected": route.rule.injection.as_ref().map(injected_json),
            }),
            Verdict::PassedThrough(route) => json!({
                "route": self.route_json(route),
                "path_pattern": null,
                "connect_to": route.rule.connect_to.as_ref().map(dialled),
                "stripped": [],
                "kept_cookies": null,
                "injected": null,
            }),
            Verdict::Denied(denied) => json!({
                "code": denied.reason.code(),
                "reason": denied.reason.text(),
                "nearest": denied.nearest.as_ref().map(|route| self.route_json(route)),
                "failed": denied.failed,
                "hint": denied.hint,
            }),
        };
        if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
            object.extend(more);
        }
        object
    }

    /// The request in one line.
    fn request(&self) -> String {
        let origin = self.target.origin();
        let kind = match self.target.kind() {
            Kind::WebSocket => " (WebSocket)",
            Kind::Exchange => "",
        };
        let (method, scheme) = (self.target.method(), origin.scheme.as_str());
        let path = self.target.path_and_query();
        format!("{method} {scheme}://{}{path}{kind}", origin.authority())
    }

    fn name(&self, route: &Route) -> String {
        let mut name = format!("{}:{} ({})", self.file, route.line, route.rule.host);
        if let Some(description) = &route.rule.description {
            let _ = write!(name, " {}", description.trim().escape_debug());
        }
        name
    }

    fn route_json(&self, route: &Route) -> Value {
        json!({
            "file": &*self.file,
            "line": route.line,
            "host": route.rule.host.to_string(),
            "description": route.rule.description,
        })
    }
}

impl Verdict {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Allowed(_) => "allowed",
            Self::PassedThrough(_) => "passthrough",
            Self::Denied(_) => "denied",
        }
    }
}

impl Denied {
    fn new(denial: &Denial, routes: &Routes, target: &Target) -> Self {
        let nearest = denial.route.clone();
        let failed = nearest
            .as_ref()
            .map(|route| failed(denial.reason, route, target))
            .or_else(|| wildcard_miss(routes, &target.origin().host));
        Self {
            reason: denial.reason,
            failed,
            hint: hint(denial.reason, target),
            nearest,
        }
    }
}

/// What the nearest route says, and what the request has in its place.
fn failed(reason: Reason, route: &Route, target: &Target) -> String {
    let rule = &route.rule;
    match reason {
        Reason::Host => format!("host: {} is not {}", target.origin().host, rule.host),
        Reason::Port => {
            let Origin { scheme, port, .. } = target.origin();
            let (asked, has) = (scheme.as_str(), rule.scheme.as_str());
            format!(
                "port: the route is for {has} on {}, the request for {asked} on {port}",
                rule.port
            )
        }
        Reason::Hazard(hazard) => format!("path: {hazard}"),
        Reason::Path => {
            let patterns = rule.paths.as_deref().unwrap_or_default();
            format!("path_allowlist: none of {} covers it", first_few(patterns))
        }
        Reason::Method => match &rule.methods {
            Some(methods) => format!(
                "methods: {} is not among {}",
                target.method(),
                first_few(methods)
            ),
            None if matches!(target.method().as_str(), "TRACE" | "CONNECT") => {
                format!("methods: {} can never be allowed", target.method())
            }
            None => format!("methods: {} has to be named to be allowed", target.method()),
        },
        Reason::Query => {
            let conditions: Vec<String> = rule
                .query
                .iter()
                .map(|(name, value)| format!("{name}={value}").escape_debug().to_string())
                .collect();
            format!("query: it must have {}", conditions.join(" and "))
        }
        Reason::QueryHazard(QueryHazard::Credential) => {
            let name = rule.query_carrier(target).unwrap_or_default();
            let name: String = name.escape_debug().take(LONGEST_NAME).collect();
            format!(
                "query_credentials: deny; the query has {name}, a parameter that carries a credential"
            )
        }
        Reason::QueryHazard(hazard) => format!("query_credentials: deny; the query has {hazard}"),
        Reason::WebSocket => "websocket: false".into(),
    }
}

/// As much of a parameter's name as is shown.
const LONGEST_NAME: usize = 64;

/// A wildcard that comes close to a host, and covers it as little as its other labels would.
fn wildcard_miss(routes: &Routes, host: &Host) -> Option<String> {
    let name = host.as_name()?;
    routes.iter().find_map(|route| {
        let pattern = &route.rule.host;
        let HostPattern::OneLabelBelow(suffix) = pattern else {
            return None;
        };
        let before = name.strip_suffix(&**suffix)?;
        match before {
            "" => Some(format!("host: {pattern} does not cover {suffix} itself")),
            _ if before.ends_with('.') => Some(format!(
                "host: {pattern} covers one label, and {name} has more"
            )),
            _ => None,
        }
    })
}

fn hint(reason: Reason, target: &Target) -> String {
    let host = &target.origin().host;
    let upper = target.method().as_str().to_ascii_uppercase();
    match reason {
        Reason::Host => match host {
            Host::Name(_) => format!("add a route with `host: {host}`"),
            Host::Address(_) => format!(
                "add a route with `host: '{host}'` and `scheme: http`; over https, one with the name in its \
                 certificate, and `connect_to`"
            ),
        },
        Reason::Method if matches!(upper.as_str(), "TRACE" | "CONNECT") => {
            format!("no route can admit {upper}")
        }
        Reason::Method if upper != target.method().as_str() => {
            format!(
                "methods are compared with their case; a client that means {upper} has to say so"
            )
        }
        _ => reason.hint().to_owned(),
    }
}

/// The pattern that admitted the path: of those that cover it, the one that ranks highest.
fn matching<'r>(route: &'r Route, target: &Target) -> Option<&'r PathPattern> {
    let patterns = route.rule.paths.as_deref()?.iter();
    patterns
        .filter(|pattern| pattern.matches(target.path()))
        .max_by_key(|pattern| pattern.literal().len())
}

fn dialled(connect_to: &ConnectTo) -> String {
    match connect_to {
        ConnectTo::Address(address) => address.to_string(),
        ConnectTo::Name(host, port) => format!("{host}:{port}"),
    }
}

/// The agent's credentials that would be removed, were they there; of the rarer names none.
fn stripped(rule: &Rule, target: &Target) -> Vec<String> {
    let mut names: Vec<String> = CREDENTIALS.iter().map(ToString::to_string).collect();
    if let Some(injection) = &rule.injection {
        let own = injection.header.as_str();
        if !names.iter().any(|name| name == own) {
            names.push(own.into());
        }
    }
    if matches!(rule.cookies, Cookies::Named(_)) {
        names.push(COOKIE.to_string());
    }
    if target.kind() == Kind::WebSocket && rule.websocket_extensions == Extensions::Drop {
        names.push(SEC_WEBSOCKET_EXTENSIONS.to_string());
    }
    names
}

/// The names of the cookies that go through all the same, both ways; `None` where all do.
fn kept_cookies(rule: &Rule) -> Option<Vec<String>> {
    match &rule.cookies {
        Cookies::All => None,
        Cookies::Named(names) => Some(names.iter().map(ToString::to_string).collect()),
    }
}

fn injected_json(injection: &Injection) -> Value {
    let (scheme, user) = match &injection.scheme {
        AuthScheme::Bearer => ("Bearer", None),
        AuthScheme::Basic { user } => ("Basic", Some(user)),
        AuthScheme::Token => ("token", None),
        AuthScheme::Raw => ("raw", None),
    };
    json!({
        "header": injection.header.as_str(),
        "scheme": scheme,
        "user": user,
        "slot": injection.slot.as_str(),
    })
}

fn first_few<T: ToString>(items: &[T]) -> String {
    /// As many as make a readable line.
    const MOST: usize = 8;
    let mut shown: Vec<String> = items.iter().take(MOST).map(ToString::to_string).collect();
    if items.len() > MOST {
        shown.push(format!("{} more", items.len() - MOST));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::{HeaderMap, HeaderValue, Method};

    use super::stripped;
    use crate::config::parse;
    use crate::proxy::headers::strip;
    use crate::route::target::{Kind, Origin, Scheme, Target};

    #[test]
    fn what_is_said_to_be_stripped_is_stripped() {
        for keys in [
            "",
            "cookies: []",
            "auth_scheme: raw, auth_header: x-own, token_env: ONE",
            "auth_scheme: raw, token_env: ONE, cookies: [a]",
        ] {
            let rules = parse(
                "-",
                &format!("routes: [{{host: a.test, {keys}}}]"),
                Path::new("/"),
            );
            let (rule, _) = rules.unwrap().remove(0);
            let origin = Origin::parse(Scheme::Https, "a.test").unwrap();
            let target = Target::new(origin, Method::GET, "/", Kind::Exchange).unwrap();
            let names = stripped(&rule, &target);
            let mut headers: HeaderMap = names
                .iter()
                .map(|name| (name.parse().unwrap(), HeaderValue::from_static("x")))
                .collect();
            assert_eq!(headers.len(), names.len());
            strip(&mut headers, rule.injection.as_ref(), &rule.cookies);
            assert!(headers.is_empty(), "{headers:?}");
        }
    }
}
