//! Paths without a hazard have one reading, and patterns cover whole segments.
//!
//! Input: a prefix or an expression, a line feed, a path.

#![no_main]

use egress::route::path::{EncodedSlash, PathPattern, hazard_of};
use egress_fuzz::path::{covers, segments};
use http::uri::PathAndQuery;
use libfuzzer_sys::fuzz_target;
use regex::Regex;

fuzz_target!(|input: &str| {
    let (pattern, path) = input.split_once('\n').unwrap_or(("/", input));
    // What is no path to the library that reads requests never comes to be compared.
    let is_path = path.starts_with('/')
        && path
            .parse::<PathAndQuery>()
            .is_ok_and(|parsed| parsed.as_str() == path && parsed.query().is_none());
    let free = is_path && hazard_of(path, EncodedSlash::Refuse).is_none();
    if is_path {
        for mode in [EncodedSlash::Refuse, EncodedSlash::Accept] {
            let accepted = hazard_of(path, mode).is_none();
            let read = segments(path, mode);
            assert!(!accepted || read.is_some(), "{path:?} has several readings");
            assert!(
                accepted || read.is_none() || !path.bytes().all(is_plain),
                "{path:?} is refused for nothing"
            );
        }
        assert!(!free || hazard_of(path, EncodedSlash::Accept).is_none());
    }

    if let Ok(prefix) = PathPattern::prefix(pattern) {
        assert_eq!(
            PathPattern::prefix(&prefix.to_string()).as_ref(),
            Ok(&prefix)
        );
        assert_eq!(prefix.literal(), pattern);
        assert!(prefix.matches(pattern), "a prefix covers itself");
        if is_path {
            assert_eq!(
                prefix.matches(path),
                covers(pattern, path),
                "{pattern:?} {path:?}"
            );
        }
        if free && prefix.matches(path) {
            // As the upstream reads the path, it lies below the prefix as the operator reads that one.
            let below = segments(path, EncodedSlash::Accept).expect("free of hazards");
            let above = segments(pattern, EncodedSlash::Accept).expect("free of hazards");
            let above = above.strip_suffix(&[Vec::new()]).unwrap_or(&above);
            assert!(
                below.starts_with(above),
                "{path:?} is not below {pattern:?}"
            );
        }
    }

    // Large repetitions take long to compile, which costs the operator's time alone.
    if pattern.len() <= 64
        && let Ok(expression) = PathPattern::regex(pattern)
    {
        let PathPattern::Regex(inner) = &expression else {
            panic!("an expression becomes one");
        };
        assert_eq!(PathPattern::regex(inner.source()).as_ref(), Ok(&expression));
        if expression.matches(path) {
            assert!(
                path.starts_with(expression.literal()),
                "{pattern:?} {path:?}"
            );
            // Some match covers all of it: the expression alone may prefer a shorter one.
            let whole = Regex::new(&format!(r"\A(?:{pattern})\z")).expect("it compiled before");
            assert!(
                whole.is_match(path),
                "{pattern:?} covers a part of {path:?}"
            );
        }
    }
});

/// What RFC 3986 lets a path hold, without what is known to be read in several ways.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/%-._~!$&'()*+,=:@".contains(&byte)
}
