//! TLS towards upstreams: which roots are trusted, and one ready configuration for each set of them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::roots;
use crate::route::host::Host;
use crate::route::{Route, RouteId};

/// Where trusted roots come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// The platform's; the bundled ones where it has none (a `FROM scratch` image).
    #[default]
    Platform,
    /// Mozilla's, as they were when the binary was built.
    Bundled,
}

/// Which protocols are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpn {
    /// `h2` and `http/1.1`.
    Any,
    /// `http/1.1` alone, for a WebSocket handshake.
    Http11,
}

/// Why no TLS client can be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// Neither the platform nor the bundle has a root.
    #[error("no trusted root certificates")]
    NoRoots,
    /// A certificate that rustls does not take as a root.
    #[error("a certificate cannot be a trusted root: {0}")]
    Root(#[from] rustls::Error),
}

/// The TLS configurations towards upstreams. Each keeps its sessions, so that the next connection resumes one.
#[derive(Debug)]
pub struct TlsClients {
    roots: Arc<RootCertStore>,
    standard: Client,
    of_route: Mutex<HashMap<RouteId, Client>>,
}

#[derive(Clone, Debug)]
struct Client {
    any: Arc<ClientConfig>,
    http11: Arc<ClientConfig>,
}

impl TlsClients {
    /// Loads the roots, and adds the operator's own. Blocking.
    ///
    /// # Errors
    ///
    /// [`TlsFault`], where no root is left or one of `extra` is none.
    pub fn new(source: Roots, extra: &[CertificateDer<'static>]) -> Result<Self, TlsFault> {
        let mut store = RootCertStore::empty();
        if source == Roots::Platform {
            let found = roots::platform();
            // Where there is none at all, as in a `FROM scratch` image, nothing is wrong with it.
            for error in found.errors.iter().filter(|_| !found.certs.is_empty()) {
                tracing::warn!(%error, "a platform root certificate cannot be read");
            }
            store.add_parsable_certificates(found.certs);
        }
        if store.is_empty() {
            tracing::info!("the bundled root certificates are trusted for upstreams");
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for certificate in extra {
            store.add(certificate.clone())?;
        }
        if store.is_empty() {
            return Err(TlsFault::NoRoots);
        }
        let roots = Arc::new(store);
        let standard = Client::new(roots.clone())?;
        Ok(Self {
            roots,
            standard,
            of_route: Mutex::default(),
        })
    }

    /// The connector for a route, whose `upstream_ca` is trusted on it and nowhere else.
    pub(super) fn connector(&self, route: &Route, alpn: Alpn) -> Result<TlsConnector, TlsFault> {
        if route.rule.upstream_ca.is_empty() {
            return Ok(self.standard.connector(alpn));
        }
        let mut clients = self.of_route.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&route.id) {
            return Ok(client.connector(alpn));
        }
        let mut roots = RootCertStore::clone(&self.roots);
        for certificate in &route.rule.upstream_ca {
            roots.add(certificate.clone())?;
        }
        let client = Client::new(Arc::new(roots))?;
        let connector = client.connector(alpn);
        clients.insert(route.id, client);
        Ok(connector)
    }

    /// Forgets the configurations of routes that are gone.
    pub(super) fn forget_routes(&self, lives: impl Fn(RouteId) -> bool) {
        self.of_route
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|route, _| lives(*route));
    }
}

impl Client {
    fn new(roots: Arc<RootCertStore>) -> Result<Self, TlsFault> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut any = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A session of one host is never offered to another: rustls keeps them by server name.
        any.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut http11 = any.clone();
        http11.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            any: Arc::new(any),
            http11: Arc::new(http11),
        })
    }

    fn connector(&self, alpn: Alpn) -> TlsConnector {
        match alpn {
            Alpn::Any => self.any.clone().into(),
            Alpn::Http11 => self.http11.clone().into(),
        }
    }
}

/// The name that the upstream's certificate has to carry: always the route's host, whatever was dialled.
pub(super) fn server_name(host: &Host) -> Result<ServerName<'static>, io::Error> {
    match host {
        Host::Name(name) => {
            ServerName::try_from(name.to_string()).map_err(|error: InvalidDnsNameError| {
                io::Error::new(io::ErrorKind::InvalidInput, error)
            })
        }
        Host::Address(address) => Ok(ServerName::IpAddress((*address).into())),
    }
}
