//! Cases of a public collection for proxies of agents (tests/data/attack/agent_egress_bench.LICENSE).

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::harness::attempts::assert_canonical;
use crate::harness::cases;
use crate::harness::line::{Attempt, Line, Way};

use super::site::{Site, both, get, ip};

/// With routes for the hosts that the cases allow, and, by an operator's mistake, for the addresses that they do not.
#[tokio::test]
async fn row_30_the_published_cases_end_as_they_have_to() {
    let text = cases::text("agent_egress_bench.jsonl");
    let cases: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a case"))
        .collect();
    assert!(cases.len() > 35, "{}", cases.len());
    let split = |case: &Value| {
        let url = case["payload"]["url"].as_str().expect("a URL").to_owned();
        let (scheme, rest) = url.split_once("://").expect("a scheme");
        let at = rest.find('/').expect("a path");
        let (host, path) = rest.split_at(at);
        (scheme.to_owned(), host.to_owned(), path.to_owned())
    };
    let allowed = |case: &Value| case["expected_verdict"] == "allow";
    let hosts: BTreeSet<String> = cases
        .iter()
        .filter(|case| allowed(case))
        .map(|case| split(case).1)
        .collect();
    // An address is no host over https, so this is for plain text alone.
    let mistakes = [
        "127.0.0.1",
        "10.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "::1",
        "::ffff:127.0.0.1",
    ]
    .map(|address| format!("- {{host: '{address}', scheme: http, port: 80}}\n"));
    let routes = hosts.iter().map(|host| both(host, "")).chain(mistakes);
    let routes: String = routes.collect();
    let site = Site::new(&routes, |_, _| vec![ip("93.184.215.14")]).await;
    for (number, case) in cases.iter().enumerate() {
        let (scheme, host, path) = split(case);
        let attempt = Attempt {
            path: path.into_bytes(),
            ..get(&host, number)
        };
        let ways: &[Way] = if scheme == "http" {
            &[Way::Absolute]
        } else {
            &[Way::One, Way::Two]
        };
        for &way in ways {
            let before = site.reached().len();
            if way != Way::Absolute && !allowed(case) {
                let refusal = site.agent.connect(&format!("{host}:443")).await;
                refusal
                    .expect_err(&host)
                    .assert_refused(403, "host_not_allowed");
            } else {
                let outcome = Line::new(&site.agent, way).put(&attempt).await;
                let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
                let expected = match (allowed(case), literal) {
                    (true, _) => "sent",
                    (false, true) => "address_not_allowed",
                    // A number that is an address to a resolver.
                    (false, false) => "bad_target",
                };
                assert_eq!(outcome.to_string(), expected, "{}", case["id"]);
            }
            assert_eq!(
                site.reached().len() > before,
                allowed(case),
                "{}",
                case["id"]
            );
            let looked_up = site.network.asked(&host) != (0, 0);
            assert_eq!(looked_up, allowed(case), "{}", case["id"]);
        }
    }
    assert!(site.tls.seen().iter().all(|seen| {
        assert_canonical(seen);
        seen.authorised
    }));
}
