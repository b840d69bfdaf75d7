//! Values as YAML text. A text is quoted wherever its bytes could be read as anything but itself.

use std::fmt::Write as _;

/// What a routes file is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Value {
    /// A text.
    Text(String),
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(u16),
    /// A list.
    List(Vec<Value>),
    /// A map, in its order.
    Map(Vec<(String, Value)>),
}

/// A routes file: one key a line, and short lists in brackets.
pub(super) fn routes(routes: &[Value]) -> String {
    list("routes", routes)
}

/// A file of one list of maps.
pub(in crate::config) fn list(name: &str, maps: &[Value]) -> String {
    if maps.is_empty() {
        return format!("{name}: []\n");
    }
    let mut text = format!("{name}:\n");
    for map in maps {
        let Value::Map(keys) = map else { continue };
        let mut lead = "  - ";
        for (key, value) in keys {
            let _ = writeln!(text, "{lead}{key}: {}", value.in_line());
            lead = "    ";
        }
    }
    text
}

/// A routes file with lines of comment before each route, and long lists over several lines.
pub(super) fn commented(routes: &[(Vec<String>, Value)]) -> String {
    const LONGEST: usize = 100;
    if routes.is_empty() {
        return "routes: []\n".to_owned();
    }
    let mut text = String::from("routes:\n");
    for (comment, route) in routes {
        let Value::Map(keys) = route else { continue };
        for line in comment {
            let _ = writeln!(text, "  # {}", comment_of(line));
        }
        let mut lead = "  - ";
        for (key, value) in keys {
            let line = value.in_line();
            match value {
                Value::List(items) if line.len() > LONGEST => {
                    let _ = writeln!(text, "{lead}{key}:");
                    for item in items {
                        let _ = writeln!(text, "      - {}", item.in_line());
                    }
                }
                _ => _ = writeln!(text, "{lead}{key}: {line}"),
            }
            lead = "    ";
        }
    }
    text
}

/// A text as a comment, which it cannot end: of what is no printable ASCII the number stands there.
pub(super) fn comment_of(text: &str) -> String {
    let mut comment = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => comment.push(c),
            c => comment.extend(c.escape_unicode()),
        }
    }
    comment
}

impl Value {
    /// The value on one line.
    pub(super) fn in_line(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Self::in_line).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Map(keys) => {
                let pair = |(key, value): &(String, Self)| {
                    let (key, value) = (quoted(key), value.in_line());
                    // A key may be long only where it is announced (YAML 1.2.2, section 7.4.2: 1024 characters).
                    let announced = if key.len() > 512 { "? " } else { "" };
                    format!("{announced}{key}: {value}")
                };
                let pairs: Vec<String> = keys.iter().map(pair).collect();
                format!("{{{}}}", pairs.join(", "))
            }
        }
    }
}

/// What readers of YAML 1.1 or 1.2 take for something else than a text, in whatever case. What begins with a digit may be
/// a number, a date or a time to one of them, and is never left plain.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// A text as a scalar: plain where that is safe everywhere, in single quotes where it is printable ASCII, else in double
/// quotes with everything escaped that is no letter or digit.
fn quoted(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_word = WORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    if begins && text.chars().all(safe) && !is_word {
        return text.to_owned();
    }
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            c if c.is_alphanumeric() => quoted.push(c),
            c => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}

impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Text(text) => text.as_str().into(),
            Value::Flag(flag) => (*flag).into(),
            Value::Number(number) => (*number).into(),
            Value::List(items) => items.iter().map(Self::from).collect(),
            Value::Map(keys) => {
                let pairs = keys.iter().map(|(key, value)| (key.clone(), value.into()));
                Self::Object(pairs.collect())
            }
        }
    }
}
