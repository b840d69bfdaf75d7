//! The agent's side: the proxy, the bundles, the clients and the clock, as far as the environment leads to a sidecar.

use std::time::SystemTime;

use super::ca::{self, Shown};
use super::clock::{self, Teller};
use super::exchange::{self, Answer, Problem, Visit};
use super::report::Finding;
use super::{Variables, Way, clients, proxy};
use crate::credential::codex::{self, HostFile};
use crate::launch::variables::placeholder_hosts;
use crate::proxy::upstream::ProxyUrl;
use crate::route::host::{Host, HostPattern};
use crate::route::target::Scheme;
use crate::route::{Rule, Tls};

/// The proxy, then whom bundles and clients trust, then the clock.
pub(super) async fn examine(
    way: Way,
    host: Option<Chosen>,
    rules: &[Rule],
    variables: &Variables,
) -> Vec<Finding> {
    let (mut findings, reached) = match way {
        Way::Proxy => reach(host.as_ref(), rules, variables).await,
        Way::Steered => {
            let text = "no proxy variable is set: connections are taken to be led to the sidecar";
            let reached = Some(Reached::default());
            (vec![Finding::skip("proxy.variables", text)], reached)
        }
    };
    let visit = match (&host, &reached) {
        (Some(host), Some(reached)) => {
            let visit = exchange::visit(reached.proxy.as_ref(), &host.name).await;
            findings.push(judge_visit(host, &visit));
            visit.ok()
        }
        (None, Some(_)) => {
            let text = "no host is known that a route admits; --host names one, to hold bundles and clients to it";
            findings.push(Finding::skip("tunnel", text));
            None
        }
        (_, None) => {
            findings.push(Finding::skip("tunnel", "the proxy does not answer"));
            None
        }
    };
    let (shown, answer) = match (host, visit) {
        (
            Some(host),
            Some(Visit::Shown {
                certificates,
                answer,
            }),
        ) => {
            let host = host.name;
            (Some(Shown { host, certificates }), answer)
        }
        _ => (None, None),
    };
    findings.extend(ca::bundles(variables, shown.as_ref(), SystemTime::now()));
    match &shown {
        Some(shown) => findings.extend(clients::examine(&shown.host, variables).await),
        None => {
            let text = "without a tunnel there is nothing for them to trust";
            findings.push(Finding::skip("clients", text));
        }
    }
    let asked = reached.and_then(|reached| reached.answer);
    findings.extend(clocks(asked, answer));
    findings
}

/// The sidecar that answers.
#[derive(Default)]
struct Reached {
    /// `None` where connections are steered.
    proxy: Option<ProxyUrl>,
    answer: Option<Answer>,
}

/// Follows the variables to the proxy, which there is no more to be said about where it is no sidecar.
async fn reach(
    host: Option<&Chosen>,
    rules: &[Rule],
    variables: &Variables,
) -> (Vec<Finding>, Option<Reached>) {
    let (finding, url) = proxy::variables(variables);
    let named = host.and_then(|host| host.name.parse().ok());
    let routed: Vec<_> = rules
        .iter()
        .map(|rule| rule.host.clone())
        .chain(named)
        .collect();
    let mut findings = vec![
        finding,
        proxy::bypass(variables, &routed),
        clients::node_proxy(variables).await,
    ];
    let Some(proxy) = url.and_then(|url| url.as_str().parse::<ProxyUrl>().ok()) else {
        return (findings, None);
    };
    let answer = exchange::ask(&proxy).await;
    findings.push(proxy::answer(&proxy, &answer));
    let is_usable = |answer: &Answer| {
        answer
            .code
            .as_deref()
            .is_some_and(|code| code != "client_auth_required")
    };
    let reached = answer.ok().filter(is_usable).map(|answer| Reached {
        proxy: Some(proxy),
        answer: Some(answer),
    });
    (findings, reached)
}

/// The sidecar tells its time once; what comes through it tells another's.
fn clocks(asked: Option<Answer>, within: Option<Answer>) -> impl Iterator<Item = Finding> {
    let own = asked.is_some();
    let within = within.filter(|answer| answer.code.is_none() || !own);
    let tellers = asked.into_iter().chain(within);
    tellers.filter_map(|answer| clock_of(&answer))
}

/// The host that clients are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    name: String,
    /// Whether somebody said that a route admits it.
    is_certain: bool,
}

impl Chosen {
    /// The one that was named, else the first of the routes, else one that the environment suggests.
    pub(super) fn of(named: Option<&str>, rules: &[Rule], variables: &Variables) -> Option<Self> {
        let routed = || {
            rules.iter().find_map(|rule| match &rule.host {
                HostPattern::Exact(Host::Name(name))
                    if rule.scheme == Scheme::Https
                        && rule.port == 443
                        && rule.tls == Tls::Intercept =>
                {
                    Some(name.to_string())
                }
                _ => None,
            })
        };
        let certain = named.map(str::to_owned).or_else(routed);
        if let Some(name) = certain {
            return Some(Self {
                name,
                is_certain: true,
            });
        }
        let placeholder = placeholder_hosts(|name| variables.get(name)).next();
        let codex = || {
            let file = codex::locate(|name| variables.get(name).map(Into::into)).ok()?;
            HostFile::read(&file).ok().map(|_| "chatgpt.com")
        };
        let name = placeholder.or_else(codex)?.to_owned();
        Some(Self {
            name,
            is_certain: false,
        })
    }
}

fn judge_visit(host: &Chosen, visit: &Result<Visit, Problem>) -> Finding {
    const NAME: &str = "tunnel";
    const LOG: &str = "the sidecar's log has the reason";
    let told = |answer: &Answer| match &answer.code {
        Some(code) => format!("{} {code}", answer.status.as_u16()),
        None => answer.status.to_string(),
    };
    let host_name = &host.name;
    match visit {
        Ok(Visit::Shown {
            answer: Some(answer),
            ..
        }) if answer.code.is_some() && answer.status.is_server_error() => {
            let text = format!("{host_name} is shown, and answers {}", told(answer));
            Finding::warn(NAME, text, LOG)
        }
        Ok(Visit::Shown { answer, .. }) => {
            let answer = answer.as_ref().map_or("nothing".into(), told);
            Finding::ok(
                NAME,
                format!("{host_name} is reached; to GET / it answers {answer}"),
            )
        }
        Ok(Visit::Refused(answer)) if host.is_certain => Finding::fail(
            NAME,
            format!(
                "the sidecar opens no tunnel to {host_name}: {}",
                told(answer)
            ),
            "name a host with --host that a route admits, or add a route",
        ),
        Ok(Visit::Refused(answer)) => Finding::skip(
            NAME,
            format!(
                "the sidecar opens no tunnel to {host_name}: {}; name another host with --host",
                told(answer)
            ),
        ),
        Err(problem) => Finding::fail(NAME, format!("{host_name}: {problem}"), LOG),
    }
}

fn clock_of(answer: &Answer) -> Option<Finding> {
    let (theirs, ours) = answer.date?;
    let teller = match &answer.code {
        Some(_) => Teller::Sidecar,
        None => Teller::Upstream,
    };
    Some(clock::judge(teller, theirs, ours))
}
