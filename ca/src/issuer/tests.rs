//! Leaves as webpki, the verifier of rustls clients, judges them, and when a new one is made.

use std::net::IpAddr;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{Error as TlsError, RootCertStore};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::*;
use crate::Constraints;
use crate::validity::HOUR;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn issuer(hosts: &[&str], capacity: usize) -> Issuer {
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    let root = Root::ephemeral(&Constraints::Hosts(hosts)).unwrap();
    Issuer::new(root, NonZeroUsize::new(capacity).unwrap()).unwrap()
}

fn week() -> Validity {
    Validity::starting(SystemTime::now(), LIFETIME_DAYS).unwrap()
}

fn verify(issuer: &Issuer, leaf: &CertificateDer<'_>, name: &str) -> Result<(), TlsError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(issuer.root().certificate_pem().as_bytes()).unwrap())
        .unwrap();
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    let name = ServerName::try_from(name).unwrap();
    verifier
        .build()
        .unwrap()
        .verify_server_cert(leaf, &[], &name, &[], UnixTime::now())
        .map(|_| ())
}

/// Signs what the issuer itself never would.
fn forge(issuer: &Issuer, name: SanType) -> CertificateDer<'static> {
    let mut params = leaf_params("api.test", week()).unwrap();
    params.subject_alt_names = vec![name];
    issuer
        .root
        .sign(&params, &issuer.key.public)
        .unwrap()
        .into()
}

fn later(seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::now() - by
    } else {
        SystemTime::now() + by
    }
}

#[test]
fn what_is_no_canonical_dns_name_gets_no_leaf() {
    let root = Root::ephemeral(&Constraints::None).unwrap();
    let issuer = Issuer::new(root, NonZeroUsize::MIN).unwrap();
    for host in [
        "",
        "1.2.3.4",
        "::1",
        "127.0.0.0x1",
        "A.test",
        "a.test.",
        "*.test",
        "a b",
        "a.test:443",
    ] {
        let refused = issuer.server_config(host, SystemTime::now());
        assert!(
            matches!(refused, Err(Error::NotDnsName { host: named }) if named == host),
            "{host:?}"
        );
    }
    assert_eq!(issuer.minted(), 0);
}

#[test]
fn a_host_outside_the_constraints_gets_no_leaf() {
    let issuer = issuer(&["api.test"], 1);
    issuer.server_config("api.test", SystemTime::now()).unwrap();
    for host in ["test", "evilapi.test", "api.test.evil"] {
        let refused = issuer.server_config(host, SystemTime::now());
        assert!(
            matches!(refused, Err(Error::NotPermitted { host: named }) if named == host),
            "{host}"
        );
    }
    issuer.server_config("api.test", SystemTime::now()).unwrap();
    assert_eq!(issuer.minted(), 1, "the refused took no place in the cache");
}

#[test]
fn clients_refuse_what_a_stolen_key_signs_for_other_hosts() {
    let issuer = issuer(&["api.test"], 1);
    // rustls has no variant for it and wraps webpki's.
    let refused = |forged: &CertificateDer<'_>, name: &str| {
        let error = verify(&issuer, forged, name).unwrap_err();
        assert!(
            format!("{error:?}").contains("NameConstraintViolation"),
            "{name}: {error:?}"
        );
    };
    let other = forge(&issuer, SanType::DnsName("other.test".try_into().unwrap()));
    refused(&other, "other.test");
    for ip in ["10.0.0.1", "::1"] {
        let forged = forge(&issuer, SanType::IpAddress(ip.parse::<IpAddr>().unwrap()));
        refused(&forged, ip);
    }
    let own = forge(&issuer, SanType::DnsName("api.test".try_into().unwrap()));
    assert_eq!(
        verify(&issuer, &own, "api.test"),
        Ok(()),
        "the forgery is sound but for its name"
    );
}

#[test]
fn clients_refuse_every_name_under_a_root_without_hosts() {
    let issuer = issuer(&[], 1);
    assert!(issuer.server_config("api.test", SystemTime::now()).is_err());
    let forged = forge(&issuer, SanType::DnsName("api.test".try_into().unwrap()));
    assert!(verify(&issuer, &forged, "api.test").is_err());
}

#[test]
fn no_leaf_is_issued_outside_the_life_of_the_root() {
    let issuer = issuer(&["api.test"], 1);
    for now in [later(-2 * HOUR), SystemTime::now() + YEAR] {
        assert!(matches!(
            issuer.server_config("api.test", now),
            Err(Error::OutsideValidity)
        ));
    }
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert!(matches!(
        issuer.server_config("api.test", before_1970),
        Err(Error::Clock)
    ));
}

#[test]
fn a_leaf_holds_for_its_name_alone() {
    let issuer = issuer(&["api.test", "*.wild.test"], 1);
    for host in ["api.test", "x.api.test", "a.wild.test"] {
        let leaf = issuer.certificate(host, week()).unwrap();
        assert_eq!(verify(&issuer, &leaf, host), Ok(()), "{host}");
        for other in ["wild.test", "y.api.test", "b.wild.test", "a.a.wild.test"] {
            assert!(verify(&issuer, &leaf, other).is_err(), "{host} as {other}");
        }
    }
    let foreign = self::issuer(&["api.test"], 1);
    let leaf = foreign.certificate("api.test", week()).unwrap();
    assert!(
        verify(&issuer, &leaf, "api.test").is_err(),
        "another bottle's"
    );
}

