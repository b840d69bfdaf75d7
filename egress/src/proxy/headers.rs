//! What is taken off a request, what is put on it, and what is taken off an answer. Pure.
//!
//! [`strip`] runs on every request, with or without a credential to insert, and always before [`inject`].

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, TE, TRANSFER_ENCODING,
};
use zeroize::Zeroizing;

use super::body::Trailers;
use super::cookies;
use super::gate::fault::Fault;
use super::reject::{Cause, Reject, X_EGRESS_ERROR};
use crate::credential::Secret;
use crate::route::passing::Cookies;
use crate::route::{AuthScheme, Injection, carriers};

/// The headers that most clients carry their credentials in. [`strip`] removes all that [`carriers`] knows.
pub const CREDENTIALS: [HeaderName; 6] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("private-token"),
];

/// Whether a header speaks to the next hop only (RFC 9110, section 7.6.1).
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a client could have a server read another host, path, method or peer with a header than the ones decided on.
fn is_override(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "forwarded"
                | "x-original-url"
                | "x-original-host"
                | "x-rewrite-url"
                | "x-http-method"
                | "x-http-method-override"
                | "x-method-override"
        )
}

/// Checks what can be wrong with a request's headers as such.
///
/// # Errors
///
/// [`Cause::HeaderName`] for a name with an underscore, which many servers read as a hyphen, so that `x_api_key` would
/// pass a filter for `x-api-key`; [`Cause::Expectation`] for an `Expect` with anything but `100-continue`;
/// [`Cause::Framing`] for more than `most` fields.
pub fn check(headers: &HeaderMap, most: usize) -> Result<(), Reject> {
    // HTTP/1 heads were counted by the gate; HTTP/2 bounds their bytes alone.
    if headers.len() > most {
        return Err(Reject::new(Cause::Framing(Fault::TooManyFields)));
    }
    if headers.keys().any(|name| name.as_str().contains('_')) {
        return Err(Reject::new(Cause::HeaderName));
    }
    let mut expectations = headers.get_all(EXPECT).iter();
    if expectations.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Reject::new(Cause::Expectation));
    }
    Ok(())
}

