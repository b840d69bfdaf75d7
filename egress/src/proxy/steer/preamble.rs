//! What smolvm's network sends ahead of a connection of its guest that it intercepted
//! (`smolvm-protocol/src/intercept.rs` of smol-machines/smolvm).
//!
//! `SMOLICPT`, the version 1, a token of 32 bytes, the address family (4 or 6), and the port and address that the guest
//! asked for, in network order. It is answered with one byte: 0, or the error that the guest's connect fails with.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::Method;
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::super::connection::Connection;
use super::super::reject::{Cause, Reject};
use super::super::socket::Socket;
use crate::credential::Secret;
use crate::route::denial::Reason;

/// The variable, or the slot, that holds the token.
pub const TOKEN_NAME: &str = "SMOLVM_INTERCEPTOR_TOKEN";

/// What an intercepted connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Carried {
    /// It was for port 443.
    Tls,
    /// It was for port 80.
    Http,
}

/// Reads the preamble and answers it. Only the port counts: the address is what our own name server gave, or what the
/// guest made up.
pub(in super::super) async fn accept(
    connection: &Connection,
    agent: &mut Socket,
) -> Option<Carried> {
    let state = &connection.state;
    let token = TOKEN_NAME
        .parse()
        .ok()
        .and_then(|name| state.source.environment.value(&name))
        .and_then(|secret| Token::parse(&secret));
    let read = tokio::select! {
        read = timeout(state.limits.head, read(agent, token.as_ref())) => read,
        () = state.drained() => return None,
    };
    let Some(destination) = read.ok().flatten() else {
        // Nobody who does not know the token is told anything.
        let mut record = state.audit.begin(&connection.client);
        Reject::new(Cause::Preamble).note(&mut record);
        return None;
    };
    let carried = match destination.port() {
        443 => Some(Carried::Tls),
        80 => Some(Carried::Http),
        _ => None,
    };
    let verdict = match carried {
        Some(_) => 0,
        None => CONNECTION_REFUSED,
    };
    let answered = timeout(state.limits.head, agent.write_all(&[verdict])).await;
    if carried.is_none() {
        let mut record = state.audit.begin(&connection.client);
        record.asks(&Method::CONNECT, destination, "");
        Reject::new(Cause::Denied(Reason::Port)).note(&mut record);
    }
    carried.filter(|_| matches!(answered, Ok(Ok(()))))
}

/// `ECONNREFUSED` of Linux, which every guest is, whatever the host.
const CONNECTION_REFUSED: u8 = 111;

/// Reads a preamble. `None` for one that is not whole, not of this version, or has another token.
async fn read<T: AsyncRead + Unpin>(io: &mut T, token: Option<&Token>) -> Option<SocketAddr> {
    let mut head = Zeroizing::new([0; 44]);
    io.read_exact(&mut *head).await.ok()?;
    let (magic, rest) = head.split_at_checked(9)?;
    let (given, rest) = rest.split_at_checked(32)?;
    if magic != b"SMOLICPT\x01" || !token?.is(given) {
        return None;
    }
    let &[family, high, low] = rest else {
        return None;
    };
    let address: IpAddr = match family {
        4 => {
            let mut octets = [0; 4];
            io.read_exact(&mut octets).await.ok()?;
            Ipv4Addr::from(octets).into()
        }
        6 => {
            let mut octets = [0; 16];
            io.read_exact(&mut octets).await.ok()?;
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_be_bytes([high, low])))
}

/// By which the machine's network is told from anybody else who finds the port.
pub struct Token(Zeroizing<[u8; 32]>);

impl Token {
    /// Reads 64 hexadecimal digits.
    pub fn parse(digits: &Secret) -> Option<Self> {
        let (pairs, rest) = digits.expose().as_bytes().as_chunks::<2>();
        let mut token = Zeroizing::new([0; 32]);
        if pairs.len() != token.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in token.iter_mut().zip(pairs) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
        }
        Some(Self(token))
    }

    /// Compares in constant time.
    fn is(&self, given: &[u8]) -> bool {
        self.0.as_slice().ct_eq(given).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::{Token, read};
    use crate::credential::Secret;

    fn token(digits: &str) -> Option<Token> {
        Token::parse(&Secret::new(digits))
    }

    #[test]
    fn a_token_is_64_hexadecimal_digits() {
        for bad in [
            String::new(),
            "a".repeat(63),
            "a".repeat(65),
            "a".repeat(66),
            "g".repeat(64),
            format!("{} ", "a".repeat(63)),
            format!("+{}", "a".repeat(63)),
            "\u{e4}".repeat(32),
        ] {
            assert!(token(&bad).is_none(), "{bad}");
        }
        let token = token(&"0aF1".repeat(16)).unwrap();
        assert!(token.is(&[0x0a, 0xf1].repeat(16)));
        assert!(!format!("{token:?}").contains("10"));
    }

    #[tokio::test]
    async fn only_a_whole_preamble_with_the_token_is_read() {
        let known = token(&"5a".repeat(32)).unwrap();
        let preamble = |magic: &[u8], token: u8, rest: &[u8]| [magic, &[token; 32], rest].concat();
        let v4 = [4, 1, 187, 192, 0, 2, 7];
        let magic = b"SMOLICPT\x01";
        let mut v6 = vec![6, 0, 80];
        v6.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        for (bytes, expected) in [
            (preamble(magic, 0x5a, &v4), Some("192.0.2.7:443")),
            (preamble(magic, 0x5a, &v6), Some("[2001:db8::1]:80")),
            (preamble(magic, 0x5b, &v4), None),
            (preamble(b"SMOLICPT\x02", 0x5a, &v4), None),
            (preamble(b"smolicpt\x01", 0x5a, &v4), None),
            (preamble(magic, 0x5a, &[5, 1, 187, 192, 0, 2, 7]), None),
            (preamble(magic, 0x5a, &v4[..6]), None),
            (preamble(magic, 0x5a, &v6[..18]), None),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), None),
        ] {
            let found = read(&mut bytes.as_slice(), Some(&known)).await;
            let found = found.map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{bytes:?}");
            assert_eq!(read(&mut bytes.as_slice(), None).await, None);
        }
    }
}
