//! A sidecar, an upstream that answers 200 to everything, and an agent: what most tests need and nothing more.

use super::agent::Agent;
use super::pki::Pki;
use super::sidecar::{Builder, Sidecar};
use super::upstream::{self, Upstream};
use super::wire;

/// The credential in slot `EGRESS_TOKEN_0`.
pub(crate) const REAL: &str = "real-token-of-the-host-77aa01";

pub(crate) struct Rig {
    pub(crate) upstream: Upstream,
    pub(crate) sidecar: Sidecar,
    pub(crate) agent: Agent,
}

impl Rig {
    /// `routes` are the items of the list; `UPSTREAM` in them stands for the upstream's address.
    pub(crate) async fn new(routes: &str) -> Self {
        Self::with(routes, |builder| builder).await
    }

    /// The same, with something to add to the start.
    pub(crate) async fn with(routes: &str, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let pki = Pki::new();
        let upstream = Upstream::tls(&pki)
            .start(async |_call| upstream::text(200, "fine"))
            .await;
        Self::around(&pki, upstream, routes, configure).await
    }

    /// The same around an upstream of the test's own.
    pub(crate) async fn around(
        pki: &Pki,
        upstream: Upstream,
        routes: &str,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let routes = file(routes, &upstream);
        let builder = Sidecar::with_routes(pki, routes).slot("EGRESS_TOKEN_0", REAL);
        let sidecar = configure(builder).start().await;
        let agent = Agent::of(&sidecar);
        Self {
            upstream,
            sidecar,
            agent,
        }
    }

    /// Sends raw HTTP/1.1 bytes in a tunnel of their own, and returns the one answer; the sidecar has to close.
    pub(crate) async fn tunnelled(&self, host: &str, bytes: impl AsRef<[u8]>) -> wire::Only {
        let authority = format!("{host}:443");
        let mut tunnel = self
            .agent
            .tunnel(&authority, host, &["http/1.1"])
            .await
            .expect("a tunnel");
        wire::only(&mut tunnel, bytes.as_ref()).await
    }

    /// Sends raw bytes to the proxy's own port, and returns the one answer; the sidecar has to close.
    pub(crate) async fn outer(&self, bytes: impl AsRef<[u8]>) -> wire::Only {
        wire::only(&mut self.agent.raw().await, bytes.as_ref()).await
    }
}

/// A routes file of these items.
pub(crate) fn file(routes: &str, upstream: &Upstream) -> String {
    let routes = routes.replace("UPSTREAM", &upstream.addr().to_string());
    format!("routes:\n{routes}")
}
