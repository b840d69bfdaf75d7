//! When a JSON Web Token ends (RFC 7519, section 4.1.4).
//!
//! Only the payload is read. The signature is not ours to check: whoever takes the token checks it, and we want no more
//! than to refuse a dead one early. Pure: the clock is passed in, and nothing of a token enters an error.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

/// Reads the `exp` of a token: three segments, of which the second is a JSON object in base64url, padded or not.
///
/// # Errors
///
/// [`NoExpiry`] says which of the three it was: no JWT at all, a JWT without `exp`, or one whose `exp` is no time.
pub fn expiry(token: &str) -> Result<Expiry, NoExpiry> {
    let payload = payload(token).ok_or(NoExpiry::NotAJwt)?;
    let mut json = serde_json::Deserializer::from_slice(&payload);
    let exp = json
        .deserialize_map(ExpVisitor)
        .map_err(|_| NoExpiry::NotAJwt)?;
    json.end().map_err(|_| NoExpiry::NotAJwt)?;
    match exp {
        Exp::Absent => Err(NoExpiry::NoExp),
        Exp::Twice => Err(NoExpiry::OddExp),
        Exp::Once(value) => Expiry::from_json(&value).ok_or(NoExpiry::OddExp),
    }
}

/// The decoded payload of a token, wiped on drop; `None` where the token has not the shape of a JWT.
pub(crate) fn payload(token: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut segments = token.split('.');
    let (header, payload, signature) = (segments.next()?, segments.next()?, segments.next()?);
    if segments.next().is_some() || header.is_empty() {
        return None;
    }
    // A signature may be empty (RFC 7519, section 6), and a header need not be one that we understand.
    let strays = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '='));
    if header.contains(strays) || signature.contains(strays) {
        return None;
    }
    BASE64URL.decode(payload).ok().map(Zeroizing::new)
}

/// A moment at which a token ends, in whole seconds since the epoch, from 1970 to the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry(u64);

impl Expiry {
    /// The time left at `now`; `None` once the token has expired, which it has from the second that `exp` names.
    pub fn left(self, now: SystemTime) -> Option<Duration> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(self.0)
            .checked_sub(now)
            .filter(|left| !left.is_zero())
    }

    /// Whether the token has ended: `exp == now` is expired.
    pub fn is_past(self, now: SystemTime) -> bool {
        self.left(now).is_none()
    }

    /// Whole seconds since the epoch.
    pub fn unix_seconds(self) -> u64 {
        self.0
    }

    /// The same moment on the system's clock.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0)
    }

    /// A NumericDate may have a fraction; it is cut off, which errs on the side of expired. What lies before the epoch
    /// is a time long past. What lies beyond the year 9999 is none (milliseconds, as a rule): taking it at its word
    /// would mean that the token never ends.
    fn from_json(exp: &Value) -> Option<Self> {
        if let Some(seconds) = exp.as_u64() {
            return (seconds <= LAST_SECOND).then_some(Self(seconds));
        }
        let seconds = exp.as_f64().filter(|seconds| seconds.is_finite())?;
        (seconds <= LAST_SECOND as f64).then_some(Self(seconds.max(0.0) as u64))
    }
}

impl fmt::Display for Expiry {
    /// RFC 3339, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = i64::try_from(self.0)
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .and_then(|time| time.format(&Rfc3339).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "second {}", self.0),
        }
    }
}

/// Why a text has no expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoExpiry {
    /// Not three segments with a JSON object in the middle. An opaque token is one of these.
    #[error("not a JWT")]
    NotAJwt,
    /// A JWT that does not say when it ends.
    #[error("a JWT without `exp`")]
    NoExp,
    /// `exp` is not a number, stands there twice, or lies beyond the year 9999.
    #[error("a JWT whose `exp` is not a time in seconds")]
    OddExp,
}

/// How often the payload names `exp`. Twice is no answer: two readers could each take another one.
enum Exp {
    Absent,
    Once(Value),
    Twice,
}

/// Looks for `exp` alone, so that no other claim is copied out of the buffer, and takes nothing but an object.
struct ExpVisitor;

