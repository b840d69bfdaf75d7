//! Hosts in canonical form, and the patterns that routes match them with.
//!
//! Everything that names a host (a CONNECT line, a Host field, `:authority`, a server name, a route) goes through
//! [`Host`]'s parser, so two hosts are equal exactly when their values are. Nothing here looks a name up.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// A host in canonical form: a lower-case DNS name without a trailing dot, or an address in its one canonical spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name: lower-case letters, digits, hyphens and underscores in labels of 1 to 63 bytes, 253 in all.
    Name(Arc<str>),
    /// An IP address.
    Address(IpAddr),
}

impl Host {
    /// Parses a host as a URI authority spells it: a name, `192.0.2.1`, or `[2001:db8::1]`.
    ///
    /// # Errors
    ///
    /// [`InvalidHost`] for a trailing dot, an empty or overlong label, a byte outside LDH and `_`, brackets around a
    /// name, and each spelling of an address but the canonical one (RFC 5952 for IPv6): resolvers accept many, and a
    /// comparison that misses one of them is a hole.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(InvalidHost::Brackets)?;
            let address = inner
                .parse::<Ipv6Addr>()
                .map_err(|_| InvalidHost::Address)?;
            return if address.to_string() == inner {
                Ok(Self::Address(address.into()))
            } else {
                Err(InvalidHost::Address)
            };
        }
        check_labels(text)?;
        if ends_in_number(text) {
            // `std` reads four decimal numbers without leading zeros and nothing else, which is the canonical form.
            return match text.parse() {
                Ok(v4) => Ok(Self::Address(IpAddr::V4(v4))),
                Err(_) => Err(InvalidHost::Address),
            };
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Ok(Self::Name(text.to_ascii_lowercase().into()));
        }
        Ok(Self::Name(text.into()))
    }

    /// The name, where it is one.
    pub fn as_name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Which hosts a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host and no other.
    Exact(Host),
    /// `*.suffix`: exactly one label before the suffix, so never the suffix itself and never two labels.
    OneLabelBelow(Arc<str>),
}

impl HostPattern {
    /// Whether the pattern covers a host.
    pub fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::OneLabelBelow(suffix) => parent_of(host) == Some(suffix),
        }
    }
}

/// A name without its first label, which is what a wildcard is compared with.
pub(super) fn parent_of(host: &Host) -> Option<&str> {
    host.as_name()?.split_once('.').map(|(_, parent)| parent)
}

impl FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let Some(suffix) = text.strip_prefix("*.") else {
            // A route may write an IPv6 address with or without its brackets.
            if let Ok(address) = text.parse::<Ipv6Addr>() {
                return Ok(Self::Exact(Host::Address(address.into())));
            }
            return Host::parse(text).map(Self::Exact);
        };
        match Host::parse(suffix)? {
            Host::Name(name) if name.contains('.') => Ok(Self::OneLabelBelow(name)),
            Host::Name(_) => Err(InvalidHost::WildcardOverTopLevel),
            Host::Address(_) => Err(InvalidHost::Address),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::OneLabelBelow(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// Why a text is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// No bytes at all.
    #[error("the host is empty")]
    Empty,
    /// `api.example.com.` is another name to some clients and the same one to others.
    #[error("a host must not end with a dot")]
    TrailingDot,
    /// RFC 1035, section 2.3.4.
    #[error("a host has at most 253 bytes, and each label 1 to 63")]
    Length,
    /// RFC 1123, section 2.1, and the underscore, which service names use.
    #[error(
        "a host consists of letters, digits, hyphens and dots (an international name in its `xn--` form)"
    )]
    Byte,
    /// Brackets belong around an IPv6 address only.
    #[error("brackets are for IPv6 addresses, and come in pairs")]
    Brackets,
    /// An address in octal, hexadecimal, shortened, zoned or padded form.
    #[error("an address must be in its canonical form")]
    Address,
    /// `*.com`.
    #[error("a wildcard needs at least two labels after it")]
    WildcardOverTopLevel,
}

fn check_labels(text: &str) -> Result<(), InvalidHost> {
    if text.is_empty() {
        return Err(InvalidHost::Empty);
    }
    if text.ends_with('.') {
        return Err(InvalidHost::TrailingDot);
    }
    if text.contains(['[', ']']) {
        return Err(InvalidHost::Brackets);
    }
    if text.len() > 253 {
        return Err(InvalidHost::Length);
    }
    for label in text.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(InvalidHost::Length);
        }
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !label.bytes().all(legal) || label.starts_with('-') || label.ends_with('-') {
            return Err(InvalidHost::Byte);
        }
    }
    Ok(())
}

