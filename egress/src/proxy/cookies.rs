//! Which cookies go through, in requests and in answers. Pure.
//!
//! On a route that names cookies, a request's are read and written anew, so that an upstream finds no other cookie in them
//! however it reads quotes, commas and blanks. An answer's pass as they are or not at all.

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};

use crate::route::passing::Cookies;

/// The second try at cookies (RFC 2965), which nothing sends and some servers read: `Cookie2` and `Set-Cookie2`.
const COOKIE2: HeaderName = HeaderName::from_static("cookie2");
const SET_COOKIE2: HeaderName = HeaderName::from_static("set-cookie2");

/// Leaves of a request's cookies those that may go upstream, in one field.
///
/// HTTP/2 lets a client split its cookies over several fields, which an HTTP/1.1 server must not see (RFC 9113, section
/// 8.2.3).
pub fn keep_sent(headers: &mut HeaderMap, cookies: &Cookies) {
    let fields: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let joined = match (cookies, fields.len()) {
        (_, 0) => None,
        (Cookies::All, 1) => return,
        (Cookies::All, _) => Some(fields.join(&b"; "[..])),
        (Cookies::Named(_), _) => {
            let pairs = passing(&fields, cookies);
            (!pairs.is_empty()).then(|| pairs.join(&b"; "[..]))
        }
    };
    if matches!(cookies, Cookies::Named(_)) {
        headers.remove(COOKIE2);
    }
    match joined.and_then(|joined| HeaderValue::from_bytes(&joined).ok()) {
        Some(value) => _ = headers.insert(COOKIE, value),
        None => _ = headers.remove(COOKIE),
    }
}

/// Leaves of the cookies that an answer sets those that may reach the agent.
pub fn keep_set(headers: &mut HeaderMap, cookies: &Cookies) {
    if *cookies == Cookies::All {
        return;
    }
    // It sets several at once, and none that a client of today would keep.
    headers.remove(SET_COOKIE2);
    let kept: Vec<HeaderValue> = headers
        .get_all(SET_COOKIE)
        .iter()
        .filter(|value| sets_one(value.as_bytes(), cookies))
        .cloned()
        .collect();
    headers.remove(SET_COOKIE);
    for value in kept {
        headers.append(SET_COOKIE, value);
    }
}

/// The `name=value` pairs of Cookie fields (RFC 6265, section 4.2.1) that may pass and that every server reads alike.
fn passing<'h>(fields: &[&'h [u8]], cookies: &Cookies) -> Vec<&'h [u8]> {
    let named: Vec<(&[u8], &[u8])> = fields
        .iter()
        .flat_map(|field| field.split(|&byte| byte == b';'))
        .filter_map(|pair| {
            let pair = pair.trim_ascii();
            // Without a `=` it is a name to some servers, and a value to others.
            let (name, value) = split_at(pair, b'=')?;
            // The name is compared as it stands. One with a blank behind it is no name here, and might be one upstream.
            (cookies.pass(name) && is_plain(value)).then_some((name, pair))
        })
        .collect();
    // Of several equal names some servers take the first, and some the last.
    let alone = |name: &[u8]| named.iter().filter(|(known, _)| *known == name).count() == 1;
    let kept = named.iter().filter(|(name, _)| alone(name));
    kept.map(|(_, pair)| *pair).collect()
}

/// Whether a value consists of `cookie-octet`s alone, in quotation marks or not (RFC 6265, section 4.1.1).
///
/// Within quotation marks that stand elsewhere some servers read on over the next `;`, a `,` separates cookies to others
/// (RFC 2109, section 4.4), and a control byte ends the value to a few.
fn is_plain(value: &[u8]) -> bool {
    let inner = match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    };
    inner
        .iter()
        .all(|byte| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e))
}

/// Whether a Set-Cookie sets one cookie that may pass, and no other beside it.
fn sets_one(value: &[u8], cookies: &Cookies) -> bool {
    let pair = value.split(|&byte| byte == b';').next().unwrap_or_default();
    // A client cuts blanks off (RFC 6265, section 5.2). A cookie without a name is one to some clients.
    let Some((name, _)) = split_at(pair, b'=') else {
        return false;
    };
    // Fields that something on the way has joined by commas, which must not be done (RFC 6265, section 3). The comma of a
    // date has no `=` behind it.
    let joined = value
        .split(|&byte| byte == b',')
        .skip(1)
        .filter_map(|rest| rest.split(|&byte| byte == b';').next())
        .any(|pair| pair.contains(&b'='));
    cookies.pass(name.trim_ascii()) && !joined
}

fn split_at(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == separator)?;
    let (before, after) = text.split_at_checked(at)?;
    Some((before, after.get(1..)?))
}

#[cfg(test)]
mod tests {
    use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::{keep_sent, keep_set};
    use crate::route::passing::Cookies;

    fn named(names: &[&str]) -> Cookies {
        Cookies::Named(names.iter().map(|name| name.parse().unwrap()).collect())
    }

    fn map(name: &'static str, values: &[&[u8]]) -> HeaderMap {
        let name = HeaderName::from_static(name);
        let values = values
            .iter()
            .map(|value| HeaderValue::from_bytes(value).unwrap());
        values.fold(HeaderMap::new(), |mut map, value| {
            map.append(&name, value);
            map
        })
    }

