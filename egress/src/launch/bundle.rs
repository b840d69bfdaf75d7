//! The trust bundle: the platform's root certificates and the bottle's CA certificate in one PEM file.
//!
//! Public certificates only. It reads the platform's store, or what SSL_CERT_FILE and SSL_CERT_DIR name in its place.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_native_certs::load_native_certs;

/// The bundle's text: the bottle's certificate (PEM) first, then the roots in a stable order. With it comes what of the
/// platform's store could not be read.
///
/// # Errors
///
/// [`NoRoots`] where the platform has none. With the CA alone, every host that is passed through would fail at the
/// agent, far from here and without a reason.
pub fn text(bottle: &str) -> Result<(String, Vec<String>), NoRoots> {
    let mut found = load_native_certs();
    // SSL_CERT_FILE is an earlier bundle of ours where the caller's shell was given `egress env`.
    found
        .certs
        .retain(|certificate| !egress_ca::is_bottle_root(certificate));
    if found.certs.is_empty() {
        return Err(NoRoots);
    }
    found.certs.sort_by(|a, b| a.cmp(b));
    let mut text = format!("{}\n", bottle.trim_end());
    for certificate in &found.certs {
        text.push_str(&pem(certificate));
    }
    let unread = found.errors.iter().map(ToString::to_string).collect();
    Ok((text, unread))
}

/// A platform without root certificates.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this platform has no root certificates")]
pub struct NoRoots;

impl NoRoots {
    /// What the operator can do about it.
    pub fn hint(self) -> &'static str {
        "install ca-certificates, or name a PEM file of roots with SSL_CERT_FILE; \
         where no route has `tls: passthrough`, `egress ca cert` is all that agents need"
    }
}

/// A certificate (DER) as PEM (RFC 7468, section 2: base64 in lines of 64).
pub fn pem(der: &[u8]) -> String {
    const LINE: usize = 64 / 4 * 3;
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for piece in der.chunks(LINE) {
        text.push_str(&BASE64_STANDARD.encode(piece));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
