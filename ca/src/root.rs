//! The root: makes, loads and checks the self-signed CA certificate and its key, and signs with it.
//!
//! Whatever is used, also what was made a moment ago, has gone through the checks of `load`. The key leaves this module
//! in no form but the PEM that `store` writes.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::SystemTime;

use aws_lc_rs::{digest, rand};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use zeroize::Zeroizing;

use crate::constraints::Limits;
use crate::root::load::{Names, load};
use crate::store::{Pair, Store};
use crate::validity::Validity;
use crate::{Constraints, Error};

mod load;

/// A year. Long, since its end breaks every client that holds it and a new one has to be carried into each sandbox;
/// finite, since a copy of the key that nobody knows of should not be good for ever.
const LIFETIME_DAYS: i64 = 365;

/// What the common name of every root begins with.
const NAME: &str = "egress bottle CA";

/// The bottle's root CA: an ECDSA P-256 key and the self-signed certificate that clients are given.
pub struct Root {
    certificate: CertificateDer<'static>,
    pem: String,
    validity: Validity,
    limits: Limits,
    signer: rcgen::Issuer<'static, KeyPair>,
}

impl Root {
    /// Loads `ca-cert.pem` and `ca-key.pem` from `dir`, or makes both (and `dir`) where neither is there.
    ///
    /// A pair that exists is never changed, not even where it was made with other `constraints`: ask
    /// [`permits`](Self::permits), and [`renew`](Self::renew) if need be. Processes that start at once agree on one
    /// pair. A certificate that begins in the future is loaded (the clock may yet be set); one that has ended is not.
    /// May block for up to ten seconds while another process holds the directory.
    ///
    /// # Errors
    ///
    /// Everything in [`Error`] that names a path: `dir` or a file is open to others or is somebody else's, is no
    /// regular file, half of the pair is missing, or the pair is not that of a root CA as this crate makes it.
    pub fn open(dir: &Path, constraints: &Constraints) -> Result<Self, Error> {
        Self::open_at(dir, constraints, SystemTime::now())
    }

    /// Loads the pair from `dir`, or gives `None` where there is neither file. Creates nothing.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn load(dir: &Path) -> Result<Option<Self>, Error> {
        // The store would create it.
        if let Err(error) = dir.symlink_metadata()
            && error.kind() == io::ErrorKind::NotFound
        {
            return Ok(None);
        }
        let store = Store::open(dir)?;
        let pair = store.read()?;
        pair.map(|pair| load(&pair, &Names::in_store(&store), SystemTime::now()))
            .transpose()
    }

    /// Puts a new pair with a new key into `dir`, whatever was there before. Clients need the new certificate.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), but for those that concern the old files.
    pub fn renew(dir: &Path, constraints: &Constraints) -> Result<Self, Error> {
        Self::renew_in(&Store::open(dir)?, constraints, SystemTime::now())
    }

    /// A root whose key is nowhere but in this process.
    ///
    /// # Errors
    ///
    /// [`Error::BadConstraint`], or [`Error::Crypto`] and [`Error::Clock`] where the machine is at fault.
    pub fn ephemeral(constraints: &Constraints) -> Result<Self, Error> {
        Self::ephemeral_at(constraints, SystemTime::now())
    }

    /// The certificate in PEM, for the clients. Holds no secret.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The certificate in DER. Holds no secret.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The SHA-256 of the certificate as `openssl x509 -fingerprint -sha256` prints it: `AB:CD:…`, 32 bytes.
    pub fn fingerprint_sha256(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.certificate);
        let bytes: Vec<_> = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        bytes.join(":")
    }

    /// The last second in which the certificate, and so every leaf, is valid.
    pub fn not_after(&self) -> SystemTime {
        self.validity.end()
    }

    /// Whether leaves for `name` satisfy the name constraints that stand in the certificate.
    ///
    /// `name` is a DNS name in lower case. `*.example.com` asks for everything below `example.com` at once. Anything
    /// else, such as an IP address, is never permitted.
    pub fn permits(&self, name: &str) -> bool {
        self.limits.permit(name)
    }

    /// The names that the certificate's name constraints permit, each with everything below it; `None` where any name is
    /// permitted.
    pub fn permitted_names(&self) -> Option<&[String]> {
        self.limits.permitted()
    }

    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    /// Signs a certificate for `key`; the caller answers for its contents.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Certificate, Error> {
        params
            .signed_by(key, &self.signer)
            .map_err(Error::crypto("sign a certificate"))
    }

    fn open_at(dir: &Path, constraints: &Constraints, now: SystemTime) -> Result<Self, Error> {
        let store = Store::open(dir)?;
        match store.read()? {
            Some(pair) => load(&pair, &Names::in_store(&store), now),
            None => Self::renew_in(&store, constraints, now),
        }
    }

    fn renew_in(store: &Store, constraints: &Constraints, now: SystemTime) -> Result<Self, Error> {
        let pair = generate(constraints, now)?;
        let root = load(&pair, &Names::in_store(store), now)?;
        store.write(&pair)?;
        Ok(root)
    }

    pub(crate) fn ephemeral_at(constraints: &Constraints, now: SystemTime) -> Result<Self, Error> {
        load(&generate(constraints, now)?, &Names::in_memory(), now)
    }
}

