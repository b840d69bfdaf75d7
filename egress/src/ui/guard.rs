//! Who may read the page, by the head of a request. Pure.
//!
//! A browser of the operator's also shows other sites, an agent's own server on another port of loopback among them. None of
//! these may read the page or press its buttons, by whatever name they have loopback called.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method};

use crate::admin::guard::{SEC_FETCH_SITE, only};
use crate::admin::ticket;

/// Whether the page itself asks, or the operator by its address. What changes something has to say so.
pub(super) fn is_own(method: &Method, headers: &HeaderMap) -> bool {
    let site = match headers.contains_key(SEC_FETCH_SITE) {
        true => only(headers, &SEC_FETCH_SITE),
        // Browsers say it since 2023 at the latest (Fetch Metadata Request Headers, section 2.3), and programs do not.
        false => Some("none"),
    };
    if *method == Method::GET {
        return matches!(site, Some("same-origin" | "none"));
    }
    let origin = only(headers, &ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
    matches!(site, Some("same-origin" | "none"))
        && origin.is_some()
        && origin == only(headers, &HOST)
}

/// The ticket in an address.
pub(super) fn ticket(query: Option<&str>) -> Option<&str> {
    query?.strip_prefix(ticket::QUERY)
}

/// The values of cookies with this name. Other servers of loopback may have set one, too.
pub(super) fn passes<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let fields = headers.get_all(COOKIE).iter();
    let cookies = fields.filter_map(|field| field.to_str().ok());
    let cookies = cookies.flat_map(|field| field.split(';'));
    cookies.filter_map(move |cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Has the browser run and load what is the page's own, show it in no other, and keep none of it.
pub(super) fn harden(headers: &mut HeaderMap) {
    let fields = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-embedder-policy"),
            "require-corp",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fields {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::{is_own, passes, ticket};
    use crate::admin::guard::tests::headers;

    #[test]
    fn another_site_reads_nothing_and_presses_no_button() {
        let own = ("origin", "http://localhost:1");
        let host = ("host", "localhost:1");
        for fields in [
            &[host, own, ("sec-fetch-site", "same-site")][..],
            &[host, own, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, ("origin", "http://localhost:2")],
            &[host, ("origin", "https://localhost:1")],
            &[host, ("origin", "null")],
            &[host],
        ] {
            assert!(!is_own(&Method::POST, &headers(fields)), "{fields:?}");
        }
        for site in ["same-site", "cross-site", "?"] {
            let fields = headers(&[host, ("sec-fetch-site", site)]);
            assert!(!is_own(&Method::GET, &fields), "{site}");
        }
        assert!(is_own(&Method::POST, &headers(&[host, own])));
        let same = ("sec-fetch-site", "same-origin");
        assert!(is_own(&Method::POST, &headers(&[host, own, same])));
        assert!(is_own(&Method::GET, &headers(&[host, same])));
        let typed = ("sec-fetch-site", "none");
        assert!(is_own(&Method::GET, &headers(&[host, typed])));
    }

    #[test]
    fn a_pass_is_found_among_the_cookies_of_others() {
        let mut fields = headers(&[("cookie", "egress-1=other; egress-12=; x=egress-1=no")]);
        fields.append("cookie", HeaderValue::from_static("egress-1=own"));
        let found: Vec<_> = passes(&fields, "egress-1").collect();
        assert_eq!(found, ["other", "own"]);
        assert_eq!(ticket(Some("token=x")), Some("x"));
        assert_eq!(ticket(Some("other=x")), None);
    }
}
