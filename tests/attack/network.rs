//! Addresses: what a name resolves to is judged before it is dialled, once, and nothing else is dialled (threat model, rows
//! 30 to 32). All of it in a network where a connection to any address would arrive.

mod own;
mod published;
mod rebinding;
pub(crate) mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::future::join_all;

use self::site::{Site, both, get, ip};
use crate::harness::attempts::{Arena, assert_canonical};
use crate::harness::cases;
use crate::harness::forward::Forward;
use crate::harness::line::{Line, Outcome, WAYS, Way};

#[tokio::test]
async fn row_30_every_address_is_judged_by_what_it_is_and_not_by_how_it_is_named() {
    let list = cases::read("addresses.txt", 1);
    assert!(list.len() > 140, "{}", list.len());
    let addresses: BTreeMap<IpAddr, String> = list
        .iter()
        .map(|case| (ip(case.text()), case.expected[0].clone()))
        .collect();
    let all: Vec<IpAddr> = addresses.keys().copied().collect();
    let mut routes = both("*.addr.test", "");
    for address in &all {
        routes += &format!(
            "- {{host: '{address}', scheme: http, port: 80, insecure_inject: true, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}}\n"
        );
    }
    let named = all.clone();
    let site = Site::new(&routes, move |name, _| {
        let number = name
            .strip_prefix('n')
            .and_then(|name| name.strip_suffix(".addr.test"));
        let address = number.and_then(|number| named.get(number.parse::<usize>().ok()?));
        address.copied().into_iter().collect()
    })
    .await;

    let by_name = |case| get(&format!("n{case}.addr.test"), case);
    let literal = |case: usize| match all[case] {
        IpAddr::V4(address) => get(&address.to_string(), LITERAL + case),
        IpAddr::V6(address) => get(&format!("[{address}]"), LITERAL + case),
    };
    let numbers: Vec<usize> = (0..all.len()).collect();
    for way in WAYS {
        let tried = numbers
            .chunks(numbers.len().div_ceil(4))
            .map(async |share| {
                let mut line = Line::new(&site.agent, way);
                for &number in share {
                    let attempts = match way {
                        Way::Absolute => vec![by_name(number), literal(number)],
                        Way::One | Way::Two => vec![by_name(number)],
                    };
                    let (address, word) = (all[number], addresses[&all[number]].as_str());
                    let expected = match word {
                        "public" => Outcome::Sent,
                        _ => Outcome::Refused("address_not_allowed".into()),
                    };
                    for attempt in attempts {
                        let outcome = line.put(&attempt).await;
                        assert_eq!(outcome, expected, "{way:?} {address}: {attempt:?}");
                    }
                }
            });
        join_all(tried).await;
    }
    let public: BTreeSet<IpAddr> = addresses
        .iter()
        .filter(|(_, word)| *word == "public")
        .map(|(address, _)| address.to_canonical())
        .collect();
    for (upstream, times) in [(&site.plain, 2), (&site.tls, 2)] {
        let reached = upstream.reached();
        for seen in upstream.seen() {
            let case: usize = seen.all("x-case")[0]
                .split_once('-')
                .expect("two parts")
                .1
                .parse()
                .expect("a number");
            let address = all[case % LITERAL].to_canonical();
            let at = usize::try_from(seen.connection).expect("a small number") - 1;
            assert_eq!(reached[at], address, "{seen:?}");
            assert_canonical(&seen);
        }
        assert_eq!(reached.iter().copied().collect::<BTreeSet<_>>(), public);
        assert!(upstream.seen().len() >= public.len() * times);
    }
    // One look-up for each dial, none for an address; and the log says why.
    for (number, address) in all.iter().enumerate() {
        let name = format!("n{number}.addr.test");
        assert_eq!(site.network.asked(&name), (3, 3), "{name} {address}");
        let word = &addresses[address];
        if word != "public" {
            let line = format!("{name} resolves to {address}, which is {word}");
            site.sidecar.logged_times(&line, 3).await;
        }
    }
    assert_eq!(site.network.queries().len(), all.len() * 6);
}

/// Apart from the numbers of names.
const LITERAL: usize = 10_000;

