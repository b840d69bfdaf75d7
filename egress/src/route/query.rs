//! Whether a query carries a credential, in whichever way its server may read it.
//!
//! Servers differ in what separates parameters, in how often and when they decode, and in how they spell names. So every
//! such reading is made, and a request is refused when one of them shows a credential. It is looked for by name alone.

use std::borrow::Cow;

use super::carriers::{folded, is_parameter};
use super::path::hex_value;

/// Why a query is refused beside an injected credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryHazard {
    /// A parameter that is named like a credential, to at least one server.
    #[error("a parameter that carries a credential")]
    Credential,
    /// `%` without two hexadecimal digits, from which servers make different things.
    #[error("a broken percent-encoding")]
    BadPercent,
    /// A name that is encoded more than once, or a value more often than anybody has reason to.
    #[error("a doubly encoded name")]
    DoubleEncoding,
    /// A control byte in a name, at which some servers end it.
    #[error("a control byte in a name")]
    Control,
    /// A name that is not UTF-8: overlong forms hide letters.
    #[error("a name that is not UTF-8")]
    NotUtf8,
}

/// As many layers of encoding as URLs inside URLs have.
const MOST_LAYERS: usize = 4;

/// The first hazard of a path and query. `own` is the name of the header that the route's credential travels in, which
/// some servers take as a parameter, too.
///
/// The path is looked into from its first `;`, `&` or encoded `?` on: a server that decodes first takes that for a query.
pub(super) fn hazard_of(path_and_query: &str, own: &str) -> Option<QueryHazard> {
    let query = path_and_query.split_once('?').map(|(_, query)| query);
    if let Some(hazard) = query.and_then(ambiguity_of) {
        return Some(hazard);
    }
    match search(path_and_query, own) {
        Search::Found(_) => Some(QueryHazard::Credential),
        Search::Nothing => None,
        Search::TooDeep => Some(QueryHazard::DoubleEncoding),
    }
}

/// The name of the first parameter that carries a credential, as it was sent or as it is read. Of its value nothing is told.
pub(super) fn carrier_in(path_and_query: &str, own: &str) -> Option<String> {
    match search(path_and_query, own) {
        Search::Found(name) => Some(name),
        Search::Nothing | Search::TooDeep => None,
    }
}

enum Search {
    Found(String),
    Nothing,
    /// Encoded once more than anybody looks.
    TooDeep,
}

/// Looks for a parameter that carries a credential, in every layer of encoding.
fn search(path_and_query: &str, own: &str) -> Search {
    // What has no separator, whether encoded or not, has no parameter.
    let may_separate = |byte| matches!(byte, b'&' | b';' | b'?' | b'%');
    if !path_and_query.bytes().any(may_separate) {
        return Search::Nothing;
    }
    let own = folded(own.as_bytes());
    let is_carrier = |name: &[u8]| {
        let name = folded(name);
        name == own || is_parameter(&name)
    };
    let carries = |name: &[u8]| {
        // `token[]` and `token[a]` are `token` to servers that make lists and maps of parameters.
        let mut parts = name.splitn(2, |&byte| byte == b'[');
        let (base, rest) = (parts.next().unwrap_or(name), parts.next());
        is_carrier(base) || (rest.is_some() && is_carrier(name))
    };
    let carries_in_any_way = |name: &[u8]| {
        carries(name) || matches!(decoded(name), Cow::Owned(decoded) if carries(&decoded))
    };
    let mut text = Cow::Borrowed(path_and_query.as_bytes());
    for _ in 0..MOST_LAYERS {
        // What stands before the first separator is the path.
        let found = parameters(&text)
            .skip(1)
            .find(|name| carries_in_any_way(name))
            .map(|name| String::from_utf8_lossy(name).into_owned());
        if let Some(name) = found {
            return Search::Found(name);
        }
        match decoded(&text) {
            Cow::Borrowed(_) => return Search::Nothing,
            Cow::Owned(next) => text = Cow::Owned(next),
        }
    }
    Search::TooDeep
}

