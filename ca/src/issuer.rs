//! The issuer: a short-lived leaf certificate and a ready TLS configuration per host, made when first asked for.
//!
//! It answers for what stands in a leaf. It does not decide which hosts may have one, beyond what the root's own name
//! constraints permit.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use zeroize::Zeroizing;

use crate::cache::Cache;
use crate::constraints::dns_name;
use crate::root::random_serial;
use crate::tls;
use crate::validity::{DAY, Validity, unix_seconds};
use crate::{Error, Root};

/// A leaf's life. There is no revocation, so this bounds how long a leaked leaf key is of use.
const LIFETIME_DAYS: i64 = 7;

/// How long before its end a leaf is replaced: longer than any connection should last.
const RENEWAL: i64 = DAY;

/// Mints leaves under one root and keeps the TLS configurations made of them.
///
/// All leaves share one P-256 key that lives as long as this value; making one each would double a mint's cost and
/// protect nothing, since they would all lie in the same memory.
pub struct Issuer {
    root: Root,
    key: LeafKey,
    template: ServerConfig,
    leaves: Cache<Leaf>,
    minted: AtomicU64,
}

impl Issuer {
    /// An issuer under `root` that keeps the configurations of at most `capacity` hosts, some 2 KiB each.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`] where there is no randomness to make the leaf key and the ticket key with.
    pub fn new(root: Root, capacity: NonZeroUsize) -> Result<Self, Error> {
        Ok(Self {
            root,
            key: LeafKey::generate()?,
            template: tls::template()?,
            leaves: Cache::new(capacity),
            minted: AtomicU64::new(0),
        })
    }

    /// The TLS configuration with which to answer as `host`, a DNS name in lower case without a trailing dot.
    ///
    /// It refuses clients whose SNI is not `host`. The leaf comes from the cache, or is minted if there is none that
    /// holds at `now` and for another day. Blocks for some 50 µs where the leaf is minted or another caller is minting
    /// it, else hardly at all; so it may be called from an async task.
    ///
    /// # Errors
    ///
    /// [`Error::NotDnsName`], [`Error::NotPermitted`] (the root's constraints), [`Error::OutsideValidity`] (the root
    /// has ended, or has not begun), [`Error::Clock`] and [`Error::Crypto`].
    pub fn server_config(&self, host: &str, now: SystemTime) -> Result<Arc<ServerConfig>, Error> {
        // Before the cache, so that a refused name costs no admitted one its place.
        dns_name(host)?;
        if !self.root.permits(host) {
            return Err(Error::NotPermitted {
                host: host.to_owned(),
            });
        }
        let seconds = unix_seconds(now)?;
        if !self.root.validity().contains(seconds) {
            return Err(Error::OutsideValidity);
        }
        let leaf = self.leaves.get_or_make(
            host,
            |leaf| leaf.is_fresh(seconds),
            || self.mint(host, now),
        )?;
        Ok(leaf.config)
    }

    /// The root that signs the leaves.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// How many leaves have been minted since the start.
    pub fn minted(&self) -> u64 {
        self.minted.load(Ordering::Relaxed)
    }

    /// Of how many hosts a leaf is held.
    pub fn held(&self) -> usize {
        self.leaves.len()
    }

    fn mint(&self, host: &str, now: SystemTime) -> Result<Leaf, Error> {
        // A chain is valid only where all of it is (RFC 5280 section 6.1.3), so a leaf gains nothing by outliving its
        // root, and some clients reject one that does.
        let whole = Validity::starting(now, LIFETIME_DAYS)?;
        let validity = whole.clipped_to(self.root.validity());
        let certificate = self.certificate(host, validity)?;
        self.minted.fetch_add(1, Ordering::Relaxed);
        // The leaf alone: the root may be left out of what a server sends (RFC 8446 section 4.4.2), and a client that
        // does not hold it already would not trust it for being sent.
        let key = CertifiedKey::new(vec![certificate], self.key.signing.clone());
        let is_last = validity.not_after < whole.not_after;
        let renew_at = if is_last {
            validity.not_after
        } else {
            validity.not_after - RENEWAL
        };
        Ok(Leaf {
            config: tls::config_for(&self.template, host, key),
            not_before: validity.not_before,
            renew_at,
        })
    }

    fn certificate(
        &self,
        host: &str,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, Error> {
        Ok(self
            .root
            .sign(&leaf_params(host, validity)?, &self.key.public)?
            .into())
    }
}

/// Without keys.
impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("root", &self.root)
            .field("minted", &self.minted)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    not_before: i64,
    /// In seconds since 1970, as `not_before`. The very end where the root ends too: a new leaf would last no longer.
    renew_at: i64,
}

impl Leaf {
    /// Whether the leaf may be used at `now`. A clock that was set back may stand before the leaf's beginning.
    fn is_fresh(&self, now: i64) -> bool {
        self.not_before <= now && now <= self.renew_at
    }
}

/// What a leaf says: the profile of RFC 5280 section 4.2.1 for a TLS server, and one name.
fn leaf_params(host: &str, validity: Validity) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = validity.bounds()?;
    params.serial_number = Some(random_serial()?);
    params.subject_alt_names = vec![SanType::DnsName(
        host.try_into().map_err(Error::crypto("encode a name"))?,
    )];
    params.distinguished_name = DistinguishedName::new();
    // Clients go by the alternative name; this one is for people. It has at most 64 characters (RFC 5280 appendix A.1,
    // ub-common-name). Without it the subject is empty and rcgen marks the other critical (section 4.2.1.6).
    if host.len() <= 64 {
        params.distinguished_name.push(DnType::CommonName, host);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The key of every leaf: its public half for rcgen, its private half as rustls uses it.
struct LeafKey {
    public: SubjectPublicKeyInfo,
    signing: Arc<dyn SigningKey>,
}

impl LeafKey {
    fn generate() -> Result<Self, Error> {
        let pair =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::crypto("make a key"))?;
        let pair = Zeroizing::new(pair);
        let der = Zeroizing::new(pair.serialize_der());
        let signing = any_ecdsa_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
            der.as_slice(),
        )));
        Ok(Self {
            public: SubjectPublicKeyInfo::from_der(&pair.subject_public_key_info())
                .map_err(Error::crypto("make a key"))?,
            signing: signing.map_err(Error::crypto("make a key"))?,
        })
    }
}

#[cfg(test)]
mod tests;
