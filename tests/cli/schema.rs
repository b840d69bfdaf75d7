//! `egress schema`, and the schemas that editors are pointed to.

use std::path::Path;

use super::Bottle;

#[test]
fn another_file_has_no_schema() {
    let said = Bottle::new("").egress(&["schema", "audit"]);
    assert_eq!(said.code, Some(2), "{said:#?}");
}

#[test]
fn the_schemas_in_the_repository_are_those_of_the_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let bottle = Bottle::new("");
    for name in ["routes", "manifest"] {
        let file = format!("docs/schema/{name}.schema.json");
        let kept = std::fs::read_to_string(root.join(&file)).expect("a schema");
        let printed = bottle.egress(&["schema", name]).data();
        assert!(
            kept == printed,
            "{file} is old: `egress schema {name} > {file}`"
        );
    }
}

#[test]
fn the_files_that_point_to_a_schema_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in ["routes.example.yaml", "docker/example/bottle.yaml"] {
        let path = root.join(name);
        let text = std::fs::read_to_string(&path).expect("an example");
        let first = text.lines().next().expect("a line");
        let schema = first
            .strip_prefix("# yaml-language-server: $schema=")
            .expect("a schema");
        let schema = path.parent().expect("a directory").join(schema);
        assert!(schema.is_file(), "{}", schema.display());
        let path = path.to_str().expect("a UTF-8 path");
        Bottle::new("").egress(&["check", path]).data();
    }
}
