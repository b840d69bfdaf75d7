//! The layers of the crate. Their order is the list at the head of `egress/src/lib.rs`, and this holds the code to it.

use std::path::{Path, PathBuf};

#[test]
fn every_module_imports_only_from_the_layers_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let head = std::fs::read_to_string(src.join("lib.rs")).expect("the crate's root");
    let order: Vec<&str> = head
        .lines()
        .filter_map(|line| {
            line.strip_prefix("//! ")?
                .split_once(". [`")?
                .1
                .split_once("`]")
        })
        .map(|(name, _)| name)
        .collect();
    let declared = head
        .lines()
        .filter(|line| line.starts_with("pub mod "))
        .count();
    assert_eq!(
        order.len(),
        declared,
        "lib.rs lists every module: {order:?}"
    );
    let rank = |name: &str| order.iter().position(|layer| *layer == name);

    let mut wrong = Vec::new();
    for file in sources(&src) {
        let inside = file.strip_prefix(&src).expect("a file of src");
        let own = inside
            .iter()
            .next()
            .and_then(|first| Path::new(first).file_stem()?.to_str());
        let Some(own) = own.and_then(rank) else {
            continue;
        };
        let text = std::fs::read_to_string(&file).expect("a source file");
        // Every `crate::` counts, with a `use` before it or not; comments may point wherever they like.
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            for path in line.split("crate::").skip(1) {
                let name = path
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next();
                if name.and_then(rank).is_none_or(|used| used > own) {
                    wrong.push(format!("{}: {}", inside.display(), line.trim()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports from a higher layer:\n{}",
        wrong.join("\n")
    );
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a readable directory");
    let paths = entries.map(|entry| entry.expect("a readable entry").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
