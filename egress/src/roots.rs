//! The platform's root certificates, or those that SSL_CERT_FILE and SSL_CERT_DIR name in their place.
//!
//! Without the bottle's own, which signs for agents only: a shell that ran `egress env` names a bundle with it.

use rustls_native_certs::{CertificateResult, load_native_certs};

/// Reads them. Blocking.
pub fn platform() -> CertificateResult {
    let mut found = bundle().unwrap_or_else(load_native_certs);
    found
        .certs
        .retain(|certificate| !egress_ca::is_bottle_root(certificate));
    found
}

/// What the platform's own bundle holds. Where there is one, the directory that it was made of is not read too: that took
/// longer than all the rest of a sidecar's start.
#[cfg(all(unix, not(target_os = "macos")))]
fn bundle() -> Option<CertificateResult> {
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
    if named.iter().any(|name| std::env::var_os(name).is_some()) {
        return None;
    }
    let bundle = openssl_probe::probe().cert_file?;
    let found = rustls_native_certs::load_certs_from_paths(Some(&bundle), None);
    (!found.certs.is_empty()).then_some(found)
}

/// Roots are not in files here.
#[cfg(not(all(unix, not(target_os = "macos"))))]
fn bundle() -> Option<CertificateResult> {
    None
}
