//! The requests that two files are asked about: for each host one for every path, method and condition that a route of
//! either can tell from others.
//!
//! Of paths that prefixes alone tell apart, none is missed: which prefixes cover a path hangs on the deepest of them that
//! does. Expressions are asked about by samples.

use std::collections::BTreeSet;

use http::Method;

use super::sample::samples;
use crate::route::host::{Host, HostPattern};
use crate::route::path::PathPattern;
use crate::route::target::{Origin, Scheme};
use crate::route::{Routes, Rule};

/// A segment, and a label, that no file has.
const FRESH: &str = "egress-diff-any";

/// A host, with all that the routes for it can tell apart.
#[derive(Debug)]
pub(crate) struct Site {
    /// How it is called: a host, or a wildcard for all that it covers but the hosts that have routes of their own.
    pub(crate) name: String,
    /// Its origins.
    pub(crate) origins: Vec<Origin>,
    /// Paths that stand for all.
    pub(crate) paths: Vec<Path>,
    /// Methods.
    pub(crate) methods: Vec<Method>,
    /// Queries; the first is none.
    pub(crate) queries: Vec<String>,
    /// Whether expressions tell paths apart, which are asked about by samples.
    pub(crate) is_sampled: bool,
}

/// A path that stands for others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path {
    /// Without its last slash, the prefix that it is about; empty for the root.
    pub(crate) prefix: String,
    /// For which paths it stands.
    pub(crate) stands_for: StandsFor,
}

/// For which paths one stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StandsFor {
    /// Itself.
    Itself,
    /// Those below it that no deeper one stands for.
    Below,
    /// Of these the ones with an encoded slash.
    Slash,
    /// Of these the ones that servers read in two ways.
    Hazard,
}

impl Path {
    /// The path that is asked about.
    pub(crate) fn text(&self) -> String {
        let prefix = &self.prefix;
        match self.stands_for {
            StandsFor::Itself if prefix.is_empty() => "/".into(),
            StandsFor::Itself => prefix.clone(),
            StandsFor::Below => format!("{prefix}/{FRESH}"),
            StandsFor::Slash => format!("{prefix}/{FRESH}%2F{FRESH}"),
            StandsFor::Hazard => format!("{prefix}//{FRESH}"),
        }
    }
}

/// Every host of two files for which their routes differ.
pub(crate) fn sites(old: &Routes, new: &Routes) -> Vec<Site> {
    let mut patterns: Vec<&HostPattern> = Vec::new();
    let all = || old.iter().chain(new.iter()).map(|route| &route.rule);
    let mut known = std::collections::HashSet::new();
    patterns.extend(
        all()
            .map(|rule| &rule.host)
            .filter(|host| known.insert(*host)),
    );
    let sites = patterns.into_iter().filter_map(|pattern| {
        let host = representative(pattern)?;
        let (old, new) = (rules(old, &host), rules(new, &host));
        (atoms(&old) != atoms(&new)).then(|| Site::of(pattern, &host, [old, new].concat()))
    });
    sites.collect()
}

/// A host that the pattern covers and no other of its kind does.
fn representative(pattern: &HostPattern) -> Option<Host> {
    match pattern {
        HostPattern::Exact(host) => Some(host.clone()),
        HostPattern::OneLabelBelow(suffix) => Host::parse(&format!("{FRESH}.{suffix}")).ok(),
    }
}

fn rules<'r>(routes: &'r Routes, host: &Host) -> Vec<&'r Rule> {
    let rules = routes.iter().map(|route| &route.rule);
    rules.filter(|rule| rule.host.matches(host)).collect()
}

/// Rules as texts, one for each of their paths, in one order. Equal ones have one effect.
fn atoms(rules: &[&Rule]) -> BTreeSet<String> {
    let atoms = rules.iter().flat_map(|rule| {
        let mut rule = Rule {
            description: None,
            ..(*rule).clone()
        };
        rule.query.sort();
        if let Some(methods) = &mut rule.methods {
            methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        }
        let paths: Vec<_> = match rule.paths.take() {
            Some(paths) => paths.into_iter().map(|path| Some(vec![path])).collect(),
            None => vec![None],
        };
        paths.into_iter().map(move |paths| {
            let rule = Rule {
                paths,
                ..rule.clone()
            };
            format!("{rule:?}")
        })
    });
    atoms.collect()
}

impl Site {
    fn of(pattern: &HostPattern, host: &Host, rules: Vec<&Rule>) -> Self {
        let ends: BTreeSet<(bool, u16)> = rules
            .iter()
            .map(|rule| (rule.scheme == Scheme::Http, rule.port))
            .collect();
        let origins = ends.into_iter().map(|(is_plain, port)| Origin {
            scheme: if is_plain {
                Scheme::Http
            } else {
                Scheme::Https
            },
            host: host.clone(),
            port,
        });
        Self {
            name: pattern.to_string(),
            origins: origins.collect(),
            paths: paths(&rules),
            methods: methods(&rules),
            queries: queries(&rules),
            is_sampled: patterns(&rules).any(|pattern| matches!(pattern, PathPattern::Regex(_))),
        }
    }
}

fn patterns<'r>(rules: &[&'r Rule]) -> impl Iterator<Item = &'r PathPattern> {
    rules
        .iter()
        .filter_map(|rule| rule.paths.as_ref())
        .flatten()
}

fn paths(rules: &[&Rule]) -> Vec<Path> {
    let mut prefixes = BTreeSet::from([String::new()]);
    let mut exact = BTreeSet::new();
    for pattern in patterns(rules) {
        match pattern {
            PathPattern::Prefix(prefix) => {
                _ = prefixes.insert(prefix.trim_end_matches('/').to_owned())
            }
            PathPattern::Regex(regex) => exact.extend(samples(regex.source())),
        }
    }
    let mut paths = BTreeSet::new();
    for prefix in prefixes {
        let all = [
            StandsFor::Itself,
            StandsFor::Below,
            StandsFor::Slash,
            StandsFor::Hazard,
        ];
        paths.extend(all.map(|stands_for| Path {
            prefix: prefix.clone(),
            stands_for,
        }));
    }
    paths.extend(exact.into_iter().map(|path| Path {
        prefix: path,
        stands_for: StandsFor::Itself,
    }));
    paths.into_iter().collect()
}

fn methods(rules: &[&Rule]) -> Vec<Method> {
    let mut methods = vec![
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    for method in rules
        .iter()
        .filter_map(|rule| rule.methods.as_ref())
        .flatten()
    {
        if !methods.contains(method) {
            methods.push(method.clone());
        }
    }
    methods
}

fn queries(rules: &[&Rule]) -> Vec<String> {
    let conditions: BTreeSet<String> = rules
        .iter()
        .filter(|rule| !rule.query.is_empty())
        .map(|rule| query(&rule.query))
        .collect();
    std::iter::once(String::new()).chain(conditions).collect()
}

/// The query that meets these conditions, and no other, with its question mark.
pub(crate) fn query(conditions: &[(String, String)]) -> String {
    let encoded = |text: &str| -> String {
        let bytes = text.bytes().map(|byte| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        });
        bytes.collect()
    };
    let pairs: Vec<_> = conditions
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    format!("?{}", pairs.join("&"))
}
