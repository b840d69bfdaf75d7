//! Name constraints (RFC 5280 section 4.2.1.10): those that a new root is given, and those that a loaded one has.
//!
//! With them a stolen CA key is good for nothing but hosts that the sidecar brokers anyway. Clients enforce them; what
//! is decided here only keeps us from issuing what they would refuse.

use std::net::{Ipv4Addr, Ipv6Addr};

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use rustls::pki_types::DnsName;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use crate::Error;

/// Which names a new root may vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraints {
    /// These hosts only, each a DNS name (`api.example.com`) or a wildcard (`*.example.com`), and no IP address.
    ///
    /// X.509 knows subtrees only: a permitted name permits everything below it too, and a wildcard permits its own
    /// parent. So the root is wider than the routes; which leaf is issued is still decided by the routes. No hosts at
    /// all permit no name at all.
    Hosts(Vec<String>),

    /// Any name. A stolen key can then stand for any host towards clients that trust this root.
    None,
}

impl Constraints {
    /// What goes into the certificate.
    pub(crate) fn extension(&self) -> Result<Option<NameConstraints>, Error> {
        let Constraints::Hosts(hosts) = self else {
            return Ok(None);
        };
        let permitted = subtrees(hosts)?
            .into_iter()
            .map(GeneralSubtree::DnsName)
            .collect();
        // A form of name that is not mentioned is not constrained: without these an IP address could be vouched for.
        let excluded = vec![
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(
                Ipv4Addr::UNSPECIFIED.into(),
                0,
            )),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(
                Ipv6Addr::UNSPECIFIED.into(),
                0,
            )),
        ];
        Ok(Some(NameConstraints {
            permitted_subtrees: permitted,
            excluded_subtrees: excluded,
        }))
    }
}

/// The fewest subtrees that hold all `hosts`.
fn subtrees(hosts: &[String]) -> Result<Vec<String>, Error> {
    let mut names = Vec::with_capacity(hosts.len());
    for host in hosts {
        let host = host.to_ascii_lowercase();
        let base = host.strip_prefix("*.").unwrap_or(&host);
        dns_name(base).map_err(|_| Error::BadConstraint { host: host.clone() })?;
        names.push(base.to_owned());
    }
    // A parent has fewer labels than what it covers, so it comes first. The name decides the rest: the same hosts in
    // another order give the same certificate.
    names.sort_by_key(|name| (name.split('.').count(), name.clone()));
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        if !kept.iter().any(|parent| covers(parent, &name)) {
            kept.push(name);
        }
    }
    if kept.is_empty() {
        // An empty set would permit everything. RFC 2606 section 2 promises that nobody ever has this name.
        kept.push("invalid".to_owned());
    }
    Ok(kept)
}

/// The DNS part of the name constraints of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// `None` permits every name that is not excluded.
    permitted: Option<Vec<String>>,
    excluded: Vec<String>,
}

impl Limits {
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Result<Self, &'static str> {
        let mut limits = Limits::default();
        // Not `X509Certificate::name_constraints`: that one takes an extension that cannot be read for an absent one.
        for extension in certificate.extensions() {
            if extension.oid != x509_parser::oid_registry::OID_X509_EXT_NAME_CONSTRAINTS {
                continue;
            }
            let ParsedExtension::NameConstraints(found) = extension.parsed_extension() else {
                return Err("its name constraints cannot be read");
            };
            let permitted = found.permitted_subtrees.iter().flatten();
            let excluded = found.excluded_subtrees.iter().flatten();
            let mut all = permitted.clone().chain(excluded.clone()).peekable();
            // x509-parser gives an empty list for one that it cannot read.
            if all.peek().is_none()
                || all.any(|subtree| matches!(subtree.base, GeneralName::Invalid(..)))
            {
                return Err("its name constraints cannot be read");
            }
            let permitted: Vec<_> = permitted
                .filter_map(|subtree| dns_base(&subtree.base))
                .collect();
            if !permitted.is_empty() {
                limits.permitted = Some(permitted);
            }
            limits
                .excluded
                .extend(excluded.filter_map(|subtree| dns_base(&subtree.base)));
        }
        Ok(limits)
    }

    /// The permitted subtrees; `None` permits every name.
    pub(crate) fn permitted(&self) -> Option<&[String]> {
        self.permitted.as_deref()
    }

    /// Whether every name that `host` (a DNS name, or `*.` and one) stands for is permitted.
    pub(crate) fn permit(&self, host: &str) -> bool {
        let (base, wildcard) = match host.strip_prefix("*.") {
            Some(base) => (base, true),
            None => (host, false),
        };
        if dns_name(base).is_err() {
            return false;
        }
        // With a wildcard only what is below `base` counts; `.base` permits just that.
        let within = |subtree: &str| {
            covers(subtree, base) || (wildcard && subtree.strip_prefix('.') == Some(base))
        };
        let touches = |subtree: &str| {
            within(subtree)
                || (wildcard && covers(base, subtree.strip_prefix('.').unwrap_or(subtree)))
        };
        let permitted = self
            .permitted
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| within(name)));
        permitted && !self.excluded.iter().any(|name| touches(name))
    }
}

fn dns_base(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

/// Whether `subtree` holds `name`: the name itself and all below it, or, with a leading dot (not in the RFC, but every
/// implementation reads it so), only what is below. The empty subtree holds all names.
fn covers(subtree: &str, name: &str) -> bool {
    if subtree.is_empty() {
        return true;
    }
    match name.strip_suffix(subtree) {
        Some("") => !subtree.starts_with('.'),
        Some(rest) => subtree.starts_with('.') || rest.ends_with('.'),
        None => false,
    }
}

/// `host` as a DNS name in canonical form: lower case, no trailing dot, no wildcard, and nothing that a client might
/// read as an IPv4 address (WHATWG URL section 3.5 takes a last label such as `0x7f` for a number).
pub(crate) fn dns_name(host: &str) -> Result<DnsName<'_>, Error> {
    let last_label = host.rsplit('.').next().unwrap_or(host);
    let number = last_label
        .strip_prefix("0x")
        .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let canonical =
        !host.ends_with('.') && !number && !host.bytes().any(|b| b.is_ascii_uppercase());
    match DnsName::try_from(host) {
        Ok(name) if canonical => Ok(name),
        _ => Err(Error::NotDnsName {
            host: host.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
