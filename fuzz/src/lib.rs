//! What several targets assert.

pub mod path;

use egress::config::{Colour, Faults};

/// Holds a printed host to its canonical form.
///
/// # Panics
///
/// An upper-case letter, a control, a space, a user part, or anything else that no host has.
pub fn assert_host_text(text: &str) {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let legal = |byte: u8| match inner {
        Some(_) => byte.is_ascii_hexdigit() || byte == b':' || byte == b'.',
        None => byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte),
    };
    let bytes = inner.unwrap_or(text).bytes();
    assert!(
        !text.is_empty() && text.len() <= 253 && bytes.clone().all(legal),
        "{text:?}"
    );
    assert!(
        bytes.clone().all(|byte| !byte.is_ascii_uppercase()),
        "{text:?}"
    );
    assert!(
        !text.starts_with('.') && !text.ends_with('.') && !text.contains(".."),
        "{text:?}"
    );
}

/// Cuts a stream into the pieces that it arrives in. The first byte says how many cuts there are, the next ones where.
pub fn pieces(input: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let Some((count, rest)) = input.split_first() else {
        return (Vec::new(), &[]);
    };
    let (cuts, mut stream) = rest.split_at(usize::from(count % 8).min(rest.len()));
    let whole = stream;
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, later) = stream.split_at(usize::from(*cut).min(stream.len()));
        pieces.push(piece);
        stream = later;
    }
    pieces.push(stream);
    (pieces, whole)
}

/// Holds faults to the text that they are about.
///
/// # Panics
///
/// A fault that stands outside of the text, or none.
pub fn assert_faults(faults: &Faults, text: &str) {
    assert!(!faults.is_empty());
    // YAML ends a line at CR, LF or both; what follows the last of them is a line of its own.
    let ends = text.replace("\r\n", "\n").matches(['\r', '\n']).count();
    let lines = u32::try_from(ends + 1).expect("a short text");
    let shown = faults.to_text(Colour::Never);
    for fault in faults.iter() {
        assert!(!fault.problem.is_empty());
        if let Some(span) = fault.span {
            assert!(
                1 <= span.line && span.line <= lines,
                "{fault:?} in {lines} lines"
            );
            assert!(span.column >= 1 && span.start <= span.end, "{fault:?}");
            assert!(
                usize::try_from(span.end).is_ok_and(|end| end <= text.len()),
                "{fault:?}"
            );
            let place = format!("{}:{}:{}", faults.file(), span.line, span.column);
            assert!(shown.contains(&place), "{place} is not in {shown}");
        }
        for related in &fault.related {
            assert!(1 <= related.line && related.line <= lines, "{fault:?}");
        }
    }
}
