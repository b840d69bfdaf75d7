//! Names in and out of subtrees, and what is no name at all.

use super::*;

fn hosts(hosts: &[&str]) -> Vec<String> {
    hosts.iter().map(|host| (*host).to_owned()).collect()
}

fn limits(permitted: &[&str], excluded: &[&str]) -> Limits {
    Limits {
        permitted: Some(hosts(permitted)),
        excluded: hosts(excluded),
    }
}

#[test]
fn what_is_no_dns_name_is_refused() {
    let long_label = format!("{}.test", "a".repeat(64));
    let long_name = format!("{}test", "abcdefg.".repeat(32));
    for host in [
        "",
        ".",
        "a..test",
        ".test",
        "a.test.",
        "A.test",
        "*.test",
        "-a.test",
        "a-.test",
        "a b.test",
        "ä.test",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "127.0.0.0x1",
        "0x",
        "::1",
        "[::1]",
        "a.test:443",
        "a/b.test",
        "a.test\0",
        "user@a.test",
        &long_label,
        &long_name,
    ] {
        assert!(dns_name(host).is_err(), "{host:?}");
        assert!(
            !Limits::default().permit(host) || host.starts_with("*."),
            "{host:?}"
        );
    }
    for host in [
        "a",
        "a.test",
        "xn--4ca.test",
        "_acme.a.test",
        "1.a",
        "0xfg",
        "0x7f.test",
    ] {
        assert!(dns_name(host).is_ok(), "{host:?}");
    }
}

#[test]
fn a_constraint_that_is_no_name_is_refused() {
    for host in [
        "10.0.0.1", "::1", "*", "*.", "a.*.test", "*.*.test", "a*.test", "",
    ] {
        let refused = Constraints::Hosts(hosts(&["a.test", host])).extension();
        assert!(
            matches!(refused, Err(Error::BadConstraint { .. })),
            "{host:?}"
        );
    }
}

#[test]
fn no_hosts_permit_a_name_that_cannot_be() {
    assert_eq!(subtrees(&[]).unwrap(), ["invalid"]);
}

#[test]
fn a_name_under_a_permitted_parent_is_not_listed_twice() {
    let given = hosts(&[
        "a.b.test", "B.test", "xb.test", "*.b.test", "*.c.test", "d.c.test", "xb.test",
    ]);
    assert_eq!(subtrees(&given).unwrap(), ["b.test", "c.test", "xb.test"]);
}

#[test]
fn names_outside_the_permitted_subtrees_are_refused() {
    let limits = limits(&["api.test", ".dot.test"], &["bad.api.test"]);
    for host in [
        "evilapi.test",
        "test",
        "api.test.evil",
        "dot.test",
        "bad.api.test",
        "x.bad.api.test",
    ] {
        assert!(!limits.permit(host), "{host}");
    }
    for host in ["api.test", "x.api.test", "a.dot.test"] {
        assert!(limits.permit(host), "{host}");
    }
    assert!(
        !limits.permit("*.api.test"),
        "one name below it is excluded"
    );
    assert!(!limits.permit("*.test"));
    assert!(limits.permit("*.dot.test") && limits.permit("*.x.api.test"));
}

#[test]
fn without_permitted_subtrees_only_the_excluded_are_refused() {
    let limits = Limits {
        permitted: None,
        excluded: hosts(&["bad.test"]),
    };
    assert!(limits.permit("a.test") && !limits.permit("a.bad.test") && !limits.permit("*.test"));
    assert!(
        !Limits {
            permitted: None,
            excluded: hosts(&[""])
        }
        .permit("a.test")
    );
}