/// The hazard of every query that has these parameters.
pub(super) fn hazard_of_conditions(
    conditions: &[(String, String)],
    own: &str,
) -> Option<QueryHazard> {
    let encoded = |text: &str| -> String {
        let bytes = text.bytes();
        bytes.map(|byte| format!("%{byte:02x}")).collect()
    };
    let pairs: Vec<String> = conditions
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    hazard_of(&format!("/?{}", pairs.join("&")), own)
}

/// What keeps names from being read in one way, in the query as it was sent.
fn ambiguity_of(query: &str) -> Option<QueryHazard> {
    let bytes = query.as_bytes();
    let broken = bytes.iter().enumerate().any(|(at, &byte)| {
        byte == b'%' && !matches!(bytes.get(at + 1..at + 3), Some(digits) if digits.iter().all(|&digit| hex_value(digit).is_some()))
    });
    if broken {
        return Some(QueryHazard::BadPercent);
    }
    parameters(bytes).find_map(|name| {
        let name = decoded(name);
        if matches!(decoded(&name), Cow::Owned(_)) {
            return Some(QueryHazard::DoubleEncoding);
        }
        if name.iter().any(u8::is_ascii_control) {
            return Some(QueryHazard::Control);
        }
        std::str::from_utf8(&name)
            .is_err()
            .then_some(QueryHazard::NotUtf8)
    })
}

/// The names of parameters, whatever a server may take for a separator: `;` as HTML 4 had it, and a second `?`.
fn parameters(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b'&' | b';' | b'?'))
        .map(|pair| pair.split(|&byte| byte == b'=').next().unwrap_or(pair))
}

