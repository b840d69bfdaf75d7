//! Lists of attacks as data, in `tests/data/attack/`. A line is a case: what has to come of it, a word for each way in which
//! it is tried, and then the input up to the line's end. A line with `#` first is a comment, and `[NAME]` begins a section.
//!
//! In an input `\xNN` is a byte, `\\` a backslash, and `\{TEXT*N}` a text N times over; it is cut by no white space but the
//! one before it.

use std::path::{Path, PathBuf};

/// One line of a list.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The line's number, which is also the request's name in a test.
    pub(crate) line: usize,
    /// The section that it stands in.
    pub(crate) section: String,
    /// What has to come of it, by each way.
    pub(crate) expected: Vec<String>,
    pub(crate) input: Vec<u8>,
    /// The input as it is written.
    pub(crate) written: String,
}

impl Case {
    /// The input, where it is text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.input).unwrap_or_else(|_| panic!("no text: {}", self.written))
    }
}

/// The path of a file with data.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/attack")
        .join(name)
}

/// A file with data.
pub(crate) fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Reads a list whose lines begin with `words` expectations.
pub(crate) fn read(name: &str, words: usize) -> Vec<Case> {
    let mut section = String::new();
    let mut cases = Vec::new();
    for (index, line) in text(name).lines().enumerate() {
        let name_of_section = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'));
        match name_of_section {
            _ if line.is_empty() || line.starts_with('#') => continue,
            Some(name) => {
                name.clone_into(&mut section);
                continue;
            }
            None => {}
        }
        let mut expected = Vec::new();
        let mut rest = line;
        for _ in 0..words {
            let (word, tail) = rest
                .split_once(' ')
                .unwrap_or_else(|| panic!("{name}:{}: too few words", index + 1));
            expected.push(word.to_owned());
            rest = tail.trim_start_matches(' ');
        }
        cases.push(Case {
            line: index + 1,
            section: section.clone(),
            expected,
            input: bytes(rest).unwrap_or_else(|| panic!("{name}:{}: bad escape", index + 1)),
            written: rest.to_owned(),
        });
    }
    cases
}

/// The bytes that an input stands for.
fn bytes(mut written: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(at) = written.find('\\') {
        bytes.extend(&written.as_bytes()[..at]);
        let escape = &written[at + 1..];
        let length = match escape.chars().next()? {
            '\\' => {
                bytes.push(b'\\');
                1
            }
            'x' => {
                bytes.push(u8::from_str_radix(escape.get(1..3)?, 16).ok()?);
                3
            }
            '{' => {
                let end = escape.find('}')?;
                let (text, times) = escape[1..end].rsplit_once('*')?;
                bytes.extend(text.repeat(times.parse().ok()?).bytes());
                end + 1
            }
            _ => return None,
        };
        written = &escape[length..];
    }
    bytes.extend(written.as_bytes());
    Some(bytes)
}
