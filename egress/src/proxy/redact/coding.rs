//! Content codings: which are asked for where an answer is to be read, and which one an answer has. Pure.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, RANGE};

/// A coding that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// The bytes as they are.
    Identity,
    /// RFC 1952.
    Gzip,
}

/// A coding that cannot be read, or more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer's content coding is not gzip alone")]
pub struct Unreadable;

impl Coding {
    /// The coding of an answer (RFC 9110, section 8.4).
    ///
    /// # Errors
    ///
    /// [`Unreadable`] for all that is not gzip alone or nothing.
    pub fn of(headers: &HeaderMap) -> Result<Self, Unreadable> {
        let mut coding = Self::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in value.to_str().map_err(|_| Unreadable)?.split(',') {
                let name = name.trim();
                if name.is_empty() || name.eq_ignore_ascii_case("identity") {
                    continue;
                }
                if coding != Self::Identity || !is_gzip(name) {
                    return Err(Unreadable);
                }
                coding = Self::Gzip;
            }
        }
        Ok(coding)
    }
}

/// Takes from a request's `Accept-Encoding` what could not be read in the answer (RFC 9110, section 12.5.3). A range of a
/// compressed answer cannot be read either.
pub fn ask_for_readable(headers: &mut HeaderMap) {
    let wanted = readable(headers);
    if headers.contains_key(RANGE) || wanted.as_ref().is_some_and(HeaderValue::is_empty) {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    } else if let Some(wanted) = wanted {
        headers.insert(ACCEPT_ENCODING, wanted);
    }
}

/// The items that remain; empty where they admit nothing. `None` without the header: servers send no coding then.
fn readable(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut items = Vec::new();
    let mut admits = false;
    for value in headers.get_all(ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or_default().split(',') {
            let item = item.trim();
            let (name, weight) = item.split_once(';').unwrap_or((item, ""));
            if is_gzip(name.trim()) || name.trim().eq_ignore_ascii_case("identity") {
                admits |= !is_zero(weight);
                items.push(item);
            }
        }
    }
    let has_any = headers.contains_key(ACCEPT_ENCODING);
    let wanted = if admits {
        items.join(", ")
    } else {
        String::new()
    };
    has_any.then(|| HeaderValue::from_str(&wanted).unwrap_or_else(|_| HeaderValue::from_static("")))
}

fn is_gzip(name: &str) -> bool {
    name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip")
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
    use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderName, HeaderValue, RANGE};

    use super::{Coding, Unreadable, ask_for_readable};

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
            (&["gzip, deflate, br, zstd"][..], &["gzip"][..]),
            (&["br;q=1.0, GZIP;q=0.8, *;q=0.1"], &["GZIP;q=0.8"]),
            (
                &["br", "x-gzip ; q=0.5, identity;q=0"],
                &["x-gzip ; q=0.5, identity;q=0"],
            ),
            (&["br, zstd"], &["identity"]),
            (&["*"], &["identity"]),
            (&["identity;q=0"], &["identity"]),
            (&["gzip;q=0.000, identity;q=0.0, br"], &["identity"]),
            (&["gzip;q=0, identity"], &["gzip;q=0, identity"]),
            (&["identity"], &["identity"]),
            (&["gzipped, xgzip"], &["identity"]),
            (&[""], &["identity"]),
            (&[], &[]),
        ] {
            let mut headers = headers(ACCEPT_ENCODING, asked);
            ask_for_readable(&mut headers);
            let left: Vec<_> = headers.get_all(ACCEPT_ENCODING).iter().collect();
            assert_eq!(left, expected, "{asked:?}");
        }
    }

    #[test]
    fn a_range_is_asked_for_as_it_is() {
        for asked in [&["gzip"][..], &[]] {
            let mut headers = headers(ACCEPT_ENCODING, asked);
            headers.insert(RANGE, HeaderValue::from_static("bytes=5-"));
            ask_for_readable(&mut headers);
            assert_eq!(headers[ACCEPT_ENCODING], "identity");
        }
    }

    #[test]
    fn an_answer_has_one_coding_or_is_unreadable() {
        for (values, expected) in [
            (&[][..], Ok(Coding::Identity)),
            (&["", "identity"], Ok(Coding::Identity)),
            (&["gzip"], Ok(Coding::Gzip)),
            (&["identity, X-GZIP"], Ok(Coding::Gzip)),
            (&["br"], Err(Unreadable)),
            (&["zstd"], Err(Unreadable)),
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
