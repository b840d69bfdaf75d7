//! The differences between two files, each with all the requests of one host that it concerns.

mod effect;
pub(crate) mod probe;
mod sample;

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Value, json};

use self::effect::Effect;
use self::probe::{Path, Site, StandsFor, sites};
use crate::advice::decision::Decision;
use crate::advice::reach::{Change, headed};
use crate::route::Routes;
use crate::route::target::{self, Origin, Target};

/// What differs for requests to one host.
#[derive(Debug)]
pub(crate) struct Difference {
    change: Change,
    /// Scheme, host and port.
    at: String,
    /// The query that it takes; empty for any.
    query: String,
    /// Methods, and `WebSocket` for handshakes.
    methods: Vec<String>,
    /// Paths in words.
    paths: Vec<String>,
    before: Effect,
    after: Effect,
}

/// All differences in effect, the ones that need most care first.
pub(crate) fn between(old: &Routes, new: &Routes) -> Vec<Difference> {
    let mut changes = Vec::new();
    for site in sites(old, new) {
        let found = changes.len();
        for origin in &site.origins {
            changes.extend(at(&site, origin, old, new));
        }
        if changes.len() == found && site.is_sampled {
            changes.push(Difference {
                change: Change::Unknown,
                at: site.name,
                query: String::new(),
                methods: Vec::new(),
                paths: Vec::new(),
                before: Effect::Denied,
                after: Effect::Denied,
            });
        }
    }
    changes.sort_by(|a, b| (a.change, &a.at, &a.paths).cmp(&(b.change, &b.at, &b.paths)));
    changes
}

/// The differences at one origin.
fn at(site: &Site, origin: &Origin, old: &Routes, new: &Routes) -> Vec<Difference> {
    type Key = (String, Effect, Effect, Vec<String>);
    let mut alike: BTreeMap<Key, BTreeSet<&Path>> = BTreeMap::new();
    for path in &site.paths {
        let mut without_query: BTreeMap<String, (Effect, Effect)> = BTreeMap::new();
        for query in &site.queries {
            let mut found: BTreeMap<(Effect, Effect), Vec<String>> = BTreeMap::new();
            for (label, method, kind) in asked(&site.methods) {
                let text = format!("{}{query}", path.text());
                let Ok(target) = Target::new(origin.clone(), method, &text, kind) else {
                    continue;
                };
                let effect = |routes| Effect::of(&Decision::of(routes, target.clone()));
                let effects = (effect(old), effect(new));
                if query.is_empty() {
                    without_query.insert(label.clone(), effects.clone());
                } else if without_query.get(&label) == Some(&effects) {
                    // The query makes no difference.
                    continue;
                }
                if effects.0 != effects.1 {
                    found.entry(effects).or_default().push(label);
                }
            }
            for ((before, after), methods) in found {
                let key = (query.clone(), before, after, methods);
                alike.entry(key).or_default().insert(path);
            }
        }
    }
    let shown = shown(&site.name, origin);
    let all_methods = asked(&site.methods).count();
    let changes = alike
        .into_iter()
        .filter_map(|((query, before, after, methods), paths)| {
            Some(Difference {
                change: before.change_to(&after)?,
                at: shown.clone(),
                paths: in_words(&paths, site),
                methods: match methods.len() == all_methods {
                    true => Vec::new(),
                    false => methods,
                },
                query,
                before,
                after,
            })
        });
    changes.collect()
}

/// Each method by itself, and handshakes, which are GETs of their own kind.
fn asked(methods: &[Method]) -> impl Iterator<Item = (String, Method, target::Kind)> {
    let exchanges = methods
        .iter()
        .map(|method| (method.to_string(), method.clone(), target::Kind::Exchange));
    exchanges.chain([("WebSocket".to_owned(), Method::GET, target::Kind::WebSocket)])
}

fn shown(name: &str, origin: &Origin) -> String {
    let scheme = origin.scheme.as_str();
    match origin.port == origin.scheme.default_port() {
        true => format!("{scheme}://{name}"),
        false => format!("{scheme}://{name}:{}", origin.port),
    }
}

/// Paths in words. An empty list is every path.
fn in_words(paths: &BTreeSet<&Path>, site: &Site) -> Vec<String> {
    let plain = |path: &&Path| matches!(path.stands_for, StandsFor::Itself | StandsFor::Below);
    let has = |prefix: &str, stands_for| {
        paths.contains(&Path {
            prefix: prefix.to_owned(),
            stands_for,
        })
    };
    if site
        .paths
        .iter()
        .filter(plain)
        .all(|path| paths.contains(path))
    {
        return Vec::new();
    }
    let words = paths.iter().filter_map(|path| {
        let prefix = path.prefix.as_str();
        let below = has(prefix, StandsFor::Below);
        Some(match path.stands_for {
            StandsFor::Itself if below && !prefix.is_empty() => format!("{prefix} and below"),
            StandsFor::Itself if prefix.is_empty() => "/ alone".into(),
            StandsFor::Itself => format!("{prefix} alone"),
            StandsFor::Below if prefix.is_empty() => "every path not named".into(),
            StandsFor::Below if has(prefix, StandsFor::Itself) => return None,
            StandsFor::Below => format!("below {prefix}/"),
            StandsFor::Slash if below => return None,
            StandsFor::Slash => format!("encoded slashes below {prefix}/"),
            StandsFor::Hazard if below || has(prefix, StandsFor::Slash) => return None,
            StandsFor::Hazard => format!("ambiguous paths below {prefix}/"),
        })
    });
    words.collect()
}

/// The differences in words.
pub(crate) fn to_text(changes: &[Difference]) -> String {
    if changes.is_empty() {
        return "no difference in effect\n".into();
    }
    headed(changes.iter().map(|change| (change.change, change.line())))
}

impl Difference {
    fn line(&self) -> String {
        if self.change == Change::Unknown {
            return format!(
                "{}: expressions differ, and no request was found on which that matters",
                self.at
            );
        }
        let or = |list: &[String], all: &str| match list.is_empty() {
            true => all.to_owned(),
            false => list.join(", "),
        };
        let query = match self.query.as_str() {
            "" => String::new(),
            query => format!(", with {query}"),
        };
        let (before, after) = (self.before.to_text(), self.after.to_text());
        format!(
            "{} {}: {}{query}\n    was {before}\n    now {after}",
            or(&self.methods, "any method"),
            self.at,
            or(&self.paths, "every path"),
        )
    }

    pub(crate) fn to_json(&self) -> Value {
        let list = |list: &[String]| match list.is_empty() {
            true => Value::Null,
            false => list.into(),
        };
        json!({
            "change": self.change.word(),
            "at": self.at,
            "paths": list(&self.paths),
            "methods": list(&self.methods),
            "query": Some(&self.query).filter(|query| !query.is_empty()),
            "before": self.before.to_text(),
            "after": self.after.to_text(),
        })
    }
}

#[cfg(test)]
mod tests;
