//! What may pass between an agent and an upstream beside the injected credential: cookies, credentials in a query, the
//! credential's echo, and WebSocket extensions.

use std::fmt;
use std::str::FromStr;

use http::header::{AUTHORIZATION, HeaderName};

use super::Rule;
use super::query::{self, QueryHazard};
use super::target::Target;

/// Which cookies go through, both ways.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cookies {
    /// All of them, untouched.
    All,
    /// Those of these names, and no other.
    Named(Vec<CookieName>),
}

impl Cookies {
    /// What holds where a route says nothing. An agent's cookies do not belong beside an identity that is not the agent's,
    /// nor an identity's with the agent.
    pub fn usual(injects: bool) -> Self {
        if injects {
            Self::Named(Vec::new())
        } else {
            Self::All
        }
    }

    /// Whether the cookie of a name goes through. Names are compared with their case (RFC 6265, section 5.3, step 11).
    pub fn pass(&self, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|known| known.0.as_bytes() == name),
        }
    }
}

/// A cookie's name: a token (RFC 6265, section 4.1.1; RFC 9110, section 5.6.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CookieName(Box<str>);

impl FromStr for CookieName {
    type Err = InvalidCookieName;

    fn from_str(text: &str) -> Result<Self, InvalidCookieName> {
        match text.bytes().find(|byte| !is_token_byte(*byte)) {
            None if text.is_empty() => Err(InvalidCookieName::Empty),
            None => Ok(Self(text.into())),
            Some(_) => Err(InvalidCookieName::Byte),
        }
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no cookie's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCookieName {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// A byte that no token has.
    #[error("it has a character that no cookie's name can have")]
    Byte,
}

/// Whether a byte may stand in a token (RFC 9110, section 5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What becomes of a request whose query has a parameter that carries a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueryCredentials {
    /// It is refused.
    Deny,
    /// It goes out as it is.
    Allow,
}

impl QueryCredentials {
    /// What holds where a route says nothing: two identities on one request are refused.
    pub fn usual(injects: bool) -> Self {
        if injects { Self::Deny } else { Self::Allow }
    }
}

/// What becomes of the injected credential where an answer says it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Redact {
    /// It is masked.
    Mask,
    /// It reaches the agent.
    Pass,
}

impl Redact {
    /// What holds where a route says nothing: there is something to mask only where something is injected.
    pub fn usual(injects: bool) -> Self {
        if injects { Self::Mask } else { Self::Pass }
    }
}

impl Rule {
    /// What speaks against a target's query, where the route lets no credential through in it.
    pub(super) fn query_hazard(&self, target: &Target) -> Option<QueryHazard> {
        match self.query_credentials {
            QueryCredentials::Allow => None,
            QueryCredentials::Deny => {
                query::hazard_of(target.path_and_query().as_str(), self.own_header())
            }
        }
    }

    /// The name of a target's parameter that carries a credential, for the operator.
    pub fn query_carrier(&self, target: &Target) -> Option<String> {
        query::carrier_in(target.path_and_query().as_str(), self.own_header())
    }

    /// What speaks against every query that meets the route's own conditions, so that it admits no request.
    pub fn condition_hazard(&self) -> Option<QueryHazard> {
        match self.query_credentials {
            QueryCredentials::Allow => None,
            QueryCredentials::Deny => query::hazard_of_conditions(&self.query, self.own_header()),
        }
    }

    fn own_header(&self) -> &str {
        let header = self.injection.as_ref().map(|injection| &injection.header);
        header.map_or(AUTHORIZATION.as_str(), HeaderName::as_str)
    }

    /// What the route gives up of that which guards the credential that it injects, as its keys say it.
    pub fn waived(&self) -> impl Iterator<Item = &'static str> + use<> {
        let injects = self.injection.is_some();
        let query = (self.query_credentials == QueryCredentials::Allow)
            .then_some("query_credentials: allow");
        let redact = (self.redact == Redact::Pass).then_some("redact: false");
        query.into_iter().chain(redact).filter(move |_| injects)
    }
}

/// What becomes of a WebSocket's offer of extensions (RFC 6455, section 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extensions {
    /// It goes upstream, and what was negotiated is in force.
    Pass,
    /// It is taken off the handshake, so that every frame's payload is plain.
    Drop,
}

#[cfg(test)]
mod tests {
    use super::{CookieName, Cookies, InvalidCookieName};

    #[test]
    fn a_cookies_name_is_a_token() {
        for good in ["__cf_bm", "__Host-id", "a", "a.b|c~d!#$%&'*+-^_`", "1"] {
            assert_eq!(good.parse::<CookieName>().unwrap().to_string(), good);
        }
        assert_eq!("".parse::<CookieName>(), Err(InvalidCookieName::Empty));
        for bad in [
            "a b", " a", "a=", "a;", "a,b", "\"a\"", "a\0", "a\t", "\u{e9}", "a/b", "(a)", "a:b",
            "a@b", "a[]", "{a}", "<a>", "a?", "a\\b", "a\u{7f}",
        ] {
            let read = bad.parse::<CookieName>();
            assert_eq!(read, Err(InvalidCookieName::Byte), "{bad:?}");
        }
    }

    #[test]
    fn a_cookie_passes_by_its_exact_name() {
        let named = Cookies::Named(vec!["__cf_bm".parse().unwrap()]);
        for (name, passes) in [
            (&b"__cf_bm"[..], true),
            (b"__CF_BM", false),
            (b"__cf_bm ", false),
            (b"__cf_bmx", false),
            (b"__cf_b", false),
            (b"", false),
        ] {
            assert_eq!(named.pass(name), passes, "{name:?}");
        }
        assert!(!Cookies::usual(true).pass(b"a"));
        assert!(Cookies::usual(false).pass(b"a"));
    }
}