#[tokio::test]
async fn row_30_one_bad_answer_denies_the_set() {
    // Of `bare` nothing is allowed, of `ten` 10.0.0.0/8.
    let sets: &[(&str, &[&str], bool)] = &[
        ("bare", &["93.184.215.14", "1.1.1.1"], true),
        ("bare", &["93.184.215.14", "2606:4700::1111"], true),
        ("bare", &["93.184.215.14", "10.0.0.1"], false),
        ("bare", &["10.0.0.1", "93.184.215.14"], false),
        (
            "bare",
            &["93.184.215.14", "1.1.1.1", "8.8.8.8", "127.0.0.1"],
            false,
        ),
        ("bare", &["93.184.215.14", "::1"], false),
        ("bare", &["2606:4700::1111", "127.0.0.1"], false),
        ("bare", &["2606:4700::1111", "fd00:ec2::254"], false),
        ("bare", &["2606:4700::1111", "::ffff:10.0.0.1"], false),
        ("bare", &["::ffff:93.184.215.14", "64:ff9b::a00:1"], false),
        ("bare", &["93.184.215.14", "169.254.169.254"], false),
        ("bare", &["93.184.215.14", "0.0.0.0"], false),
        ("bare", &["127.0.0.1", "127.0.0.2"], false),
        ("ten", &["10.0.0.1"], true),
        ("ten", &["10.0.0.1", "93.184.215.14"], true),
        ("ten", &["::ffff:10.0.0.1"], true),
        ("ten", &["10.0.0.1", "11.0.0.1"], true),
        ("ten", &["10.0.0.1", "172.16.0.1"], false),
        ("ten", &["192.168.0.1", "10.0.0.1"], false),
        ("ten", &["10.0.0.1", "127.0.0.1"], false),
        ("ten", &["10.0.0.1", "::1"], false),
        ("ten", &["10.0.0.1", "64:ff9b::a00:1"], false),
        ("ten", &["10.0.0.1", "2002:a00:1::"], false),
        ("ten", &["::10.0.0.1"], false),
        ("ten", &["169.254.169.254"], false),
    ];
    let routes = both("*.bare.test", "") + &both("*.ten.test", ", ssrf_ip_allowlist: [10.0.0.0/8]");
    let site = Site::new(&routes, |name, _| {
        let number = name
            .trim_start_matches('n')
            .split('.')
            .next()
            .and_then(|n| n.parse::<usize>().ok());
        let set = number.and_then(|number| sets.get(number));
        set.map(|(_, set, _)| set.iter().map(|text| ip(text)).collect())
            .unwrap_or_default()
    })
    .await;
    for (number, (kind, set, admitted)) in sets.iter().enumerate() {
        for way in WAYS {
            let before = site.reached().len();
            let attempt = get(&format!("n{number}.{kind}.test"), number);
            let outcome = Line::new(&site.agent, way).put(&attempt).await;
            let expected = match admitted {
                true => Outcome::Sent,
                false => Outcome::Refused("address_not_allowed".into()),
            };
            assert_eq!(outcome, expected, "{way:?} {kind} {set:?}");
            let reached = site.reached();
            assert_eq!(reached.len() > before, *admitted, "{way:?} {kind} {set:?}");
        }
    }
    let allowed: BTreeSet<IpAddr> = sets
        .iter()
        .filter(|(.., admitted)| *admitted)
        .flat_map(|(_, set, _)| set.iter().map(|text| ip(text).to_canonical()))
        .collect();
    assert!(
        site.reached()
            .iter()
            .all(|address| allowed.contains(address))
    );
}

/// An operator's `connect_to` by name is no word for the addresses behind it, and neither is /etc/hosts.
#[tokio::test]
async fn row_30_a_name_to_dial_instead_and_a_name_of_the_hosts_file_are_judged_too() {
    let routes = both("via.test", ", connect_to: 'inner.test:80'")
        + &both(
            "loop.test",
            ", connect_to: 'localhost:80', ssrf_ip_allowlist: [10.0.0.0/8]",
        )
        + &both("localhost", "");
    let site = Site::new(&routes, |_, _| vec![ip("10.0.0.1")]).await;
    for (host, detail) in [
        (
            "via.test",
            "inner.test resolves to 10.0.0.1, which is private",
        ),
        (
            "loop.test",
            "localhost resolves to 127.0.0.1, which is loopback",
        ),
        (
            "localhost",
            "localhost resolves to 127.0.0.1, which is loopback",
        ),
    ] {
        for way in WAYS {
            let outcome = Line::new(&site.agent, way).put(&get(host, 0)).await;
            assert_eq!(
                outcome,
                Outcome::Refused("address_not_allowed".into()),
                "{host}"
            );
        }
        site.sidecar.logged_times(detail, WAYS.len()).await;
    }
    assert!(site.reached().is_empty());
}

#[tokio::test]
async fn row_32_variables_of_the_environment_name_no_proxy() {
    let wrong = Forward::refusing("HTTP/1.1 200 OK\r\n\r\n").await;
    let url = format!("http://{}", wrong.addr());
    let routes = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'TLS'}
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, scheme: http, port: 80, insecure_inject: true, connect_to: 'PLAIN'}
- {host: pass.test, tls: passthrough, connect_to: 'TLS'}
";
    let arena = Arena::with(&["h2", "http/1.1"], routes, |mut builder| {
        for name in [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "WS_PROXY",
            "WSS_PROXY",
        ] {
            builder = builder.env(name, &url).env(&name.to_lowercase(), &url);
        }
        // An address is no exception that would hide what this test is about.
        builder
            .env("NO_PROXY", "evil.test")
            .env("no_proxy", "evil.test")
    })
    .await;
    for way in WAYS {
        let outcomes = arena.try_all(way, &[get("api.test", 1)]).await;
        assert_eq!(outcomes, [Outcome::Sent], "{way:?}");
        arena.assert_reached(way, &BTreeMap::from([(1, ("api.test".into(), "/".into()))]));
    }
    // A tunnel that is passed through is dialled by itself. The agent does not trust what it meets there.
    let before = arena.tls.connections();
    let tunnel = arena
        .agent
        .tunnel("pass.test:443", "pass.test", &["h2"])
        .await;
    assert!(tunnel.is_err());
    assert_eq!(arena.tls.connections(), before + 1);
    assert!(wrong.heads().is_empty());
}
