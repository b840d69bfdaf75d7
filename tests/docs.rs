//! Documents that say they are complete.

use std::path::Path;

#[test]
fn every_error_code_is_explained_to_the_operator() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read =
        |file: &str| std::fs::read_to_string(root.join(file)).expect("a file of the repository");
    let operations = read("docs/operations.md");
    let mut seen = 0;
    for file in ["proxy/reject.rs", "proxy/gate/fault.rs", "route.rs"] {
        let source = read(&format!("egress/src/{file}"));
        let from = source.find("fn code(self)").expect("a function `code`");
        let body = source
            .get(from..)
            .and_then(|rest| rest.split("\n    }\n").next());
        for piece in body.expect("its body").split("=> \"").skip(1) {
            let code = piece.split('"').next().expect("a code");
            assert!(
                operations.contains(&format!("| `{code}` |")),
                "{file}: {code}"
            );
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} codes were found");
}
