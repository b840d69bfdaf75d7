//! Targets: a request is for one origin, in canonical form, and the bytes that are decided on are those that came.

#![no_main]

use arbitrary::Arbitrary;
use egress::route::target::{Kind, Origin, Scheme, Target, Via};
use egress_fuzz::assert_host_text;
use http::{HeaderValue, Method, Request, Uri, Version};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    via: Entrance,
    version: Protocol,
    tunnel: &'a str,
    uri: &'a [u8],
    hosts: Vec<&'a [u8]>,
}

#[derive(Arbitrary, Debug)]
enum Entrance {
    Proxy,
    Steered,
    Tunnel,
    PlainTunnel,
}

#[derive(Arbitrary, Debug)]
enum Protocol {
    Http10,
    Http11,
    Http2,
}

fuzz_target!(|input: Input<'_>| {
    for scheme in [Scheme::Http, Scheme::Https] {
        if let Ok(origin) = Origin::parse(scheme, input.tunnel) {
            check_origin(&origin);
        }
    }
    let tunnel = |scheme| Origin::parse(scheme, input.tunnel).map(Via::Tunnel);
    let via = match input.via {
        Entrance::Proxy => Via::Proxy,
        Entrance::Steered => Via::Steered,
        Entrance::Tunnel => match tunnel(Scheme::Https) {
            Ok(via) => via,
            Err(_) => return,
        },
        Entrance::PlainTunnel => match tunnel(Scheme::Http) {
            Ok(via) => via,
            Err(_) => return,
        },
    };
    let Ok(uri) = Uri::try_from(input.uri) else {
        return;
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri;
    *request.version_mut() = match input.version {
        Protocol::Http10 => Version::HTTP_10,
        Protocol::Http11 => Version::HTTP_11,
        Protocol::Http2 => Version::HTTP_2,
    };
    for host in &input.hosts {
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
    assert!(input.hosts.len() <= 1, "{} Host fields", input.hosts.len());
    // The fragment is cut off before a decision, by the library that reads the URI, whatever bytes are in it.
    let text = input
        .uri
        .split(|&byte| byte == b'#')
        .next()
        .unwrap_or_default();
    let text = std::str::from_utf8(text).expect("the rest is text");
    let (authority, rest) = split(text);
    let host = input
        .hosts
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
