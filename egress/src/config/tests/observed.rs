//! What an observation lets through, and what it leaves refused.

use std::time::Instant;

use http::Method;

use super::rules;
use crate::route::denial::Reason;
use crate::route::observation::Observation;
use crate::route::path::Hazard;
use crate::route::query::QueryHazard;
use crate::route::target::{Kind, Origin, Scheme, Target};
use crate::route::{Permit, Routes, Tls};

const ROUTES: &str = "
routes:
  - {host: api.test, path_allowlist: [/v1/], methods: [GET], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}
  - {host: hub.test, path_allowlist: [/a], query: {service: x}}
  - {host: chat.test, websocket: false}
  - {host: alt.test, port: 8443, path_allowlist: [/]}
  - {host: near.test, path_allowlist: [/a], connect_to: '127.0.0.1:1'}
  - {host: '*.corp.test', path_allowlist: [/a], ssrf_ip_allowlist: [10.0.0.0/8]}
  - {host: odd.test, path_allowlist: [/a], auth_header: x-our-own, auth_scheme: raw, token_env: EGRESS_TOKEN_0}
  - {host: blind.test, tls: passthrough}
";

fn enforced() -> Routes {
    Routes::new(rules(ROUTES), None).unwrap()
}

fn observed() -> Routes {
    enforced().observed(Observation::until(Instant::now()))
}

fn origin(url: &str) -> (Origin, &str) {
    let (scheme, rest) = match url.split_once("://").unwrap() {
        ("http", rest) => (Scheme::Http, rest),
        (_, rest) => (Scheme::Https, rest),
    };
    let at = rest.find('/').unwrap();
    (Origin::parse(scheme, &rest[..at]).unwrap(), &rest[at..])
}

fn decide(routes: &Routes, method: &str, url: &str, kind: Kind) -> Result<Permit, Reason> {
    let (origin, path) = origin(url);
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let target = Target::new(origin, method, path, kind).unwrap();
    routes.decide(target).map_err(|denial| denial.reason)
}

#[test]
fn hosts_paths_and_methods_are_widened_without_a_credential() {
    let (observed, enforced) = (observed(), enforced());
    for (method, url) in [
        ("GET", "https://new.test/a/b?page=2"),
        ("DELETE", "http://new.test/"),
        ("GET", "https://new.test/@scope%2fname"),
        ("GET", "https://api.test/v2"),
        ("POST", "https://api.test/v1/x"),
        ("GET", "http://api.test/v1/x"),
        ("GET", "https://alt.test/"),
        ("PATCH", "https://hub.test/b"),
        ("GET", "http://blind.test/"),
    ] {
        let permit = decide(&observed, method, url, Kind::Exchange).expect(url);
        assert!(permit.is_observed(), "{url}");
        let rule = &permit.route().rule;
        assert!(rule.injection.is_none(), "{url}");
        assert!(!rule.cookies.pass(b"session"), "{url}");
        assert!(rule.decides(), "{url}");
        assert!(decide(&enforced, method, url, Kind::Exchange).is_err());
    }
    let handshake = decide(&observed, "GET", "https://new.test/", Kind::WebSocket);
    assert!(handshake.is_ok_and(|permit| permit.is_observed()));
}

#[test]
fn what_a_route_admits_is_its_own_as_before() {
    let permit = decide(&observed(), "GET", "https://api.test/v1/x", Kind::Exchange).unwrap();
    assert!(!permit.is_observed());
    assert!(permit.route().rule.injection.is_some());
}

#[test]
fn nothing_else_is_widened() {
    let credential = Reason::QueryHazard(QueryHazard::Credential);
    for (method, url, reason) in [
        ("GET", "https://new.test:8443/", Reason::Host),
        ("GET", "http://new.test:443/", Reason::Host),
        ("GET", "http://93.184.215.14/", Reason::Host),
        ("GET", "https://api.test:8443/v1/x", Reason::Port),
        ("TRACE", "https://new.test/", Reason::Method),
        ("PROPFIND", "https://new.test/", Reason::Method),
        ("TRACE", "https://api.test/v1/x", Reason::Method),
        ("GET", "https://new.test/a?access_token=x", credential),
        ("GET", "https://api.test/v2?access_token=x", credential),
        ("GET", "https://api.test/v1/x?access_token=x", credential),
        ("GET", "https://hub.test/a", Reason::Query),
        ("GET", "https://near.test/b", Reason::Path),
        ("GET", "http://near.test/", Reason::Port),
        ("GET", "https://git.corp.test/b", Reason::Path),
        ("GET", "https://odd.test/b", Reason::Path),
        ("GET", "https://blind.test/", Reason::Port),
        (
            "GET",
            "https://new.test/a/../b",
            Reason::Hazard(Hazard::DotSegment),
        ),
        (
            "GET",
            "https://api.test/v1/%2e%2e/x",
            Reason::Hazard(Hazard::DotSegment),
        ),
        (
            "POST",
            "https://api.test/v1%2Fx",
            Reason::Hazard(Hazard::EncodedSlash),
        ),
    ] {
        let decided = decide(&observed(), method, url, Kind::Exchange);
        assert_eq!(decided.err(), Some(reason), "{method} {url}");
    }
    let handshake = decide(&observed(), "GET", "https://chat.test/", Kind::WebSocket);
    assert_eq!(handshake.err(), Some(Reason::WebSocket));
}

#[test]
fn a_tunnel_is_open_where_a_request_in_it_could_be_observed() {
    let (observed, enforced) = (observed(), enforced());
    for (url, opened, by_observation) in [
        ("https://new.test/", Some(Tls::Intercept), true),
        ("https://api.test/", Some(Tls::Intercept), false),
        ("https://alt.test/", Some(Tls::Intercept), true),
        ("https://blind.test/", Some(Tls::Passthrough), false),
        ("https://new.test:8443/", None, false),
        ("https://near.test:8443/", None, false),
        ("https://[2606:4700::1111]/", None, false),
    ] {
        let (origin, _) = origin(url);
        assert_eq!(observed.admits(&origin).ok(), opened, "{url}");
        assert_eq!(observed.is_observed(&origin), by_observation, "{url}");
        assert!(!enforced.is_observed(&origin), "{url}");
    }
    let (new, _) = origin("https://new.test/");
    assert!(observed.names(&new.host) && !enforced.names(&new.host));
}

#[test]
fn it_outlasts_a_reload_and_ends_with_the_routes_alone() {
    let before = observed();
    let reloaded = Routes::new(rules("routes: []\n"), Some(&before)).unwrap();
    assert!(decide(&reloaded, "GET", "https://new.test/", Kind::Exchange).is_ok());
    let ended = before.enforcing();
    assert_eq!(ended.iter().len(), before.iter().len());
    let decided = decide(&ended, "GET", "https://new.test/", Kind::Exchange);
    assert_eq!(decided.err(), Some(Reason::Host));
    let again = Routes::new(rules(ROUTES), Some(&ended)).unwrap();
    assert!(again.observation().is_none());
}
