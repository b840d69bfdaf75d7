//! [`Secret`]: text that is wiped when it is dropped, and that nothing prints by accident.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

/// A credential's text: no `Display`, no `Serialize`, a redacted `Debug`, wiped on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<Box<str>>);

impl Secret {
    /// Takes the text over. The caller sees to it that no other copy stays behind.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself: for the one place that makes the header, for the line that hands a sidecar its slots, and for
    /// what must look inside (a JWT's expiry).
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What `Basic` makes of it and a user (RFC 7617, section 2), without the scheme's word.
    pub fn basic(&self, user: &str) -> Zeroizing<String> {
        let pair = Zeroizing::new(format!("{user}:{}", self.expose()));
        Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()))
    }
}

impl PartialEq for Secret {
    /// Compares in constant time for texts of one length.
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq as _;
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_does_not_show_the_text() {
        let shown = format!(
            "{:?} {:#?}",
            Secret::new("s3cr3t"),
            Some(Secret::new("s3cr3t"))
        );
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }

    #[test]
    fn texts_compare_by_value() {
        assert_eq!(Secret::new("a"), Secret::new("a"));
        assert_ne!(Secret::new("a"), Secret::new("b"));
        assert_ne!(Secret::new("a"), Secret::new("ab"));
    }
}
