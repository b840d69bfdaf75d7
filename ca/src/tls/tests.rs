//! Handshakes in memory between a rustls client and the configurations that the issuer hands out.

use std::num::NonZeroUsize;
use std::time::SystemTime;

use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Error as TlsError, HandshakeKind, NamedGroup,
    ProtocolVersion, RootCertStore, ServerConnection, SupportedProtocolVersion,
};

use super::*;
use crate::{Constraints, Issuer, Root};

fn issuer() -> Issuer {
    let root = Root::ephemeral(&Constraints::Hosts(vec!["test".to_owned()])).unwrap();
    Issuer::new(root, NonZeroUsize::new(8).unwrap()).unwrap()
}

/// A client that trusts `issuer` alone and prefers ML-KEM and ChaCha20, as some do.
fn client(issuer: &Issuer, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(issuer.root().certificate_pem().as_bytes()).unwrap())
        .unwrap();
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.reverse();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let mut config = builder
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Both ends after the handshake and the ticket.
fn connect(
    issuer: &Issuer,
    client: &Arc<ClientConfig>,
    asked: &str,
    host: &str,
) -> Result<Ends, TlsError> {
    let name = ServerName::try_from(asked.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server =
        ServerConnection::new(issuer.server_config(host, SystemTime::now()).unwrap()).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Ends { client, server })
}

#[derive(Debug)]
struct Ends {
    client: ClientConnection,
    server: ServerConnection,
}

/// Offers whatever session it has last seen to whomever it talks to.
#[derive(Debug)]
struct Promiscuous(ClientSessionMemoryCache);

impl Promiscuous {
    fn any() -> ServerName<'static> {
        ServerName::try_from("any.test").unwrap()
    }
}

impl ClientSessionStore for Promiscuous {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::any(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::any())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::any());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::any(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::any())
    }
}

#[test]
fn a_client_that_names_another_host_or_none_gets_no_handshake() {
    let issuer = issuer();
    let mut silent = client(&issuer, &[&version::TLS13, &version::TLS12]);
    silent.enable_sni = false;
    let named = client(&issuer, &[&version::TLS13, &version::TLS12]);
    for (client, asked) in [(named, "b.test"), (silent, "a.test")] {
        assert!(
            connect(&issuer, &Arc::new(client), asked, "a.test").is_err(),
            "{asked}"
        );
    }
}

#[test]
fn a_ticket_of_one_host_is_worth_nothing_at_another() {
    for version in [&version::TLS13, &version::TLS12] {
        let issuer = issuer();
        let mut client = client(&issuer, &[version]);
        client.resumption =
            Resumption::store(Arc::new(Promiscuous(ClientSessionMemoryCache::new(32))));
        let client = Arc::new(client);
        let kind = |host| {
            connect(&issuer, &client, host, host)
                .unwrap()
                .server
                .handshake_kind()
        };
        assert_eq!(kind("a.test"), Some(HandshakeKind::Full));
        assert_eq!(kind("b.test"), Some(HandshakeKind::Full), "{version:?}");
        assert_eq!(kind("b.test"), Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[test]
fn a_second_connection_resumes_by_the_only_ticket() {
    let issuer = issuer();
    let client = Arc::new(client(&issuer, &[&version::TLS13]));
    for expected in [
        HandshakeKind::Full,
        HandshakeKind::Resumed,
        HandshakeKind::Resumed,
    ] {
        let ends = connect(&issuer, &client, "a.test", "a.test").unwrap();
        assert_eq!(ends.server.handshake_kind(), Some(expected));
        assert_eq!(ends.client.tls13_tickets_received(), 1);
    }
}

#[test]
fn early_data_is_never_taken() {
    let issuer = issuer();
    let mut client = client(&issuer, &[&version::TLS13]);
    client.enable_early_data = true;
    let client = Arc::new(client);
    connect(&issuer, &client, "a.test", "a.test").unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    assert!(
        ClientConnection::new(client, name)
            .unwrap()
            .early_data()
            .is_none()
    );
}

#[test]
fn our_order_of_algorithms_counts() {
    let issuer = issuer();
    let offers: [(_, _, &[_]); 2] = [
        (
            ProtocolVersion::TLSv1_3,
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            &[&version::TLS13, &version::TLS12],
        ),
        (
            ProtocolVersion::TLSv1_2,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            &[&version::TLS12],
        ),
    ];
    for (version, suite, offered) in offers {
        let client = Arc::new(client(&issuer, offered));
        let ends = connect(&issuer, &client, "a.test", "a.test").unwrap();
        assert_eq!(ends.client.protocol_version(), Some(version));
        assert_eq!(
            ends.client.negotiated_cipher_suite().unwrap().suite(),
            suite
        );
        assert_eq!(
            ends.client.negotiated_key_exchange_group().unwrap().name(),
            NamedGroup::X25519
        );
    }
}

#[test]
fn h2_comes_before_http_1_and_nothing_else_is_spoken() {
    let issuer = issuer();
    let mut config = client(&issuer, &[&version::TLS13, &version::TLS12]);
    for (offered, spoken) in [(&["http/1.1", "h2"][..], "h2"), (&["http/1.1"], "http/1.1")] {
        config.alpn_protocols = offered
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let ends = connect(&issuer, &Arc::new(config.clone()), "a.test", "a.test").unwrap();
        assert_eq!(ends.client.alpn_protocol(), Some(spoken.as_bytes()));
    }
    config.alpn_protocols = vec![b"h3".to_vec()];
    assert!(connect(&issuer, &Arc::new(config), "a.test", "a.test").is_err());
}

#[test]
fn the_leaf_is_sent_without_the_root() {
    let issuer = issuer();
    let client = Arc::new(client(&issuer, &[&version::TLS13]));
    let ends = connect(&issuer, &client, "a.test", "a.test").unwrap();
    assert_eq!(ends.client.peer_certificates().map(<[_]>::len), Some(1));
}

#[test]
fn a_configuration_shows_no_key() {
    let config = issuer().server_config("a.test", SystemTime::now()).unwrap();
    assert!(format!("{:?}", config.cert_resolver).starts_with("Only { host: \"a.test\""));
    assert_eq!(
        (config.max_early_data_size, config.send_tls13_tickets),
        (0, 1)
    );
}
