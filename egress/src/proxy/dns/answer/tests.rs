use proptest::prelude::{Strategy, any, prop};
use proptest::{prop_assert, proptest};

use super::{Addresses, answer};
use crate::config;
use crate::route::Routes;

fn routes() -> Routes {
    let text =
        "routes: [{host: api.test}, {host: '*.wild.test'}, {host: 192.0.2.1, scheme: http}]\n";
    let rules = config::parse("routes.yaml", text, "/".as_ref()).unwrap();
    Routes::new(rules, None).unwrap()
}

fn addresses() -> Addresses {
    ["127.0.0.2".parse().unwrap(), "::1".parse().unwrap()]
        .into_iter()
        .collect()
}

fn query(labels: &[&str], rtype: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, (rtype >> 8) as u8, rtype as u8, 0, 1]);
    bytes
}

#[test]
fn an_admitted_name_has_an_address_and_nothing_else() {
    for (labels, rtype, data) in [
        (&["api", "test"][..], 1, &[127, 0, 0, 2][..]),
        (&["a", "wild", "test"], 1, &[127, 0, 0, 2]),
        (
            &["API", "tEsT"],
            28,
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        ),
        (&["api", "test"], 16, &[]),
        (&["api", "test"], 65, &[]),
        (&["api", "test"], 255, &[]),
    ] {
        let query = query(labels, rtype);
        let answered = answer(&query, &routes(), addresses());
        let bytes = answered.bytes.unwrap();
        let bytes = bytes.as_ref();
        assert_eq!(answered.refused, None);
        assert_eq!(bytes[..4], [0x12, 0x34, 0x81, 0x80], "{labels:?}");
        assert_eq!(
            bytes[12..query.len()],
            query[12..],
            "the question as it was"
        );
        assert!(bytes.ends_with(data), "{labels:?} {bytes:?}");
        assert_eq!(bytes[7], u8::from(!data.is_empty()));
    }
    let none = answer(
        &query(&["api", "test"], 28),
        &routes(),
        Addresses::default(),
    );
    assert_eq!(none.bytes.unwrap().as_ref().len(), 26);
}

#[test]
fn a_refused_name_is_told_in_a_form_that_a_log_can_carry() {
    for (labels, shown) in [
        (&["evil", "test"][..], "evil.test"),
        (&["api.test"], "api\\.test"),
        (
            &["\u{1b}[2J", "a\nb", "\u{e4}\0"],
            "\\x1b[2J.a\\nb.\\xc3\\xa4\\x00",
        ),
        (&[], "."),
        (&["wild", "test"], "wild.test"),
        (&["a", "b", "wild", "test"], "a.b.wild.test"),
        (&["192", "0", "2", "1"], "192.0.2.1"),
    ] {
        let answered = answer(&query(labels, 1), &routes(), addresses());
        assert_eq!(answered.refused.as_deref(), Some(shown));
        assert_eq!(answered.bytes.unwrap().as_ref()[3] & 15, 3, "{shown}");
    }
    let long = "\0".repeat(63);
    let answered = answer(&query(&[&long, &long, &long], 1), &routes(), addresses());
    assert_eq!(answered.refused.unwrap().len(), 256);
}

/// Bytes that are a query but for a few of them, and bytes that are nothing at all.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let mutated = (
        prop::collection::vec((0..64_usize, any::<u8>()), 0..6),
        0..80_usize,
        any::<bool>(),
    );
    let mutated = mutated.prop_map(|(changes, length, edns)| {
        let mut bytes = query(&["api", "test"], 1);
        if edns {
            bytes[11] = 1;
            bytes.extend([0, 0, 41, 4, 208, 0, 0, 128, 0, 0, 4, 0, 10, 0, 0]);
        }
        for (at, byte) in changes {
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
        if length < 60 {
            bytes.truncate(length);
        }
        bytes
    });
    prop::strategy::Union::new([
        mutated.boxed(),
        prop::collection::vec(any::<u8>(), 0..600).boxed(),
    ])
}

proptest! {
    #[test]
    fn no_bytes_panic_or_are_answered_with_many_more(bytes in hostile()) {
        let answered = answer(&bytes, &routes(), addresses());
        if let Some(answer) = answered.bytes {
            let answer = answer.as_ref();
            prop_assert!(answer.len() <= bytes.len() + 28);
            prop_assert!(answer[2] & 0x80 != 0);
            prop_assert!(bytes[2] & 0x80 == 0);
        }
    }
}
