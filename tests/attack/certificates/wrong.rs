//! The certificates that are wrong in one way each, and the good chain beside them.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
    SanType, date_time_ymd,
};
use rustls::ServerConfig;

use crate::harness::pki::{Pki, showing};

/// What is wrong, the host, what the log has to say of it, and the server.
pub(super) struct Case {
    pub(super) what: &'static str,
    pub(super) host: String,
    pub(super) reason: &'static str,
    pub(super) server: Arc<ServerConfig>,
}

pub(super) fn params(host: &str) -> CertificateParams {
    CertificateParams::new(vec![host.to_owned()]).expect("a DNS name")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn expired(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2020, 2, 1);
}

/// Leaf, intermediate, and the trusted root above them.
pub(super) fn with_intermediate(
    pki: &Pki,
    host: &str,
    change_leaf: impl FnOnce(&mut CertificateParams),
    change_intermediate: impl FnOnce(&mut CertificateParams),
) -> Arc<ServerConfig> {
    let mut above = authority("an intermediate");
    change_intermediate(&mut above);
    let key = KeyPair::generate().expect("a key pair");
    let above = CertifiedIssuer::signed_by(above, key, pki.issuer()).expect("an intermediate");
    let mut leaf = params(host);
    change_leaf(&mut leaf);
    let key = KeyPair::generate().expect("a key pair");
    let leaf = leaf.signed_by(&key, &above).expect("a leaf");
    showing(vec![leaf.der().clone(), above.der().clone()], &key)
}