impl<'de> Visitor<'de> for ExpVisitor {
    type Value = Exp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Exp, A::Error> {
        let mut exp = Exp::Absent;
        while let Some(name) = map.next_key::<String>()? {
            exp = match (name.as_str(), exp) {
                ("exp", Exp::Absent) => Exp::Once(map.next_value()?),
                ("exp", _) => {
                    map.next_value::<IgnoredAny>()?;
                    Exp::Twice
                }
                (_, exp) => {
                    map.next_value::<IgnoredAny>()?;
                    exp
                }
            };
        }
        Ok(exp)
    }
}

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
    use proptest::prelude::{any, proptest};

    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(payload))
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_not_a_jwt_is_told_apart() {
        let opaque = [
            "",
            ".",
            "..",
            "sk-opaque",
            "a.b",
            "e30.e30",
            "e30.e30.a.b",
            ".e30.c2ln",
            "e30..c2ln",
            "e30.!!!!.c2ln",
            "e30.e30.c2\nln",
            "e\u{e9}0.e30.c2ln",
        ];
        for text in opaque {
            assert_eq!(expiry(text), Err(NoExpiry::NotAJwt), "{text:?}");
        }
        for payload in [
            "",
            "x",
            "[1]",
            "1",
            "null",
            "\"exp\"",
            "{\"exp\":1} {}",
            "{",
        ] {
            assert_eq!(
                expiry(&token(payload)),
                Err(NoExpiry::NotAJwt),
                "{payload:?}"
            );
        }
    }

    #[test]
    fn a_jwt_that_never_ends_is_told_apart() {
        assert_eq!(expiry(&token("{}")), Err(NoExpiry::NoExp));
        let nested = r#"{"a":{"exp":5},"EXP":5}"#;
        assert_eq!(expiry(&token(nested)), Err(NoExpiry::NoExp));
    }

    #[test]
    fn an_exp_that_is_no_time_is_told_apart() {
        let odd = [
            "\"1700000000\"",
            "null",
            "true",
            "[]",
            "{}",
            "1e300",
            "1700000000000",
            "18446744073709551615",
            "18446744073709551616",
            "253402300800",
        ];
        for exp in odd {
            let token = token(&format!("{{\"exp\":{exp}}}"));
            assert_eq!(expiry(&token), Err(NoExpiry::OddExp), "{exp}");
        }
    }

    #[test]
    fn an_exp_that_stands_there_twice_is_not_taken() {
        let twice = token(r#"{"exp":1,"exp":4102444800}"#);
        assert_eq!(expiry(&twice), Err(NoExpiry::OddExp));
        let thrice = token(r#"{"exp":1,"exp":2,"exp":3}"#);
        assert_eq!(expiry(&thrice), Err(NoExpiry::OddExp));
    }

    #[test]
    fn a_time_before_the_epoch_is_long_past() {
        for exp in ["-1", "-0.5", "-1e300", "-9223372036854775808"] {
            let expiry = expiry(&token(&format!("{{\"exp\":{exp}}}"))).unwrap();
            assert!(expiry.is_past(UNIX_EPOCH), "{exp}");
        }
    }

    #[test]
    fn a_token_is_expired_from_the_second_it_names() {
        let expiry = expiry(&token(r#"{"exp":100}"#)).unwrap();
        assert!(expiry.is_past(at(101)));
        assert!(expiry.is_past(at(100)));
        assert_eq!(expiry.left(at(100)), None);
        assert!(!expiry.is_past(at(99) + Duration::from_millis(999)));
        assert_eq!(expiry.left(at(40)), Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_clock_before_the_epoch_does_not_panic() {
        let expiry = expiry(&token(r#"{"exp":100}"#)).unwrap();
        assert!(!expiry.is_past(UNIX_EPOCH - Duration::from_secs(5)));
    }

    #[test]
    fn a_fraction_is_cut_off() {
        for exp in ["1700000000.9", "1.7000000009e9"] {
            let expiry = expiry(&token(&format!("{{\"exp\":{exp}}}"))).unwrap();
            assert_eq!(expiry.unix_seconds(), 1_700_000_000, "{exp}");
        }
    }

    #[test]
    fn padding_and_an_empty_signature_are_taken() {
        let padded = BASE64_URL_SAFE.encode(r#"{"exp": 1700000000}"#);
        let bare = BASE64_URL_SAFE_NO_PAD.encode(r#"{"exp": 1700000000}"#);
        assert_ne!(padded, bare);
        for text in [
            format!("e30.{padded}.c2ln"),
            format!("e30.{bare}.c2ln"),
            format!("e30.{bare}."),
        ] {
            assert_eq!(expiry(&text).unwrap().unix_seconds(), 1_700_000_000);
        }
    }

    #[test]
    fn an_expiry_shows_as_a_date() {
        assert_eq!(Expiry(1_700_000_000).to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(Expiry(LAST_SECOND).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Expiry(100).time(), at(100));
    }

    proptest! {
        #[test]
        fn no_text_and_no_number_panics(text in ".*", number in any::<f64>(), whole in any::<i64>()) {
            let _ = expiry(&text);
            let _ = expiry(&token(&text));
            for exp in [format!("{number:e}"), whole.to_string()] {
                if let Ok(expiry) = expiry(&token(&format!("{{\"exp\":{exp}}}"))) {
                    let _ = (expiry.left(SystemTime::now()), expiry.to_string(), expiry.time());
                }
            }
        }
    }
}
