//! Routes that are right alone and cannot stand in one file.

use std::collections::HashMap;
use std::collections::hash_map;

use super::fault::{Fault, Span};
use super::rule::Entry;
use crate::route::host::HostPattern;
use crate::route::target::Scheme;
use crate::route::{Line, Routes, Tls};

/// Finds all of them.
pub(super) fn check(entries: &[&Entry], faults: &mut Vec<Fault>) {
    check_tls(entries, faults);
    check_ties(entries, faults);
}

/// One host and port cannot be looked into for one route and passed through for another: the tunnel is the same.
fn check_tls(entries: &[&Entry], faults: &mut Vec<Fault>) {
    let mut modes: HashMap<(&HostPattern, Scheme, u16), (Tls, &Entry)> = HashMap::new();
    for entry in entries {
        let Some(rule) = &entry.rule else { continue };
        let first = match modes.entry((&rule.host, rule.scheme, rule.port)) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert((rule.tls, entry));
                continue;
            }
            hash_map::Entry::Occupied(first) => *first.get(),
        };
        if first.0 == rule.tls {
            continue;
        }
        let problem = format!("routes for {}:{} differ in `tls`", rule.host, rule.port);
        faults.push(
            Fault::new(entry.tls.unwrap_or(entry.span), problem)
                .key("tls")
                .hint("a tunnel to one host and port is either intercepted or passed through; make them alike")
                .related(first.1.line, format!("the first route for {}", rule.host)),
        );
    }
}

/// Routes of equal rank that may admit the same request.
fn check_ties(entries: &[&Entry], faults: &mut Vec<Fault>) {
    // Numbers in place of lines: in a file that is one line of JSON, a line would not tell its routes apart.
    let numbered = (0..)
        .zip(entries)
        .filter_map(|(number, entry): (Line, &&Entry)| Some((entry.rule.clone()?, number)));
    let Err(ties) = Routes::new(numbered.collect(), None) else {
        return;
    };
    for tie in ties {
        let at = |number: Line| entries.get(number as usize);
        let (Some(first), Some(second)) = (at(tie.first), at(tie.second)) else {
            continue;
        };
        // Two that differ in `tls` have that fault, which is the same mistake.
        if first.tls_mode() == second.tls_mode() {
            faults.push(tie_fault(second.span, first.line));
        }
    }
}

/// Two routes of equal rank.
pub(super) fn tie_fault(second: Span, first: Line) -> Fault {
    let problem = format!(
        "this route and the one in line {first} may admit the same request with equal rank"
    );
    Fault::new(second, problem)
        .key("host")
        .hint("remove one of the two, or tell them apart by `path_allowlist`, `methods` or `query`")
        .related(first, "the other route")
}
