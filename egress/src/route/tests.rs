//! Properties of hosts, paths and targets, each against a second reading that is as plain as it can be.
//!
//! `fuzz/` asserts more of the same with inputs that coverage guides.

use http::{Request, Version};
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use proptest::sample::select;

use super::host::{Host, HostPattern};
use super::path::{EncodedSlash, PathPattern, hazard_of};
use super::target::{Kind, Origin, Scheme, Target, Via};

/// Texts that are hosts, nearly hosts, or neither.
fn host_text() -> impl Strategy<Value = String> {
    let pieces = [
        "a",
        "B",
        "api",
        "test",
        ".",
        ".",
        "-",
        "_",
        "*.",
        "1",
        "0x7f",
        "127.0.0.1",
        "[::1]",
        ":",
        "[",
        "]",
        "@",
        "%2e",
        "\u{131}",
        " ",
        "\0",
        "xn--a",
        "2001:db8::1",
    ];
    prop_oneof![
        4 => prop::collection::vec(select(pieces.to_vec()), 0..7).prop_map(|pieces| pieces.concat()),
        2 => "[a-zA-Z_]{1,3}(\\.[a-z0-9A-Z]{1,3}){0,3}",
        1 => any::<String>(),
    ]
}

fn path_text() -> impl Strategy<Value = String> {
    let pieces = [
        "/", "/", "/a", "/b", "a", "%61", "%2e", "%2E", ".", "..", "%2f", "%2F", "%5c", "\\", ";",
        "%3b", "%25", "%252e", "%00", "%c2%80", "%c0%af", "%c3%bc", "%", "%zz", "[", "~", ":",
    ];
    prop::collection::vec(select(pieces.to_vec()), 0..7)
        .prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// The segments of a path that every server reads alike, decoded once; `None` for any other.
fn segments(path: &str, encoded_slash: EncodedSlash) -> Option<Vec<Vec<u8>>> {
    let decoded = |segment: &str| {
        let mut parts = segment.split('%');
        let mut bytes = parts.next()?.as_bytes().to_vec();
        for part in parts {
            let digits = part.get(..2).filter(|digits| !digits.contains('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            bytes.extend(part.get(2..)?.bytes());
        }
        Some(bytes)
    };
    let segments: Vec<Vec<u8>> = path
        .strip_prefix('/')?
        .split('/')
        .map(decoded)
        .collect::<Option<_>>()?;
    let whole = String::from_utf8(segments.join(&b'/')).ok()?;
    let parts: Vec<&str> = whole.split('/').collect();
    let inner = parts.get(..parts.len() - 1)?;
    let cut_alike = parts.len() == segments.len() || encoded_slash == EncodedSlash::Accept;
    let plain = !whole.contains(['\\', ';']) && !whole.chars().any(char::is_control);
    let once = !whole
        .as_bytes()
        .windows(3)
        .any(|three| three[0] == b'%' && three[1..].iter().all(u8::is_ascii_hexdigit));
    let dots = parts.iter().any(|part| *part == "." || *part == "..");
    (cut_alike && plain && once && !dots && !inner.contains(&"")).then_some(segments)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn a_host_has_one_form(text in host_text()) {
        if let Ok(host) = Host::parse(&text) {
            let shown = host.to_string();
            prop_assert!(shown.eq_ignore_ascii_case(&text));
            prop_assert!(!shown.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' ' || byte >= 0x7f));
            prop_assert!(!shown.contains(['@', '%', ',']));
            prop_assert_eq!(Host::parse(&shown), Ok(host));
        }
    }

    #[test]
    fn a_pattern_covers_hosts_label_by_label(
        pattern in prop_oneof![host_text(), host_text().prop_map(|text| format!("*.{text}"))],
        host in host_text(),
    ) {
        let Ok(pattern) = pattern.parse::<HostPattern>() else { return Ok(()) };
        let shown = pattern.to_string();
        prop_assert_eq!(shown.parse::<HostPattern>(), Ok(pattern.clone()));
        let suffix = shown.strip_prefix("*.");
        let below = suffix.into_iter().flat_map(|suffix| [suffix.to_owned(), format!("a.{suffix}"), format!("a.b.{suffix}")]);
        for host in below.chain([host, shown.clone(), format!("x{shown}"), format!("{shown}.x")]) {
            let Ok(parsed) = Host::parse(&host) else { continue };
            let host = parsed.to_string();
            let labels: Vec<&str> = host.split('.').collect();
            let expected = match suffix {
                Some(suffix) => labels[1..] == suffix.split('.').collect::<Vec<_>>(),
                None => labels == shown.split('.').collect::<Vec<_>>(),
            };
            prop_assert_eq!(pattern.matches(&parsed), expected, "{} {}", shown, host);
        }
    }

    #[test]
    fn a_path_without_a_hazard_has_one_reading(path in path_text()) {
        for mode in [EncodedSlash::Refuse, EncodedSlash::Accept] {
            let read = segments(&path, mode);
            prop_assert_eq!(hazard_of(&path, mode).is_none(), read.is_some(), "{} {:?}", path, mode);
        }
    }

    #[test]
    fn a_prefix_covers_whole_segments(
        prefix in path_text(),
        path in path_text(),
        end in prop::option::of(select(vec!["", "/", "b", "bcd", "/b", "/b/c", "%2fb"])),
    ) {
        let Ok(pattern) = PathPattern::prefix(&prefix) else { return Ok(()) };
        let path = end.map_or(path, |end| format!("{prefix}{end}"));
        let cut: Vec<&str> = prefix.split('/').collect();
        let whole = if prefix.ends_with('/') { &cut[..cut.len() - 1] } else { &cut[..] };
        let parts: Vec<&str> = path.split('/').collect();
        let expected = parts.starts_with(whole) && (!prefix.ends_with('/') || parts.len() > whole.len());
        prop_assert_eq!(pattern.matches(&path), expected, "{} {}", prefix, path);
    }

    #[test]
    fn a_request_is_for_the_one_origin_that_it_names(
        via in select(vec![Via::Proxy, Via::Steered, Via::Tunnel(Origin::parse(Scheme::Https, "api.test").unwrap())]),
        version in select(vec![Version::HTTP_10, Version::HTTP_11, Version::HTTP_2]),
        scheme in select(vec!["", "http://", "https://"]),
        authority in select(vec!["", "api.test", "API.test", "api.test:443", "api.test:80", "evil.test", "u@api.test"]),
        path in prop_oneof![path_text(), Just(String::new()), Just("*".to_owned())],
        hosts in prop::collection::vec(
            select(vec!["api.test", "Api.Test", "api.test:443", "api.test:80", "evil.test", "api.test,evil.test", ""]), 0..3),
    ) {
        let mut request = Request::builder().version(version).uri(format!("{scheme}{authority}{path}"));
        for host in &hosts {
            request = request.header("host", *host);
        }
        let Ok(request) = request.body(()) else { return Ok(()) };
        let Ok(target) = Target::from_request(&request, &via, Kind::Exchange) else { return Ok(()) };
        let origin = target.origin();
        let whole = origin.to_string();
        let short = origin.authority().to_string();
        prop_assert!(hosts.len() <= 1);
        let in_uri = request.uri().authority().map(|authority| authority.as_str());
        for name in in_uri.iter().chain(&hosts) {
            let name = name.to_ascii_lowercase();
            prop_assert!(name == whole || name == short, "{} is not {}", name, whole);
        }
        prop_assert!(in_uri.is_some() || !hosts.is_empty());
        match &via {
            Via::Proxy => prop_assert_eq!(origin.scheme, Scheme::Http),
            Via::Steered => prop_assert_eq!((origin.scheme, origin.port), (Scheme::Http, 80)),
            Via::Tunnel(tunnel) => prop_assert_eq!(origin, tunnel),
        }
        prop_assert!(request.uri().path().ends_with(target.path()));
        prop_assert_eq!(Origin::parse(origin.scheme, &whole), Ok(origin.clone()));
        prop_assert_eq!(Origin::parse(origin.scheme, &short), Ok(origin.clone()));
    }
}
