//! What a request asks for, read from each form in which it can come, and refused where two parts of it differ.

use http::{Request, Version};

use super::{InvalidTarget, Kind, Origin, Scheme, Target, Via};
use crate::route::host::InvalidHost;

fn origin(text: &str) -> Origin {
    Origin::parse(Scheme::Https, text).unwrap()
}

fn h1(target: &str, hosts: &[&str]) -> Result<Target, InvalidTarget> {
    let mut request = Request::builder().uri(target);
    for host in hosts {
        request = request.header("host", *host);
    }
    Target::from_request(
        &request.body(()).unwrap(),
        &Via::Tunnel(origin("api.test")),
        Kind::Exchange,
    )
}

fn h2(uri: &str, hosts: &[&str]) -> Result<Target, InvalidTarget> {
    let mut request = Request::builder().version(Version::HTTP_2).uri(uri);
    for host in hosts {
        request = request.header("host", *host);
    }
    Target::from_request(
        &request.body(()).unwrap(),
        &Via::Tunnel(origin("api.test")),
        Kind::Exchange,
    )
}

fn outer(uri: &str, hosts: &[&str]) -> Result<Target, InvalidTarget> {
    let mut request = Request::builder().uri(uri);
    for host in hosts {
        request = request.header("host", *host);
    }
    Target::from_request(&request.body(()).unwrap(), &Via::Proxy, Kind::Exchange)
}

#[test]
fn what_is_plainly_an_origin_is_what_the_parser_makes_of_it() {
    let texts = [
        "api.test",
        "api.test:443",
        "api.test:8443",
        "api.test:0443",
        "api.test:",
        "api.test:+443",
        "API.test",
        "api.test.",
        "api.test.evil",
        "api.test@evil",
        "xapi.test",
        "api.tes",
        "",
        ":443",
    ];
    for tunnel in [origin("api.test"), origin("api.test:8443")] {
        let is_plain = |text: &str| tunnel.is_written(text);
        let is_parsed = |text: &str| Origin::parse(Scheme::Https, text) == Ok(tunnel.clone());
        assert!(texts.iter().all(|text| !is_plain(text) || is_parsed(text)));
        assert_eq!(
            texts.iter().filter(|text| is_plain(text)).count(),
            if tunnel.port == 443 { 2 } else { 1 }
        );
    }
}

#[test]
fn a_request_in_a_tunnel_cannot_name_another_host() {
    for host in [
        "evil.test",
        "api.test:8443",
        "xapi.test",
        "api.test.evil",
        "127.0.0.1",
    ] {
        assert_eq!(
            h1("/", &[host]).unwrap_err(),
            InvalidTarget::Misdirected,
            "{host}"
        );
        assert_eq!(
            h2(&format!("https://{host}/"), &[]).unwrap_err(),
            InvalidTarget::Misdirected,
            "{host}"
        );
    }
}

#[test]
fn a_request_must_name_exactly_one_host() {
    assert_eq!(h1("/", &[]).unwrap_err(), InvalidTarget::NoHost);
    assert_eq!(
        h1("/", &["api.test", "api.test"]).unwrap_err(),
        InvalidTarget::TwoHosts
    );
    assert_eq!(
        h1("/", &["u@api.test"]).unwrap_err(),
        InvalidTarget::UserInfo
    );
    assert_eq!(
        h1("/", &["api.test, evil.test"]).unwrap_err(),
        InvalidTarget::Host(InvalidHost::Byte)
    );
    assert_eq!(
        h1("/", &["api.test."]).unwrap_err(),
        InvalidTarget::Host(InvalidHost::TrailingDot)
    );
    assert_eq!(
        h1("/", &[""]).unwrap_err(),
        InvalidTarget::Host(InvalidHost::Empty)
    );
    assert_eq!(h1("/", &["api.test:"]).unwrap_err(), InvalidTarget::Port);
    assert_eq!(
        h1("/", &["api.test:0443"]).unwrap_err(),
        InvalidTarget::Port
    );
    assert_eq!(
        h1("/", &["api.test:65979"]).unwrap_err(),
        InvalidTarget::Port
    );
    assert_eq!(
        h1("https://api.test/", &["api.test"]).unwrap_err(),
        InvalidTarget::Form
    );
    assert_eq!(h1("*", &["api.test"]).unwrap_err(), InvalidTarget::Form);
    assert_eq!(
        h1("api.test:443", &["api.test"]).unwrap_err(),
        InvalidTarget::Form
    );
    assert_eq!(h2("/", &["api.test"]).unwrap_err(), InvalidTarget::Form);
    assert_eq!(
        h2("http://api.test/", &[]).unwrap_err(),
        InvalidTarget::Form
    );
    assert_eq!(
        h2("https://api.test/", &["evil.test"]).unwrap_err(),
        InvalidTarget::TwoHosts
    );
    for path in ["/\u{e4}", "/a?\u{e4}"] {
        assert_eq!(
            h2(&format!("https://api.test{path}"), &[]).unwrap_err(),
            InvalidTarget::Byte
        );
    }
    assert_eq!(
        h2("https://u:p@api.test/", &[]).unwrap_err(),
        InvalidTarget::UserInfo
    );
}

