//! The platform's root certificates, or those that SSL_CERT_FILE and SSL_CERT_DIR name in their place.
//!
//! Without the bottle's own, which signs for agents only: a shell that ran `egress env` names a bundle with it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
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
fn bundle() -> Option<CertificateResult> {
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
    // Apple's roots are not in files.
    if cfg!(target_os = "macos") || named.iter().any(|name| std::env::var_os(name).is_some()) {
        return None;
    }
    let bundle = std::fs::read_to_string(openssl_probe::probe().cert_file?).ok()?;
    let mut found = CertificateResult::default();
    found.certs = certificates(&bundle).filter(|certificates| !certificates.is_empty())?;
    Some(found)
}

/// The certificates of a plain bundle (RFC 7468, section 5.1); `None` where there is anything unusual about it. The library
/// decodes secrets in the same time whatever they are, and takes ten times as long for what is public.
fn certificates(bundle: &str) -> Option<Vec<CertificateDer<'static>>> {
    let blocks = bundle.split("-----BEGIN CERTIFICATE-----").skip(1);
    let decode = |block: &str| {
        let (text, _) = block.split_once("-----END CERTIFICATE-----")?;
        let lines: String = text.lines().collect();
        Some(BASE64_STANDARD.decode(lines).ok()?.into())
    };
    blocks.map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::certificates;

    #[test]
    fn a_bundle_is_read_whole_or_not_at_all() {
        let read = |text: &str| Some(certificates(text)?.iter().map(|der| der.to_vec()).collect());
        let block = |text: &str| {
            format!("# a name\n-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n")
        };
        let two = block("AAEC\nAwQF\n") + &block("BgcICQ==\r\n");
        let ders = vec![vec![0, 1, 2, 3, 4, 5], vec![6, 7, 8, 9]];
        assert_eq!(read(&two), Some(ders));
        assert_eq!(read("no certificate"), Some(Vec::<Vec<u8>>::new()));
        for broken in ["AA-C\n", "Proc-Type: 4\nAAEC\n", "AAE\n"] {
            assert_eq!(read(&(two.clone() + &block(broken))), None, "{broken}");
        }
        assert_eq!(read("-----BEGIN CERTIFICATE-----\nAAEC\n"), None);
    }
}