/// Takes one layer of percent-encoding off; borrowed where there is none. What is broken stays.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    let mut decoded: Option<Vec<u8>> = None;
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let (byte, tail) = match rest {
            [b'%', high, low, tail @ ..]
                if let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low)) =>
            {
                let done = text.len() - rest.len();
                decoded.get_or_insert_with(|| text.get(..done).unwrap_or_default().to_vec());
                (high << 4 | low, tail)
            }
            _ => (*byte, tail),
        };
        if let Some(decoded) = &mut decoded {
            decoded.push(byte);
        }
        rest = tail;
    }
    decoded.map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{QueryHazard, hazard_of, hazard_of_conditions};
    use crate::route::carriers::parameters;

    fn hazard(query: &str) -> Option<QueryHazard> {
        hazard_of(&format!("/v1/x?{query}"), "x-our-own")
    }

    #[test]
    fn a_credential_is_seen_in_whichever_way_a_server_reads_the_query() {
        for query in [
            "access_token=x",
            "a=b&access_token=x",
            "ACCESS_TOKEN=x",
            "access-token=x",
            "accessToken=x",
            "access.token=x",
            "access+token=x",
            "access%20token=x",
            "+key=x",
            "%61ccess_token=x",
            "acce%73s%5Ftoken=x",
            "key",
            "key=",
            "key[]=x",
            "key%5B%5D=x",
            "key[a][b]=x",
            "access[token=x",
            "a=b;token=x",
            "a=b%3Btoken=x",
            "a=b%26token%3Dx",
            "a=b%2526token%253Dx",
            "a?api_key=x",
            "?key=x",
            "&&key=x",
            "a=b&amp;key=x",
            "\u{212a}ey=x",
            "%E2%84%AAey=x",
            "X-Amz-Signature=x",
            "X-OUR-OWN=x",
            "x_our_own=x",
            "next=https%3A%2F%2Fh%2F%3Fa%3Db%26key%3Dx",
            "$key=x",
        ] {
            assert_eq!(hazard(query), Some(QueryHazard::Credential), "{query}");
        }
        for path in [
            "/v1;key=x",
            "/v1/a%3Fkey=x",
            "/v1&token=1",
            "/v1/a%253Fa%2526key=x",
        ] {
            let found = hazard_of(path, "authorization");
            assert_eq!(found, Some(QueryHazard::Credential), "{path}");
        }
    }

    #[test]
    fn a_name_with_more_than_one_reading_is_refused() {
        for (query, expected) in [
            ("q=100%", QueryHazard::BadPercent),
            ("%u006bey=x", QueryHazard::BadPercent),
            ("%6key=x%", QueryHazard::BadPercent),
            ("a=%zz", QueryHazard::BadPercent),
            ("%256bey=x", QueryHazard::DoubleEncoding),
            ("a=1&%25256bey=x", QueryHazard::DoubleEncoding),
            ("a=%25252525252541", QueryHazard::DoubleEncoding),
            ("key%00x=y", QueryHazard::Control),
            ("k%0aey=y", QueryHazard::Control),
            ("%C1%ABey=x", QueryHazard::NotUtf8),
            ("%ffa=x", QueryHazard::NotUtf8),
        ] {
            assert_eq!(hazard(query), Some(expected), "{query}");
        }
    }

    #[test]
    fn conditions_that_no_request_can_meet_are_known() {
        let hazard_of = |name: &str, value: &str| {
            let conditions = [
                ("a".to_owned(), "b".to_owned()),
                (name.to_owned(), value.to_owned()),
            ];
            hazard_of_conditions(&conditions, "x-our-own")
        };
        for (name, value) in [
            ("token", "a"),
            ("Access-Token", "a"),
            ("key", ""),
            ("x_our_own", "a"),
            ("next", "https://h/?token=a"),
        ] {
            assert_eq!(hazard_of(name, value), Some(QueryHazard::Credential));
        }
        for (name, value) in [
            ("service", "git-upload-pack"),
            ("q", "100%"),
            ("q", "what is a token?"),
            ("n\u{e4}me", "\u{e4}"),
            ("page_token", "a&b"),
        ] {
            assert_eq!(hazard_of(name, value), None, "{name} {value}");
        }
    }

    #[test]
    fn what_is_no_credential_passes() {
        for query in [
            "",
            "a",
            "&",
            "=",
            "=key",
            "q=key",
            "q=access_token",
            "q=access_token%3Dx",
            "q=a%26b",
            "q=100%25",
            "q=what+is+a+token?",
            "page_token=x",
            "next_token=x&pageToken=y",
            "keys=x",
            "keyword=x",
            "monkey=x",
            "token_type=x",
            "sort_key=x",
            "author=x",
            "filter[token]=x",
            "state=open&per_page=100",
            "service=git-upload-pack",
            "alt=sse",
            "code=x&state=y",
            "next=https%3A%2F%2Fh%2Fp%3Fq%3Da%2520b%26n%3D1",
            "q=na\u{ef}ve",
            "n%C3%A4me=x",
            "q=%ff",
            "a=%2525",
        ] {
            assert_eq!(hazard(query), None, "{query}");
        }
        for path in [
            "/",
            "/key",
            "/v1/token",
            "/key=x",
            "/a=b/token=x",
            "/%",
            "/v1/%zz?a=b",
        ] {
            assert_eq!(hazard_of(path, "authorization"), None, "{path}");
        }
    }

    proptest! {
        /// However a name's letters are encoded and cased, and whatever stands around it.
        #[test]
        fn no_spelling_hides_a_name(
            name in proptest::sample::select(parameters()),
            ways in proptest::collection::vec(0..4_u8, 24),
            separators in proptest::collection::vec(proptest::sample::select(vec!["&", ";", "?", "%26", "%3b"]), 1..3),
            before in "[a-z=+]{0,6}",
            value in "[a-zA-Z0-9=+/]{0,8}",
        ) {
            let mut spelt = String::new();
            for (letter, way) in name.chars().zip(ways) {
                match way {
                    0 => spelt.push(letter),
                    1 => spelt.push(letter.to_ascii_uppercase()),
                    2 => spelt.push_str(&format!("%{:02x}", letter as u32)),
                    _ => { spelt.push('_'); spelt.push(letter); }
                }
            }
            let query = format!("{before}{}{spelt}={value}", separators.concat());
            prop_assert_eq!(hazard(&query), Some(QueryHazard::Credential), "{}", query);
        }

        #[test]
        fn no_query_panics(query in ".*") {
            let _ = hazard(&query);
        }
    }
}
