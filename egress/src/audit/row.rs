//! One row of the audit file, and the hash that chains it to the row before. Pure.

use std::borrow::Cow;

use aws_lc_rs::digest::{Context, SHA256};

/// What is kept of one request, as its columns have it. What an agent chose was escaped before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row<'r> {
    /// Consecutive, from 1 on, also from one file to the next.
    pub number: i64,
    /// When the request began, in microseconds since 1970 (UTC).
    pub time: i64,
    /// The client's address, or `unix`.
    pub client: Cow<'r, str>,
    /// The bottle that the sidecar stands beside, where it was told.
    pub bottle: Option<Cow<'r, str>>,
    /// The method, or `-` where the request could not be read so far.
    pub method: Cow<'r, str>,
    /// `http` or `https`, where the request named it.
    pub scheme: Option<Cow<'r, str>>,
    /// `name:port`, or empty where the request named no host.
    pub host: Cow<'r, str>,
    /// The path without the query.
    pub path: Cow<'r, str>,
    /// The query, where the operator wants it kept.
    pub query: Option<Cow<'r, str>>,
    /// The line of the route that decided.
    pub route: Option<i64>,
    /// `allowed`, `denied` or `failed`.
    pub verdict: Cow<'r, str>,
    /// The stable code of what became of it.
    pub code: Cow<'r, str>,
    /// The name of the slot whose credential was sent.
    pub slot: Option<Cow<'r, str>>,
    /// The fingerprint of that credential, see [`Salt`](crate::credential::Salt).
    pub credential: Option<Cow<'r, str>>,
    /// The status of the answer, or 0 where there was none.
    pub status: i64,
    /// Bytes of the request's body.
    pub bytes_up: i64,
    /// Bytes of the answer's body.
    pub bytes_down: i64,
    /// Microseconds until the head of the answer.
    pub head_us: Option<i64>,
    /// Microseconds until the end of the answer.
    pub total_us: i64,
    /// The address that was spoken to.
    pub upstream: Option<Cow<'r, str>>,
    /// What a refusal is found by, see [`RequestId`](super::id::RequestId).
    pub id: Option<Cow<'r, str>>,
    /// What only the operator is told.
    pub detail: Option<Cow<'r, str>>,
}

/// The hash of a row, which is part of the next one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link(pub [u8; 32]);

impl Row<'_> {
    /// SHA-256 of the link before and of all columns, each in a form that no other value has.
    pub fn link(&self, before: &Link) -> Link {
        let mut hash = Hash(Context::new(&SHA256));
        hash.0.update(&before.0);
        hash.integer(Some(self.number));
        hash.integer(Some(self.time));
        hash.text(Some(&self.client));
        hash.text(self.bottle.as_deref());
        hash.text(Some(&self.method));
        hash.text(self.scheme.as_deref());
        hash.text(Some(&self.host));
        hash.text(Some(&self.path));
        hash.text(self.query.as_deref());
        hash.integer(self.route);
        hash.text(Some(&self.verdict));
        hash.text(Some(&self.code));
        hash.text(self.slot.as_deref());
        hash.text(self.credential.as_deref());
        hash.integer(Some(self.status));
        hash.integer(Some(self.bytes_up));
        hash.integer(Some(self.bytes_down));
        hash.integer(self.head_us);
        hash.integer(Some(self.total_us));
        hash.text(self.upstream.as_deref());
        hash.text(self.id.as_deref());
        hash.text(self.detail.as_deref());
        let mut link = Link::default();
        link.0.copy_from_slice(hash.0.finish().as_ref());
        link
    }
}

struct Hash(Context);

impl Hash {
    fn integer(&mut self, value: Option<i64>) {
        match value {
            None => self.0.update(b"n"),
            Some(value) => {
                self.0.update(b"i");
                self.0.update(&value.to_be_bytes());
            }
        }
    }

    /// With its length before it: no end of a column can be moved into the next one.
    fn text(&mut self, value: Option<&str>) {
        match value {
            None => self.0.update(b"n"),
            Some(text) => {
                self.0.update(b"t");
                self.0.update(&(text.len() as u64).to_be_bytes());
                self.0.update(text.as_bytes());
            }
        }
    }
}

impl Link {
    /// In hexadecimal digits, as people compare it.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads [`hex`](Self::hex) back.
    pub fn parse(text: &str) -> Option<Self> {
        let mut link = Self::default();
        if text.len() != 2 * link.0.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, digits) in link.0.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(link)
    }
}

#[cfg(test)]
mod tests {
    use super::{Link, Row};

    #[test]
    fn each_column_is_in_the_hash_and_none_can_be_moved_into_its_neighbour() {
        let row = Row {
            number: 7,
            host: "a:443".into(),
            path: "/b".into(),
            ..Row::default()
        };
        let link = row.link(&Link::default());
        let changed = |change: &dyn Fn(&mut Row<'_>)| {
            let mut other = row.clone();
            change(&mut other);
            other.link(&Link::default())
        };
        let changes: [&dyn Fn(&mut Row<'_>); 22] = [
            &|row| row.number = 8,
            &|row| row.time = 1,
            &|row| row.client = "x".into(),
            &|row| row.bottle = Some("".into()),
            &|row| row.method = "x".into(),
            &|row| row.scheme = Some("".into()),
            &|row| (row.host, row.path) = ("a:443/".into(), "b".into()),
            &|row| row.path = "/c".into(),
            &|row| row.query = Some("".into()),
            &|row| row.route = Some(0),
            &|row| row.verdict = "x".into(),
            &|row| row.code = "x".into(),
            &|row| row.slot = Some("".into()),
            &|row| row.credential = Some("".into()),
            &|row| row.status = 1,
            &|row| row.bytes_up = 1,
            &|row| row.bytes_down = 1,
            &|row| row.head_us = Some(0),
            &|row| row.total_us = 1,
            &|row| row.upstream = Some("".into()),
            &|row| row.id = Some("".into()),
            &|row| row.detail = Some("".into()),
        ];
        let mut seen = vec![link];
        for change in changes {
            let other = changed(change);
            assert!(!seen.contains(&other));
            seen.push(other);
        }
        assert_ne!(row.link(&link), link, "what came before is in it, too");
    }

    #[test]
    fn a_link_is_read_as_it_is_shown() {
        let link = Row::default().link(&Link::default());
        assert_eq!(Link::parse(&link.hex()), Some(link));
        assert_eq!(Link::parse("00"), None);
        assert_eq!(Link::parse(&"g".repeat(64)), None);
    }
}