#[test]
fn a_leaf_says_what_a_server_must_and_no_more() {
    let issuer = issuer(&["test"], 1);
    let der = issuer.certificate("api.test", week()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(
        names.value.general_names,
        [GeneralName::DNSName("api.test")]
    );
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth && !usage.any && usage.other.is_empty());
    assert_eq!(
        leaf.key_usage().unwrap().unwrap().value.to_string(),
        "Digital Signature"
    );
    let basic = leaf.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && !basic.value.ca);
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert_eq!(life, 7 * DAY);
    let root = CertificateDer::from_pem_slice(issuer.root().certificate_pem().as_bytes()).unwrap();
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    assert_eq!(leaf.issuer().as_raw(), root.subject().as_raw());
    let id = root
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.clone()),
            _ => None,
        });
    let authority =
        leaf.extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(authority) => {
                    authority.key_identifier.clone()
                }
                _ => None,
            });
    assert!(id.is_some() && id == authority);
}

#[test]
fn a_name_too_long_for_the_subject_stands_in_the_extension_only() {
    let issuer = issuer(&["test"], 1);
    for (length, in_subject) in [(64, true), (65, false), (253, false)] {
        let label = "a".repeat(59);
        let labels = [label.as_str(); 4].join(".");
        let host = format!("{}.{labels}.test", "b".repeat(20));
        let host = host
            .split_at(host.len().saturating_sub(length))
            .1
            .trim_start_matches('.');
        let host = format!("{}{host}", "b".repeat(length - host.len()));
        assert_eq!(host.len(), length);
        let der = issuer.certificate(&host, week()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(
            leaf.subject().iter_common_name().count() == 1,
            in_subject,
            "{length}"
        );
        assert_eq!(
            leaf.subject_alternative_name().unwrap().unwrap().critical,
            !in_subject
        );
        assert_eq!(verify(&issuer, &der, &host), Ok(()), "{length}");
    }
}

#[test]
fn serials_are_random_positive_and_of_128_bits() {
    let issuer = issuer(&["test"], 1);
    let mut serials = std::collections::HashSet::new();
    for _ in 0..64 {
        let der = issuer.certificate("api.test", week()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        let serial = leaf.raw_serial();
        // A byte more where the highest bit is set, since the sign needs one; fewer where leading bytes are zero.
        assert!((14..=17).contains(&serial.len()), "{serial:x?}");
        assert!(
            serial.first().is_some_and(|byte| byte & 0x80 == 0),
            "{serial:x?}"
        );
        assert!(serials.insert(serial.to_vec()));
    }
}

#[test]
fn concurrent_callers_of_one_name_share_one_leaf() {
    let issuer = issuer(&["test"], 4);
    let start = Barrier::new(8);
    let now = SystemTime::now();
    let ask = || {
        start.wait();
        issuer.server_config("api.test", now).unwrap()
    };
    let configs: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(issuer.minted(), 1);
    let first = configs.first().unwrap();
    assert!(configs.iter().all(|config| Arc::ptr_eq(config, first)));
}

#[test]
fn the_least_recently_used_leaf_makes_room() {
    let issuer = issuer(&["test"], 2);
    let now = SystemTime::now();
    for (host, minted) in [("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)] {
        issuer.server_config(&format!("{host}.test"), now).unwrap();
        assert_eq!(issuer.minted(), minted, "{host}");
    }
}

#[test]
fn a_leaf_is_renewed_a_day_before_its_end_and_when_the_clock_was_set_back() {
    let root = Root::ephemeral_at(&Constraints::None, later(-30 * DAY)).unwrap();
    let issuer = Issuer::new(root, NonZeroUsize::MIN).unwrap();
    let steps = [
        (0, 1),
        (-HOUR + 60, 1),
        (6 * DAY - HOUR - 60, 1),
        (6 * DAY - HOUR + 60, 2),
        (20 * DAY, 3),
        (0, 4),
        (-2 * HOUR, 5),
    ];
    for (at, minted) in steps {
        issuer.server_config("api.test", later(at)).unwrap();
        assert_eq!(issuer.minted(), minted, "{at}");
    }
}

#[test]
fn the_last_leaf_ends_with_the_root_and_is_not_minted_over_and_over() {
    let root = Root::ephemeral_at(&Constraints::None, later(-364 * DAY)).unwrap();
    let end = root.not_after();
    let issuer = Issuer::new(root, NonZeroUsize::MIN).unwrap();
    let leaf = issuer.mint("api.test", SystemTime::now()).unwrap();
    assert_eq!(
        SystemTime::UNIX_EPOCH + Duration::from_secs(leaf.renew_at.unsigned_abs()),
        end
    );
    for now in [later(0), later(20 * HOUR), end] {
        issuer.server_config("api.test", now).unwrap();
    }
    assert_eq!(issuer.minted(), 2, "one above, one here");
    let young = Root::ephemeral(&Constraints::None).unwrap();
    let begin = young.validity().not_before;
    let issuer = Issuer::new(young, NonZeroUsize::MIN).unwrap();
    let leaf = issuer.mint("api.test", later(-HOUR / 2)).unwrap();
    assert_eq!(leaf.not_before, begin, "never before the root");
}
