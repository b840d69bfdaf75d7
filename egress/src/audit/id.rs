//! The name of one refusal: what an agent is told of it, and what the operator finds it by.

use std::fmt;
use std::str::FromStr;

/// A request's id. It is random, so that it tells an agent nothing of the requests of others, nor how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(u64);

impl RequestId {
    /// A new one.
    pub fn new() -> Self {
        let mut bytes = [0; 8];
        // Where the system has no random numbers, no TLS came so far either; and an id is no secret.
        _ = aws_lc_rs::rand::fill(&mut bytes);
        Self(u64::from_be_bytes(bytes))
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for RequestId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "expected the 16 hexadecimal digits of a refusal's `request_id`";
        let is_plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_plain.then(|| u64::from_str_radix(text, 16).ok());
        number.flatten().map(Self).ok_or(WANTED)
    }
}

#[cfg(test)]
mod tests {
    use super::RequestId;

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        let id = RequestId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(RequestId(7).to_string(), "0000000000000007");
        for wrong in ["", "7", "+000000000000007", "000000000000000g"] {
            assert!(wrong.parse::<RequestId>().is_err(), "{wrong}");
        }
    }
}
