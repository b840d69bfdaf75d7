//! What a launcher hands its sidecar: slots with their values, as one line of JSON on an inherited descriptor.
//!
//! Values go nowhere else: no argument, no variable, no file.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::login::Login;
use crate::credential::{Secret, SlotName};

/// The values of a sidecar's slots.
#[derive(Debug, Default)]
pub struct Handed {
    values: BTreeMap<SlotName, Secret>,
    codex: Option<Codex>,
}

/// The slots that the host's Codex login fills.
#[derive(Debug)]
pub struct Codex {
    /// Which.
    pub slots: Vec<SlotName>,
    /// The login whose token is in them.
    pub login: Login,
}

impl Handed {
    /// Values, of which `codex` says which come from the host's login.
    pub(super) fn new(values: BTreeMap<SlotName, Secret>, codex: Option<Codex>) -> Self {
        Self { values, codex }
    }

    /// The names of the slots, in order.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = &SlotName> {
        self.values.keys()
    }

    /// A slot's value.
    pub fn get(&self, slot: &SlotName) -> Option<&Secret> {
        self.values.get(slot)
    }

    /// The host's login, where a slot stands for it.
    pub fn codex(&self) -> Option<&Codex> {
        self.codex.as_ref()
    }

    /// All values as the sidecar takes them: one JSON object and a newline, wiped on drop.
    pub fn line(&self) -> Zeroizing<Vec<u8>> {
        line(self.values.iter())
    }

    /// The same with one value more, which no route names: that of a listener.
    pub fn line_with(&self, name: &SlotName, value: &Secret) -> Zeroizing<Vec<u8>> {
        let mut values: Vec<(&SlotName, &Secret)> = self.values.iter().collect();
        values.push((name, value));
        line(values.iter().copied())
    }
}

impl Codex {
    /// The line that gives the sidecar the token of a newer login.
    pub fn line(&self, login: &Login) -> Zeroizing<Vec<u8>> {
        line(self.slots.iter().map(|slot| (slot, login.token())))
    }
}

fn line<'a>(
    values: impl ExactSizeIterator<Item = (&'a SlotName, &'a Secret)> + Clone,
) -> Zeroizing<Vec<u8>> {
    /// The longest that JSON makes of one byte: `\u0000`.
    const ESCAPED: usize = 6;
    // Room for the whole of it from the start: a buffer that grows leaves copies behind that nobody wipes.
    let room: usize = values
        .clone()
        .map(|(slot, secret)| slot.as_str().len() + ESCAPED * secret.expose().len() + 6)
        .sum();
    let mut line = Zeroizing::new(Vec::with_capacity(room + 3));
    line.push(b'{');
    for (index, (slot, secret)) in values.enumerate() {
        if index > 0 {
            line.push(b',');
        }
        for (text, end) in [(slot.as_str(), b":".as_slice()), (secret.expose(), b"")] {
            serde_json::to_writer(&mut *line, text).expect("a text is JSON, and memory takes it");
            line.extend_from_slice(end);
        }
    }
    line.extend_from_slice(b"}\n");
    line
}

#[cfg(test)]
mod tests {
    use super::line;
    use crate::credential::{Secret, SlotName};

    #[test]
    fn a_line_is_one_json_object_whatever_the_values_hold() {
        let slots: Vec<(SlotName, Secret)> = [("A", "plain"), ("B", "q\"\\\u{1}\n")]
            .map(|(slot, value)| (slot.parse().unwrap(), Secret::new(value)))
            .into();
        let line = line(slots.iter().map(|(slot, value)| (slot, value)));
        assert_eq!(
            line.as_slice(),
            b"{\"A\":\"plain\",\"B\":\"q\\\"\\\\\\u0001\\n\"}\n"
        );
    }

    #[test]
    fn the_buffer_never_grows_and_so_leaves_no_copy() {
        let slots: Vec<(SlotName, Secret)> = ["A", "LONG_NAME"]
            .map(|slot| (slot.parse().unwrap(), Secret::new("\u{1}".repeat(100))))
            .into();
        let line = line(slots.iter().map(|(slot, value)| (slot, value)));
        let room: usize = slots
            .iter()
            .map(|(slot, _)| slot.as_str().len() + 606)
            .sum();
        assert_eq!(line.capacity(), room + 3);
    }
}
