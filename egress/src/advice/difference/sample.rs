//! Paths that an expression covers, as samples of all that it does.

use std::collections::BTreeSet;

use regex_syntax::hir::{Class, Hir, HirKind};

/// As many as are made of one expression.
const MOST: usize = 32;

/// A few paths that an expression may cover: each of its alternatives, and each repetition as short as it may be and once
/// more; also behind a slash, for an expression that does not begin with one.
pub(crate) fn samples(source: &str) -> Vec<String> {
    let parsed = regex_syntax::parse(source);
    let texts = parsed.map(|hir| of(&hir)).unwrap_or_default();
    let rooted = texts.iter().map(|text| format!("/{text}"));
    let mut samples: Vec<String> = rooted.chain(texts.iter().cloned()).collect();
    let is_sent = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    samples.retain(|path| path.starts_with('/') && path.bytes().all(is_sent));
    samples
}

fn of(hir: &Hir) -> Vec<String> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => vec![String::new()],
        HirKind::Literal(literal) => vec![String::from_utf8_lossy(&literal.0).into_owned()],
        HirKind::Class(class) => members(class),
        HirKind::Capture(capture) => of(&capture.sub),
        HirKind::Alternation(branches) => branches.iter().flat_map(of).take(MOST).collect(),
        HirKind::Repetition(repetition) => {
            let least = repetition.min.min(64);
            let more = repetition.max.is_none_or(|max| max > least);
            let counts = [Some(least), more.then_some(least + 1)];
            let counts = counts.into_iter().flatten();
            let repeated = counts.flat_map(|count| {
                of(&repetition.sub)
                    .into_iter()
                    .map(move |text| text.repeat(count as usize))
            });
            repeated.take(MOST).collect()
        }
        HirKind::Concat(parts) => parts.iter().fold(vec![String::new()], |before, part| {
            let tails = of(part);
            let joined = before
                .iter()
                .flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}")));
            joined.take(MOST).collect()
        }),
    }
}

/// Characters of a class that a path may have: one that is likely, and the borders of its ranges.
fn members(class: &Class) -> Vec<String> {
    let ranges: Vec<(u32, u32)> = match class {
        Class::Unicode(class) => {
            let ranges = class.iter();
            ranges
                .map(|range| (range.start().into(), range.end().into()))
                .collect()
        }
        Class::Bytes(class) => {
            let ranges = class.iter();
            ranges
                .map(|range| (range.start().into(), range.end().into()))
                .collect()
        }
    };
    let is_in = |c: &char| {
        let code = u32::from(*c);
        ranges
            .iter()
            .any(|(start, end)| (*start..=*end).contains(&code))
    };
    let mut likely = ('a'..='z')
        .chain('0'..='9')
        .chain('A'..='Z')
        .chain('!'..='~');
    let borders = ranges.iter().flat_map(|(start, end)| [*start, *end]);
    let borders = borders
        .filter_map(char::from_u32)
        .filter(char::is_ascii_graphic);
    let members: BTreeSet<char> = likely.find(is_in).into_iter().chain(borders).collect();
    members.into_iter().take(MOST).map(String::from).collect()
}
