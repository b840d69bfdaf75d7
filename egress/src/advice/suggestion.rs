//! What is suggested, as the text of a routes file with everything else in comments.

mod group;
mod refusal;
mod words;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use http::Method;

use self::group::{Group, Paths, exact, groups};
use self::refusal::{Ask, Refusal, Terms};
use self::words::{advice, extended, extension_head};
use crate::advice::recorded::{Kind, Recorded, Seen};
use crate::config::render;
use crate::route::denial::Reason;
use crate::route::host::HostPattern;
use crate::route::passing::{Cookies, Extensions, QueryCredentials, Redact};
use crate::route::path::EncodedSlash;
use crate::route::target::{Origin, Scheme};
use crate::route::{Line, Route, Routes, Rule, Tls, observation};

/// What would have admitted the requests.
#[derive(Debug, Default)]
pub(crate) struct Suggestion {
    /// New routes with what is said of each, most frequent first.
    routes: Vec<(Vec<String>, Rule)>,
    /// Routes that could be extended, by line.
    extensions: BTreeMap<Line, Extension>,
    /// What no route can do, by host and code.
    others: BTreeMap<(String, String), Seen>,
    /// How many of the requests the routes admit by now.
    settled: u64,
}

/// What a route could be extended to.
#[derive(Debug)]
struct Extension {
    route: Arc<Route>,
    asks: Vec<(Ask, Seen)>,
}

/// A route that is new, unless it would tie with one that is there.
struct NewRoute {
    rule: Rule,
    comment: Vec<String>,
    /// What it is for, path by path.
    asks: Vec<Ask>,
    seen: Seen,
}

impl Suggestion {
    /// What recorded refusals and observed requests call for. With the routes in force, only what these refuse still.
    pub(crate) fn of(
        recorded: &[Recorded],
        routes: Option<&Routes>,
        prefix: Option<usize>,
    ) -> Self {
        let mut all = Self::default();
        let mut hosts: HashMap<Origin, (Paths, Option<Seen>)> = HashMap::new();
        let asked_in = hosts_asked_in(recorded);
        for Recorded { request, seen } in recorded {
            // What was asked for in an observed tunnel has a record of its own, also where it failed or was refused.
            let is_tunnel = request.kind == Kind::Connect && request.is_observed();
            if is_tunnel && asked_in.contains(request.host.as_str()) {
                continue;
            }
            match Refusal::of(request, routes) {
                None => {}
                Some(Refusal::Route(ask)) => {
                    let (paths, _) = hosts.entry(ask.origin).or_default();
                    let (terms, total) = paths
                        .entry(ask.path)
                        .or_insert_with(|| (Terms::default(), Seen { count: 0, ..*seen }));
                    terms.add(ask.terms);
                    total.add(*seen);
                }
                Some(Refusal::Tunnel(origin)) => {
                    let (_, tunnels) = hosts.entry(origin).or_default();
                    *tunnels = Some(seen.and(*tunnels));
                }
                Some(Refusal::Extension(route, ask)) => all.extend(&route, ask, *seen),
                Some(Refusal::Settled) => all.settled += seen.count,
                Some(Refusal::Other(code)) => {
                    let key = (request.host.clone(), code);
                    let known = all.others.get(&key).copied();
                    all.others.insert(key, seen.and(known));
                }
            }
        }
        let mut hosts: Vec<HostGroups> = hosts
            .into_iter()
            .map(|(origin, (paths, tunnels))| HostGroups::of(origin, paths, tunnels, prefix))
            .collect();
        hosts.sort_by_cached_key(|host| (Reverse(host.count()), host.origin.to_string()));
        for host in hosts {
            all.add(host, routes);
        }
        all
    }

    /// Whether nothing can be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.extensions.is_empty()
    }

    /// Whether there is a new route among what can be done.
    pub(crate) fn has_routes(&self) -> bool {
        !self.routes.is_empty()
    }

    /// Whether nothing is left to be done, since the routes admit by now what was refused.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_empty() && self.others.is_empty() && self.settled > 0
    }

    /// The routes of one host, but for those that would tie with a route that is there: that one has to be extended.
    fn add(&mut self, host: HostGroups, routes: Option<&Routes>) {
        for new in host.into_routes() {
            match routes.and_then(|routes| tied(routes, &new.rule)) {
                Some(route) => {
                    for ask in new.asks {
                        self.extend(&route, ask, new.seen);
                    }
                }
                None => self.routes.push((new.comment, new.rule)),
            }
        }
    }

    fn extend(&mut self, route: &Arc<Route>, ask: Ask, seen: Seen) {
        let known = self.extensions.entry(route.line);
        let extension = known.or_insert_with(|| Extension {
            route: route.clone(),
            asks: Vec::new(),
        });
        extension.asks.push((ask, seen));
    }

    /// The text of a routes file.
    pub(crate) fn to_text(&self) -> String {
        let mut text = match self.routes.is_empty() {
            true => "# No new route is suggested.\n".to_owned(),
            false => {
                "# An agent asked for this, and no route admitted it. Keep what it should have.\n"
                    .to_owned()
            }
        };
        text.push_str(&render::commented(&self.routes));
        let mut lines = Vec::new();
        for Extension { route, asks } in self.extensions.values() {
            lines.extend(["".into(), extension_head(route)]);
            lines.extend(
                asks.iter()
                    .map(|(ask, seen)| extended(&route.rule, ask, seen)),
            );
        }
        if !self.others.is_empty() {
            lines.extend(["".into(), "What no new route changes:".into()]);
        }
        for ((host, code), seen) in &self.others {
            let host = if host.is_empty() { "no host" } else { host };
            lines.push(format!("  {host}: {code}, {seen}: {}", advice(code)));
        }
        if self.settled > 0 {
            let settled = format!(
                "The routes admit by now what they did not before: {} of the requests.",
                self.settled
            );
            lines.extend(["".into(), settled]);
        }
        text.push_str(&render::comments(&lines));
        text
    }
}

