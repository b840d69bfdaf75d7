//! One row of the audit file, and the hash that chains it to the row before. Pure.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};

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

/// The end of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// The number of the last row, or 0.
    pub number: i64,
    /// Its link.
    pub link: Link,
}

/// The hash of what a row has in common with all of its kind.
pub type KindHash = [u8; 32];

/// What a row has for itself.
#[derive(Clone, Copy, Debug)]
pub struct Own<'r> {
    /// As in [`Row`].
    pub number: i64,
    /// As in [`Row`].
    pub time: i64,
    /// As in [`Row`].
    pub path: &'r str,
    /// As in [`Row`].
    pub query: Option<&'r str>,
    /// As in [`Row`].
    pub bytes_up: i64,
    /// As in [`Row`].
    pub bytes_down: i64,
    /// As in [`Row`].
    pub head_us: Option<i64>,
    /// As in [`Row`].
    pub total_us: i64,
    /// As in [`Row`].
    pub id: Option<&'r str>,
    /// As in [`Row`].
    pub detail: Option<&'r str>,
}

impl Row<'_> {
    /// The same with texts of its own.
    pub fn into_owned(self) -> Row<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Row {
            number: self.number,
            time: self.time,
            client: own(self.client),
            bottle: self.bottle.map(own),
            method: own(self.method),
            scheme: self.scheme.map(own),
            host: own(self.host),
            path: own(self.path),
            query: self.query.map(own),
            route: self.route,
            verdict: own(self.verdict),
            code: own(self.code),
            slot: self.slot.map(own),
            credential: self.credential.map(own),
            status: self.status,
            bytes_up: self.bytes_up,
            bytes_down: self.bytes_down,
            head_us: self.head_us,
            total_us: self.total_us,
            upstream: self.upstream.map(own),
            id: self.id.map(own),
            detail: self.detail.map(own),
        }
    }

    /// The link of this row behind the one before.
    pub fn link(&self, before: &Link) -> Link {
        self.own().link(before, &self.kind_hash())
    }

    /// SHA-256 of the columns that all rows of its kind have alike.
    pub fn kind_hash(&self) -> KindHash {
        let mut bytes = Unambiguous::default();
        bytes.text(Some(&self.client));
        bytes.text(self.bottle.as_deref());
        bytes.text(Some(&self.method));
        bytes.text(self.scheme.as_deref());
        bytes.text(Some(&self.host));
        bytes.integer(self.route);
        bytes.text(Some(&self.verdict));
        bytes.text(Some(&self.code));
        bytes.text(self.slot.as_deref());
        bytes.text(self.credential.as_deref());
        bytes.integer(Some(self.status));
        bytes.text(self.upstream.as_deref());
        bytes.hash()
    }

    /// The other columns.
    pub fn own(&self) -> Own<'_> {
        Own {
            number: self.number,
            time: self.time,
            path: &self.path,
            query: self.query.as_deref(),
            bytes_up: self.bytes_up,
            bytes_down: self.bytes_down,
            head_us: self.head_us,
            total_us: self.total_us,
            id: self.id.as_deref(),
            detail: self.detail.as_deref(),
        }
    }
}

impl Own<'_> {
    /// SHA-256 of the link before, of the kind and of what is the row's own, each in a form that no other value has.
    pub fn link(&self, before: &Link, kind: &KindHash) -> Link {
        let mut bytes = Unambiguous::default();
        bytes.0.extend_from_slice(&before.0);
        bytes.0.extend_from_slice(kind);
        bytes.integer(Some(self.number));
        bytes.integer(Some(self.time));
        bytes.text(Some(self.path));
        bytes.text(self.query);
        bytes.integer(Some(self.bytes_up));
        bytes.integer(Some(self.bytes_down));
        bytes.integer(self.head_us);
        bytes.integer(Some(self.total_us));
        bytes.text(self.id);
        bytes.text(self.detail);
        Link(bytes.hash())
    }
}

/// Values one after the other, so that no two sequences of them are the same bytes.
struct Unambiguous(Vec<u8>);

impl Default for Unambiguous {
    fn default() -> Self {
        Self(Vec::with_capacity(512))
    }
}

impl Unambiguous {
    fn integer(&mut self, value: Option<i64>) {
        match value {
            None => self.0.push(b'n'),
            Some(value) => {
                self.0.push(b'i');
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
    }

    /// With its length before it: no end of a column can be moved into the next one.
    fn text(&mut self, value: Option<&str>) {
        match value {
            None => self.0.push(b'n'),
            Some(text) => {
                self.0.push(b't');
                self.0.extend_from_slice(&(text.len() as u64).to_be_bytes());
                self.0.extend_from_slice(text.as_bytes());
            }
        }
    }

    fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        hash
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
