//! Slot values that a launcher hands over through a descriptor: lines of `{"SLOT":"value"}`.
//!
//! They never stand in an argument, a variable or a file. No error tells anything of what a line held.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::{Zeroize as _, Zeroizing};

use super::slot::check_value;
use super::{Secret, SlotName, Unusable};

/// The values of one line.
#[derive(Debug, Default)]
pub struct Handed(HashMap<SlotName, Secret>);

impl Handed {
    /// Reads a line. Every value has to be one that a header can carry.
    ///
    /// # Errors
    ///
    /// [`BadLine`]; nothing of such a line counts.
    pub fn parse(line: &[u8]) -> Result<Self, BadLine> {
        // The library's message would repeat what it found.
        let values: Self = serde_json::from_slice(line).map_err(|_| BadLine::Form)?;
        for (name, value) in &values.0 {
            check_value(value.expose()).map_err(|reason| BadLine::Value(name.clone(), reason))?;
        }
        Ok(values)
    }

    /// The slots that have a value.
    pub fn names(&self) -> impl Iterator<Item = &SlotName> {
        self.0.keys()
    }

    pub(super) fn get(&self, name: &SlotName) -> Option<Secret> {
        self.0.get(name).cloned()
    }

    pub(super) fn replace(&mut self, newer: Self) {
        self.0.extend(newer.0);
    }
}

/// Why a line is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// Not JSON, no object, a name twice, a name that is no slot's, or a value that is no text.
    #[error("the line is no JSON object of slots and their values, each slot once")]
    Form,
    /// A value that no header can carry.
    #[error("the value of {0} {1}")]
    Value(SlotName, Unusable),
    /// More than [`MAX_LINE`] bytes.
    #[error("the line has more than {MAX_LINE} bytes")]
    Length,
    /// The other end closed in the middle of it.
    #[error("the line has no end")]
    Unended,
}

impl<'de> Deserialize<'de> for Handed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Slots)
    }
}

struct Slots;

impl<'de> Visitor<'de> for Slots {
    type Value = Handed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of slots")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Handed, A::Error> {
        let mut values = HashMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let name: SlotName = name.parse().map_err(A::Error::custom)?;
            let Text(value) = map.next_value()?;
            if values.insert(name, value).is_some() {
                return Err(A::Error::custom("a slot twice"));
            }
        }
        Ok(Handed(values))
    }
}

/// A text that goes from the line's buffer, which is wiped, into a [`Secret`], with no copy left between them. The library
/// would decode escapes in a buffer of its own.
struct Text(Secret);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        let text = decoded(json).ok_or_else(|| D::Error::custom("no text"))?;
        Ok(Self(Secret::new(&**text)))
    }
}

/// The text that a JSON string stands for (RFC 8259, section 7); `None` for another value. Half of a surrogate pair becomes
/// a character that no header carries, as both of them together would.
fn decoded(json: &str) -> Option<Zeroizing<String>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    // No text is longer than its JSON, so that this never moves and leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(inner.len()));
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match rest.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let digits = rest.as_str().get(..4)?;
                rest = rest.as_str().get(4..)?.chars();
                let code = u32::from_str_radix(digits, 16).ok()?;
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            quoted => quoted,
        });
    }
    Some(text)
}

/// The longest line, in bytes: room for every slot of a bottle, each with a large token.
pub const MAX_LINE: usize = 1024 * 1024;

/// Reads lines from a descriptor into one buffer, which never moves and is wiped behind each line.
#[derive(Debug)]
pub struct Lines {
    file: File,
    buffer: Zeroizing<Box<[u8]>>,
    filled: usize,
    /// The rest of a line that is too long is on its way.
    skipping: bool,
}

impl Lines {
    /// Lines of a descriptor that blocks.
    pub fn new(file: File) -> Self {
        Self {
            file,
            buffer: Zeroizing::new(vec![0; MAX_LINE + 1].into()),
            filled: 0,
            skipping: false,
        }
    }