/// The hosts in whose tunnels something was asked for.
fn hosts_asked_in(recorded: &[Recorded]) -> HashSet<&str> {
    let requests = recorded.iter().map(|recorded| &recorded.request);
    let inside =
        requests.filter(|request| request.kind != Kind::Connect && request.scheme == Scheme::Https);
    inside.map(|request| request.host.as_str()).collect()
}

/// Why no route admitted a request with this code, and where that is not for want of a route, what to do about it.
pub(crate) fn in_words(code: &str) -> &'static str {
    if code == observation::CODE {
        return "no route admits it, and the observation let it through";
    }
    let reasons = [
        Reason::Host,
        Reason::Port,
        Reason::Path,
        Reason::Method,
        Reason::Query,
        Reason::WebSocket,
    ];
    let reason = reasons.into_iter().find(|reason| reason.code() == code);
    reason.map_or_else(|| advice(code), Reason::text)
}

/// What is asked of one host.
struct HostGroups {
    origin: Origin,
    groups: Vec<Group>,
    tunnels: Option<Seen>,
}

impl HostGroups {
    fn of(origin: Origin, paths: Paths, tunnels: Option<Seen>, prefix: Option<usize>) -> Self {
        let mut groups = groups(paths, prefix);
        groups.sort_by_key(|group| Reverse(group.seen.count));
        Self {
            origin,
            groups,
            tunnels,
        }
    }

    fn count(&self) -> u64 {
        let requests = self.groups.iter().map(|group| group.seen.count);
        requests.chain(self.tunnels.map(|seen| seen.count)).sum()
    }

    fn into_routes(self) -> Vec<NewRoute> {
        let origin = &self.origin;
        if let (true, Some(seen)) = (self.groups.is_empty(), self.tunnels) {
            return vec![opened(origin, seen)];
        }
        let routes = self.groups.iter().map(|group| {
            let mut comment = format!("asked for {}", group.seen);
            if group.terms.websocket {
                comment.push_str("; with WebSocket handshakes");
            }
            let asks = group.patterns.iter().map(|pattern| Ask {
                origin: origin.clone(),
                path: pattern.literal().to_owned(),
                terms: group.terms.clone(),
            });
            NewRoute {
                rule: rule(origin, group),
                comment: vec![comment],
                asks: asks.collect(),
                seen: group.seen,
            }
        });
        routes.collect()
    }
}

/// The least that opens a tunnel, for one in which nothing was asked for yet.
fn opened(origin: &Origin, seen: Seen) -> NewRoute {
    let group = Group {
        patterns: exact("/").into_iter().collect(),
        terms: Terms {
            methods: ["GET".to_owned()].into(),
            ..Terms::default()
        },
        seen,
    };
    NewRoute {
        rule: rule(origin, &group),
        comment: vec![
            format!(
                "a tunnel alone, asked for {seen}: what was to be asked for in it is not known."
            ),
            "This opens it for GET / alone; then what else is refused in it has a path.".into(),
        ],
        asks: Vec::new(),
        seen,
    }
}

/// A route that never injects anything.
fn rule(origin: &Origin, group: &Group) -> Rule {
    let Terms {
        methods,
        websocket,
        slash,
    } = &group.terms;
    let methods: Vec<Method> = methods
        .iter()
        .filter_map(|method| Method::from_bytes(method.as_bytes()).ok())
        .collect();
    Rule {
        host: HostPattern::Exact(origin.host.clone()),
        scheme: origin.scheme,
        port: origin.port,
        paths: Some(group.patterns.clone()),
        // A handshake is a GET, so elsewhere the key would say nothing.
        websocket: *websocket || !methods.contains(&Method::GET),
        methods: Some(methods),
        query: Vec::new(),
        injection: None,
        tls: Tls::Intercept,
        websocket_extensions: Extensions::Pass,
        encoded_slash: match slash {
            true => EncodedSlash::Accept,
            false => EncodedSlash::Refuse,
        },
        ssrf_ip_allowlist: Vec::new(),
        connect_to: None,
        upstream_ca: Vec::new(),
        cookies: Cookies::usual(false),
        query_credentials: QueryCredentials::usual(false),
        redact: Redact::usual(false),
        description: None,
    }
}

/// A route of the file that has the rank of a new one, so that both in one file would be an error.
fn tied(routes: &Routes, rule: &Rule) -> Option<Arc<Route>> {
    let there: Vec<&Arc<Route>> = routes
        .iter()
        .filter(|route| route.rule.host == rule.host)
        .collect();
    let rules = there.iter().map(|route| route.rule.clone());
    // Numbers in place of lines, which routes may share.
    let numbered = rules.chain([rule.clone()]).zip(0..);
    let ties = Routes::new(numbered.collect(), None).err()?;
    let first = usize::try_from(ties.first()?.first).ok()?;
    there.get(first).copied().cloned()
}

#[cfg(test)]
mod tests;
