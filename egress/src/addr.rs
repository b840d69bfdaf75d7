//! Classifies IP addresses for the guard against server-side request forgery: what is not plainly public is
//! denied, unless the route's allowlist names it.
//!
//! Pure: no lookups and no sockets. The caller resolves a name once, screens all answers here, and dials exactly
//! an address that was screened.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Screens a whole set of DNS answers. One bad answer denies the set: a name that mixes public and private
/// addresses is a rebinding attack or a mistake, and picking the good one would leave it to chance which.
pub fn screen(answers: &[IpAddr], allowlist: &[IpNet]) -> Result<(), (IpAddr, Class)> {
    for &ip in answers {
        permitted(ip, allowlist).map_err(|class| (ip, class))?;
    }
    Ok(())
}

/// Whether `ip` may be dialled: it is public, or a network of the allowlist covers it.
///
/// An IPv4-mapped address is compared both as written and as the IPv4 address that the kernel will dial, so
/// `10.0.0.0/8` covers `::ffff:10.1.2.3`, and `::/0` covers no address that is written as IPv4.
pub fn permitted(ip: IpAddr, allowlist: &[IpNet]) -> Result<(), Class> {
    let class = classify(ip);
    if class.is_public() {
        return Ok(());
    }
    let dialled = ip.to_canonical();
    if allowlist
        .iter()
        .any(|net| net.contains(&ip) || net.contains(&dialled))
    {
        return Ok(());
    }
    Err(class)
}

/// The class of an address, by the IANA special-purpose registries (RFC 6890) and the clouds' documentation.
pub fn classify(ip: IpAddr) -> Class {
    match ip {
        IpAddr::V4(ip) => classify_v4(ip),
        IpAddr::V6(ip) => classify_v6(ip),
    }
}

/// What an address is for. Only [`Class::Public`] may be dialled without an allowlist.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Class {
    /// Globally reachable unicast.
    Public,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// RFC 1918.
    Private,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// `100.64.0.0/10` (RFC 6598).
    SharedCgnat,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `0.0.0.0/8` (Linux dials its own host for it), `::`.
    Unspecified,
    /// `255.255.255.255`.
    Broadcast,
    /// RFC 5737, RFC 3849, RFC 9637.
    Documentation,
    /// `198.18.0.0/15`, `2001:2::/48`.
    Benchmarking,
    /// Everything else that is not plainly public.
    Reserved,
    /// Where a cloud hands out its credentials.
    Metadata,
    /// `64:ff9b::/96`, `64:ff9b:1::/48`, and `::ffff:0:0:0/96` (RFC 7915): a translator may map it to any IPv4.
    Nat64,
    /// `2002::/16`, and the relay anycast `192.88.99.0/24`.
    SixToFour,
    /// `2001::/32`.
    Teredo,
    /// `fc00::/7`.
    UniqueLocal,
    /// `fec0::/10`, deprecated by RFC 3879, still routed inside some networks.
    SiteLocal,
    /// `100::/64` (RFC 6666).
    Discard,
}

impl Class {
    /// Whether an address of this class may be dialled without an allowlist.
    pub fn is_public(self) -> bool {
        self == Self::Public
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::SharedCgnat => "shared (carrier-grade NAT)",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Broadcast => "broadcast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Reserved => "reserved",
            Self::Metadata => "cloud metadata",
            Self::Nat64 => "NAT64",
            Self::SixToFour => "6to4",
            Self::Teredo => "Teredo",
            Self::UniqueLocal => "unique local",
            Self::SiteLocal => "site-local",
            Self::Discard => "discard-only",
        })
    }
}

fn classify_v4(ip: Ipv4Addr) -> Class {
    // Metadata first: its addresses lie inside other blocks, and 168.63.129.16 inside a public one.
    if METADATA_V4.contains(&ip) {
        return Class::Metadata;
    }
    match ip.octets() {
        [0, ..] => Class::Unspecified,
        [127, ..] => Class::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [169, 254, ..] => Class::LinkLocal,
        [100, 64..=127, ..] => Class::SharedCgnat,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Documentation,
        [192, 88, 99, _] => Class::SixToFour,
        [198, 18..=19, ..] => Class::Benchmarking,
        [255, 255, 255, 255] => Class::Broadcast,
        [224..=239, ..] => Class::Multicast,
        [192, 0, 0, _] | [240..=255, ..] => Class::Reserved,
        _ => Class::Public,
    }
}