/// Whether a resolver could read the text as an IPv4 address: the WHATWG URL standard's "ends in a number" check.
fn ends_in_number(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or(text);
    let hexadecimal = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{Host, HostPattern, InvalidHost};

    #[test]
    fn ambiguous_spellings_are_refused() {
        for (text, expected) in [
            ("", InvalidHost::Empty),
            ("api.test.", InvalidHost::TrailingDot),
            (".", InvalidHost::TrailingDot),
            ("api..test", InvalidHost::Length),
            (".test", InvalidHost::Length),
            ("[api.test]", InvalidHost::Address),
            ("api.test]", InvalidHost::Brackets),
            ("[::1", InvalidHost::Brackets),
            ("-api.test", InvalidHost::Byte),
            ("api-.test", InvalidHost::Byte),
            ("api test", InvalidHost::Byte),
            ("user@api.test", InvalidHost::Byte),
            ("api.test:443", InvalidHost::Byte),
            ("api.test,evil.test", InvalidHost::Byte),
            ("apı.test", InvalidHost::Byte),
            ("api%2etest", InvalidHost::Byte),
            ("2130706433", InvalidHost::Address),
            ("0x7f000001", InvalidHost::Address),
            ("0x", InvalidHost::Address),
            ("0X7f.1", InvalidHost::Address),
            ("127.1", InvalidHost::Address),
            ("127.0.0.01", InvalidHost::Address),
            ("0177.0.0.1", InvalidHost::Address),
            ("127.0.0.256", InvalidHost::Address),
            ("1.2.3.4.5", InvalidHost::Address),
            ("a.b.0x1", InvalidHost::Address),
            ("[::ffff:127.0.0.1%lo]", InvalidHost::Address),
            ("[fe80::1%25eth0]", InvalidHost::Address),
            ("[0:0:0:0:0:0:0:1]", InvalidHost::Address),
            ("[::FFFF:1.2.3.4]", InvalidHost::Address),
        ] {
            assert_eq!(Host::parse(text), Err(expected), "{text}");
        }
        assert_eq!(
            Host::parse(&format!("{}.test", "a".repeat(64))),
            Err(InvalidHost::Length)
        );
        assert_eq!(
            Host::parse(&"a.".repeat(127)[..253]),
            Ok(Host::Name("a.".repeat(127)[..253].into()))
        );
        assert_eq!(
            Host::parse(&format!("aa{}", &"a.".repeat(127)[..253])),
            Err(InvalidHost::Length)
        );
    }

    #[test]
    fn case_is_lowered_and_addresses_are_kept() {
        for (text, shown) in [
            ("API.Test", "api.test"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("localhost", "localhost"),
            ("1password.com", "1password.com"),
        ] {
            assert_eq!(Host::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_wildcard_spans_exactly_one_label() {
        let pattern: HostPattern = "*.API.test".parse().unwrap();
        let matches = |text: &str| pattern.matches(&Host::parse(text).unwrap());
        assert!(matches("a.api.test"));
        assert!(!matches("api.test"));
        assert!(!matches("a.b.api.test"));
        assert!(!matches("aapi.test"));
        assert!(!matches("a.api.test.evil"));
        assert_eq!(
            "*.com".parse::<HostPattern>(),
            Err(InvalidHost::WildcardOverTopLevel)
        );
        assert_eq!("*".parse::<HostPattern>(), Err(InvalidHost::Byte));
        assert_eq!("a.*.test".parse::<HostPattern>(), Err(InvalidHost::Byte));
        assert_eq!(
            "*.10.0.0.1".parse::<HostPattern>(),
            Err(InvalidHost::Address)
        );
    }

    #[test]
    fn an_exact_pattern_is_no_suffix() {
        let pattern: HostPattern = "api.test".parse().unwrap();
        for other in ["evilapi.test", "api.test.evil", "x.api.test", "test"] {
            assert!(!pattern.matches(&Host::parse(other).unwrap()), "{other}");
        }
        assert!(pattern.matches(&Host::parse("API.TEST").unwrap()));
    }
}