/// Whether a certificate is the root of some bottle, by its name. Whoever gathers a machine's trusted roots leaves these
/// out: a bottle's agent has no business trusting another bottle, or a root that was renewed.
pub fn is_bottle_root(certificate: &CertificateDer<'_>) -> bool {
    // Most are told without a parser, of the 150 that a platform trusts.
    let mut parts = certificate.windows(NAME.len());
    if !parts.any(|part| part == NAME.as_bytes()) {
        return false;
    }
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    let mut names = parsed.subject().iter_common_name();
    names.any(|name| name.as_str().is_ok_and(|name| name.starts_with(NAME)))
}

/// From when until when a certificate of whatever origin is valid (RFC 5280, section 4.1.2.5); `None` for one that cannot be
/// read. Libraries differ in whether they hold a root to it.
pub fn validity_of(certificate: &CertificateDer<'_>) -> Option<RangeInclusive<SystemTime>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let time = |time: ASN1Time| SystemTime::from(time.to_datetime());
    let validity = parsed.validity();
    Some(time(validity.not_before)..=time(validity.not_after))
}

/// Without the key.
impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root")
            .field("fingerprint", &self.fingerprint_sha256())
            .finish_non_exhaustive()
    }
}

/// A new pair. The certificate's profile is that of RFC 5280 section 4.2.1 for a CA that signs leaves only.
fn generate(constraints: &Constraints, now: SystemTime) -> Result<Pair, Error> {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = Validity::starting(now, LIFETIME_DAYS)?.bounds()?;
    params.serial_number = Some(random_serial()?);
    // Random, so that clients can tell a renewed root from the one it replaces, and one bottle's from another's.
    params.distinguished_name = rcgen::DistinguishedName::new();
    let [a, b, c, d] = random::<4>()?;
    let name = format!("{NAME} {a:02x}{b:02x}{c:02x}{d:02x}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = constraints.extension()?;
    let key =
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::crypto("make a key"))?;
    let key = Zeroizing::new(key);
    let certificate = params
        .self_signed(&*key)
        .map_err(Error::crypto("sign a certificate"))?;
    Ok(Pair {
        certificate: Zeroizing::new(certificate.pem()),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

/// 128 random bits. rcgen's own serial is a hash of the public key, the same for all leaves of one key, and clients
/// that find two certificates of one issuer with one serial refuse them (RFC 5280 section 4.1.2.2).
pub(crate) fn random_serial() -> Result<SerialNumber, Error> {
    Ok(SerialNumber::from_slice(&random::<16>()?))
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(Error::crypto("draw random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
