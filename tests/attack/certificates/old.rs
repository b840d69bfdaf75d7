//! Certificates with signatures, keys and versions that are out of use, made by openssl(1).

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::wrong::Case;
use crate::harness::openssl::OpenSsl;
use crate::harness::pki::{Pki, showing};

/// What needs a signature, a key or a version that our own library rightly cannot make.
pub(super) async fn of_openssl(openssl: &OpenSsl) -> Vec<Case> {
    let key = KeyPair::generate().expect("a key pair");
    openssl.write("leaf-key.pem", key.serialize_pem());
    for (name, bits) in [("rsa", 2048), ("weak", 1024)] {
        openssl
            .run(&format!(
                "req -x509 -newkey rsa:{bits} -nodes -keyout {name}-root-key.pem -out {name}.pem -subj /CN={name} -days 5"
            ))
            .await;
    }
    let mut cases = Vec::new();
    for (what, host, root, digest, extensions, reason) in [
        (
            "SHA-1",
            "c40.test",
            "rsa",
            "sha1",
            true,
            "UnsupportedSignatureAlgorithm",
        ),
        (
            "MD5",
            "c41.test",
            "rsa",
            "md5",
            true,
            "UnsupportedSignatureAlgorithm",
        ),
        (
            "a weak root",
            "c42.test",
            "weak",
            "sha256",
            true,
            "BadSignature",
        ),
        (
            "version 1",
            "c43.test",
            "rsa",
            "sha256",
            false,
            "UnsupportedCertVersion",
        ),
    ] {
        openssl.write("extensions", format!("subjectAltName=DNS:{host}\n"));
        openssl
            .run(&format!(
                "req -new -key leaf-key.pem -subj /CN={host} -out request.pem"
            ))
            .await;
        let extensions = if extensions {
            "-extfile extensions"
        } else {
            ""
        };
        openssl
            .run(&format!(
                "x509 -req -in request.pem -CA {root}.pem -CAkey {root}-root-key.pem -{digest} -days 5 {extensions} -out leaf.pem"
            ))
            .await;
        let leaf = CertificateDer::from_pem_file(openssl.path("leaf.pem")).expect("a certificate");
        cases.push(Case {
            what,
            host: host.to_owned(),
            reason,
            server: showing(vec![leaf], &key),
        });
    }
    cases
}

/// Has the tests' root sign a certificate of `old.test` for an RSA key.
pub(super) async fn sign(openssl: &OpenSsl, key: &str, name: &str, pki: &Pki) {
    openssl.write("root.pem", pki.issuer().pem());
    openssl.write("root-key.pem", pki.issuer().key().serialize_pem());
    openssl.write("extensions", "subjectAltName=DNS:old.test\n");
    openssl
        .run(&format!(
            "req -new -key {key} -subj /CN=old.test -out request.pem"
        ))
        .await;
    openssl
        .run(&format!(
            "x509 -req -in request.pem -CA root.pem -CAkey root-key.pem -sha256 -days 5 -extfile extensions -out {name}.pem"
        ))
        .await;
}
