//! One case, held against what the routes decide.

use std::fmt::Write as _;

use crate::advice::decision::Decision;
use crate::config::cases::{Case, Expected, RouteIs, SlotIs};
use crate::credential::SlotName;
use crate::route::{Route, Routes};

/// What came of a case.
#[derive(Debug)]
pub(super) struct Outcome<'c> {
    /// The case.
    pub(super) case: &'c Case,
    /// What was expected and what came, where they differ.
    pub(super) failure: Option<Difference>,
}

/// What was expected, and what came.
#[derive(Debug)]
pub(super) struct Difference {
    /// What was expected.
    pub(super) expected: String,
    /// What came.
    pub(super) got: String,
}

impl<'c> Outcome<'c> {
    /// Asks the routes.
    pub(super) fn of(case: &'c Case, routes: &Routes) -> Self {
        let decision = Decision::of(routes, case.target.clone());
        let is_so = match (&case.expected, &decision) {
            (Expected::Deny(code), Decision::Denied(denial)) => {
                code.is_none_or(|code| code == denial.reason.code())
            }
            (Expected::Allow { route, slot }, decision) => decision.route().is_some_and(|by| {
                route.as_ref().is_none_or(|route| is_it(route, by))
                    && slot.as_ref().is_none_or(|slot| injects(slot, by))
            }),
            (Expected::Deny(_), _) => false,
        };
        let failure = (!is_so).then(|| Difference {
            expected: expectation(&case.expected),
            got: told(&decision),
        });
        Self { case, failure }
    }

    pub(super) fn is_ok(&self) -> bool {
        self.failure.is_none()
    }
}

fn is_it(route: &RouteIs, by: &Route) -> bool {
    match route {
        RouteIs::In(line) => *line == by.line,
        RouteIs::For(host) => *host == by.rule.host,
    }
}

fn injects(slot: &SlotIs, by: &Route) -> bool {
    match slot {
        SlotIs::None => slot_of(by).is_none(),
        SlotIs::Named(name) => slot_of(by) == Some(name),
    }
}

fn slot_of(route: &Route) -> Option<&SlotName> {
    route
        .rule
        .injection
        .as_ref()
        .map(|injection| &injection.slot)
}

fn expectation(expected: &Expected) -> String {
    match expected {
        Expected::Deny(None) => "deny".into(),
        Expected::Deny(Some(code)) => format!("deny, {code}"),
        Expected::Allow { route, slot } => {
            let mut text = String::from("allow");
            match route {
                Some(RouteIs::In(line)) => _ = write!(text, ", by the route in line {line}"),
                Some(RouteIs::For(host)) => _ = write!(text, ", by a route for {host}"),
                None => {}
            }
            match slot {
                Some(SlotIs::None) => text.push_str(", nothing injected"),
                Some(SlotIs::Named(slot)) => _ = write!(text, ", {slot} injected"),
                None => {}
            }
            text
        }
    }
}

fn told(decision: &Decision) -> String {
    match decision {
        Decision::Allowed(route) | Decision::PassedThrough(route) => {
            let by = format!(
                "allow, by the route for {} in line {}",
                route.rule.host, route.line
            );
            match (decision, slot_of(route)) {
                (Decision::PassedThrough(_), _) => format!("{by}, passed through unseen"),
                (_, Some(slot)) => format!("{by}, {slot} injected"),
                (_, None) => format!("{by}, nothing injected"),
            }
        }
        Decision::Denied(denial) => {
            let (code, text) = (denial.reason.code(), denial.reason.text());
            match &denial.route {
                Some(near) => format!("deny, {code}: {text}; nearest is line {}", near.line),
                None => format!("deny, {code}: {text}"),
            }
        }
    }
}
