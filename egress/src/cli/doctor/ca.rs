//! The trust bundles that an agent's variables name, each held against the certificate that the proxy shows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use egress_ca::{is_bottle_root, validity_of};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};

use super::Variables;
use super::report::Finding;
use crate::audit::object::rfc3339;
use crate::file::open_regular;
use crate::launch::variables::CA_VARIABLES;

/// The certificates that a client is shown for a host, the host's own first.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) host: String,
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// What is in the file that a variable names.
#[derive(Clone, Debug)]
enum Bundle {
    Unreadable(String),
    NotPem(String),
    Certificates(Vec<CertificateDer<'static>>),
}

/// Looks at each bundle that a variable names. Those that are as they should be share a line.
pub(super) fn bundles(
    variables: &Variables,
    shown: Option<&Shown>,
    now: SystemTime,
) -> Vec<Finding> {
    let mut read: BTreeMap<&str, Result<String, Fault>> = BTreeMap::new();
    let mut good: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let (mut faults, mut unset) = (Vec::new(), Vec::new());
    for name in CA_VARIABLES {
        let Some(path) = variables.get(name) else {
            unset.push(name);
            continue;
        };
        let trust = read
            .entry(path)
            .or_insert_with(|| judge(Bundle::read(Path::new(path)), shown, now));
        match trust {
            Ok(_) => good.entry(path).or_default().push(name),
            Err(fault) => faults.push(fault.finding(name, path)),
        }
    }
    let lines = good.iter().filter_map(|(path, names)| {
        let what = read.get(path)?.as_ref().ok()?;
        let who = match names.as_slice() {
            [name] => (*name).to_owned(),
            names => format!("{} variables", names.len()),
        };
        Some(Finding::ok("ca.bundle", format!("{who}: {path} {what}")))
    });
    let mut findings: Vec<_> = lines.chain(faults).collect();
    if !unset.is_empty() {
        findings.push(Finding::warn(
            "ca.variables",
            format!("not set: {}", unset.join(", ")),
            "the clients that read them trust their own roots alone; `egress env` sets them all",
        ));
    }
    findings
}

/// What is wrong with a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Unreadable(String),
    NotPem(String),
    /// Certificates, and not the one that matters.
    Foreign(String),
    /// The root is the right one, at another time.
    Time(&'static str, SystemTime),
    /// The host's own certificate is valid at another time, which a sidecar's never is.
    LeafTime(&'static str),
    Other(String),
}

/// Says whether a client with this bundle trusts what it is shown, and what it holds.
fn judge(bundle: Bundle, shown: Option<&Shown>, now: SystemTime) -> Result<String, Fault> {
    let certificates = match bundle {
        Bundle::Unreadable(reason) => return Err(Fault::Unreadable(reason)),
        Bundle::NotPem(reason) => return Err(Fault::NotPem(reason)),
        Bundle::Certificates(certificates) => certificates,
    };
    let bottles = certificates
        .iter()
        .filter(|certificate| is_bottle_root(certificate));
    let Some(shown) = shown else {
        let bottles: Vec<_> = bottles.collect();
        let Some(last) = bottles.last() else {
            return Err(Fault::Foreign("holds no bottle's CA".into()));
        };
        in_time(last, now)?;
        return Ok("holds a bottle's CA; whether it is the proxy's was not checked".into());
    };
    verify(certificates.iter(), shown, now)?;
    // Which of the certificates it is: OpenSSL holds roots to their dates, and webpki does not.
    for bottle in bottles {
        if verify([bottle].into_iter(), shown, now).is_ok() {
            let end = in_time(bottle, now)?;
            return Ok(format!(
                "holds the bottle's CA, which ends {}",
                rfc3339(end)
            ));
        }
    }
    Ok(format!("trusts the certificate of {} itself", shown.host))
}

fn in_time(root: &CertificateDer<'_>, now: SystemTime) -> Result<SystemTime, Fault> {
    let validity = validity_of(root)
        .ok_or_else(|| Fault::Other("holds a certificate that cannot be read".into()))?;
    if now < *validity.start() {
        return Err(Fault::Time("is not valid before", *validity.start()));
    }
    if now > *validity.end() {
        return Err(Fault::Time("ended", *validity.end()));
    }
    Ok(*validity.end())
}

fn verify<'c>(
    roots: impl Iterator<Item = &'c CertificateDer<'static>>,
    shown: &Shown,
    now: SystemTime,
) -> Result<(), Fault> {
    let other = |error: &dyn std::fmt::Display| Fault::Other(error.to_string());
    let foreign = || {
        let host = &shown.host;
        Fault::Foreign(format!(
            "does not hold the root of what the proxy shows for {host}"
        ))
    };
    let Some((leaf, rest)) = shown.certificates.split_first() else {
        return Err(Fault::Other("the proxy shows no certificate".into()));
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.cloned());
    if store.is_empty() {
        return Err(foreign());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|error| other(&error))?;
    let name = ServerName::try_from(shown.host.as_str()).map_err(|error| other(&error))?;
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let time = UnixTime::since_unix_epoch(since);
    match verifier.verify_server_cert(leaf, rest, &name, &[], time) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InvalidCertificate(error)) => Err(match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => foreign(),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Fault::LeafTime("has ended")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Fault::LeafTime("is not valid yet")
            }
            error => Fault::Other(format!("does not make {} trusted: {error}", shown.host)),
        }),
        Err(error) => Err(other(&error)),
    }
}

