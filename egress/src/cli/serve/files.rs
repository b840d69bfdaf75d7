//! The files of the sidecar: those that are read once, before the process encloses itself, and those that it goes on to
//! need.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use egress_ca::Root;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::super::Failure;
use super::args::{Args, RootsArg};
use super::dns;
use super::listen::Place;
use super::observe;
use crate::admin::AdminAddress;
use crate::config::{Draft, Faults};
use crate::confine::Needs;
use crate::credential::{Environment, Secret};
use crate::policy::Policy;
use crate::proxy::upstream::{Roots, TlsClients};
use crate::proxy::{Entrance, uncertifiable};

/// What was read, or made, and is not read again.
pub(super) struct Opened {
    pub(super) root: Root,
    pub(super) tls: TlsClients,
    pub(super) logins: Vec<Secret>,
}

/// Reads them.
pub(super) fn open(args: &Args, policy: &Policy) -> Result<Opened, Failure> {
    let root = observe::root(args, &policy.routes)?;
    let faults: Vec<_> = uncertifiable(&policy.routes, &root).collect();
    if !faults.is_empty() {
        return Err(Faults::new(args.routes.display().to_string(), "", faults).into());
    }
    let roots = match args.roots {
        RootsArg::Platform => Roots::Platform,
        RootsArg::Bundled => Roots::Bundled,
    };
    let extra = args
        .upstream_ca
        .iter()
        .map(|path| certificates(path))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let tls = TlsClients::new(roots, &extra).map_err(Failure::runtime)?;
    let logins = match &args.client_auth_file {
        Some(path) => logins(path)?,
        None => Vec::new(),
    };
    Ok(Opened { root, tls, logins })
}

/// What a reload reads, and what the listeners take.
pub(super) fn needs(
    args: &Args,
    draft: &Draft,
    environment: &Environment,
    places: &[(Entrance, Place)],
    names: &[dns::Place],
) -> Needs {
    let own = (args.routes != Path::new("-")).then_some(args.routes.as_path());
    let files = own
        .into_iter()
        .chain(draft.files().iter().map(AsRef::as_ref))
        .chain(environment.files());
    let operators = [&args.admin, &args.ui].into_iter().flatten();
    let (mut own_sockets, mut own_ports) = (Vec::new(), Vec::new());
    for address in operators {
        match address {
            AdminAddress::Unix(path) => own_sockets.push(path.as_path()),
            AdminAddress::Tcp(address) => own_ports.push(address.port()),
        }
    }
    let sockets = places.iter().filter_map(|(_, place)| place.socket());
    let addresses = places.iter().filter_map(|(_, place)| place.address());
    let addresses = addresses.chain(names.iter().map(dns::Place::address));
    Needs {
        files: files.map(Into::into).collect(),
        sockets: sockets.chain(own_sockets).map(Into::into).collect(),
        ports: addresses
            .map(|address| address.port())
            .chain(own_ports)
            .collect(),
        written: args.audit.directory().map(Into::into),
    }
}

/// Certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = || -> anyhow::Result<Vec<_>> {
        let found = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
        if found.is_empty() {
            Err(anyhow!("it holds no certificate"))
        } else {
            Ok(found)
        }
    };
    read()
        .with_context(|| format!("--upstream-ca {}", path.display()))
        .map_err(|error| Failure::usage(error).hint("name a PEM file of certificates"))
}

/// The `USER:PASSWORD` lines of a file, at least one.
fn logins(path: &Path) -> Result<Vec<Secret>, Failure> {
    let hint = "name a file that has a line USER:PASSWORD for each client";
    let text = std::fs::read_to_string(path)
        .map(zeroize::Zeroizing::new)
        .with_context(|| format!("--client-auth-file {}", path.display()))
        .map_err(|error| Failure::usage(error).hint(hint))?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    if lines.is_empty() || !lines.iter().all(|line| line.contains(':')) {
        let error = anyhow!(
            "--client-auth-file {} is not made of USER:PASSWORD lines",
            path.display()
        );
        return Err(Failure::usage(error).hint(hint));
    }
    Ok(lines.into_iter().map(Secret::new).collect())
}