fn classify_v6(ip: Ipv6Addr) -> Class {
    if METADATA_V6.contains(&ip) {
        return Class::Metadata;
    }
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        // Mapped: the kernel dials the inner address.
        [0, 0, 0, 0, 0, 0xffff, high, low] => classify_v4(inner_v4(high, low)),
        // Compatible (RFC 4291, deprecated): nothing should route it, so a public inner address is no reason to try.
        [0, 0, 0, 0, 0, 0, high, low] => match classify_v4(inner_v4(high, low)) {
            Class::Public => Class::Reserved,
            class => class,
        },
        [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => {
            Class::Nat64
        }
        [0x100, 0, 0, 0, ..] => Class::Discard,
        [0x2001, 0, ..] => Class::Teredo,
        [0x2001, 2, 0, ..] => Class::Benchmarking,
        // RFC 2928, IETF protocol assignments. A few of them are reachable; no API lives there.
        [0x2001, 0..=0x1ff, ..] => Class::Reserved,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Class::Documentation,
        [0x2002, ..] => Class::SixToFour,
        [0x2000..=0x3fff, ..] => Class::Public,
        [0xfc00..=0xfdff, ..] => Class::UniqueLocal,
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xfec0..=0xfeff, ..] => Class::SiteLocal,
        [0xff00..=0xffff, ..] => Class::Multicast,
        // IANA has handed out global unicast only inside 2000::/3.
        _ => Class::Reserved,
    }
}

fn inner_v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))
}

const METADATA_V4: [Ipv4Addr; 6] = [
    // AWS, Azure, GCP, DigitalOcean, Hetzner, OpenStack.
    Ipv4Addr::new(169, 254, 169, 254),
    // AWS: task credentials of ECS, pod identity of EKS.
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    // Azure's wire server: a public address that only a guest can reach.
    Ipv4Addr::new(168, 63, 129, 16),
    // Alibaba Cloud.
    Ipv4Addr::new(100, 100, 100, 200),
    // Oracle Cloud.
    Ipv4Addr::new(192, 0, 0, 192),
];

