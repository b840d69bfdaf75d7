//! The certificates of a run. They are fresh for each machine and worth nothing outside of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// Writes `egress/` and `up/`, each with a root (`ca-cert.pem`, `ca-key.pem`), a leaf (`leaf.pem`, `leaf-key.pem`), and the two
/// of each in one file, as some peers want them (`ca-both.pem`, `leaf-both.pem`).
///
/// `egress/` is a directory as `egress serve --ca-dir` reads it.
pub(crate) fn write(dir: &Path) -> anyhow::Result<()> {
    for name in ["egress", "up"] {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let put = |file: &str, text: String| {
            let path = dir.join(file);
            let private = fs::Permissions::from_mode(0o600);
            let written = fs::write(&path, text).and_then(|()| fs::set_permissions(&path, private));
            written.with_context(|| format!("cannot write {}", path.display()))
        };
        let (root, issuer) = root(name)?;
        let key = KeyPair::generate()?;
        let leaf = leaf(&key, &issuer)?;
        put("ca-cert.pem", root.pem())?;
        put("ca-key.pem", issuer.key().serialize_pem())?;
        put("ca-both.pem", issuer.key().serialize_pem() + &root.pem())?;
        put("leaf.pem", leaf.pem())?;
        put("leaf-key.pem", key.serialize_pem())?;
        put("leaf-both.pem", leaf.pem() + &key.serialize_pem())?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn root(name: &str) -> anyhow::Result<(Certificate, Issuer<'static, KeyPair>)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("{name} bench root"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let certificate = params.self_signed(&key)?;
    Ok((certificate, Issuer::new(params, key)))
}

/// A leaf for all hosts of a run.
fn leaf(key: &KeyPair, issuer: &Issuer<'static, KeyPair>) -> anyhow::Result<Certificate> {
    let mut params =
        CertificateParams::new(["api.test", "*.cold.test", "*.many.test"].map(String::from))?;
    params.distinguished_name = named("api.test");
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params.signed_by(key, issuer)?)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
