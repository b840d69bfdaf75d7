//! A certificate authority for the fake upstreams, which the sidecar is told to trust by `--upstream-ca`.
//! It has nothing to do with the bottle's CA: a test that mixes the two up has to fail.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tempfile::TempDir;

/// The upstreams' certificate authority, and its certificate in a file.
pub(crate) struct Pki {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
    file: Arc<CaFile>,
}

/// The root's certificate on disk, for as long as anybody may read it.
pub(crate) struct CaFile(TempDir);

impl CaFile {
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("upstream-ca.pem")
    }
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "egress tests: upstream CA");
        let key = KeyPair::generate().expect("a key pair");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a self-signed root");
        let file = CaFile(tempfile::tempdir().expect("a temporary directory"));
        std::fs::write(file.path(), issuer.pem()).expect("the CA file is written");
        Self {
            issuer: Arc::new(issuer),
            file: Arc::new(file),
        }
    }

    /// The root's certificate, for `--upstream-ca`.
    pub(crate) fn ca_file(&self) -> Arc<CaFile> {
        self.file.clone()
    }

    /// The root, to sign with.
    pub(crate) fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.issuer
    }

    /// A TLS server that answers for every host name it is asked for.
    pub(crate) fn server_config(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let resolver = AnyHost {
            issuer: self.issuer.clone(),
            leaves: Mutex::default(),
        };
        server_config(Arc::new(resolver), alpn)
    }

    /// A TLS server that shows one certificate whatever it is asked for. `params` may be wrong on purpose.
    pub(crate) fn server_config_with(
        &self,
        params: &CertificateParams,
        alpn: &[&str],
    ) -> Arc<ServerConfig> {
        server_config(Arc::new(Always(Arc::new(leaf(params, &self.issuer)))), alpn)
    }
}

/// A TLS server that shows these certificates, whoever signed them, and signs with this key, whose ever it is.
pub(crate) fn showing(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ServerConfig> {
    let certified = CertifiedKey::new(chain, signer(key));
    server_config(Arc::new(Always(Arc::new(certified))), &["h2", "http/1.1"])
}

fn server_config(resolver: Arc<dyn ResolvesServerCert>, alpn: &[&str]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider's protocol versions")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Issues a leaf for whatever name the ClientHello carries, once.
#[derive(Debug)]
struct AnyHost {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
    leaves: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl ResolvesServerCert for AnyHost {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name()?.to_owned();
        let mut leaves = self.leaves.lock().expect("no holder panicked");
        let leaf = leaves.entry(host.clone()).or_insert_with(|| {
            let params = CertificateParams::new(vec![host]).expect("a DNS name");
            Arc::new(leaf(&params, &self.issuer))
        });
        Some(leaf.clone())
    }
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn leaf(params: &CertificateParams, issuer: &CertifiedIssuer<'static, KeyPair>) -> CertifiedKey {
    let key = KeyPair::generate().expect("a key pair");
    let cert = params.signed_by(&key, issuer).expect("a signed leaf");
    certified(&cert, &key)
}

fn certified(cert: &rcgen::Certificate, key: &KeyPair) -> CertifiedKey {
    CertifiedKey::new(vec![cert.der().clone()], signer(key))
}

fn signer(key: &KeyPair) -> Arc<dyn rustls::sign::SigningKey> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    aws_lc_rs::sign::any_supported_type(&der).expect("a P-256 key")
}

/// A client's trust in exactly the certificates of one PEM file.
pub(crate) fn trust_only(pem: &Path) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(pem)
        .unwrap_or_else(|error| panic!("{}: {error}", pem.display()))
    {
        let cert = cert.unwrap_or_else(|error| panic!("{}: {error}", pem.display()));
        roots.add(cert).expect("a root certificate");
    }
    assert!(!roots.is_empty(), "{} holds no certificate", pem.display());
    roots
}
