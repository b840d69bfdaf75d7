//! Content codings: which are asked for where an answer is to be read, and which one an answer has. Pure.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue};

use super::{brotli, gzip, zstd};

/// A coding that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// The bytes as they are.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

/// A coding that cannot be read, or more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer's content coding is none that can be read, or is more than one")]
pub struct Unreadable;

impl Coding {
    /// The coding of an answer (RFC 9110, section 8.4).
    ///
    /// # Errors
    ///
    /// [`Unreadable`] for all that is not one of them alone or nothing.
    pub fn of(headers: &HeaderMap) -> Result<Self, Unreadable> {
        let mut coding = Self::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in value.to_str().map_err(|_| Unreadable)?.split(',') {
                let name = name.trim();
                if name.is_empty() {
                    continue;
                }
                match (coding, Self::named(name).ok_or(Unreadable)?) {
                    (_, Self::Identity) => {}
                    (Self::Identity, named) => coding = named,
                    _ => return Err(Unreadable),
                }
            }
        }
        Ok(coding)
    }

    fn named(name: &str) -> Option<Self> {
        [
            ("identity", Self::Identity),
            ("gzip", Self::Gzip),
            ("x-gzip", Self::Gzip),
            ("br", Self::Brotli),
            ("zstd", Self::Zstd),
        ]
        .into_iter()
        .find_map(|(known, coding)| known.eq_ignore_ascii_case(name).then_some(coding))
    }

    /// The most memory that reading it takes, in bytes.
    pub fn cost(self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Gzip => gzip::MOST,
            Self::Brotli => brotli::MOST,
            Self::Zstd => zstd::MOST,
        }
    }
}

/// What a request's `Accept-Encoding` admits that can be read.
pub fn asked(headers: &HeaderMap) -> impl Iterator<Item = Coding> {
    items(headers).filter_map(|item| item.admits.then_some(item.coding))
}

/// Takes from a request's `Accept-Encoding` what could not be read in the answer (RFC 9110, section 12.5.3), or would cost
/// more bytes of memory than `most`.
pub fn ask_for_readable(headers: &mut HeaderMap, most: usize) {
    if !headers.contains_key(ACCEPT_ENCODING) {
        // Servers send no coding then.
        return;
    }
    let left: Vec<_> = items(headers)
        .filter(|item| item.coding.cost() <= most)
        .collect();
    let wanted = if left.iter().any(|item| item.admits) {
        left.iter()
            .map(|item| item.text)
            .collect::<Vec<_>>()
            .join(", ")
    } else {
        "identity".to_owned()
    };
    let wanted = HeaderValue::from_str(&wanted);
    let identity = HeaderValue::from_static("identity");
    headers.insert(ACCEPT_ENCODING, wanted.unwrap_or(identity));
}

struct Item<'a> {
    text: &'a str,
    coding: Coding,
    /// Not by a weight of 0.
    admits: bool,
}

fn items(headers: &HeaderMap) -> impl Iterator<Item = Item<'_>> {
    let values = headers.get_all(ACCEPT_ENCODING).into_iter();
    let texts = values.flat_map(|value| value.to_str().unwrap_or_default().split(','));
    texts.filter_map(|text| {
        let text = text.trim();
        let (name, weight) = text.split_once(';').unwrap_or((text, ""));
        Some(Item {
            text,
            coding: Coding::named(name.trim())?,
            admits: !is_zero(weight),
        })
    })
}

/// `q=0`, `q=0.000` and the like.
fn is_zero(weight: &str) -> bool {
    let weight = weight.trim().to_ascii_lowercase();
    weight
        .strip_prefix("q=")
        .is_some_and(|value| value.trim().bytes().all(|byte| matches!(byte, b'0' | b'.')))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderName, HeaderValue};

    use super::{Coding, Unreadable, ask_for_readable, asked};

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_what_can_be_read_is_asked_for() {
        for (asked, expected) in [
            (&["gzip, deflate, br, zstd"][..], &["gzip, br, zstd"][..]),
            (
                &["BR;q=1.0, GZIP;q=0.8, *;q=0.1"],
                &["BR;q=1.0, GZIP;q=0.8"],
            ),
            (
                &["zstd", "x-gzip ; q=0.5, identity;q=0"],
                &["zstd, x-gzip ; q=0.5, identity;q=0"],
            ),
            (&["deflate, dcb"], &["identity"]),
            (&["*"], &["identity"]),
            (&["identity;q=0"], &["identity"]),
            (&["gzip;q=0.000, identity;q=0.0, deflate"], &["identity"]),
            (&["gzip;q=0, identity"], &["gzip;q=0, identity"]),
            (&["identity"], &["identity"]),
            (&["gzipped, xgzip, brotli"], &["identity"]),
            (&[""], &["identity"]),
            (&[], &[]),
        ] {
            let mut headers = headers(ACCEPT_ENCODING, asked);
            ask_for_readable(&mut headers, usize::MAX);
            let left: Vec<_> = headers.get_all(ACCEPT_ENCODING).iter().collect();
            assert_eq!(left, expected, "{asked:?}");
        }
    }

    #[test]
    fn what_costs_too_much_is_not_asked_for() {
        let all = "gzip, br, zstd, deflate";
        for (most, expected) in [
            (Coding::Brotli.cost(), "gzip, br, zstd"),
            (Coding::Zstd.cost(), "gzip, zstd"),
            (Coding::Gzip.cost(), "gzip"),
            (0, "identity"),
        ] {
            let mut headers = headers(ACCEPT_ENCODING, &[all]);
            ask_for_readable(&mut headers, most);
            assert_eq!(headers[ACCEPT_ENCODING], expected);
        }
    }

    #[test]
    fn a_weight_of_nothing_asks_for_nothing() {
        let headers = headers(ACCEPT_ENCODING, &["br;q=0, zstd;q=0.1", "deflate"]);
        assert_eq!(asked(&headers).collect::<Vec<_>>(), [Coding::Zstd]);
    }

    #[test]
    fn an_answer_has_one_coding_or_is_unreadable() {
        for (values, expected) in [
            (&[][..], Ok(Coding::Identity)),
            (&["", "identity"], Ok(Coding::Identity)),
            (&["gzip"], Ok(Coding::Gzip)),
            (&["identity, X-GZIP"], Ok(Coding::Gzip)),
            (&["br"], Ok(Coding::Brotli)),
            (&["", "Zstd"], Ok(Coding::Zstd)),
            (&["br, br"], Err(Unreadable)),
            (&["dcb"], Err(Unreadable)),
            (&["deflate"], Err(Unreadable)),
            (&["gzip, gzip"], Err(Unreadable)),
            (&["gzip", "br"], Err(Unreadable)),
            (&["aws-chunked"], Err(Unreadable)),
            (&["gzip;q=1"], Err(Unreadable)),
        ] {
            assert_eq!(
                Coding::of(&headers(CONTENT_ENCODING, values)),
                expected,
                "{values:?}"
            );
        }
    }
}