pub(super) fn of_rcgen(pki: &Pki) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |what, host: &str, reason, server| {
        let host = host.to_owned();
        cases.push(Case {
            what,
            host,
            reason,
            server,
        });
    };
    let single = |params: &CertificateParams| pki.server_config_with(params, &["h2", "http/1.1"]);
    let leaf = |host: &str, change: fn(&mut CertificateParams)| {
        let mut params = params(host);
        change(&mut params);
        single(&params)
    };
    let named = |names: Vec<SanType>, common: Option<&str>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        single(&params)
    };
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("an IA5 string"));

    case(
        "expired",
        "c1.test",
        "certificate expired",
        leaf("c1.test", expired),
    );
    case(
        "early",
        "c2.test",
        "not valid yet",
        leaf("c2.test", |params| {
            params.not_before = date_time_ymd(2090, 1, 1);
            params.not_after = date_time_ymd(2090, 2, 1);
        }),
    );
    let names = "certificate not valid for name";
    case(
        "another host",
        "c3.test",
        names,
        single(&params("other.test")),
    );
    case(
        "a host below",
        "c4.test",
        names,
        single(&params("a.c4.test")),
    );
    case(
        "a wildcard below",
        "c5.test",
        names,
        single(&params("*.c5.test")),
    );
    case(
        "a wildcard over two labels",
        "a.b.c6.test",
        names,
        single(&params("*.c6.test")),
    );
    case(
        "a wildcard over a top-level domain",
        "c7.test",
        names,
        single(&params("*.test")),
    );
    case(
        "a wildcard over everything",
        "c8.test",
        names,
        named(vec![dns("*")], None),
    );
    case(
        "a wildcard within a label",
        "c9.test",
        names,
        named(vec![dns("c*.test")], None),
    );
    case(
        "a wildcard in the middle",
        "a.b.c10.test",
        names,
        named(vec![dns("a.*.c10.test")], None),
    );
    case(
        "a common name alone",
        "c11.test",
        names,
        named(vec![], Some("c11.test")),
    );
    case("no name at all", "c12.test", names, named(vec![], None));
    let address = SanType::IpAddress(IpAddr::from([127, 0, 0, 1]));
    case(
        "an address alone",
        "c13.test",
        names,
        named(vec![address], Some("c13.test")),
    );
    case(
        "a NUL in the name",
        "c14.test",
        names,
        named(vec![dns("c14.test\0.evil.test")], Some("c14.test")),
    );
    case(
        "a trailing dot",
        "c15.test",
        names,
        named(vec![dns("c15.test.")], None),
    );
    case(
        "a URI and a mailbox",
        "c16.test",
        names,
        named(
            vec![
                SanType::URI("https://c16.test".try_into().expect("an IA5 string")),
                SanType::Rfc822Name("c16.test".try_into().expect("an IA5 string")),
            ],
            None,
        ),
    );

    let own = KeyPair::generate().expect("a key pair");
    let signed = params("c17.test").self_signed(&own).expect("a certificate");
    case(
        "self-signed",
        "c17.test",
        "UnknownIssuer",
        showing(vec![signed.der().clone()], &own),
    );
    let stranger = CertifiedIssuer::self_signed(
        authority("a stranger"),
        KeyPair::generate().expect("a key pair"),
    )
    .expect("a root");
    let signed = params("c18.test")
        .signed_by(&own, &stranger)
        .expect("a certificate");
    case(
        "an unknown root",
        "c18.test",
        "UnknownIssuer",
        showing(vec![signed.der().clone(), stranger.der().clone()], &own),
    );
    // Its issuer has the name of the trusted one, and another key.
    case(
        "a namesake of the root",
        "c19.test",
        "BadSignature",
        Pki::new().server_config(&["h2", "http/1.1"]),
    );

    case(
        "a CA as a server",
        "c20.test",
        "CaUsedAsEndEntity",
        leaf("c20.test", |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }),
    );
    case(
        "a client's usage",
        "c21.test",
        "does not allow extended key usage",
        leaf("c21.test", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }),
    );
    case(
        "an unknown critical extension",
        "c22.test",
        "UnsupportedCriticalExtension",
        leaf("c22.test", |params| {
            let mut extension =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
            extension.set_criticality(true);
            params.custom_extensions = vec![extension];
        }),
    );

    let unchanged = |_: &mut CertificateParams| {};
    let limited = |permitted: &str, excluded: &str| {
        let tree = |name: &str| {
            if name.is_empty() {
                vec![]
            } else {
                vec![GeneralSubtree::DnsName(name.to_owned())]
            }
        };
        Some(NameConstraints {
            permitted_subtrees: tree(permitted),
            excluded_subtrees: tree(excluded),
        })
    };
    case(
        "a name outside the constraints",
        "c23.test",
        "NameConstraintViolation",
        with_intermediate(pki, "c23.test", unchanged, |above| {
            above.name_constraints = limited("other.test", "");
        }),
    );
    case(
        "an excluded name",
        "c24.test",
        "NameConstraintViolation",
        with_intermediate(pki, "c24.test", unchanged, |above| {
            above.name_constraints = limited("", "c24.test");
        }),
    );
    case(
        "an expired intermediate",
        "c25.test",
        "expired",
        with_intermediate(pki, "c25.test", unchanged, expired),
    );
    case(
        "an intermediate that is no CA",
        "c26.test",
        "EndEntityUsedAsCa",
        with_intermediate(pki, "c26.test", unchanged, |above| {
            above.is_ca = IsCa::ExplicitNoCa;
        }),
    );
    case(
        "an intermediate for clients",
        "c27.test",
        "does not allow extended key usage",
        with_intermediate(pki, "c27.test", unchanged, |above| {
            above.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }),
    );

    let intermediate = |name, constraint, issuer: &CertifiedIssuer<'static, KeyPair>| {
        let mut params = authority(name);
        params.is_ca = IsCa::Ca(constraint);
        let key = KeyPair::generate().expect("a key pair");
        CertifiedIssuer::signed_by(params, key, issuer).expect("an intermediate")
    };
    let upper = intermediate("the upper", BasicConstraints::Constrained(0), pki.issuer());
    let lower = intermediate("the lower", BasicConstraints::Unconstrained, &upper);
    let signed = params("c28.test")
        .signed_by(&own, &lower)
        .expect("a certificate");
    case(
        "a path that is too long",
        "c28.test",
        "PathLenConstraintViolated",
        showing(
            vec![
                signed.der().clone(),
                lower.der().clone(),
                upper.der().clone(),
            ],
            &own,
        ),
    );
    let signed = params("c29.test")
        .signed_by(&own, &lower)
        .expect("a certificate");
    case(
        "no intermediate",
        "c29.test",
        "UnknownIssuer",
        showing(vec![signed.der().clone()], &own),
    );

    let signed = params("c30.test")
        .signed_by(&own, pki.issuer())
        .expect("a certificate");
    let other = KeyPair::generate().expect("a key pair");
    case(
        "another's key",
        "c30.test",
        "BadSignature",
        showing(vec![signed.der().clone()], &other),
    );
    let mut broken = params("c31.test")
        .signed_by(&own, pki.issuer())
        .expect("a certificate")
        .der()
        .to_vec();
    *broken.last_mut().expect("a byte") ^= 1;
    case(
        "a broken signature",
        "c31.test",
        "BadSignature",
        showing(vec![broken.into()], &own),
    );
    case(
        "no certificate",
        "c32.test",
        "BadEncoding",
        showing(vec![vec![0x30, 0x03, 1, 2, 3].into()], &own),
    );
    let signed = params("c33.test")
        .signed_by(&own, pki.issuer())
        .expect("a certificate");
    let longer = [&signed.der()[..], b"more"].concat();
    case(
        "bytes behind the certificate",
        "c33.test",
        "BadEncoding",
        showing(vec![longer.into()], &own),
    );
    cases
}
