//! Whether the hosts of routes resolve, as the sidecar on this machine would find them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::report::Finding;
use crate::route::host::{Host, HostPattern};
use crate::route::{ConnectTo, Rule};

/// What there is to look up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    /// Each with the port that is dialled.
    exact: BTreeSet<(String, u16)>,
    /// Patterns, which are no names.
    patterns: usize,
}

/// How long a name may take. The system's resolver tries for five seconds, and then again.
const PATIENCE: Duration = Duration::from_secs(6);

/// Looks all of them up at once; those that fail have a line each.
pub(super) async fn examine<'r>(rules: impl Iterator<Item = &'r Rule>) -> Vec<Finding> {
    let names = Names::of(rules);
    let lookups = names.exact.iter().map(|(name, port)| {
        let (name, port) = (name.clone(), *port);
        tokio::spawn(async move {
            let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((&*name, port)));
            let failure = match found.await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
            };
            failure.map(|reason| (name, reason))
        })
    });
    let lookups: Vec<_> = lookups.collect();
    let mut failures = Vec::new();
    for lookup in lookups {
        failures.extend(lookup.await.ok().flatten());
    }
    names.judge(&failures)
}

impl Names {
    fn of<'r>(rules: impl Iterator<Item = &'r Rule>) -> Self {
        let mut names = Self::default();
        for rule in rules {
            match (&rule.connect_to, &rule.host) {
                (Some(ConnectTo::Address(_)), _) | (None, HostPattern::Exact(Host::Address(_))) => {
                }
                (Some(ConnectTo::Name(Host::Address(_), _)), _) => {}
                (Some(ConnectTo::Name(Host::Name(name), port)), _) => {
                    names.exact.insert((name.to_string(), *port));
                }
                (None, HostPattern::Exact(Host::Name(name))) => {
                    names.exact.insert((name.to_string(), rule.port));
                }
                (None, HostPattern::OneLabelBelow(_)) => names.patterns += 1,
            }
        }
        names
    }

    fn judge(&self, failures: &[(String, String)]) -> Vec<Finding> {
        const NAME: &str = "hosts";
        let mut findings: Vec<_> = failures
            .iter()
            .map(|(name, reason)| {
                Finding::fail(
                    NAME,
                    format!("{name} does not resolve: {reason}"),
                    "check the name in the routes file, and this machine's resolver; `connect_to` names an address instead",
                )
            })
            .collect();
        let left_out = match self.patterns {
            0 => String::new(),
            more => format!("; patterns, which are no names: {more}"),
        };
        if findings.is_empty() {
            let count = self.exact.len();
            findings.push(Finding::ok(
                NAME,
                format!("names that resolve: all {count}{left_out}"),
            ));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Names;
    use crate::config;

    fn names(routes: &str) -> Names {
        let rules = config::parse("routes.yaml", routes, Path::new(".")).unwrap();
        Names::of(rules.iter().map(|(rule, _)| rule))
    }

    #[test]
    fn what_is_dialled_is_looked_up_once_and_no_pattern() {
        let names = names(
            "routes:
  - {host: api.test, path_allowlist: [/a]}
  - {host: api.test, path_allowlist: [/b]}
  - {host: elsewhere.test, connect_to: other.test:8443}
  - {host: here.test, connect_to: '127.0.0.1:1'}
  - {host: 192.0.2.1, scheme: http}
  - {host: '*.cdn.test'}
",
        );
        let expected = [
            ("api.test".to_owned(), 443),
            ("other.test".to_owned(), 8443),
        ];
        assert_eq!(names.exact, expected.into());
        let found = names.judge(&[]);
        assert!(
            found[0].is("ok", "all 2; patterns, which are no names: 1"),
            "{found:?}"
        );
        let found = names.judge(&[("api.test".into(), "no such name".into())]);
        assert!(
            found[0].is("fail", "api.test does not resolve: no such name"),
            "{found:?}"
        );
    }
}
