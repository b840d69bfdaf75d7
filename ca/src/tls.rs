//! The TLS side towards the agent: which algorithms it takes, and who it answers as.
//!
//! It knows nothing of certificates but that it is given one, and never asks the client for one.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite, kx_group};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

use crate::Error;

/// What the configurations of all hosts share: algorithms, ALPN, the ticket key. Presents no certificate yet.
pub(crate) fn template() -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(Error::crypto("set up TLS"))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nobody));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Ours is the cheaper order, and the agent is on the same machine: if AES is slow there, it is slow here too.
    config.ignore_client_order = true;
    // One ticket key serves all hosts: rustls seals the name into the ticket and resumes for that name only
    // (RFC 6066 section 3; `can_resume` in its server/hs.rs). The session is in the ticket, so we store none.
    config.ticketer = Ticketer::new().map_err(Error::crypto("make a ticket key"))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // One connection resumes one; rustls would send two, each with its own write to the socket.
    config.send_tls13_tickets = 1;
    // Early data can be replayed (RFC 8446 section 8), and each replay would carry a credential upstream.
    config.max_early_data_size = 0;
    Ok(config)
}

/// `template` for `host`: presents `key`, and only to clients that name `host`.
pub(crate) fn config_for(
    template: &ServerConfig,
    host: &str,
    key: CertifiedKey,
) -> Arc<ServerConfig> {
    let mut config = template.clone();
    config.cert_resolver = Arc::new(Only {
        host: host.into(),
        key: Arc::new(key),
    });
    Arc::new(config)
}

fn provider() -> CryptoProvider {
    CryptoProvider {
        // Every leaf is ECDSA, so the RSA suites of TLS 1.2 could never be used.
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        // No ML-KEM: this traffic stays on the machine, so nobody records it for a later quantum computer.
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..aws_lc_rs::default_provider()
    }
}

/// Answers as one host. A client that names another, or none, is given nothing: the handshake fails (access_denied).
struct Only {
    host: Box<str>,
    key: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Only {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello
            .server_name()
            .is_some_and(|name| name.eq_ignore_ascii_case(&self.host));
        named.then(|| self.key.clone())
    }
}

/// Not the derived one, which would print the key's.
impl fmt::Debug for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Only")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Stands in the template, which must never be served from.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[cfg(test)]
mod tests;
