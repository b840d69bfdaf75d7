//! The root on disk and in its certificate. What clients make of it is tested with the issuer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rcgen::{CustomExtension, DistinguishedName, PKCS_ECDSA_P384_SHA384, SignatureAlgorithm};
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::*;
use crate::validity::unix_seconds;

fn api_only() -> Constraints {
    Constraints::Hosts(vec!["api.test".to_owned()])
}

/// Puts a pair made to order into a new directory.
fn stored(certificate: &str, key: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Zeroizing::new(certificate.to_owned());
    let key = Zeroizing::new(key.to_owned());
    Store::open(dir.path())
        .unwrap()
        .write(&Pair { certificate, key })
        .unwrap();
    dir
}

fn reopen(dir: &tempfile::TempDir) -> Result<Root, Error> {
    Root::open(dir.path(), &Constraints::None)
}

/// A self-signed pair that differs from ours by `change`.
fn odd_pair(
    algorithm: &'static SignatureAlgorithm,
    change: impl FnOnce(&mut CertificateParams),
) -> (String, String) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn odd(change: impl FnOnce(&mut CertificateParams)) -> Result<Root, Error> {
    let (certificate, key) = odd_pair(&PKCS_ECDSA_P256_SHA256, change);
    reopen(&stored(&certificate, &key))
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let one = generate(&Constraints::None, SystemTime::now()).unwrap();
    let other = generate(&Constraints::None, SystemTime::now()).unwrap();
    let dir = stored(&one.certificate, &other.key);
    assert!(matches!(reopen(&dir), Err(Error::Mismatch { .. })));
}

#[test]
fn a_certificate_that_is_no_root_ca_is_refused() {
    assert!(odd(|_| ()).is_ok());
    assert!(matches!(
        odd(|params| params.is_ca = IsCa::NoCa),
        Err(Error::NotCa { .. })
    ));
    assert!(matches!(
        odd(|params| params.is_ca = IsCa::ExplicitNoCa),
        Err(Error::NotCa { .. })
    ));
    let crl_only = odd(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    assert!(matches!(crl_only, Err(Error::NotCa { .. })));

    let parent = Root::ephemeral(&Constraints::None).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "intermediate");
    let intermediate = parent.sign(&params, &key).unwrap();
    let dir = stored(&intermediate.pem(), &key.serialize_pem());
    assert!(matches!(reopen(&dir), Err(Error::NotCa { .. })));
}

#[test]
fn a_certificate_that_its_own_key_did_not_sign_is_refused() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let other = rcgen::Issuer::new(params.clone(), KeyPair::generate().unwrap());
    let certificate = params.signed_by(&key, &other).unwrap();
    let refused = reopen(&stored(&certificate.pem(), &key.serialize_pem()));
    assert!(matches!(refused, Err(Error::BadCertificate { .. })));
}

#[test]
fn another_curve_is_refused() {
    let (certificate, key) = odd_pair(&PKCS_ECDSA_P384_SHA384, |_| ());
    assert!(matches!(
        reopen(&stored(&certificate, &key)),
        Err(Error::NotP256 { .. })
    ));
    let ours = generate(&Constraints::None, SystemTime::now()).unwrap();
    assert!(matches!(
        reopen(&stored(&ours.certificate, &key)),
        Err(Error::BadKey { .. })
    ));
}

#[test]
fn an_expired_certificate_is_refused_and_one_from_the_future_is_not() {
    let year = Duration::from_secs(366 * 24 * 60 * 60);
    let old = generate(&Constraints::None, SystemTime::now() - year).unwrap();
    assert!(matches!(
        reopen(&stored(&old.certificate, &old.key)),
        Err(Error::Expired { .. })
    ));
    let new = generate(&Constraints::None, SystemTime::now() + year).unwrap();
    assert!(reopen(&stored(&new.certificate, &new.key)).is_ok());
}

#[test]
fn damaged_files_are_refused() {
    let Pair { certificate, key } = generate(&api_only(), SystemTime::now()).unwrap();
    let cut = |text: &str| text.replacen("MII", "MIIA", 1).replacen("MIG", "MIGA", 1);
    for bad in [
        "",
        "garbage",
        &cut(&key),
        &format!("{}{}", &*key, &*key),
        &certificate,
    ] {
        assert!(
            matches!(
                reopen(&stored(&certificate, bad)),
                Err(Error::BadKey { .. })
            ),
            "{bad}"
        );
    }
    let twice = format!("{}{}", &*certificate, &*certificate);
    for bad in ["", "garbage", &cut(&certificate), &twice, &key] {
        assert!(
            matches!(
                reopen(&stored(bad, &key)),
                Err(Error::BadCertificate { .. })
            ),
            "{bad}"
        );
    }
}

