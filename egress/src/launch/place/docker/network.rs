//! The agent's network, which leads to the sidecar and to nothing else, and the sidecar's second one.
//!
//! `--internal` alone leaves two holes: the host's own services at the bridge's address, and Docker's resolver, which asks the
//! host's for every name. The bridge gets no address here, and the agent's resolver is the sidecar.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Error;
use super::engine::{Engine, Error as EngineError};
use super::names::Names;

/// The agent's network.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) subnet: Ipv4Net,
    /// The sidecar's address in it.
    pub(super) sidecar: Ipv4Addr,
}

impl Default for Network {
    fn default() -> Self {
        Self::nth(0)
    }
}

impl Network {
    /// Makes both networks.
    ///
    /// # Errors
    ///
    /// [`Error::NoNetwork`], or docker's.
    pub(super) async fn make(engine: &Engine, names: &Names) -> Result<Self, Error> {
        let label = names.label();
        let outside = ["network", "create", "--label", &label, &names.outside];
        engine.run(&outside).await?;
        for index in 0..=u8::MAX {
            let network = Self::nth(index);
            let subnet = network.subnet.to_string();
            let inside = [
                "network",
                "create",
                "--internal",
                "--opt",
                "com.docker.network.bridge.inhibit_ipv4=true",
                "--subnet",
                &subnet,
                "--label",
                &label,
                &names.inside,
            ];
            match engine.run(&inside).await {
                Ok(_) => return Ok(network),
                Err(EngineError::Failed { said, .. }) if said.contains("overlap") => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::NoNetwork)
    }

    fn nth(index: u8) -> Self {
        let [a, b] = BASE;
        Self {
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(a, b, index, 0), 28),
            sidecar: Ipv4Addr::new(a, b, index, 2),
        }
    }
}

/// Apart from what Docker gives out by itself, and from what home and office networks are wont to have.
const BASE: [u8; 2] = [10, 203];