    /// What is left of Cookie fields where `a`, `b` and `__Host-c` are named.
    fn sent(fields: &[&[u8]]) -> Option<String> {
        let mut headers = map("cookie", fields);
        keep_sent(&mut headers, &named(&["a", "b", "__Host-c"]));
        let kept: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert!(kept.len() <= 1, "{kept:?}");
        kept.first().map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn what_is_not_named_or_not_plain_is_left_out() {
        for field in [
            &b""[..],
            b";",
            b";;; ;",
            b"x=1",
            b"A=1",
            b"aa=1",
            b"a",
            b"=a",
            b"=a=1",
            b"a =1",
            b"a\t=1",
            b"\"a\"=1",
            b"__host-c=1",
            b"$a=1",
            b"a=\"1",
            b"a=1\"",
            b"a=\"",
            b"a=\"1\"2\"",
            b"a=\"x; x=1\"",
            b"a=1,x=2",
            b"a=1, x=2",
            b"a=1 x=2",
            b"a=\\\"",
            b"a=\xc3\xa4",
            b"a=1\t2",
            b"a=1; a=2",
            b"a=1; x=3; a=1",
            b"x=\"; a",
        ] {
            assert_eq!(sent(&[field]), None, "{:?}", String::from_utf8_lossy(field));
        }
        assert_eq!(sent(&[b"a=1", b"a=2"]), None);
    }

    #[test]
    fn what_is_named_and_plain_is_written_anew() {
        for (field, kept) in [
            (&b"a=1"[..], "a=1"),
            (b"x=1; a=1; y=2", "a=1"),
            (b"x=1;a=1;b=2;y=3", "a=1; b=2"),
            (b"  a=1  ;\tb=2\t", "a=1; b=2"),
            (b"a=", "a="),
            (b"a=\"1\"", "a=\"1\""),
            (b"a=\"\"", "a=\"\""),
            (b"a=b=c==", "a=b=c=="),
            (b"a=x:y/z?[1](2)<3>@{4}|~", "a=x:y/z?[1](2)<3>@{4}|~"),
            (b"__Host-c=1; c=2", "__Host-c=1"),
            (b"a=1; a=2; b=3", "b=3"),
            (b"x=\"1; a=2; y=\"", "a=2"),
            (b"$Version=1; a=1; $Path=/", "a=1"),
            (b";a=1;;", "a=1"),
        ] {
            let shown = String::from_utf8_lossy(field);
            assert_eq!(sent(&[field]).as_deref(), Some(kept), "{shown}");
        }
        let split = sent(&[b"a=1", b"x=1; b=2", b"__Host-c=3"]);
        assert_eq!(split.as_deref(), Some("a=1; b=2; __Host-c=3"));
    }

    #[test]
    fn the_second_kind_of_cookies_goes() {
        let mut headers = map("cookie2", &[b"$Version=1"]);
        keep_sent(&mut headers, &named(&["a"]));
        assert!(headers.is_empty());
        let mut headers = map("set-cookie2", &[b"a=1; Version=1"]);
        keep_set(&mut headers, &named(&["a"]));
        assert!(headers.is_empty());
    }

    #[test]
    fn all_cookies_pass_untouched_where_none_is_named() {
        let mut headers = map("cookie", &[b"a=\"1, x", b"b"]);
        keep_sent(&mut headers, &Cookies::All);
        assert_eq!(headers, map("cookie", &[b"a=\"1, x; b"]));
        let mut headers = map("set-cookie", &[b"a=1, b=2", b"c"]);
        keep_set(&mut headers, &Cookies::All);
        assert_eq!(headers, map("set-cookie", &[b"a=1, b=2", b"c"]));
    }

    #[test]
    fn an_answer_sets_the_named_cookies_and_no_other() {
        for (value, passes) in [
            (&b"a=1"[..], true),
            (b"a=1; Path=/; HttpOnly; Secure; SameSite=None", true),
            (
                b"a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0",
                true,
            ),
            (b"a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/", true),
            (b"a =1", true),
            (b" a=1", true),
            (b"a=\"1 \xff\"", true),
            (b"__Host-c=1; Secure; Path=/", true),
            (b"A=1", false),
            (b"aa=1", false),
            (b"session=1; a=1", false),
            (b"session=1", false),
            (b"a", false),
            (b"a; b=1", false),
            (b"=a=1", false),
            (b"", false),
            (b";a=1", false),
            (b"a=1; Path=/, session=1", false),
            (b"a=1,session=2", false),
            (
                b"a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT, session=1; Path=/",
                false,
            ),
        ] {
            let mut headers = map("set-cookie", &[value, b"session=2", value]);
            keep_set(&mut headers, &named(&["a", "b", "__Host-c"]));
            let kept = if passes { &[value, value][..] } else { &[] };
            let shown = String::from_utf8_lossy(value);
            assert_eq!(headers, map("set-cookie", kept), "{shown}");
        }
    }

    proptest! {
        /// Whatever is sent, a server that reads it by RFC 6265, by quotes or by commas finds the named cookies alone.
        #[test]
        fn no_other_cookie_is_in_what_goes_out(
            fields in proptest::collection::vec("[ab_cx=;,\" \t\\\\]{0,24}", 0..4),
        ) {
            let fields: Vec<&[u8]> = fields.iter().map(|field| field.trim().as_bytes()).collect();
            if let Some(kept) = sent(&fields) {
                prop_assert!(!kept.contains([',', ' ', '\t', '\\']) || kept.contains("; "));
                for pair in kept.split("; ") {
                    prop_assert!(pair.starts_with("a=") || pair.starts_with("b="), "{}", kept);
                    prop_assert!(!pair.contains([';', ',', ' ', '\t', '\\']), "{}", kept);
                    prop_assert!(pair.matches('"').count() % 2 == 0, "{}", kept);
                }
            }
        }
    }
}
