//! Fingerprints of credentials: which of them a request carried, without a word of what it is.

use aws_lc_rs::hmac;

use super::Secret;

/// The salt of an audit file. With it the same credential has the same fingerprint in all rows, and another one in every
/// other file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(pub [u8; 32]);

impl Salt {
    /// HMAC-SHA-256 of the credential (RFC 2104), of which 12 hexadecimal digits are kept: enough to tell credentials apart,
    /// and not enough to confirm a guess among many.
    pub fn fingerprint(&self, secret: &Secret) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let tag = hmac::sign(&key, secret.expose().as_bytes());
        let kept = tag.as_ref().iter().take(6);
        kept.map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::Salt;

    #[test]
    fn a_fingerprint_tells_credentials_apart_and_is_another_in_each_file() {
        let [here, elsewhere] = [Salt([1; 32]), Salt([2; 32])];
        let secret = Secret::new("sk-one");
        let print = here.fingerprint(&secret);
        assert_eq!(print.len(), 12);
        assert_eq!(print, here.fingerprint(&Secret::new("sk-one")));
        assert_ne!(print, here.fingerprint(&Secret::new("sk-two")));
        assert_ne!(print, elsewhere.fingerprint(&secret));
    }
}