impl Fault {
    fn finding(&self, variable: &str, path: &str) -> Finding {
        const COPY: &str =
            "put the sidecar's bundle there: `egress ca bundle -o FILE` where its CA is";
        let name = format!("ca.{variable}");
        match self {
            Self::Unreadable(reason) => Finding::fail(name, format!("{path}: {reason}"), COPY),
            Self::NotPem(reason) => {
                Finding::fail(name, format!("{path} is no bundle: {reason}"), COPY)
            }
            Self::Foreign(what) => Finding::fail(name, format!("{path} {what}"), COPY),
            Self::Time(what, time) => Finding::fail(
                name,
                format!("the bottle's CA in {path} {what} {}", rfc3339(*time)),
                "set the clock, or make another CA (`egress ca init --renew`), restart the sidecar, and put the new \
                 bundle there",
            ),
            Self::LeafTime(what) => Finding::fail(
                name,
                format!("by this clock the certificate that the proxy shows {what}"),
                "set the clock of this machine and of the sidecar's",
            ),
            Self::Other(what) => Finding::fail(name, format!("{path}: {what}"), COPY),
        }
    }
}

impl Bundle {
    /// More than any platform's roots together.
    const MOST: u64 = 16 << 20;

    fn read(path: &Path) -> Self {
        let mut text = Vec::new();
        let read =
            open_regular(path).and_then(|file: File| file.take(Self::MOST).read_to_end(&mut text));
        match read {
            Ok(_) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::Unreadable("no such file".into())
            }
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }

    fn parse(text: &[u8]) -> Self {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Self::NotPem("there is no certificate in it".into())
            }
            Ok(certificates) => Self::Certificates(certificates),
            Err(error) => Self::NotPem(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use egress_ca::{Constraints, Issuer, Root};
    use rustls::pki_types::CertificateDer;

    use super::{Bundle, Fault, Shown, judge};

    const HOST: &str = "api.test";
    const YEAR: Duration = Duration::from_secs(370 * 86_400);

    /// A root, and what a sidecar with it shows for the host.
    fn bottle() -> (CertificateDer<'static>, Shown) {
        let root = Root::ephemeral(&Constraints::None).unwrap();
        let certificate = root.certificate_der().clone();
        let issuer = Issuer::new(root, 4.try_into().unwrap()).unwrap();
        let config = issuer.server_config(HOST, SystemTime::now()).unwrap();
        (
            certificate,
            Shown {
                host: HOST.into(),
                certificates: shown_by(config),
            },
        )
    }

    fn shown_by(config: std::sync::Arc<rustls::ServerConfig>) -> Vec<CertificateDer<'static>> {
        let client = crate::cli::doctor::exchange::client_config().unwrap();
        let name = HOST.try_into().unwrap();
        let mut client = rustls::ClientConnection::new(client, name).unwrap();
        let mut server = rustls::ServerConnection::new(config).unwrap();
        while client.peer_certificates().is_none() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        let certificates = client.peer_certificates().unwrap().iter();
        certificates.map(|one| one.clone().into_owned()).collect()
    }

    fn of(certificates: &[&CertificateDer<'static>]) -> Bundle {
        Bundle::Certificates(certificates.iter().map(|one| (*one).clone()).collect())
    }

    #[test]
    fn a_bundle_is_good_where_it_has_the_root_of_what_is_shown() {
        let ((root, shown), (other, _)) = (bottle(), bottle());
        let now = SystemTime::now();
        let trust = judge(of(&[&other, &root]), Some(&shown), now);
        assert!(
            trust
                .unwrap()
                .starts_with("holds the bottle's CA, which ends ")
        );
        assert!(matches!(
            judge(of(&[&other]), Some(&shown), now),
            Err(Fault::Foreign(_))
        ));
    }

    #[test]
    fn without_a_certificate_to_hold_it_against_a_bundle_is_read_all_the_same() {
        let (root, shown) = bottle();
        let now = SystemTime::now();
        assert!(
            judge(of(&[&root]), None, now)
                .unwrap()
                .contains("not checked")
        );
        let leaf = shown.certificates.first().unwrap();
        assert!(matches!(
            judge(of(&[leaf]), None, now),
            Err(Fault::Foreign(_))
        ));
    }

    #[test]
    fn a_root_is_held_to_its_dates() {
        let (root, shown) = bottle();
        let now = SystemTime::now();
        for (time, ended) in [(now - YEAR, "is not valid before"), (now + YEAR, "ended")] {
            let fault = judge(of(&[&root]), None, time).unwrap_err();
            assert!(
                matches!(fault, Fault::Time(what, _) if what == ended),
                "{fault:?}"
            );
            let fault = judge(of(&[&root]), Some(&shown), time).unwrap_err();
            assert!(matches!(fault, Fault::LeafTime(_)), "{fault:?}");
        }
    }

    #[test]
    fn what_is_no_bundle_is_told() {
        assert!(matches!(Bundle::parse(b"no PEM"), Bundle::NotPem(_)));
        let broken = b"-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n";
        assert!(matches!(Bundle::parse(broken), Bundle::NotPem(_)));
        assert!(matches!(
            Bundle::read(std::path::Path::new("/")),
            Bundle::Unreadable(_)
        ));
    }
}
