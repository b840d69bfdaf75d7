//! Paths that are asked for, put together into as few routes as admit these and no others; or, where that is wanted, into
//! common prefixes.

use std::collections::BTreeMap;

use super::refusal::Terms;
use crate::advice::recorded::Seen;
use crate::route::path::PathPattern;

/// What is asked for of one host, path by path.
pub(crate) type Paths = BTreeMap<String, (Terms, Seen)>;

/// What one route is to say.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its paths.
    pub(crate) patterns: Vec<PathPattern>,
    /// All else about it.
    pub(crate) terms: Terms,
    /// The refusals that it would have spared.
    pub(crate) seen: Seen,
}

/// The routes for one host. Paths for which the same is asked share one, so that no route admits a method on a path that
/// nobody asked for. With `prefix`, that many paths or more give way to what they have in common.
pub(crate) fn groups(paths: Paths, prefix: Option<usize>) -> Vec<Group> {
    let mut patterns = Vec::new();
    match prefix {
        Some(least) => shorten("", paths.into_iter().collect(), least, &mut patterns),
        None => patterns.extend(
            paths
                .into_iter()
                .map(|(path, (terms, seen))| (exact(&path), terms, seen)),
        ),
    }
    let mut groups: BTreeMap<Terms, Group> = BTreeMap::new();
    for (pattern, terms, seen) in patterns {
        // Another path cannot be written where the expression does not compile; there is none that does not.
        let Some(pattern) = pattern else { continue };
        match groups.get_mut(&terms) {
            Some(group) => {
                group.patterns.push(pattern);
                group.seen.add(seen);
            }
            None => {
                let group = Group {
                    patterns: vec![pattern],
                    terms: terms.clone(),
                    seen,
                };
                groups.insert(terms, group);
            }
        }
    }
    groups.into_values().collect()
}

type Found = (Option<PathPattern>, Terms, Seen);
type Asked = (String, (Terms, Seen));

/// Goes down the segments as long as enough paths share them. What shares no further segment with enough others becomes one
/// prefix if it is enough by itself. The root is no prefix: it would be the whole host.
fn shorten(above: &str, paths: Vec<Asked>, least: usize, found: &mut Vec<Found>) {
    let mut below: BTreeMap<String, Vec<Asked>> = BTreeMap::new();
    let mut rest = Vec::new();
    for (path, asked) in paths {
        let tail = path.get(above.len() + 1..);
        match tail.and_then(|tail| tail.split_once('/')) {
            Some((segment, _)) => {
                let deeper = format!("{above}/{segment}");
                below.entry(deeper).or_default().push((path, asked));
            }
            None => rest.push((path, asked)),
        }
    }
    for (deeper, paths) in below {
        match paths.len() >= least {
            true => shorten(&deeper, paths, least, found),
            false => rest.extend(paths),
        }
    }
    if above.is_empty() || rest.len() < least {
        found.extend(
            rest.into_iter()
                .map(|(path, (terms, seen))| (exact(&path), terms, seen)),
        );
        return;
    }
    // `/a/` covers what lies below `/a`, and `/a` that, too.
    let prefix = match rest.iter().any(|(path, _)| path == above) {
        true => above.to_owned(),
        false => format!("{above}/"),
    };
    let mut rest = rest.into_iter();
    let Some((_, (mut terms, mut seen))) = rest.next() else {
        return;
    };
    for (_, (other, more)) in rest {
        terms.add(other);
        seen.add(more);
    }
    found.push((PathPattern::prefix(&prefix).ok(), terms, seen));
}

/// The pattern of one path and no other.
pub(crate) fn exact(path: &str) -> Option<PathPattern> {
    let mut expression = String::with_capacity(path.len());
    for c in path.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            expression.push('\\');
        }
        expression.push(c);
    }
    PathPattern::regex(&expression).ok()
}

impl Terms {
    /// Adds what else is asked for.
    pub(crate) fn add(&mut self, other: Self) {
        self.methods.extend(other.methods);
        self.websocket |= other.websocket;
        self.slash |= other.slash;
    }
}
