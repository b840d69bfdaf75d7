//! A URL split at its borders and not touched otherwise.
//!
//! A URL library would resolve dot segments, lower case and encode bytes; the question is what happens to the bytes
//! that a client sends, so none of them may change.

use super::target::{InvalidTarget, Kind, Origin, Scheme};

/// A URL's parts.
#[derive(Debug)]
pub struct Url {
    /// Where it goes.
    pub origin: Origin,
    /// What `ws` and `wss` say by themselves.
    pub kind: Kind,
    /// The path and query as given; `/` where the URL ends before them.
    pub path_and_query: String,
}

impl Url {
    /// Splits a text at a URL's borders.
    ///
    /// # Errors
    ///
    /// [`InvalidUrl`] for what is no absolute URL of one of the four schemes, and for a part that is never sent.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidUrl::NoScheme)?;
        let (scheme, kind) = match scheme {
            "https" => (Scheme::Https, Kind::Exchange),
            "http" => (Scheme::Http, Kind::Exchange),
            "wss" => (Scheme::Https, Kind::WebSocket),
            "ws" => (Scheme::Http, Kind::WebSocket),
            _ => return Err(InvalidUrl::Scheme),
        };
        if rest.contains('#') {
            return Err(InvalidUrl::Fragment);
        }
        let border = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(border);
        if authority.contains('@') {
            return Err(InvalidUrl::Target(InvalidTarget::UserInfo));
        }
        let path_and_query = match tail.starts_with('/') {
            true => tail.to_owned(),
            false => format!("/{tail}"),
        };
        Ok(Self {
            origin: Origin::parse(scheme, authority)?,
            kind,
            path_and_query,
        })
    }
}

/// Why a text is no URL that can be decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// `api.test/v1`.
    #[error("a URL begins with `https://` or `http://`")]
    NoScheme,
    /// `ftp://`, `HTTPS://`.
    #[error("the URL's scheme is none of https, http, wss, ws")]
    Scheme,
    /// Clients keep the fragment to themselves.
    #[error("a URL's fragment is never sent; leave `#` and what follows out")]
    Fragment,
    /// What the data path says to such an authority.
    #[error(transparent)]
    Target(#[from] InvalidTarget),
}

#[cfg(test)]
mod tests {
    use super::{InvalidUrl, Url};
    use crate::route::host::InvalidHost;
    use crate::route::target::InvalidTarget;

    #[test]
    fn what_clients_and_servers_read_apart_is_refused() {
        for (text, expected) in [
            ("api.test/v1", InvalidUrl::NoScheme),
            ("https:/api.test", InvalidUrl::NoScheme),
            ("ftp://api.test/", InvalidUrl::Scheme),
            ("HTTPS://api.test/", InvalidUrl::Scheme),
            ("https://api.test/a#b", InvalidUrl::Fragment),
            (
                "https://u@api.test/",
                InvalidUrl::Target(InvalidTarget::UserInfo),
            ),
            (
                "https://api.test:0/",
                InvalidUrl::Target(InvalidTarget::Port),
            ),
            (
                "https:///v1",
                InvalidUrl::Target(InvalidTarget::Host(InvalidHost::Empty)),
            ),
            (
                "https://api.test./",
                InvalidUrl::Target(InvalidTarget::Host(InvalidHost::TrailingDot)),
            ),
            (
                "https://api.test\\@evil.test/",
                InvalidUrl::Target(InvalidTarget::UserInfo),
            ),
            (
                "https://127.1/",
                InvalidUrl::Target(InvalidTarget::Host(InvalidHost::Address)),
            ),
        ] {
            assert_eq!(Url::parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn the_bytes_of_the_path_are_kept() {
        for (text, path) in [
            ("https://api.test", "/"),
            ("https://api.test?a=b", "/?a=b"),
            ("https://api.test/a/../b//%2e?x=%zz", "/a/../b//%2e?x=%zz"),
            ("https://api.test/@a:b", "/@a:b"),
        ] {
            assert_eq!(Url::parse(text).unwrap().path_and_query, path);
        }
    }
}
