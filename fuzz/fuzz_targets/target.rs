//! Targets: a request is for one origin, in canonical form, and the bytes that are decided on are those that came.
//!
//! Input, in lines: `o` (the proxy's port), `s` (steered), `t` or `p` (a tunnel, or a plain one), then `0`, `1` or `2`
//! for the version, and the tunnel's origin; the request target; each Host field.

#![no_main]

use egress::route::target::{Kind, Origin, Scheme, Target, Via};
use egress_fuzz::assert_host_text;
use http::{HeaderValue, Method, Request, Uri, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|&byte| byte == b'\n');
    let (Some([via, version, tunnel @ ..]), Some(text)) = (lines.next(), lines.next()) else {
        return;
    };
    let hosts: Vec<&[u8]> = lines.collect();
    let Ok(tunnel) = std::str::from_utf8(tunnel) else {
        return;
    };
    for scheme in [Scheme::Http, Scheme::Https] {
        if let Ok(origin) = Origin::parse(scheme, tunnel) {
            check_origin(&origin);
        }
    }
    let scheme = if *via == b'p' {
        Scheme::Http
    } else {
        Scheme::Https
    };
    let via = match via {
        b'o' => Via::Proxy,
        b's' => Via::Steered,
        _ => match Origin::parse(scheme, tunnel) {
            Ok(origin) => Via::Tunnel(origin),
            Err(_) => return,
        },
    };
    let Ok(uri) = Uri::try_from(text) else {
        return;
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri;
    *request.version_mut() = match version {
        b'0' => Version::HTTP_10,
        b'2' => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    for host in &hosts {
        let Ok(value) = HeaderValue::from_bytes(host) else {
            return;
        };
        request.headers_mut().append("host", value);
    }
    let Ok(target) = Target::from_request(&request, &via, Kind::Exchange) else {
        return;
    };

    let origin = target.origin();
    check_origin(origin);
    match &via {
        Via::Proxy => assert_eq!(origin.scheme, Scheme::Http),
        Via::Steered => assert_eq!((origin.scheme, origin.port), (Scheme::Http, 80)),
        Via::Tunnel(tunnel) => assert_eq!(origin, tunnel),
    }
    // Whatever named a host named this one, and there were no two of a kind.
    assert!(hosts.len() <= 1, "{} Host fields", hosts.len());
    // The fragment is cut off before a decision, by the library that reads the URI, whatever bytes are in it.
    let text = text.split(|&byte| byte == b'#').next().unwrap_or_default();
    let text = std::str::from_utf8(text).expect("the rest is text");
    let (authority, rest) = split(text);
    let host = hosts
        .first()
        .map(|host| std::str::from_utf8(host).expect("ASCII"));
    let named: Vec<&str> = authority.into_iter().chain(host).collect();
    assert!(!named.is_empty(), "a request that names nothing");
    for name in named {
        assert_names(name, origin);
    }
    let sent = target.path_and_query().as_str();
    let root = authority.is_some() && (rest.is_empty() || rest.starts_with('?'));
    let expected = if root {
        format!("/{rest}")
    } else {
        rest.to_owned()
    };
    assert_eq!(sent, expected, "{text}");
    assert!(sent.starts_with('/'));
    assert!(
        sent.bytes()
            .all(|byte| byte > b' ' && byte != 0x7f && byte != b'#')
    );
    let again =
        Target::new(origin.clone(), Method::GET, sent, Kind::Exchange).expect("its own path");
    assert_eq!(
        (again.path(), again.query()),
        (target.path(), target.query())
    );
});

/// An authority and what follows it, by the letters of RFC 3986, section 3.
fn split(uri: &str) -> (Option<&str>, &str) {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return (None, uri);
    };
    // `://` in a path or a query separates nothing.
    if scheme.contains(['/', '?']) {
        return (None, uri);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    (rest.get(..end), rest.get(end..).unwrap_or_default())
}

fn assert_names(name: &str, origin: &Origin) {
    let name = name.to_ascii_lowercase();
    let host = origin.host.to_string();
    let whole = format!("{host}:{}", origin.port);
    let short = origin.port == origin.scheme.default_port() && name == host;
    assert!(name == whole || short, "{name} is not {whole}");
}

fn check_origin(origin: &Origin) {
    assert_ne!(origin.port, 0);
    assert_host_text(&origin.host.to_string());
    let printed = [origin.to_string(), origin.authority().to_string()];
    for text in &printed {
        assert_eq!(
            Origin::parse(origin.scheme, text).as_ref(),
            Ok(origin),
            "{text}"
        );
        assert!(!text.contains('@'));
    }
}
