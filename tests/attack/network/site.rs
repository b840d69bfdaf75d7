//! A sidecar in a network where a connection to any address would arrive, and an agent outside of it.

use std::net::IpAddr;

use http::Response;

use crate::harness::agent::Agent;
use crate::harness::line::Attempt;
use crate::harness::network::Network;
use crate::harness::pki::Pki;
use crate::harness::rig::REAL;
use crate::harness::sidecar::{Builder, Sidecar};
use crate::harness::upstream::{Body, Call, Upstream, text};

/// A sidecar in a network of its own, with an upstream at port 80 and one at port 443 of every address.
pub(crate) struct Site {
    pub(crate) network: Network,
    pub(crate) plain: Upstream,
    pub(crate) tls: Upstream,
    pub(crate) sidecar: Sidecar,
    pub(crate) agent: Agent,
}

impl Site {
    pub(crate) async fn new<F>(routes: &str, names: F) -> Self
    where
        F: Fn(&str, usize) -> Vec<IpAddr> + Send + 'static,
    {
        Self::with(routes, names, |builder| builder).await
    }

    /// The same, with something to add to the start.
    pub(crate) async fn with<F>(
        routes: &str,
        names: F,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self
    where
        F: Fn(&str, usize) -> Vec<IpAddr> + Send + 'static,
    {
        // No connection is used twice, so that each request is dialled for.
        let answer = async |_call| {
            let mut answer = text(200, "fine");
            let close = http::HeaderValue::from_static("close");
            answer.headers_mut().insert("connection", close);
            answer
        };
        Self::answering(routes, names, answer, configure).await
    }

    /// The same with answers of the test's own.
    pub(crate) async fn answering<F, A, R>(
        routes: &str,
        names: F,
        answer: A,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self
    where
        F: Fn(&str, usize) -> Vec<IpAddr> + Send + 'static,
        A: Fn(Call) -> R + Copy + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let pki = Pki::new();
        let network = Network::new(names).await;
        let plain = Upstream::plain().start_on(network.listener(80), answer);
        let tls = Upstream::with_tls(pki.server_config(&["http/1.1"]));
        let tls = tls.start_on(network.listener(443), answer);
        let (plain, tls) = (plain.await, tls.await);
        // The agent is not in that network: it comes in by a listener that is handed over.
        let door = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
        let address = door.local_addr().expect("a bound socket");
        let builder = Sidecar::with_routes(&pki, format!("routes:\n{routes}"))
            .slot("EGRESS_TOKEN_0", REAL)
            .arg("--listen=fd:9")
            .hand(9, door)
            .within(&network);
        let sidecar = configure(builder).start().await;
        let agent = Agent::at(&sidecar, address);
        Self {
            network,
            plain,
            tls,
            sidecar,
            agent,
        }
    }

    /// Every connection that either upstream accepted, by the address that it was made to.
    pub(crate) fn reached(&self) -> Vec<IpAddr> {
        [self.plain.reached(), self.tls.reached()].concat()
    }
}

/// A route over TLS and one in plain text for the same hosts, both with the credential.
pub(crate) fn both(host: &str, keys: &str) -> String {
    let route = format!("host: '{host}', auth_scheme: Bearer, token_env: EGRESS_TOKEN_0{keys}");
    format!("- {{{route}}}\n- {{{route}, scheme: http, port: 80, insecure_inject: true}}\n")
}

/// A GET of `/` at a host.
pub(crate) fn get(host: &str, case: usize) -> Attempt {
    Attempt {
        tunnel: host.to_owned(),
        authority: host.as_bytes().to_vec(),
        path: b"/".to_vec(),
        case,
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("no address: {text}"))
}
