//! What a browser on the operator's machine may not ask for in another site's name, by the head of a request. Pure.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, HeaderName, ORIGIN};

/// Whether a request names this machine. Any port does: it may come by way of a forwarded one. A name that somebody's name
/// server leads to loopback does not (DNS rebinding).
pub fn is_here(headers: &HeaderMap) -> bool {
    let Some(host) = only(headers, &HOST) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let inside = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let address: Option<IpAddr> = match inside {
        Some(inside) => inside.parse().ok().filter(IpAddr::is_ipv6),
        None => name.parse().ok().filter(IpAddr::is_ipv4),
    };
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}

/// Whether a page in a browser asks, or has one ask. No page has a business with the admin socket, and the programs that do
/// say neither of these (Fetch Metadata Request Headers, section 2.3; RFC 6454, section 7).
pub(super) fn is_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get(SEC_FETCH_SITE);
    headers.contains_key(ORIGIN) || site.is_some_and(|site| site != "none")
}

/// How a browser says on whose behalf it asks.
pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The value of a header that is there once.
pub fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
pub(crate) mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{is_a_page, is_here};

    /// Fields as a head has them.
    pub(crate) fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        fields.collect()
    }

    #[test]
    fn a_name_that_somebody_leads_here_is_not_this_machine() {
        for host in [
            "evil.test:8090",
            "evil.test",
            "localhost.evil.test:8090",
            "localhost@evil.test",
            "127.0.0.1.evil.test",
            "10.0.0.1:8090",
            "0.0.0.0:8090",
            "2130706433",
            "[::]:8090",
            "[127.0.0.1]",
            "::1",
            "localhost:80:90:x",
            "",
        ] {
            assert!(!is_here(&headers(&[("host", host)])), "{host}");
        }
        assert!(!is_here(&headers(&[])));
        let mut two = headers(&[("host", "localhost")]);
        two.append("host", HeaderValue::from_static("localhost"));
        assert!(!is_here(&two));
        for host in [
            "localhost",
            "LocalHost:8090",
            "127.0.0.1:1",
            "127.0.0.9",
            "[::1]:8090",
            "[::1]",
        ] {
            assert!(is_here(&headers(&[("host", host)])), "{host}");
        }
    }

    #[test]
    fn a_page_is_told_from_a_program() {
        for field in [
            ("origin", "http://localhost:1"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-origin"),
        ] {
            assert!(is_a_page(&headers(&[field])), "{field:?}");
        }
        for fields in [&[][..], &[("sec-fetch-site", "none")]] {
            assert!(!is_a_page(&headers(fields)), "{fields:?}");
        }
    }
}
