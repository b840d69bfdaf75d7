//! Which keys a map of a file may have, and what stands behind each. The parser looks keys up in these tables and the JSON
//! Schema is made of them, so neither can know a key that the other does not.

use super::fields::{closest, listed};

/// The keys of one kind of map.
pub(super) struct Keys {
    /// What the map is: `a route`.
    pub(super) of: &'static str,
    /// Its keys, in groups that other maps may have, too.
    pub(super) known: &'static [&'static [Key]],
    /// Of these at least one has to be there; none has to, where there are none.
    pub(super) one_of: &'static [&'static str],
    /// Pairs of which the first demands the second.
    pub(super) pairs: &'static [(&'static str, &'static str)],
    /// What is known about an unknown key, where that is more than the known key that looks most like it.
    pub(super) unknown: fn(&str) -> Option<Unknown>,
    /// What becomes of other keys.
    pub(super) others: Others,
}

/// One key.
pub(super) struct Key {
    /// Its name.
    pub(super) name: &'static str,
    /// What stands behind it.
    pub(super) form: Form,
    /// What it is for: a sentence without its full stop.
    pub(super) about: &'static str,
}

/// What stands behind a key.
pub(super) enum Form {
    /// A text.
    Text,
    /// A text that may look like a number or a boolean.
    Written,
    /// `true` or `false`.
    Flag,
    /// A port.
    Port,
    /// A host, or `*.` before one.
    Host,
    /// Path patterns: prefixes, and maps with these keys.
    Paths(&'static Keys),
    /// Method names.
    Methods,
    /// Networks in CIDR form.
    Networks,
    /// The same, and the list may be empty.
    NetworksIfAny,
    /// `host:port`.
    Dial,
    /// A slot's name.
    Slot,
    /// A header's name.
    Header,
    /// The user part of Basic.
    User,
    /// Query parameters.
    Query,
    /// Names of cookies, in a list that may be empty.
    Cookies,
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    /// A reference to a credential.
    TokenRef,
    /// A text or a list of texts.
    Texts,
    /// A program and its arguments.
    Argv,
    /// Variables by name.
    Variables,
    /// Anything at all: it is read over.
    Anything,
    /// A map with these keys.
    Map(&'static Keys),
    /// A list of maps with these keys, which may be empty.
    Maps(&'static Keys),
    /// A map of names that the operator chose, each to a map with these keys.
    Named(&'static Keys),
}

/// What becomes of keys that a map is not known to have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// They are faults.
    Faults,
    /// They are somebody else's.
    ReadOver,
}

/// What an unknown key may be.
pub(super) enum Unknown {
    /// Another name for a known key.
    Meant(&'static str),
    /// Something that has a hint of its own.
    Hint(String),
    /// Nothing to do with us.
    ReadOver,
}

impl Keys {
    /// A map with these keys alone, none of which has to be there.
    pub(super) const fn new(of: &'static str, known: &'static [&'static [Key]]) -> Self {
        Self {
            of,
            known,
            one_of: &[],
            pairs: &[],
            unknown: |_| None,
            others: Others::Faults,
        }
    }

    /// Every key.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'static Key> {
        self.known.iter().copied().flatten()
    }

    /// Every key's name.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.iter().map(|key| key.name)
    }

    /// What to make of a key that is none of them.
    pub(super) fn unknown(&self, key: &str) -> Unknown {
        if let Some(known) = (self.unknown)(key) {
            return known;
        }
        if self.others == Others::ReadOver {
            return Unknown::ReadOver;
        }
        let names: Vec<&str> = self.names().collect();
        match closest(key, &names) {
            Some(meant) => Unknown::Meant(meant),
            None => Unknown::Hint(self.all()),
        }
    }

    /// All keys in words, where they are few and there are no others.
    pub(super) fn few(&self) -> Option<String> {
        let few = self.others == Others::Faults && (..=4).contains(&self.names().count());
        few.then(|| self.all())
    }

    fn all(&self) -> String {
        let names: Vec<&str> = self.names().collect();
        format!("{} has the keys {}", self.of, listed(&names))
    }
}