/// Removes everything that must not go upstream as the agent wrote it.
pub fn strip(headers: &mut HeaderMap, injection: Option<&Injection>, cookies: &Cookies) {
    // Before anything is inserted: an agent could nominate `authorization`, and have the injected one removed.
    remove_nominated(headers);
    let trailers_wanted = headers
        .get(TE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let own = injection.map(|injection| injection.header.as_str());
    remove_all(headers, |name| {
        is_hop_by_hop(name)
            || is_override(name)
            // The body is asked for as soon as the upstream takes it; hyper sends the agent its 100 then. And the host is
            // written anew.
            || matches!(name, "expect" | "host")
            || carriers::is_header(name)
            || own.is_some_and(|own| carriers::is_same(name, own))
    });
    keep_protocols(headers);
    cookies::keep_sent(headers, cookies);
    if trailers_wanted {
        // The one value of TE that HTTP/2 knows (RFC 9113, section 8.2.2), and that gRPC demands.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes every header with a name of a kind, and returns how many names that were.
pub fn remove_all(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) -> usize {
    let names = headers.keys().filter(|name| is_unwanted(name.as_str()));
    let names: Vec<HeaderName> = names.cloned().collect();
    for name in &names {
        headers.remove(name);
    }
    names.len()
}

/// Takes credentials off a WebSocket's offer of protocols, and the offer itself where nothing else is in it.
fn keep_protocols(headers: &mut HeaderMap) {
    let mut is_value = false;
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut whole = true;
    for item in items(headers, &SEC_WEBSOCKET_PROTOCOL) {
        let announces = carriers::announces(item);
        if is_value || announces || carriers::is_within(item) {
            whole = false;
        } else {
            kept.push(item);
        }
        // A name that comes where a value was awaited is one all the same.
        is_value = announces;
    }
    if whole {
        return;
    }
    match HeaderValue::from_bytes(&kept.join(&b", "[..])) {
        Ok(value) if !kept.is_empty() => headers.insert(SEC_WEBSOCKET_PROTOCOL, value),
        _ => headers.remove(SEC_WEBSOCKET_PROTOCOL),
    };
}

/// Puts the credential on the request. This is the one place that exposes a secret.
///
/// # Errors
///
/// [`Cause::NoCredential`] for a value that no header takes; slots are checked when they are read, so none is left.
pub fn inject(
    headers: &mut HeaderMap,
    injection: &Injection,
    secret: &Secret,
) -> Result<(), Reject> {
    let token = secret.expose();
    let text = match &injection.scheme {
        AuthScheme::Bearer => Zeroizing::new(format!("Bearer {token}")),
        AuthScheme::Token => Zeroizing::new(format!("token {token}")),
        AuthScheme::Raw => Zeroizing::new(token.to_owned()),
        AuthScheme::Basic { user } => Zeroizing::new(format!("Basic {}", *secret.basic(user))),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| Reject::new(Cause::NoCredential))?;
    // Keeps it out of HPACK's tables, and out of Debug.
    value.set_sensitive(true);
    headers.insert(injection.header.clone(), value);
    Ok(())
}

/// Refuses an answer in a transfer coding beside `chunked` (RFC 9112, section 7): nobody asked for one, and nothing says any more
/// that there is one once the answer has gone on.
///
/// # Errors
///
/// [`Cause::UpstreamCoding`].
pub fn check_answer(headers: &HeaderMap) -> Result<(), Reject> {
    if items(headers, &TRANSFER_ENCODING).all(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        return Ok(());
    }
    Err(Reject::new(Cause::UpstreamCoding).because("a transfer coding that was not asked for"))
}

/// Removes from an answer what speaks to the next hop, what only we may say, and cookies that are not for the agent. Returns which trailers may follow.
pub fn strip_answer(headers: &mut HeaderMap, cookies: &Cookies) -> Trailers {
    remove_nominated(headers);
    remove_all(headers, |name| {
        is_hop_by_hop(name)
            // It would send the agent to another port or protocol, which no route of this tunnel covers.
            || matches!(name, "alt-svc" | "proxy-authenticate")
            || X_EGRESS_ERROR == *name
    });
    cookies::keep_set(headers, cookies);
    if is_grpc(headers) {
        Trailers::Grpc
    } else {
        Trailers::Drop
    }
}

/// Whether a message is one of gRPC's, by its type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Removes the headers that `Connection` nominates (RFC 9110, section 7.6.1).
fn remove_nominated(headers: &mut HeaderMap) {
    let named = items(headers, &CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok());
    for name in named.collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// The items of a list in all fields of a name. An item beyond ASCII, which a value may hold, hides none beside it.
pub fn items<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let values = headers.get_all(name).iter();
    values
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{check, inject, strip, strip_answer};
    use crate::credential::Secret;
    use crate::proxy::body::Trailers;
    use crate::proxy::gate::fault::Fault;
    use crate::proxy::reject::Cause;
    use crate::route::passing::Cookies;
    use crate::route::{AuthScheme, Injection};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    fn injection(header: &'static str, scheme: AuthScheme) -> Injection {
        Injection {
            header: HeaderName::from_static(header),
            scheme,
            slot: "EGRESS_TOKEN_0".parse().unwrap(),
        }
    }

    #[test]
    fn credentials_go_also_where_nothing_is_injected() {
        let mut map = headers(&[
            ("authorization", "Bearer a"),
            ("authorization", "Bearer b"),
            ("proxy-authorization", "Basic a"),
            ("x-api-key", "a"),
            ("x-goog-api-key", "a"),
            ("api-key", "a"),
            ("private-token", "a"),
            ("cookie", "a=b"),
            ("accept", "*/*"),
        ]);
        strip(&mut map, None, &Cookies::All);
        assert_eq!(map, headers(&[("cookie", "a=b"), ("accept", "*/*")]));
    }

    #[test]
    fn credentials_of_other_names_and_spellings_go_and_what_looks_like_them_stays() {
        let mut map = headers(&[
            ("x-vault-token", "a"),
            ("ocp-apim-subscription-key", "a"),
            ("x.api.key", "a"),
            ("x.our.own", "a"),
            ("xourown", "a"),
            ("idempotency-key", "k"),
            ("sec-websocket-key", "k"),
            ("x-csrf-token", "k"),
        ]);
        let kept = headers(&[
            ("idempotency-key", "k"),
            ("sec-websocket-key", "k"),
            ("x-csrf-token", "k"),
        ]);
        let injection = injection("x-our-own", AuthScheme::Raw);
        strip(&mut map, Some(&injection), &Cookies::usual(true));
        assert_eq!(map, kept);
    }

    #[test]
    fn a_websockets_offer_loses_the_credentials_in_it() {
        let name = "sec-websocket-protocol";
        for (offers, left) in [
            (&["v1,v2 , v3"][..], &["v1,v2 , v3"][..]),
            (
                &["realtime, openai-insecure-api-key.sk-x, openai-beta.realtime-v1"],
                &["realtime, openai-beta.realtime-v1"],
            ),
            (&["base64url.bearer.authorization.k8s.io.eA"], &[]),
            (&["v1", "token, sk-x", "v2"], &["v1, v2"]),
            (&["token", "bearer, x, v2"], &["v2"]),
        ] {
            let mut map = headers(
                &offers
                    .iter()
                    .map(|offer| (name, *offer))
                    .collect::<Vec<_>>(),
            );
            strip(&mut map, None, &Cookies::All);
            let expected: Vec<_> = left.iter().map(|offer| (name, *offer)).collect();
            assert_eq!(map, headers(&expected), "{offers:?}");
        }
    }

    #[test]
    fn a_nominated_header_cannot_take_the_injected_one_away() {
        let mut map = headers(&[
            ("connection", "authorization, x-secret , close"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("authorization", "Bearer agent"),
        ]);
        let injection = injection("authorization", AuthScheme::Bearer);
        strip(&mut map, Some(&injection), &Cookies::usual(true));
        inject(&mut map, &injection, &Secret::new("real")).unwrap();
        assert_eq!(map, headers(&[("authorization", "Bearer real")]));
        assert!(map["authorization"].is_sensitive());
    }

    #[test]
    fn an_item_beyond_ascii_hides_no_nomination_beside_it() {
        let mut map = headers(&[("x-mine", "1"), ("accept", "*/*")]);
        let connection = HeaderValue::from_bytes(b"\xc3\xa9, x-mine").unwrap();
        map.insert("connection", connection);
        strip(&mut map, None, &Cookies::All);
        assert_eq!(map, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn overrides_and_hop_by_hop_headers_go() {
        let mut map = headers(&[
            ("x-forwarded-for", "a"),
            ("x-forwarded-anything", "a"),
            ("forwarded", "a"),
            ("x-original-url", "/a"),
            ("x-rewrite-url", "/a"),
            ("x-http-method-override", "DELETE"),
            ("x-method-override", "DELETE"),
            ("upgrade", "h2c"),
            ("http2-settings", "a"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("proxy-connection", "keep-alive"),
            ("expect", "100-continue"),
            ("host", "api.test"),
        ]);
        strip(&mut map, None, &Cookies::All);
        assert!(map.is_empty(), "{map:?}");
    }

    #[test]
    fn split_cookies_become_one_field() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        strip(&mut map, None, &Cookies::All);
        assert_eq!(map, headers(&[("cookie", "a=1; b=2; c=3")]));
    }

    #[test]
    fn grpcs_te_is_written_anew() {
        let mut map = headers(&[("te", "trailers")]);
        strip(&mut map, None, &Cookies::All);
        assert_eq!(map, headers(&[("te", "trailers")]));
    }

    #[test]
    fn cookies_and_the_routes_own_header_go_where_something_is_injected() {
        let mut map = headers(&[("x-auth", "a"), ("x-auth", "b"), ("cookie", "a=b")]);
        let injection = injection("x-auth", AuthScheme::Raw);
        strip(&mut map, Some(&injection), &Cookies::usual(true));
        inject(&mut map, &injection, &Secret::new("real")).unwrap();
        assert_eq!(map, headers(&[("x-auth", "real")]));
    }

    #[test]
    fn each_scheme_has_its_form() {
        for (scheme, expected) in [
            (AuthScheme::Bearer, "Bearer real"),
            (AuthScheme::Token, "token real"),
            (AuthScheme::Raw, "real"),
            (
                AuthScheme::Basic {
                    user: "x-access-token".into(),
                },
                "Basic eC1hY2Nlc3MtdG9rZW46cmVhbA==",
            ),
        ] {
            let mut map = HeaderMap::new();
            inject(
                &mut map,
                &injection("authorization", scheme),
                &Secret::new("real"),
            )
            .unwrap();
            assert_eq!(map["authorization"], expected);
        }
    }

    #[test]
    fn underscores_and_strange_expectations_are_refused() {
        let cause = |pairs: &[(&'static str, &'static str)]| {
            check(&headers(pairs), 100).map_err(|reject| reject.cause())
        };
        assert_eq!(cause(&[("x_api_key", "a")]), Err(Cause::HeaderName));
        assert_eq!(cause(&[("expect", "200-ok")]), Err(Cause::Expectation));
        assert_eq!(
            cause(&[("expect", "100-continue"), ("expect", "x")]),
            Err(Cause::Expectation)
        );
        assert_eq!(
            cause(&[("expect", "100-Continue"), ("x-api-key", "a")]),
            Ok(())
        );
    }

    #[test]
    fn more_fields_than_the_cap_are_refused() {
        let mut map = HeaderMap::new();
        for _ in 0..100 {
            map.append("a", HeaderValue::from_static("1"));
        }
        assert!(check(&map, 100).is_ok());
        map.append("b", HeaderValue::from_static("1"));
        let refused = check(&map, 100).map_err(|reject| reject.cause());
        assert_eq!(refused, Err(Cause::Framing(Fault::TooManyFields)));
    }

    #[test]
    fn an_upstream_cannot_speak_for_us() {
        let mut map = headers(&[
            ("x-egress-error", "host_not_allowed"),
            ("connection", "x-internal"),
            ("x-internal", "1"),
            ("alt-svc", "h3=\":443\""),
            ("content-type", "application/grpc+proto"),
        ]);
        assert_eq!(strip_answer(&mut map, &Cookies::All), Trailers::Grpc);
        assert_eq!(map, headers(&[("content-type", "application/grpc+proto")]));
        assert_eq!(
            strip_answer(
                &mut headers(&[("content-type", "text/html")]),
                &Cookies::All
            ),
            Trailers::Drop
        );
    }
}
