//! One attack by each way in which an agent can put a request. The upstreams' records decide what came of it: nothing, or
//! the one canonical request with the one credential.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use http::Version;

use super::agent::Agent;
use super::line::{Attempt, Line, Outcome, Way};
use super::pki::Pki;
use super::rig::REAL;
use super::sidecar::{Builder, Sidecar};
use super::upstream::{Seen, Upstream, text};

/// A sidecar before two upstreams, which answer everything, and an agent.
pub(crate) struct Arena {
    pub(crate) tls: Upstream,
    pub(crate) plain: Upstream,
    pub(crate) sidecar: Sidecar,
    pub(crate) agent: Agent,
}

impl Arena {
    /// `routes` are the items of the list; `TLS` and `PLAIN` in them stand for the upstreams' addresses.
    pub(crate) async fn new(routes: &str) -> Self {
        Self::speaking(&["h2", "http/1.1"], routes).await
    }

    /// The same, with an upstream that offers these protocols.
    pub(crate) async fn speaking(alpn: &[&str], routes: &str) -> Self {
        Self::with(alpn, routes, |builder| builder).await
    }

    /// The same, with something to add to the start.
    pub(crate) async fn with(
        alpn: &[&str],
        routes: &str,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let pki = Pki::new();
        let answer = async |_call| text(200, "fine");
        let tls = Upstream::with_tls(pki.server_config(alpn))
            .start(answer)
            .await;
        let plain = Upstream::plain().start(answer).await;
        let routes = routes
            .replace("TLS", &tls.addr().to_string())
            .replace("PLAIN", &plain.addr().to_string());
        let builder = Sidecar::with_routes(&pki, format!("routes:\n{routes}"));
        let builder = configure(builder.slot("EGRESS_TOKEN_0", REAL));
        let sidecar = builder.start().await;
        let agent = Agent::of(&sidecar);
        Self {
            tls,
            plain,
            sidecar,
            agent,
        }
    }

    /// Tries all of them by one way, over a few connections that are opened anew whenever the sidecar closes them.
    pub(crate) async fn try_all(&self, way: Way, attempts: &[Attempt]) -> Vec<Outcome> {
        let share = attempts.len().div_ceil(CONNECTIONS).max(1);
        let tried = attempts.chunks(share).map(async |share| {
            let mut line = Line::new(&self.agent, way);
            let mut outcomes = Vec::new();
            for attempt in share {
                outcomes.push(line.put(attempt).await);
            }
            outcomes
        });
        join_all(tried).await.concat()
    }

    /// The upstream that requests of a way go to.
    pub(crate) fn upstream(&self, way: Way) -> &Upstream {
        match way {
            Way::Absolute => &self.plain,
            Way::One | Way::Two => &self.tls,
        }
    }

    /// Connections that either upstream ever accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.tls.connections() + self.plain.connections()
    }

    /// Insists that exactly these requests reached the upstream of a way, each once: host and target by their number.
    #[track_caller]
    pub(crate) fn assert_reached(&self, way: Way, expected: &BTreeMap<usize, (String, String)>) {
        let mut reached = BTreeMap::new();
        for seen in self.upstream(way).seen() {
            let Some(case) = case_of(&seen, way) else {
                continue;
            };
            assert_canonical(&seen);
            let before = reached.insert(case, (seen.host.clone(), seen.target.clone()));
            assert!(before.is_none(), "sent twice: {seen:?}");
        }
        let (reached, expected) = (pretty(&reached), pretty(expected));
        assert!(
            reached == expected,
            "{way:?}: reached {reached:#?}\nnot {expected:#?}"
        );
    }
}

const CONNECTIONS: usize = 4;

fn pretty(requests: &BTreeMap<usize, (String, String)>) -> Vec<String> {
    let one =
        |(case, (host, target)): (&usize, &(String, String))| format!("{case} {host} {target}");
    requests.iter().map(one).collect()
}

/// The number of an attempt that was made by this way.
fn case_of(seen: &Seen, way: Way) -> Option<usize> {
    let (name, number) = seen
        .all("x-case")
        .concat()
        .split_once('-')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))?;
    (name == format!("{way:?}")).then(|| number.parse().expect("a number"))
}

/// Insists on a request with nothing of the agent's in it but its number, and with the route's credential, once.
#[track_caller]
pub(crate) fn assert_canonical(seen: &Seen) {
    let mut headers: Vec<(&str, &str)> = seen
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("a text header")))
        .filter(|(name, _)| *name != "host" || seen.version == Version::HTTP_2)
        .collect();
    headers.sort_unstable();
    let credential = format!("Bearer {REAL}");
    let case = seen.all("x-case").concat();
    assert_eq!(
        headers,
        [("authorization", credential.as_str()), ("x-case", &case)],
        "{seen:?}"
    );
    let hosts = seen.headers.get_all("host").iter().count();
    assert_eq!(
        hosts,
        usize::from(seen.version == Version::HTTP_11),
        "{seen:?}"
    );
    assert_eq!(
        (seen.method.as_str(), seen.body.len()),
        ("GET", 0),
        "{seen:?}"
    );
}
