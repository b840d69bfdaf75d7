//! Request paths as they are compared, and the patterns that routes match them with.
//!
//! A path is never normalised: the bytes that are compared are the bytes that go out. Whatever servers are known to
//! read in two ways ([`Hazard`]) is refused instead on every route that has path rules.

use std::fmt;
use std::hash::{Hash, Hasher};

use regex::Regex;
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{self, Ast, ClassSetItem};
use regex_syntax::hir::{Hir, HirKind};

/// Which paths a route is for.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// A prefix at segment borders: `/a` covers `/a` and `/a/b`, not `/ab`; `/a/` covers what lies below `/a/`.
    Prefix(Box<str>),
    /// A regular expression that has to cover the whole path.
    Regex(PathRegex),
}

/// A regular expression over a whole path, with the length of the literal text it begins with.
#[derive(Clone, Debug)]
pub struct PathRegex {
    source: Box<str>,
    regex: Regex,
    literal: Box<str>,
}

impl PathRegex {
    /// The expression, as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl PathPattern {
    /// A prefix pattern.
    ///
    /// # Errors
    ///
    /// [`InvalidPath`] where no request could match: the prefix does not begin with `/`, or holds a query, a fragment or
    /// a [`Hazard`].
    pub fn prefix(text: &str) -> Result<Self, InvalidPath> {
        if !text.starts_with('/') {
            return Err(InvalidPath::NoSlash);
        }
        if text.contains(['?', '#']) {
            return Err(InvalidPath::Query);
        }
        match hazard_of(text, EncodedSlash::Accept) {
            Some(hazard) => Err(InvalidPath::Hazard(hazard)),
            None => Ok(Self::Prefix(text.into())),
        }
    }

    /// A regular expression in the syntax of the `regex` crate. It is anchored at both ends, whether it says so or not:
    /// an expression that matched anywhere in a path would admit `/evil?` prefixes that its author never thought of.
    ///
    /// # Errors
    ///
    /// [`InvalidPath::UnicodeClass`], and [`InvalidPath::Regex`] with the compiler's message, for one that does not compile
    /// or is larger than its bound.
    pub fn regex(source: &str) -> Result<Self, InvalidPath> {
        let whole = format!("^(?:{source})$");
        // Compiled alone first, so that an unbalanced parenthesis cannot break out of the group.
        let uncompiled = |error: regex_syntax::Error| InvalidPath::Regex(error.to_string());
        let ast = Parser::new().parse(source);
        // Not left to the features that the crate is built with: any other user of it can turn them on.
        ast::visit(
            &ast.map_err(|error| uncompiled(error.into()))?,
            NoUnicodeClass,
        )?;
        let hir = regex_syntax::parse(source).map_err(uncompiled)?;
        let regex = Regex::new(&whole).map_err(|error| InvalidPath::Regex(error.to_string()))?;
        let mut literal = String::new();
        literal_prefix(&hir, &mut literal);
        Ok(Self::Regex(PathRegex {
            source: source.into(),
            regex,
            literal: literal.into(),
        }))
    }

    /// Whether the pattern covers a path. The path has no query, and was found free of hazards.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => match path.strip_prefix(&**prefix) {
                Some(rest) => rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'),
                None => false,
            },
            Self::Regex(pattern) => pattern.regex.is_match(path),
        }
    }

    /// The text that each covered path begins with; its length is the pattern's rank.
    pub fn literal(&self) -> &str {
        match self {
            Self::Prefix(prefix) => prefix,
            Self::Regex(pattern) => &pattern.literal,
        }
    }

    /// Whether some path may be covered by both patterns, given that their literal texts have one length.
    ///
    /// Exact for two prefixes. Where a regular expression takes part it may say yes although no such path exists; it
    /// never says no although one does.
    pub(super) fn may_overlap(&self, other: &Self) -> bool {
        self.literal() == other.literal()
    }

    fn source(&self) -> (bool, &str) {
        match self {
            Self::Prefix(prefix) => (false, prefix),
            Self::Regex(pattern) => (true, &pattern.source),
        }
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Eq for PathPattern {}

impl Hash for PathPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source().hash(state);
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => f.write_str(prefix),
            Self::Regex(pattern) => write!(f, "regex {}", pattern.source),
        }
    }
}

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// `v1/`.
    #[error("a path prefix begins with `/`")]
    NoSlash,
    /// `/v1?x=1`.
    #[error("a path prefix has no query or fragment; conditions on the query go under `query`")]
    Query,
    /// A prefix that only refused requests could match.
    #[error("no request can match this prefix, because {0} is refused in every path")]
    Hazard(Hazard),
    /// `/\p{L}`.
    #[error("the regular expression has a class of Unicode's")]
    UnicodeClass,
    /// The regex crate's own message.
    #[error("the regular expression does not compile: {0}")]
    Regex(String),
}

/// Whether `%2F` inside a segment is accepted as data (npm's scoped packages need it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EncodedSlash {
    /// `%2F` is a [`Hazard`].
    #[default]
    Refuse,
    /// `%2F` is data: it never counts as a separator.
    Accept,
}

