//! The trust bundle: the platform's root certificates and the bottle's CA certificate in one PEM file.
//!
//! Public certificates only. It reads the platform's store, or what SSL_CERT_FILE and SSL_CERT_DIR name in its place.

use anyhow::anyhow;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use egress_ca::Root;

use super::Failure;

/// The bundle's text: the bottle's certificate first, then the roots in a stable order.
///
/// # Errors
///
/// A runtime [`Failure`] where the platform has no roots. With the CA alone, every host that is passed through would
/// fail at the agent, far from here and without a reason.
pub(super) fn text(root: &Root) -> Result<String, Failure> {
    let mut found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        eprintln!("warning: a root certificate cannot be read: {error}");
    }
    // SSL_CERT_FILE is an earlier bundle of ours where the caller's shell was given `egress env`.
    found
        .certs
        .retain(|certificate| !egress_ca::is_bottle_root(certificate));
    if found.certs.is_empty() {
        return Err(
            Failure::runtime(anyhow!("this platform has no root certificates")).hint(
                "install ca-certificates, or name a PEM file of roots with SSL_CERT_FILE; \
                 where no route has `tls: passthrough`, `egress ca cert` is all that agents need",
            ),
        );
    }
    found.certs.sort_by(|a, b| a.cmp(b));
    let mut text = format!("{}\n", root.certificate_pem().trim_end());
    for certificate in &found.certs {
        text.push_str(&pem(certificate));
    }
    Ok(text)
}

/// RFC 7468, section 2: base64 in lines of 64.
fn pem(der: &[u8]) -> String {
    const LINE: usize = 64 / 4 * 3;
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for piece in der.chunks(LINE) {
        text.push_str(&BASE64_STANDARD.encode(piece));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
