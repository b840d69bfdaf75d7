//! The patterns of `path_allowlist`: prefixes, and regular expressions in braces.

use super::document::{Entry, Node, Value};
use super::fault::{Fault, Span, shown};
use super::fields::{Field, Fields};
use super::keys::{Form, Key, Keys};
use super::values::repeated;
use crate::route::path::{InvalidPath, PathPattern};

/// The patterns, with their places.
pub(super) fn read(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<Vec<(PathPattern, Span)>> {
    let items = field.list("to allow every path", faults)?;
    let mut patterns: Vec<(PathPattern, Span)> = Vec::with_capacity(items.len());
    for item in items {
        let Some(pattern) = path(field, item, faults) else {
            continue;
        };
        match patterns.iter().find(|(known, _)| *known == pattern) {
            Some((_, first)) => {
                let shown = shown(&pattern.to_string());
                faults.push(repeated(field, item.span, &shown, *first));
            }
            None => patterns.push((pattern, item.span)),
        }
    }
    Some(patterns)
}

fn path(field: Field<'_>, item: &Node<'_>, faults: &mut Vec<Fault>) -> Option<PathPattern> {
    if let Value::Map(map) = &item.value {
        return regex(field, map, item.span, faults);
    }
    let text = field.text_of(item, faults)?;
    match PathPattern::prefix(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let problem = format!("the path prefix {} cannot be used: {error}", shown(text));
            let fault = field.fault_in(item.span, problem);
            faults.push(match error {
                InvalidPath::NoSlash if looks_like_regex(text) => {
                    fault.hint("write a regular expression as `{regex: '...'}`")
                }
                InvalidPath::NoSlash => fault.hint(format!("write {}", shown(&format!("/{text}")))),
                _ => fault,
            });
            None
        }
    }
}

fn looks_like_regex(text: &str) -> bool {
    text.starts_with('^') || text.ends_with('$') || text.contains(".*")
}

fn regex(
    field: Field<'_>,
    map: &[Entry<'_>],
    span: Span,
    faults: &mut Vec<Fault>,
) -> Option<PathPattern> {
    let before = faults.len();
    let fields = Fields::read(map, &PATTERN_KEYS, faults);
    let Some(source) = fields.find("regex") else {
        if faults.len() == before {
            faults.push(
                field
                    .fault_in(span, "a path pattern in braces has no `regex`")
                    .hint("write {regex: '^/repos/[^/]+/pulls$'}"),
            );
        }
        return None;
    };
    let text = source.text(faults)?;
    let unusable = |problem: String| source.fault(problem);
    match PathPattern::regex(text) {
        Ok(pattern) if pattern.literal().starts_with('/') || pattern.literal().is_empty() => {
            Some(pattern)
        }
        Ok(_) => {
            let problem = format!("the regular expression {} can match no path", shown(text));
            faults.push(unusable(problem).hint(
                "every path begins with `/`, and the expression has to cover the whole path",
            ));
            None
        }
        Err(InvalidPath::Regex(message)) => {
            // The compiler draws its message over several lines; the last one says what is wrong.
            let last = message.lines().last().unwrap_or_default();
            let reason = last
                .strip_prefix("error: ")
                .unwrap_or(last)
                .trim_end_matches('.');
            faults.push(unusable(format!(
                "the regular expression {} does not compile: {reason}",
                shown(text)
            )));
            None
        }
        Err(InvalidPath::UnicodeClass) => {
            let text = shown(text);
            let problem = format!("the regular expression {text} has a class of Unicode's");
            faults.push(unusable(problem).hint(
                r"write [A-Za-z0-9] or the like for `\p{...}`: a path that is sent is ASCII",
            ));
            None
        }
        Err(error) => {
            faults.push(unusable(error.to_string()));
            None
        }
    }
}

pub(super) static PATTERN_KEYS: Keys = Keys {
    one_of: &["regex"],
    ..Keys::new(
        "a path pattern",
        &[&[Key {
            name: "regex",
            form: Form::Text,
            about: "A regular expression that covers the whole path",
        }]],
    )
};