    /// The next line that is not blank, or what is wrong with it; `None` at the end. Blocking.
    ///
    /// # Errors
    ///
    /// What the system says of the descriptor. There is no next line then.
    pub fn next_line(&mut self) -> io::Result<Option<Result<Handed, BadLine>>> {
        loop {
            let filled = self.buffer.get(..self.filled).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', filled) {
                let line = filled.get(..end).unwrap_or_default().trim_ascii();
                let parsed = (!line.is_empty()).then(|| Handed::parse(line));
                self.discard(end + 1);
                match parsed {
                    _ if std::mem::take(&mut self.skipping) => {
                        return Ok(Some(Err(BadLine::Length)));
                    }
                    None => continue,
                    parsed => return Ok(parsed),
                }
            }
            if self.filled > MAX_LINE {
                self.skipping = true;
                self.discard(self.filled);
            }
            let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
            match self.file.read(free) {
                Ok(0) if self.filled > 0 || self.skipping => {
                    self.skipping = false;
                    self.discard(self.filled);
                    return Ok(Some(Err(BadLine::Unended)));
                }
                Ok(0) => return Ok(None),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Wipes the first `count` bytes and moves the rest to the front.
    fn discard(&mut self, count: usize) {
        let Some(filled) = self.buffer.get_mut(..self.filled) else {
            return;
        };
        let left = filled.len().saturating_sub(count);
        filled.copy_within(count.., 0);
        filled.get_mut(left..).unwrap_or_default().zeroize();
        self.filled = left;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek as _, Write as _};

    use super::{BadLine, Handed, Lines, MAX_LINE};

    fn lines(bytes: &[u8]) -> Vec<Result<Vec<String>, BadLine>> {
        let mut file: File = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let mut lines = Lines::new(file);
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            all.push(line.map(|handed| {
                let mut found: Vec<String> = handed
                    .names()
                    .map(|name| format!("{name}={}", handed.get(name).unwrap().expose()))
                    .collect();
                found.sort();
                found
            }));
        }
        assert!(lines.buffer.iter().all(|byte| *byte == 0), "not wiped");
        all
    }

    #[test]
    fn a_line_that_is_not_exactly_slots_and_texts_is_refused() {
        for line in [
            "",
            "null",
            "[]",
            "\"A\"",
            "{",
            "{\"A\":1}",
            "{\"A\":null}",
            "{\"A\":[\"b\"]}",
            "{\"A\":\"b\"} {}",
            "{\"A\":\"b\",\"A\":\"c\"}",
            "{\"\":\"b\"}",
            "{\"1A\":\"b\"}",
            "{\"A B\":\"b\"}",
            "{\"A\":\"b\",}",
            "{'A':'b'}",
            "{\"A\":{\"B\":\"c\"}}",
            "{\"A\":\"\u{7}\"}",
        ] {
            assert_eq!(
                Handed::parse(line.as_bytes()).unwrap_err(),
                BadLine::Form,
                "{line}"
            );
        }
        assert_eq!(
            Handed::parse(b"{\"A\":\"\xff\"}").unwrap_err(),
            BadLine::Form
        );
        for value in ["", "a b", "a\\nb", "\\u0000", "\\u00e4", "Bearer x"] {
            let line = format!("{{\"A\":\"{value}\"}}");
            let error = Handed::parse(line.as_bytes()).unwrap_err();
            assert!(matches!(error, BadLine::Value(..)), "{value}");
        }
    }

    #[test]
    fn escapes_are_what_json_says_and_leave_no_copy_behind() {
        for json in [
            r#""""#,
            r#""plain/+=""#,
            r#""\"\\\/\b\f\n\r\t""#,
            r#""\u0041\u00e4\u20AC\uFFFD""#,
            r#""\\u0041 \\\" é€""#,
        ] {
            let expected: String = serde_json::from_str(json).unwrap();
            let text = super::decoded(json).unwrap();
            assert_eq!(*text, expected);
            assert!(text.capacity() <= json.len(), "{json}");
        }
        for json in ["", "\"", "1", "null", "[\"a\"]", r#""\u00""#, r#""\"#] {
            assert!(super::decoded(json).is_none(), "{json}");
        }
        let pair = super::decoded(r#""\ud83d\ude00""#).unwrap();
        assert_eq!(*pair, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn lines_are_taken_one_by_one_and_bad_ones_leave_the_next_alone() {
        let long = format!("{{\"A\":\"{}\"}}\n", "x".repeat(3 * MAX_LINE));
        let largest = format!("{{\"A\":\"{}\"}}", "y".repeat(MAX_LINE - 8));
        let text = format!(
            "\n {{\"A\":\"1\"}}\r\n\nx\n{long}{largest}\n{{\"B\":\"\\\"\",\"C\":\"3\"}}\n{{\"A\""
        );
        let all = lines(text.as_bytes());
        assert_eq!(all[0], Ok(vec!["A=1".into()]));
        assert_eq!(all[1], Err(BadLine::Form));
        assert_eq!(all[2], Err(BadLine::Length));
        assert_eq!(all[3].as_ref().unwrap()[0].len(), MAX_LINE - 6);
        assert_eq!(all[4], Ok(vec!["B=\"".into(), "C=3".into()]));
        assert_eq!(all[5], Err(BadLine::Unended));
        assert_eq!(all.len(), 6);
        assert!(lines(b"").is_empty());
        assert_eq!(lines(b"{}\n"), [Ok(Vec::new())]);
    }
}