/// A feature of a path that servers are known to read differently from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hazard {
    /// `.` or `..` as a segment, plain or encoded, also with spaces around it: Windows drops those at the end.
    #[error("a dot segment")]
    DotSegment,
    /// `//`.
    #[error("an empty segment")]
    EmptySegment,
    /// `%2F`.
    #[error("an encoded slash")]
    EncodedSlash,
    /// `\` or `%5C`.
    #[error("a backslash")]
    Backslash,
    /// `;`, plain or encoded: Java servers cut path parameters off.
    #[error("a semicolon")]
    Semicolon,
    /// `%25` before two hexadecimal digits.
    #[error("a doubly encoded byte")]
    DoubleEncoding,
    /// A control byte, plain or encoded, NUL among them.
    #[error("a control byte")]
    Control,
    /// `%` without two hexadecimal digits.
    #[error("a broken percent-encoding")]
    BadPercent,
    /// Encoded bytes that are not UTF-8: overlong forms hide slashes and dots.
    #[error("an encoding that is not UTF-8")]
    NotUtf8,
    /// A byte that RFC 3986 wants encoded, such as raw UTF-8, a space or a quotation mark.
    #[error("a byte that must be percent-encoded")]
    RawByte,
    /// A `#`, which hyper cuts off silently where it meets one.
    #[error("a fragment")]
    Fragment,
}

/// The first hazard of a path, if there is one.
pub fn hazard_of(path: &str, encoded_slash: EncodedSlash) -> Option<Hazard> {
    let bytes = path.as_bytes();
    if bytes.contains(&b'%') {
        return encoded_hazard_of(path, encoded_slash);
    }
    if let Some(hazard) = bytes.iter().find_map(|&byte| raw_hazard(byte)) {
        return Some(hazard);
    }
    segment_hazard(bytes)
}

/// The same for a path with percent-encodings: decoded once, then looked at as a server would.
fn encoded_hazard_of(path: &str, encoded_slash: EncodedSlash) -> Option<Hazard> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            if let Some(hazard) = raw_hazard(*byte) {
                return Some(hazard);
            }
            decoded.push(*byte);
            continue;
        }
        let [high, low, tail @ ..] = rest else {
            return Some(Hazard::BadPercent);
        };
        let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low)) else {
            return Some(Hazard::BadPercent);
        };
        rest = tail;
        match high << 4 | low {
            b'/' if encoded_slash == EncodedSlash::Accept => {
                // Data inside a segment. A dot segment beside it is still one to a server that decodes first.
                decoded.push(b'/');
            }
            b'/' => return Some(Hazard::EncodedSlash),
            b'\\' => return Some(Hazard::Backslash),
            b';' => return Some(Hazard::Semicolon),
            byte if byte < 0x20 || byte == 0x7f => return Some(Hazard::Control),
            byte => decoded.push(byte),
        }
    }
    if decoded.windows(3).any(
        |three| matches!(three, [b'%', a, b] if hex_value(*a).is_some() && hex_value(*b).is_some()),
    ) {
        return Some(Hazard::DoubleEncoding);
    }
    let Ok(text) = std::str::from_utf8(&decoded) else {
        return Some(Hazard::NotUtf8);
    };
    if text.chars().any(char::is_control) {
        return Some(Hazard::Control);
    }
    segment_hazard(&decoded)
}

fn raw_hazard(byte: u8) -> Option<Hazard> {
    match byte {
        b'\\' => Some(Hazard::Backslash),
        b';' => Some(Hazard::Semicolon),
        b'#' => Some(Hazard::Fragment),
        0..=0x1f | 0x7f => Some(Hazard::Control),
        // Brackets and the other bytes that RFC 3986 excludes from a path, but that clients send raw and servers read
        // in one way only, are let through: `[ ] ^ | { }`.
        b' ' | b'"' | b'<' | b'>' | b'`' | 0x80.. => Some(Hazard::RawByte),
        _ => None,
    }
}

fn segment_hazard(path: &[u8]) -> Option<Hazard> {
    let mut segments = path.split(|&byte| byte == b'/');
    // What stands before the first slash is empty, and so may be what stands after the last one.
    segments.next();
    let mut segments = segments.peekable();
    while let Some(segment) = segments.next() {
        // Of ASCII white space only the space gets here.
        match segment.trim_ascii() {
            b"." | b".." => return Some(Hazard::DotSegment),
            _ if segment.is_empty() && segments.peek().is_some() => {
                return Some(Hazard::EmptySegment);
            }
            _ => {}
        }
    }
    None
}

pub(super) fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Appends the literal text that each match of the expression begins with; true where the whole of it is literal.
fn literal_prefix(hir: &Hir, into: &mut String) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => {
                into.push_str(text);
                true
            }
            Err(_) => false,
        },
        HirKind::Capture(capture) => literal_prefix(&capture.sub, into),
        HirKind::Concat(parts) => parts.iter().all(|part| literal_prefix(part, into)),
        HirKind::Class(_) | HirKind::Repetition(_) | HirKind::Alternation(_) => false,
    }
}

/// Finds `\p` and `\P`, in brackets too.
struct NoUnicodeClass;

impl ast::Visitor for NoUnicodeClass {
    type Output = ();
    type Err = InvalidPath;

    fn finish(self) -> Result<(), InvalidPath> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), InvalidPath> {
        match ast {
            Ast::ClassUnicode(_) => Err(InvalidPath::UnicodeClass),
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), InvalidPath> {
        match item {
            ClassSetItem::Unicode(_) => Err(InvalidPath::UnicodeClass),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
