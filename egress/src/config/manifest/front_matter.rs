//! Where in a file the manifest stands, and whether a file is one.

use std::path::Path;

use super::super::document::{self, Value};
use super::super::fault::Fault;
use super::super::source::Source;

/// Whether a file seems to be a manifest and no routes file.
pub(super) fn is_manifest(source: &Source) -> bool {
    let mut faults = Vec::new();
    let Some(text) = yaml_of(source, &mut faults) else {
        return true;
    };
    let Some(Value::Map(map)) = document::parse(text, &mut faults).map(|root| root.value) else {
        // Front matter that is no map is a broken manifest; anything else is a broken routes file.
        return text.len() != source.text.len();
    };
    let has = |name: &str| {
        map.iter()
            .any(|entry| matches!(&entry.key.value, Value::Scalar(key) if key.text == name))
    };
    (has("bottles") || has("agents")) && !has("routes")
}

/// The YAML of a file: all of it, or the front matter of a Markdown file. It begins where the file begins, so that places
/// in it are places in the file.
pub(super) fn yaml_of<'s>(source: &'s Source, faults: &mut Vec<Fault>) -> Option<&'s str> {
    let text = &*source.text;
    let extension = Path::new(&*source.name).extension();
    let markdown = extension.is_some_and(|extension| {
        extension.eq_ignore_ascii_case("md") || extension.eq_ignore_ascii_case("markdown")
    });
    if !markdown {
        return Some(text);
    }
    let is_border = |line: &str| line.trim_end() == "---";
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| is_border(line)) else {
        faults.push(
            Fault::of_file("the file has no front matter")
                .hint("begin it with a line `---`, the manifest, and another line `---`"),
        );
        return None;
    };
    let mut end = first.len();
    for line in lines {
        if is_border(line) {
            return text.get(..end);
        }
        end += line.len();
    }
    faults.push(
        Fault::of_file("the front matter does not end")
            .hint("put a line `---` behind the manifest"),
    );
    None
}
