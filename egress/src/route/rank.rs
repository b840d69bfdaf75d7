//! The order in which routes are asked: longer literal path first, then the one with more conditions.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::path::{PathPattern, hex_value};
use super::{Line, Route, RouteId, Routes, Rule, Tie};

/// A route together with one of its path patterns: what is ranked and asked.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) route: Arc<Route>,
    /// Which of the route's patterns; `None` on a route without path rules.
    pattern: Option<usize>,
}

impl Candidate {
    pub(super) fn of(route: &Arc<Route>) -> impl Iterator<Item = Self> {
        let patterns = match &route.rule.paths {
            Some(paths) => (0..paths.len()).map(Some).collect(),
            None => vec![None],
        };
        patterns.into_iter().map(|pattern| Self {
            route: route.clone(),
            pattern,
        })
    }

    pub(super) fn path(&self) -> Option<&PathPattern> {
        self.route.rule.paths.as_ref()?.get(self.pattern?)
    }

    fn rank(&self) -> (usize, usize) {
        let rule = &self.route.rule;
        // A route without path rules goes behind each that has some, one with an empty literal text included.
        let path = self.path().map_or(0, |pattern| 1 + pattern.literal().len());
        (path, usize::from(rule.methods.is_some()) + rule.query.len())
    }

    /// Whether some request may be admitted by both, given that their ranks and host patterns are equal.
    fn may_meet(&self, other: &Self) -> bool {
        let (a, b) = (&self.route.rule, &other.route.rule);
        let methods = match (&a.methods, &b.methods) {
            (Some(a), Some(b)) => a.iter().any(|method| b.contains(method)),
            _ => true,
        };
        let contradicts =
            |(name, value): &(String, String)| b.query.iter().any(|(n, v)| n == name && v != value);
        let paths = match (self.path(), other.path()) {
            (Some(a), Some(b)) => a.may_overlap(b),
            _ => true,
        };
        a.scheme == b.scheme
            && a.port == b.port
            && methods
            && paths
            && !a.query.iter().any(contradicts)
    }
}

/// As many ties as are told of one route. A thousand equal routes have half a million ties, and no one reads those.
const MOST_TIES: usize = 8;

/// Sorts the candidates of one host pattern, and adds the ties among them.
pub(super) fn sort(candidates: &mut [Candidate], ties: &mut Vec<Tie>) {
    candidates.sort_by_cached_key(|candidate| {
        let (path, conditions) = candidate.rank();
        let literal = candidate.path().map(|pattern| pattern.literal().to_owned());
        (Reverse(path), Reverse(conditions), literal)
    });
    let mut told = HashSet::new();
    // Only neighbours of equal rank and equal literal text can meet, so the text in the key keeps this near linear.
    for (index, first) in candidates.iter().enumerate() {
        let mut found = 0;
        for second in candidates.iter().skip(index + 1) {
            let same_literal =
                first.path().map(PathPattern::literal) == second.path().map(PathPattern::literal);
            if second.rank() != first.rank() || !same_literal || found == MOST_TIES {
                break;
            }
            if !Arc::ptr_eq(&first.route, &second.route) && first.may_meet(second) {
                let (a, b) = (first.route.line, second.route.line);
                let tie = Tie {
                    first: a.min(b),
                    second: a.max(b),
                };
                found += 1;
                if told.insert((tie.first, tie.second)) {
                    ties.push(tie);
                }
            }
        }
    }
}

/// Gives each rule an identity, and the one it had before where nothing in it changed.
#[expect(
    clippy::mutable_key_type,
    reason = "a rule holds header names, whose shared bytes never change"
)]
pub(super) fn identify(rules: Vec<(Rule, Line)>, previous: Option<&Routes>) -> Vec<Arc<Route>> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let known: HashMap<&Rule, &Arc<Route>> = previous
        .into_iter()
        .flat_map(|routes| &routes.all)
        .map(|route| (&route.rule, route))
        .collect();
    rules
        .into_iter()
        .map(|(rule, line)| {
            let (id, outcomes) = match known.get(&rule) {
                Some(route) => (route.id, route.outcomes.clone()),
                None => (
                    RouteId(NEXT.fetch_add(1, Ordering::Relaxed)),
                    Arc::default(),
                ),
            };
            Arc::new(Route {
                id,
                line,
                rule,
                outcomes,
            })
        })
        .collect()
}

/// Whether each condition's name occurs in the query exactly once, with exactly its value.
///
/// Servers differ in which of several equal names they take, and in whether `;` separates parameters, so a repeated name
/// and a `;` fail the condition.
pub(super) fn query_admits(conditions: &[(String, String)], query: Option<&str>) -> bool {
    if conditions.is_empty() {
        return true;
    }
    let Some(query) = query.filter(|query| !query.contains(';')) else {
        return false;
    };
    conditions.iter().all(|(name, value)| {
        let mut found = query.split('&').filter_map(|pair| {
            let (pair_name, pair_value) = pair.split_once('=').unwrap_or((pair, ""));
            (form_decoded(pair_name) == name.as_bytes()).then_some(pair_value)
        });
        let only = found.next().filter(|_| found.next().is_none());
        only.is_some_and(|text| form_decoded(text) == value.as_bytes())
    })
}

/// Decodes `application/x-www-form-urlencoded` text; a broken encoding stays as it is, and so equals no condition.
fn form_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, tail) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, tail @ ..])
                if let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low)) =>
            {
                decoded.push(high << 4 | low);
                rest = tail;
            }
            _ => decoded.push(*byte),
        }
    }
    decoded
}
