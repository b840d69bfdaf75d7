//! The certificates that a route trusts besides the roots: PEM files beside the routes file, each read once.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::file::open_regular;

/// The largest PEM file that is read, in bytes. The bundle of all public roots has a quarter of it.
const MAX_BYTES: u64 = 1024 * 1024;

/// PEM files, by the name that a route gives them.
#[derive(Debug)]
pub(super) struct Authorities {
    directory: PathBuf,
    read: HashMap<String, Result<Vec<CertificateDer<'static>>, Unusable>>,
}

impl Authorities {
    /// `directory` is what relative names are relative to.
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
            read: HashMap::new(),
        }
    }

    /// Where a file of this name is.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The files that were read, or were to be.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.read.keys().map(|name| self.path_of(name)).collect()
    }

    /// The certificates of a file, in its order.
    pub(super) fn load(&mut self, name: &str) -> Result<Vec<CertificateDer<'static>>, Unusable> {
        let path = self.path_of(name);
        self.read
            .entry(name.to_owned())
            .or_insert_with(|| read(&path))
            .clone()
    }
}

/// Why a PEM file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    /// What the system says.
    #[error("cannot be read: {0}")]
    Io(String),
    /// More than a bundle ever has.
    #[error("is larger than {MAX_BYTES} bytes")]
    Size,
    /// No PEM at all, a key, or an empty file.
    #[error("holds no certificate")]
    Empty,
    /// A broken PEM section.
    #[error("is not valid PEM: {0}")]
    Pem(String),
    /// A section that is no X.509 certificate.
    #[error("holds a certificate that cannot be parsed (number {0})")]
    Certificate(usize),
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let failed = |error: std::io::Error| Unusable::Io(super::reason(path, &error));
    let mut pem = Vec::new();
    open_regular(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut pem))
        .map_err(failed)?;
    if pem.len() as u64 > MAX_BYTES {
        return Err(Unusable::Size);
    }
    parse(&pem)
}

fn parse(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let mut certificates = Vec::new();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(|error| Unusable::Pem(error.to_string()))?;
        RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|_| Unusable::Certificate(index + 1))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(Unusable::Empty);
    }
    Ok(certificates)
}