#[test]
fn name_constraints_that_cannot_be_read_are_refused() {
    let constraints = |content: &[u8]| {
        odd(|params| {
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content.to_vec());
            params.custom_extensions = vec![extension];
        })
    };
    let empty = [0x30, 0];
    let no_sequence = [0x04, 1, 0];
    let name_is_no_text = [0x30, 0x07, 0xa0, 0x05, 0x30, 0x03, 0x82, 0x01, 0xff];
    for content in [&empty[..], &no_sequence, &name_is_no_text] {
        assert!(
            matches!(constraints(content), Err(Error::BadCertificate { .. })),
            "{content:x?}"
        );
    }
    let name_is_a = [0x30, 0x07, 0xa0, 0x05, 0x30, 0x03, 0x82, 0x01, b'a'];
    let root = constraints(&name_is_a).unwrap();
    assert!(root.permits("x.a") && !root.permits("b"));
}

#[test]
fn a_certificate_file_that_also_holds_the_key_is_refused() {
    // Its text is given to clients.
    let Pair { certificate, key } = generate(&api_only(), SystemTime::now()).unwrap();
    let both = [
        format!("{}{}", &*certificate, &*key),
        format!("{}{}", &*key, &*certificate),
        format!("{}{}{}", &*certificate, &*key, &*certificate),
    ];
    for both in both {
        assert!(matches!(
            reopen(&stored(&both, &key)),
            Err(Error::BadCertificate { .. })
        ));
    }
}

#[test]
fn an_error_names_the_file_and_says_what_to_do() {
    let dir = stored("garbage", "garbage");
    let error = reopen(&dir).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&dir.path().join("ca-cert.pem").display().to_string())
    );
    assert!(error.hint().unwrap().contains("egress ca init --renew"));
}

#[test]
fn nothing_shows_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path(), &api_only()).unwrap();
    let key = fs::read_to_string(dir.path().join("ca-key.pem")).unwrap();
    let shown = format!("{root:?}{}", root.certificate_pem());
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!shown.contains(line));
    }
    assert!(!shown.contains("PRIVATE"));
}

#[test]
fn a_pair_that_exists_is_kept_whatever_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let made = Root::open(dir.path(), &api_only()).unwrap();
    let found = reopen(&dir).unwrap();
    assert_eq!(made.fingerprint_sha256(), found.fingerprint_sha256());
    assert!(found.permits("api.test") && found.permits("*.api.test"));
    assert!(
        !found.permits("other.test"),
        "goes by the certificate, not by what was asked for"
    );
}

#[test]
fn renewing_replaces_key_and_certificate_whatever_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let old = Root::open(dir.path(), &api_only()).unwrap();
    let new = Root::renew(dir.path(), &Constraints::None).unwrap();
    assert_ne!(old.fingerprint_sha256(), new.fingerprint_sha256());
    assert_ne!(
        old.signer.key().subject_public_key_info(),
        new.signer.key().subject_public_key_info()
    );
    assert_eq!(
        reopen(&dir).unwrap().fingerprint_sha256(),
        new.fingerprint_sha256()
    );
    assert!(new.permits("other.test"));

    fs::write(dir.path().join("ca-key.pem"), "garbage").unwrap();
    fs::set_permissions(
        dir.path().join("ca-key.pem"),
        fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    fs::remove_file(dir.path().join("ca-cert.pem")).unwrap();
    Root::renew(dir.path(), &api_only()).unwrap();
    assert!(reopen(&dir).unwrap().permits("api.test"));
}

#[test]
fn a_refused_renewal_leaves_the_old_pair() {
    let dir = tempfile::tempdir().unwrap();
    let old = Root::open(dir.path(), &api_only()).unwrap();
    let refused = Root::renew(dir.path(), &Constraints::Hosts(vec!["10.0.0.1".to_owned()]));
    assert!(matches!(refused, Err(Error::BadConstraint { .. })));
    assert_eq!(
        reopen(&dir).unwrap().fingerprint_sha256(),
        old.fingerprint_sha256()
    );
}

#[test]
fn threads_that_start_at_once_agree_on_one_root() {
    let dir = tempfile::tempdir().unwrap();
    let start = Barrier::new(8);
    let fingerprint = || {
        start.wait();
        reopen(&dir).unwrap().fingerprint_sha256()
    };
    let found: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(fingerprint)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        found.iter().all(|one| Some(one) == found.first()),
        "{found:?}"
    );
}

/// Not a test of its own: what the processes of the next one run.
#[test]
#[ignore = "run by processes_that_start_at_once_agree_on_one_root"]
fn open_and_print() {
    let dir = std::env::var_os("EGRESS_CA_TEST_DIR").unwrap();
    let root = Root::open(Path::new(&dir), &Constraints::None).unwrap();
    println!("fingerprint={}", root.fingerprint_sha256());
}

