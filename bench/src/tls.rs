//! TLS as the load and the upstream speak it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A client that trusts the certificates of `roots`.
pub(crate) fn client(roots: &[PathBuf], resumes: bool) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted(roots)?)
        .with_no_client_auth();
    config.resumption = if resumes {
        Resumption::in_memory_sessions(4096)
    } else {
        Resumption::disabled()
    };
    Ok(config)
}

/// A server with `leaf.pem` and `leaf-key.pem` of `dir`, and session tickets as servers have them.
pub(crate) fn server(dir: &Path) -> anyhow::Result<ServerConfig> {
    let (chain, key) = (dir.join("leaf.pem"), dir.join("leaf-key.pem"));
    let certificates = CertificateDer::pem_file_iter(&chain).and_then(Iterator::collect);
    let certificates = certificates.with_context(|| format!("cannot read {}", chain.display()))?;
    let private = PrivateKeyDer::from_pem_file(&key)
        .with_context(|| format!("cannot read {}", key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, private)?;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

pub(crate) fn trusted(files: &[PathBuf]) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for file in files {
        let context = || format!("cannot read {}", file.display());
        for certificate in CertificateDer::pem_file_iter(file).with_context(context)? {
            roots.add(certificate.with_context(context)?)?;
        }
    }
    Ok(roots)
}

/// X25519 first. The load then costs all peers the same key exchange: half of them have no ML-KEM. The upstream takes it from
/// those that offer it.
fn provider() -> CryptoProvider {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    CryptoProvider {
        kx_groups: vec![X25519, SECP256R1, SECP384R1, X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    }
}
