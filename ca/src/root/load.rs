//! From two PEM texts to a [`Root`], or the reason why not. Pure: the clock is passed in.
//!
//! The texts come from files that somebody may have edited, so nothing in them is taken on trust.

use std::path::PathBuf;
use std::time::SystemTime;

use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer;
use zeroize::Zeroize;

use crate::constraints::Limits;
use crate::store::{Pair, Store};
use crate::validity::{Validity, unix_seconds};
use crate::{Error, Root};

pub(super) fn load(pair: &Pair, names: &Names, now: SystemTime) -> Result<Root, Error> {
    let der = only_certificate(&pair.certificate).map_err(|reason| names.bad(reason))?;
    let (rest, parsed) =
        X509Certificate::from_der(&der).map_err(|_| names.bad("it is not X.509"))?;
    if !rest.is_empty() {
        return Err(names.bad("something follows the certificate"));
    }
    names.check_kind(&parsed)?;
    let key = private_key(&pair.key).ok_or_else(|| Error::BadKey {
        path: names.key.clone(),
    })?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        let (key, certificate) = (names.key.clone(), names.certificate.clone());
        return Err(Error::Mismatch { key, certificate });
    }
    let validity = Validity {
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
    };
    if unix_seconds(now)? > validity.not_after {
        return Err(Error::Expired {
            path: names.certificate.clone(),
        });
    }
    let signer =
        Issuer::from_ca_cert_der(&der, key).map_err(|_| names.bad("its subject cannot be read"))?;
    Ok(Root {
        pem: pair.certificate.to_string(),
        validity,
        limits: Limits::of(&parsed).map_err(|reason| names.bad(reason))?,
        signer,
        certificate: der.clone(),
    })
}

/// What the two halves are called in messages.
pub(super) struct Names {
    certificate: PathBuf,
    key: PathBuf,
}

impl Names {
    pub(super) fn in_store(store: &Store) -> Self {
        Self {
            certificate: store.certificate_path(),
            key: store.key_path(),
        }
    }

    pub(super) fn in_memory() -> Self {
        Self {
            certificate: "(in memory)".into(),
            key: "(in memory)".into(),
        }
    }

    fn bad(&self, reason: &'static str) -> Error {
        Error::BadCertificate {
            path: self.certificate.clone(),
            reason,
        }
    }

    fn check_kind(&self, certificate: &X509Certificate<'_>) -> Result<(), Error> {
        let is_ca = certificate
            .basic_constraints()
            .is_ok_and(|found| found.is_some_and(|found| found.value.ca));
        // Without the extension every use is allowed (RFC 5280 section 4.2.1.3).
        let may_sign = certificate
            .key_usage()
            .is_ok_and(|found| found.is_none_or(|found| found.value.key_cert_sign()));
        if !is_ca || !may_sign || certificate.subject() != certificate.issuer() {
            return Err(Error::NotCa {
                path: self.certificate.clone(),
            });
        }
        let algorithm = &certificate.public_key().algorithm;
        let curve = algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok());
        if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
            return Err(Error::NotP256 {
                path: self.certificate.clone(),
            });
        }
        // Clients take a root as it stands: nobody else would notice that, say, its constraints were edited.
        certificate
            .verify_signature(None)
            .map_err(|_| self.bad("its own key did not sign it"))
    }
}

/// The certificate in `text`, which may hold nothing else: the text is handed to clients as it stands, and a file with
/// the key in it too would hand them that.
fn only_certificate(text: &str) -> Result<CertificateDer<'static>, &'static str> {
    let text = text.trim_ascii();
    let framed = text.starts_with("-----BEGIN CERTIFICATE-----")
        && text.ends_with("-----END CERTIFICATE-----");
    if !framed || text.matches("-----BEGIN").count() != 1 {
        return Err("it is not one PEM block of type CERTIFICATE and nothing else");
    }
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| "its PEM block is damaged")
}

/// The only key in `text`, if it is a P-256 key. Its DER is wiped at once; what remains is the library's own form,
/// which the library wipes.
fn private_key(text: &str) -> Option<KeyPair> {
    if text.matches("-----BEGIN").count() != 1 {
        return None;
    }
    let mut der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok()?;
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
    der.zeroize();
    let mut key = key.ok()?;
    key.zeroize();
    Some(key)
}