#[test]
fn processes_that_start_at_once_agree_on_one_root() {
    let dir = tempfile::tempdir().unwrap();
    let child = || {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "root::tests::open_and_print",
            ])
            .env("EGRESS_CA_TEST_DIR", dir.path())
            .output()
            .unwrap()
    };
    let outputs: Vec<_> = thread::scope(|scope| {
        let children: Vec<_> = (0..4).map(|_| scope.spawn(child)).collect();
        children
            .into_iter()
            .map(|child| child.join().unwrap())
            .collect()
    });
    let expected = format!("fingerprint={}", reopen(&dir).unwrap().fingerprint_sha256());
    for output in outputs {
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains(&expected),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn the_certificate_says_what_a_root_must_and_no_more() {
    let now = SystemTime::now();
    let root = Root::ephemeral_at(&api_only(), now).unwrap();
    let (_, certificate) = X509Certificate::from_der(&root.certificate).unwrap();
    let basic = certificate.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && basic.value.ca && basic.value.path_len_constraint == Some(0));
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.to_string(), "Key Cert Sign, CRL Sign");
    let cn = certificate
        .subject()
        .iter_common_name()
        .next()
        .unwrap()
        .as_str()
        .unwrap();
    let random = cn.strip_prefix("egress bottle CA ").unwrap();
    assert!(
        random.len() == 8 && random.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{cn}"
    );
    let has_key_id = |extension: &&_| {
        let extension: &x509_parser::extensions::X509Extension<'_> = extension;
        matches!(
            extension.parsed_extension(),
            ParsedExtension::SubjectKeyIdentifier(_)
        )
    };
    assert!(
        certificate
            .extensions()
            .iter()
            .any(|extension| has_key_id(&extension))
    );

    let limits = certificate.name_constraints().unwrap().unwrap();
    assert!(limits.critical);
    let permitted = limits.value.permitted_subtrees.as_ref().unwrap();
    assert!(matches!(permitted.as_slice(), [one] if one.base == GeneralName::DNSName("api.test")));
    let excluded = limits.value.excluded_subtrees.as_ref().unwrap();
    let [v4, v6] = excluded.as_slice() else {
        panic!("{excluded:?}")
    };
    assert_eq!(v4.base, GeneralName::IPAddress(&[0; 8]));
    assert_eq!(v6.base, GeneralName::IPAddress(&[0; 32]));

    let now = unix_seconds(now).unwrap();
    let hour = 60 * 60;
    assert_eq!(root.validity().not_before, now - hour);
    assert_eq!(root.validity().not_after, now - hour + 365 * 24 * hour);
    certificate.verify_signature(None).unwrap();
}

#[test]
fn the_fingerprint_is_32_bytes_with_colons() {
    let fingerprint = Root::ephemeral(&Constraints::None)
        .unwrap()
        .fingerprint_sha256();
    let bytes: Vec<_> = fingerprint
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect();
    assert!(
        bytes.len() == 32 && bytes.iter().all(Result::is_ok),
        "{fingerprint}"
    );
}

#[test]
fn no_hosts_permit_no_name_and_no_constraints_permit_all() {
    let nobody = Root::ephemeral(&Constraints::Hosts(Vec::new())).unwrap();
    assert!(!nobody.permits("a.test") && !nobody.permits("*.test"));
    let anybody = Root::ephemeral(&Constraints::None).unwrap();
    assert!(anybody.permits("a.test") && anybody.permits("*.test") && !anybody.permits("1.2.3.4"));
}

#[test]
fn to_load_creates_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("ca");
    assert!(Root::load(&dir).unwrap().is_none());
    assert!(!dir.exists());
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(Root::load(&dir).unwrap().is_none());
    let root = Root::open(&dir, &api_only()).unwrap();
    let loaded = Root::load(&dir).unwrap().unwrap();
    assert_eq!(loaded.fingerprint_sha256(), root.fingerprint_sha256());
}

#[test]
fn the_permitted_names_are_told() {
    let names = |constraints: &Constraints| {
        let root = Root::ephemeral(constraints).unwrap();
        root.permitted_names().map(<[_]>::to_vec)
    };
    assert_eq!(names(&Constraints::None), None);
    assert_eq!(names(&api_only()), Some(vec!["api.test".to_owned()]));
    let nothing = names(&Constraints::Hosts(Vec::new()));
    assert_eq!(nothing, Some(vec!["invalid".to_owned()]));
}

#[test]
fn a_bottles_root_is_told_from_others() {
    let ours = Root::ephemeral(&Constraints::None).unwrap();
    assert!(is_bottle_root(&ours.certificate));
    let (other, _) = odd_pair(&PKCS_ECDSA_P256_SHA256, |_| {});
    let other = rustls::pki_types::pem::PemObject::from_pem_slice(other.as_bytes()).unwrap();
    assert!(!is_bottle_root(&other));
    assert!(!is_bottle_root(&CertificateDer::from_slice(b"no X.509")));
}

#[test]
fn a_roots_dates_are_read_from_its_certificate() {
    let ours = Root::ephemeral(&Constraints::None).unwrap();
    let validity = validity_of(&ours.certificate).unwrap();
    assert_eq!(*validity.end(), ours.not_after());
    assert!(validity.contains(&SystemTime::now()));
    assert!(validity_of(&CertificateDer::from_slice(b"no X.509")).is_none());
}