#[test]
fn the_tunnels_own_host_is_taken_in_each_spelling() {
    for host in ["api.test", "API.test", "api.test:443"] {
        assert_eq!(h1("/a?b", &[host]).unwrap().path_and_query(), "/a?b");
    }
    assert_eq!(
        h2("https://API.test/a", &["api.test:443"]).unwrap().path(),
        "/a"
    );
}

#[test]
fn the_outer_proxy_takes_absolute_http_only() {
    assert_eq!(
        outer("/", &["plain.test"]).unwrap_err(),
        InvalidTarget::Form
    );
    assert_eq!(
        outer("https://plain.test/", &["plain.test"]).unwrap_err(),
        InvalidTarget::Form
    );
    assert_eq!(
        outer("ftp://plain.test/", &["plain.test"]).unwrap_err(),
        InvalidTarget::Form
    );
    assert_eq!(
        outer("http://plain.test/", &["evil.test"]).unwrap_err(),
        InvalidTarget::TwoHosts
    );
    assert_eq!(
        outer("http://plain.test/", &[]).unwrap_err(),
        InvalidTarget::NoHost
    );
    let target = outer("http://Plain.test:8080/x", &["plain.test:8080"]).unwrap();
    assert_eq!(target.origin().to_string(), "plain.test:8080");
    assert_eq!(target.origin().authority().to_string(), "plain.test:8080");
}

#[test]
fn a_steered_request_is_for_the_one_host_that_it_names() {
    let steered = |uri: &str, hosts: &[&str]| {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let request = request.body(()).unwrap();
        Target::from_request(&request, &Via::Steered, Kind::Exchange)
    };
    let two: &[&str] = &["plain.test", "plain.test"];
    for (uri, hosts, expected) in [
        ("/", &[][..], InvalidTarget::NoHost),
        ("/", two, InvalidTarget::TwoHosts),
        ("/", &["u@plain.test"], InvalidTarget::UserInfo),
        ("/", &["plain.test:8080"], InvalidTarget::Misdirected),
        ("/", &["plain.test:443"], InvalidTarget::Misdirected),
        ("/", &["plain.test:080"], InvalidTarget::Port),
        (
            "http://evil.test/",
            &["plain.test"],
            InvalidTarget::TwoHosts,
        ),
        (
            "http://plain.test:81/",
            &["plain.test"],
            InvalidTarget::TwoHosts,
        ),
        (
            "http://u@plain.test/",
            &["plain.test"],
            InvalidTarget::UserInfo,
        ),
        ("http://plain.test/", &[], InvalidTarget::NoHost),
        ("https://plain.test/", &["plain.test"], InvalidTarget::Form),
        ("plain.test:80", &["plain.test"], InvalidTarget::Form),
        ("*", &["plain.test"], InvalidTarget::Form),
    ] {
        assert_eq!(
            steered(uri, hosts).unwrap_err(),
            expected,
            "{uri} {hosts:?}"
        );
    }
    for (uri, host) in [
        ("/x?y", "plain.test"),
        ("/x?y", "Plain.test:80"),
        ("http://PLAIN.test/x?y", "plain.test"),
        ("http://plain.test:80/x?y", "plain.test"),
    ] {
        let target = steered(uri, &[host]).unwrap();
        assert_eq!(target.origin().to_string(), "plain.test:80");
        assert_eq!(target.path_and_query(), "/x?y");
    }
}

#[test]
fn ports_and_addresses_parse() {
    assert_eq!(origin("api.test").port, 443);
    assert_eq!(
        origin("[2001:db8::1]:8443").to_string(),
        "[2001:db8::1]:8443"
    );
    assert_eq!(origin("[2001:db8::1]").port, 443);
    for bad in [
        "api.test:0",
        "api.test:+1",
        "api.test:1:2",
        "api.test: 1",
        ":443",
    ] {
        assert!(Origin::parse(Scheme::Https, bad).is_err(), "{bad}");
    }
}
