//! The name server's answer: small, well formed, and with an address for admitted names only.
//!
//! Input: a byte of switches, and a message.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::LazyLock;

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, ParsedName, ToName};
use domain::rdata::{A, Aaaa};
use egress::proxy::dns::answer::{Addresses, answer};
use egress::route::Routes;
use libfuzzer_sys::fuzz_target;

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let text = "routes: [{host: api.test}, {host: '*.wild.test'}, {host: 192.0.2.1, scheme: http}, {host: o_k.test, port: 8443}]";
    let rules = egress::config::parse("routes.yaml", text, Path::new("/nonexistent"));
    Routes::new(rules.expect("routes without faults"), None).expect("routes without ties")
});

fuzz_target!(|input: &[u8]| {
    let Some((switches, message)) = input.split_first() else {
        return;
    };
    let mut ours: Vec<IpAddr> = Vec::new();
    if switches & 1 != 0 {
        ours.push(V4.into());
    }
    if switches & 2 != 0 {
        ours.push(V6.into());
    }
    let addresses: Addresses = ours.iter().copied().collect();
    let answered = answer(message, &ROUTES, addresses);
    assert_eq!(answer(message, &ROUTES, addresses), answered);
    if let Some(name) = &answered.refused {
        assert!(
            name.is_ascii() && !name.bytes().any(|byte| byte.is_ascii_control()),
            "{name:?}"
        );
        assert!(name.len() <= 256);
    }
    let Some(bytes) = answered.bytes else {
        return;
    };
    let bytes = bytes.as_ref();
    assert!(
        bytes.len() <= message.len() + 28 && bytes.len() <= 512,
        "{}",
        bytes.len()
    );
    let (asked, said) = (
        Message::from_octets(message).expect("answered"),
        Message::from_octets(bytes).expect("ours"),
    );
    assert!(!asked.header().qr() && said.header().qr());
    assert_eq!(asked.header().id(), said.header().id());
    assert_eq!(said.header_counts().nscount(), 0);
    assert!(!said.header().aa() && !said.header().tc());

    let rcode = said.header().rcode();
    assert_eq!(answered.refused.is_some(), rcode == Rcode::NXDOMAIN);
    let Some(question) = said.first_question() else {
        assert_eq!(said.header_counts().ancount(), 0);
        return;
    };
    let length = bytes_of(question.qname()) + 4;
    assert_eq!(
        message.get(12..12 + length),
        bytes.get(12..12 + length),
        "the question is repeated"
    );
    let admitted = admits(question.qname());
    assert!(
        rcode != Rcode::NXDOMAIN || !admitted,
        "an admitted name does not exist"
    );
    let mut records = 0;
    for record in said.answer().expect("a well-formed answer") {
        let record = record.expect("a well-formed record");
        records += 1;
        assert!(admitted, "an address of a name that no route admits");
        assert!(record.owner().name_eq(question.qname()));
        assert_eq!(record.rtype(), question.qtype());
        let address: IpAddr = match record.rtype() {
            Rtype::A => record
                .to_record::<A>()
                .expect("an address")
                .expect("an address")
                .data()
                .addr()
                .into(),
            Rtype::AAAA => record
                .to_record::<Aaaa>()
                .expect("an address")
                .expect("an address")
                .data()
                .addr()
                .into(),
            other => panic!("a record of another type: {other}"),
        };
        assert!(ours.contains(&address));
    }
    assert!(records <= 1);
    for record in said.additional().expect("a well-formed section") {
        assert_eq!(record.expect("a well-formed record").rtype(), Rtype::OPT);
    }
});

fn bytes_of(name: &ParsedName<&[u8]>) -> usize {
    name.iter().map(|label| label.len() + 1).sum()
}

/// Label by label, as the routes above say.
fn admits(name: &ParsedName<&[u8]>) -> bool {
    let labels: Vec<Vec<u8>> = name
        .iter()
        .map(|label| label.as_slice().to_ascii_lowercase())
        .collect();
    let labels: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
    match labels.as_slice() {
        [b"api" | b"o_k", b"test", b""] => true,
        [first, b"wild", b"test", b""] => {
            let legal = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
            first.iter().all(legal) && !first.starts_with(b"-") && !first.ends_with(b"-")
        }
        _ => false,
    }
}
