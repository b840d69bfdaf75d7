//! The trust bundle: the platform's root certificates and the bottle's CA certificate in one PEM file.
//!
//! Public certificates only.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::roots;

/// The bundle's text: the bottle's certificate (PEM) first, then the roots in a stable order. With it comes what of the
/// platform's store could not be read.
///
/// # Errors
///
/// [`NoRoots`] where the platform has none. With the CA alone, every host that is passed through would fail at the
/// agent, far from here and without a reason.
pub fn text(bottle: &str) -> Result<(String, Vec<String>), NoRoots> {
    let mut found = roots::platform();
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