const METADATA_V6: [Ipv6Addr; 3] = [
    // AWS: instance metadata, pod identity of EKS.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    // GCP.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_every_block_and_their_neighbours_are_classified() {
        for &(written, class) in ADDRESSES {
            let ip: IpAddr = written.parse().expect(written);
            assert_eq!(classify(ip), class, "{written}");
        }
    }

    #[test]
    fn a_mapped_address_has_the_class_of_the_inner_one() {
        for &(written, class) in ADDRESSES {
            let Ok(inner) = written.parse::<Ipv4Addr>() else {
                continue;
            };
            let mapped = IpAddr::V6(inner.to_ipv6_mapped());
            assert_eq!(classify(mapped), class, "{mapped}");
        }
    }

    #[test]
    fn a_compatible_address_is_never_public() {
        for &(written, class) in ADDRESSES {
            let Ok(inner) = written.parse::<Ipv4Addr>() else {
                continue;
            };
            let compatible = IpAddr::V6(inner.to_ipv6_compatible());
            let expected = if class.is_public() {
                Class::Reserved
            } else {
                class
            };
            assert_eq!(classify(compatible), expected, "{compatible}");
        }
    }

    #[test]
    fn nothing_outside_2000_3_is_public_but_mapped_ipv4() {
        for first in (0..=u16::MAX).filter(|first| !(0x2000..=0x3fff).contains(first)) {
            for rest in [0, 1, 0x808, 0xffff] {
                let ip = Ipv6Addr::new(first, rest, rest, rest, rest, rest, rest, rest);
                assert!(!classify(IpAddr::V6(ip)).is_public(), "{ip}");
            }
        }
    }

    #[test]
    fn one_bad_answer_denies_the_set() {
        let good: IpAddr = "93.184.215.14".parse().unwrap();
        let bad: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(screen(&[good, bad], &[]), Err((bad, Class::Private)));
        assert_eq!(screen(&[bad, good], &[]), Err((bad, Class::Private)));
        assert_eq!(screen(&[good, good], &[]), Ok(()));
        assert_eq!(screen(&[good, bad], &nets(&["10.0.0.0/8"])), Ok(()));
    }

    #[test]
    fn an_allowlist_covers_what_it_names_and_no_more() {
        let check = |ip: &str, list: &[&str]| permitted(ip.parse().unwrap(), &nets(list));
        assert_eq!(check("10.1.2.3", &[]), Err(Class::Private));
        assert_eq!(check("10.1.2.3", &["10.1.2.4/32"]), Err(Class::Private));
        assert_eq!(check("10.1.2.3", &["::/0"]), Err(Class::Private));
        assert_eq!(check("::10.1.2.3", &["10.0.0.0/8"]), Err(Class::Private));
        assert_eq!(check("::1", &["0.0.0.0/0"]), Err(Class::Loopback));
        assert_eq!(
            check("64:ff9b::a01:203", &["10.0.0.0/8"]),
            Err(Class::Nat64)
        );
        assert_eq!(
            check("169.254.169.254", &["10.0.0.0/8"]),
            Err(Class::Metadata)
        );
        assert_eq!(check("10.1.2.3", &["10.0.0.0/8"]), Ok(()));
        assert_eq!(check("::ffff:10.1.2.3", &["10.0.0.0/8"]), Ok(()));
        assert_eq!(check("::ffff:10.1.2.3", &["::/0"]), Ok(()));
        assert_eq!(check("::1", &["10.0.0.0/8", "::1/128"]), Ok(()));
        assert_eq!(check("1.1.1.1", &[]), Ok(()));
    }

    #[test]
    fn a_class_names_itself() {
        assert_eq!(Class::Metadata.to_string(), "cloud metadata");
        assert_eq!(Class::SixToFour.to_string(), "6to4");
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[rustfmt::skip]
    const ADDRESSES: &[(&str, Class)] = &[
        ("0.0.0.0", Class::Unspecified), ("0.255.255.255", Class::Unspecified), ("1.0.0.0", Class::Public),
        ("9.255.255.255", Class::Public), ("10.0.0.0", Class::Private), ("10.255.255.255", Class::Private), ("11.0.0.0", Class::Public),
        ("100.63.255.255", Class::Public), ("100.64.0.0", Class::SharedCgnat), ("100.127.255.255", Class::SharedCgnat), ("100.128.0.0", Class::Public),
        ("100.100.100.199", Class::SharedCgnat), ("100.100.100.200", Class::Metadata), ("100.100.100.201", Class::SharedCgnat),
        ("126.255.255.255", Class::Public), ("127.0.0.0", Class::Loopback), ("127.0.0.1", Class::Loopback), ("127.255.255.255", Class::Loopback), ("128.0.0.0", Class::Public),
        ("168.63.129.15", Class::Public), ("168.63.129.16", Class::Metadata), ("168.63.129.17", Class::Public),
        ("169.253.255.255", Class::Public), ("169.254.0.0", Class::LinkLocal), ("169.254.169.253", Class::LinkLocal), ("169.254.169.254", Class::Metadata),
        ("169.254.169.255", Class::LinkLocal), ("169.254.170.2", Class::Metadata), ("169.254.170.23", Class::Metadata), ("169.254.255.255", Class::LinkLocal), ("169.255.0.0", Class::Public),
        ("172.15.255.255", Class::Public), ("172.16.0.0", Class::Private), ("172.31.255.255", Class::Private), ("172.32.0.0", Class::Public),
        ("191.255.255.255", Class::Public), ("192.0.0.0", Class::Reserved), ("192.0.0.192", Class::Metadata), ("192.0.0.255", Class::Reserved),
        ("192.0.1.0", Class::Public), ("192.0.1.255", Class::Public), ("192.0.2.0", Class::Documentation), ("192.0.2.255", Class::Documentation), ("192.0.3.0", Class::Public),
        ("192.88.98.255", Class::Public), ("192.88.99.0", Class::SixToFour), ("192.88.99.255", Class::SixToFour), ("192.88.100.0", Class::Public),
        ("192.167.255.255", Class::Public), ("192.168.0.0", Class::Private), ("192.168.255.255", Class::Private), ("192.169.0.0", Class::Public),
        ("198.17.255.255", Class::Public), ("198.18.0.0", Class::Benchmarking), ("198.19.255.255", Class::Benchmarking), ("198.20.0.0", Class::Public),
        ("198.51.99.255", Class::Public), ("198.51.100.0", Class::Documentation), ("198.51.100.255", Class::Documentation), ("198.51.101.0", Class::Public),
        ("203.0.112.255", Class::Public), ("203.0.113.0", Class::Documentation), ("203.0.113.255", Class::Documentation), ("203.0.114.0", Class::Public),
        ("223.255.255.255", Class::Public), ("224.0.0.0", Class::Multicast), ("239.255.255.255", Class::Multicast), ("240.0.0.0", Class::Reserved),
        ("255.255.255.254", Class::Reserved), ("255.255.255.255", Class::Broadcast), ("8.8.8.8", Class::Public),

        ("::", Class::Unspecified), ("::1", Class::Loopback), ("::2", Class::Unspecified), ("::127.0.0.1", Class::Loopback), ("::8.8.8.8", Class::Reserved),
        ("::169.254.169.254", Class::Metadata), ("::fffe:ffff:ffff", Class::Reserved), ("::1:0:0", Class::Reserved),
        ("::ffff:0.0.0.0", Class::Unspecified), ("::ffff:127.0.0.1", Class::Loopback), ("::ffff:a9fe:a9fe", Class::Metadata), ("::ffff:8.8.8.8", Class::Public),
        ("::ffff:255.255.255.255", Class::Broadcast), ("::ffff:0:0:0", Class::Nat64), ("::ffff:0:8.8.8.8", Class::Nat64), ("::ffff:0:255.255.255.255", Class::Nat64), ("::ffff:1:0:0", Class::Reserved),
        ("64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff", Class::Reserved), ("64:ff9b::", Class::Nat64), ("64:ff9b::8.8.8.8", Class::Nat64), ("64:ff9b::ffff:ffff", Class::Nat64),
        ("64:ff9b::1:0:0", Class::Reserved), ("64:ff9b:1::", Class::Nat64), ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Class::Nat64), ("64:ff9b:2::", Class::Reserved),
        ("ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Reserved), ("100::", Class::Discard), ("100::ffff:ffff:ffff:ffff", Class::Discard), ("100:0:0:1::", Class::Reserved),
        ("1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Reserved), ("2000::", Class::Public), ("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Public),
        ("2001::", Class::Teredo), ("2001:0:ffff:ffff:ffff:ffff:ffff:ffff", Class::Teredo), ("2001:1::", Class::Reserved), ("2001:1::1", Class::Reserved),
        ("2001:2::", Class::Benchmarking), ("2001:2:0:ffff:ffff:ffff:ffff:ffff", Class::Benchmarking), ("2001:2:1::", Class::Reserved),
        ("2001:10::", Class::Reserved), ("2001:20::", Class::Reserved), ("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Reserved), ("2001:200::", Class::Public),
        ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", Class::Public), ("2001:db8::", Class::Documentation), ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Class::Documentation), ("2001:db9::", Class::Public),
        ("2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Public), ("2002::", Class::SixToFour), ("2002:a00:1::1", Class::SixToFour), ("2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::SixToFour), ("2003::", Class::Public),
        ("2606:4700:4700::1111", Class::Public), ("3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Public), ("3fff::", Class::Documentation),
        ("3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Documentation), ("3fff:1000::", Class::Public), ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Public), ("4000::", Class::Reserved),
        ("5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Reserved), ("5f00::", Class::Reserved), ("5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Reserved), ("5f01::", Class::Reserved),
        ("fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Reserved), ("fc00::", Class::UniqueLocal), ("fd00:ec2::253", Class::UniqueLocal), ("fd00:ec2::254", Class::Metadata),
        ("fd00:ec2::255", Class::UniqueLocal), ("fd00:ec2::23", Class::Metadata), ("fd20:ce::254", Class::Metadata), ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::UniqueLocal),
        ("fe00::", Class::Reserved), ("fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Reserved), ("fe80::", Class::LinkLocal), ("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::LinkLocal),
        ("fec0::", Class::SiteLocal), ("feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::SiteLocal), ("ff00::", Class::Multicast), ("ff02::1", Class::Multicast),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Multicast),
    ];
}
