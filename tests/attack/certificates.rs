//! Row 47: upstreams whose certificate, or whose TLS, is wrong in one way each. None of them gets a byte of a request.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
    SanType, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::harness::agent::{Agent, exchange};
use crate::harness::openssl::OpenSsl;
use crate::harness::pki::{Pki, showing};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Upstream, text};

const REAL: &str = "real-token-of-the-host-c3d8";

/// What is wrong, the host, what the log has to say of it, and the server.
struct Case {
    what: &'static str,
    host: String,
    reason: &'static str,
    server: Arc<ServerConfig>,
}

#[tokio::test]
async fn row_47_a_certificate_that_is_wrong_in_any_way_gets_nothing_and_the_log_says_why() {
    let pki = Pki::new();
    let openssl = OpenSsl::new();
    let mut cases = of_rcgen(&pki);
    cases.extend(of_openssl(&openssl).await);
    assert!(cases.len() >= 30, "{}", cases.len());
    let mut upstreams = Vec::new();
    for case in &cases {
        let upstream = Upstream::with_tls(case.server.clone());
        upstreams.push(upstream.start(async |_call| text(200, "never")).await);
    }
    let good = with_intermediate(&pki, "good.test", |_| {}, |_| {});
    let good = Upstream::with_tls(good)
        .start(async |_call| text(200, "fine"))
        .await;
    let mut routes = routes_to("good.test", &good.addr().to_string());
    for (case, upstream) in cases.iter().zip(&upstreams) {
        routes.push_str(&routes_to(&case.host, &upstream.addr().to_string()));
    }
    let mut builder = Sidecar::with_routes(&pki, format!("routes:\n{routes}"));
    for root in ["rsa.pem", "weak.pem"] {
        let file = openssl.path(root).display().to_string();
        builder = builder.arg("--upstream-ca").arg(file);
    }
    let sidecar = builder.slot("EGRESS_TOKEN_0", REAL).start().await;
    let agent = Agent::of(&sidecar);

    let mut wrong = Vec::new();
    for (case, upstream) in cases.iter().zip(&upstreams) {
        let Case {
            what, host, reason, ..
        } = case;
        let refusal = agent.get(&format!("https://{host}/")).await;
        refusal.assert_refused(502, "upstream_tls");
        // A WebSocket has a way of its own to the upstream.
        let refusal = websocket(&agent, host).await;
        assert!(refusal.starts_with("HTTP/1.1 502 "), "{what}: {refusal}");
        assert!(upstream.connections() > 0, "{what}: nobody asked");
        let seen = upstream.seen();
        assert!(seen.is_empty(), "{what}: {seen:?}");
        let needle = format!("\"host\":\"{host}:443\",\"path\":\"/\"");
        let lines = sidecar.logged_times(&needle, 2).await;
        let is_told =
            |line: &String| line.contains("\"code\":\"upstream_tls\"") && line.contains(reason);
        if !lines.iter().all(is_told) {
            wrong.push(format!("{what}: {reason}: {lines:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // And the chain is a good one where nothing is wrong with it.
    agent.get("https://good.test/").await.assert_served();
    let seen = good.only();
    assert_eq!(seen.all("authorization"), [format!("Bearer {REAL}")]);
    assert!(!sidecar.log().contains(REAL));
}

#[tokio::test]
async fn row_47_tls_that_is_old_or_weak_is_not_spoken() {
    let pki = Pki::new();
    let openssl = OpenSsl::new();
    let host = "old.test";
    let key = KeyPair::generate().expect("a key pair");
    let leaf = params(host)
        .signed_by(&key, pki.issuer())
        .expect("a signed leaf");
    openssl.write("key.pem", key.serialize_pem());
    openssl.write("leaf.pem", leaf.pem());
    openssl.run("genrsa -out rsa-key.pem 2048").await;
    sign(&openssl, "rsa-key.pem", "rsa-leaf", &pki).await;
    openssl.run("genrsa -out weak-key.pem 1024").await;
    sign(&openssl, "weak-key.pem", "weak-leaf", &pki).await;
    let ecdsa = "-cert leaf.pem -key key.pem";
    let rsa = "-cert rsa-leaf.pem -key rsa-key.pem";
    let weak = "-cert weak-leaf.pem -key weak-key.pem -cipher DEFAULT@SECLEVEL=0";
    let (version, handshake) = (
        "fatal alert: ProtocolVersion",
        "fatal alert: HandshakeFailure",
    );
    let signature = "invalid peer certificate: BadSignature";
    let cases = [
        (format!("{ecdsa} -tls1 -cipher DEFAULT@SECLEVEL=0"), version),
        (
            format!("{ecdsa} -tls1_1 -cipher DEFAULT@SECLEVEL=0"),
            version,
        ),
        // Without forward secrecy, with a MAC before the cipher, without encryption, without a certificate.
        (
            format!("{rsa} -tls1_2 -cipher AES128-GCM-SHA256"),
            handshake,
        ),
        (
            format!("{ecdsa} -tls1_2 -cipher ECDHE-ECDSA-AES128-SHA"),
            handshake,
        ),
        (
            format!("{ecdsa} -tls1_2 -cipher ECDHE-ECDSA-NULL-SHA@SECLEVEL=0"),
            handshake,
        ),
        (format!("{ecdsa} -tls1_2 -cipher ADH@SECLEVEL=0"), handshake),
        (format!("{weak} -tls1_2"), signature),
        (format!("{weak} -tls1_3"), signature),
    ];
    let sidecar = Sidecar::with_routes(&pki, "routes: []\n")
        .slot("EGRESS_TOKEN_0", REAL)
        .arg("--no-name-constraints")
        .start()
        .await;
    let agent = Agent::of(&sidecar);
    for (turn, (line, reason)) in cases.iter().enumerate() {
        let server = openssl.serve(line).await;
        let routes = routes_to(host, &server.addr().to_string());
        sidecar.write_routes(&format!("routes:\n{routes}"));
        sidecar.sighup();
        sidecar.logged_times("\"added\":", turn + 1).await;
        let refusal = agent.get(&format!("https://{host}/")).await;
        refusal.assert_refused(502, "upstream_tls");
        let lines = sidecar
            .logged_times("\"code\":\"upstream_tls\"", turn + 1)
            .await;
        assert!(lines[turn].contains(reason), "{line}: {}", lines[turn]);
        let said = server.said("ERROR").await;
        for sent in ["GET /", "authorization", REAL] {
            assert!(!said.contains(sent), "{line}: {said}");
        }
    }
}

fn routes_to(host: &str, addr: &str) -> String {
    format!(
        "- {{host: {host}, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: '{addr}'}}\n"
    )
}

async fn websocket(agent: &Agent, host: &str) -> String {
    let tunnel = agent
        .tunnel(&format!("{host}:443"), host, &["http/1.1"])
        .await;
    let handshake = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let answer = exchange(&mut tunnel.expect("a TLS tunnel"), handshake.as_bytes()).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn params(host: &str) -> CertificateParams {
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
fn with_intermediate(
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

#[expect(clippy::too_many_lines, reason = "a table")]
fn of_rcgen(pki: &Pki) -> Vec<Case> {
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

/// What needs a signature, a key or a version that our own library rightly cannot make.
async fn of_openssl(openssl: &OpenSsl) -> Vec<Case> {
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
async fn sign(openssl: &OpenSsl, key: &str, name: &str, pki: &Pki) {
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
