//! What many rows have alike, remembered so that it is written once.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use super::Client;
use super::entry::Entry;
use super::row::KindHash;
use crate::credential::SlotName;
use crate::outcome::Verdict;
use crate::route::Line;
use crate::route::target::Scheme;

/// The kinds that were met in this file lately. One that was forgotten is written again, under another number.
#[derive(Debug, Default)]
pub(super) struct Kinds(HashMap<Example, Known>);

/// A kind that is in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Its number in the file.
    pub(super) kind: i64,
    /// What it adds to the chain.
    pub(super) hash: KindHash,
    /// The last stretch of rows that it was seen in, by its first row.
    pub(super) span: i64,
}

/// An entry that stands for all of its kind.
#[derive(Debug)]
struct Example(Arc<Entry>);

impl Kinds {
    /// An agent can make each of its requests a kind of its own, and then this is what is kept of them.
    const MOST: usize = 1024;

    /// The one of an entry, where it is known.
    pub(super) fn of(&mut self, entry: &Arc<Entry>) -> Option<&mut Known> {
        self.0.get_mut(&Example(entry.clone()))
    }

    /// Remembers a kind, after an entry of it.
    pub(super) fn add(&mut self, entry: &Arc<Entry>, known: Known) -> &mut Known {
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        self.0
            .entry(Example(entry.clone()))
            .insert_entry(known)
            .into_mut()
    }

    /// Forgets all: what was written last was taken back.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

impl PartialEq for Example {
    fn eq(&self, other: &Self) -> bool {
        Alike::of(&self.0) == Alike::of(&other.0)
    }
}

impl Eq for Example {}

impl Hash for Example {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // What an agent can vary without end. All else has few values beside these, and is compared.
        (self.0.method(), &*self.0.host, self.0.status).hash(state);
    }
}

/// The columns of a kind, but for the bottle, which is the same in all.
#[derive(PartialEq, Eq)]
struct Alike<'e> {
    client: &'e Client,
    method: &'e str,
    scheme: Option<Scheme>,
    host: &'e str,
    route: Option<Line>,
    verdict: Verdict,
    code: &'static str,
    slot: Option<&'e str>,
    credential: Option<&'e str>,
    status: u16,
    upstream: Option<SocketAddr>,
}

impl<'e> Alike<'e> {
    fn of(entry: &'e Entry) -> Self {
        Self {
            client: &entry.client,
            method: entry.method(),
            scheme: entry.scheme,
            host: &entry.host,
            route: entry.route,
            verdict: entry.verdict,
            code: entry.code,
            slot: entry.slot.as_ref().map(SlotName::as_str),
            credential: entry.credential.as_deref(),
            status: entry.status,
            upstream: entry.upstream,
        }
    }
}
