//! No text of a manifest can come to say something else in what is rendered, and no manifest brings the reader down.

use std::path::Path;

use proptest::prelude::{
    ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, proptest,
};
use serde_json::{Value, json};

use super::super::manifest;
use super::manifests::read;

/// Texts that would like to be keys, values or comments of their own.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = [
        "\n",
        "\r\n",
        "\n    token_env: EVIL",
        "\n  - host: evil.test",
        ": ",
        " #",
        "#",
        "'",
        "\"",
        "''",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        "&a ",
        "*a",
        "!!str ",
        "|",
        ">",
        "%",
        "@",
        "`",
        "? ",
        "- ",
        "---",
        "...",
        "<<",
        "~",
        "null",
        "true",
        "0x1f",
        "1e3",
        ".nan",
        "-",
        ":",
        "a",
        "é",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\t",
        "\u{0}",
        "\u{1b}",
        "\u{7f}",
        "\u{1f600}",
        " ",
        "/",
        "x: y",
        "routes:",
        "\\n",
        "$",
        "\u{e000}",
        "\u{10ffff}",
    ];
    let piece = prop::sample::select(pieces.map(String::from).to_vec());
    prop::collection::vec(
        prop::strategy::Union::new([piece.boxed(), any::<String>().boxed()]),
        0..6,
    )
    .prop_map(|pieces| pieces.concat())
}

/// A text in YAML's double quotes, with everything escaped.
fn escaped(text: &str) -> String {
    let escape = |c| format!("\\U{:08x}", u32::from(c));
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn no_text_of_a_manifest_becomes_a_key(
        description in hostile(), name in hostile(), value in hostile(), user in hostile(), regex in hostile(),
        bottle in hostile(), file in hostile(), role in hostile(),
    ) {
        // What these may not hold is another test's matter, and so is which parameter is refused as a credential.
        let clean = |text: &str| text.replace(|c: char| c.is_control() || c == ':', "");
        let (user, bottle, name) = (clean(&user), format!("b{}", clean(&bottle)), format!("n{name}"));
        let regex = format!("/{}", regex_syntax::escape(&regex));
        let text = format!(
            "bottles: {{? {}: {{egress: {{routes: [{{host: a.test, description: {}, query: {{? {}: {}}}, query_credentials: allow, role: [{}],
              path_allowlist: [{{regex: {}}}], auth_user: {}, auth: {{scheme: Basic, token_ref: REF}}}}]}}}}}}",
            escaped(&bottle), escaped(&description), escaped(&name), escaped(&value), escaped(&format!("r{role}")),
            escaped(&regex), escaped(&user)
        );
        let manifest = manifest::parse(&file, &text, Path::new("/nonexistent"));
        let manifest = manifest.map_err(|faults| proptest::test_runner::TestCaseError::fail(faults.to_string()))?;
        let rendered = manifest.bottle(None).unwrap().render();
        let rendered = rendered.map_err(|faults| proptest::test_runner::TestCaseError::fail(faults.to_string()))?;
        // Read without what we know about the file.
        let read: Value = serde_yaml::from_str(&rendered.routes)
            .map_err(|error| proptest::test_runner::TestCaseError::fail(format!("{error}\n{}", rendered.routes)))?;
        prop_assert_eq!(read, json!({"routes": [{
            "host": "a.test", "description": description, "query": {name: value}, "query_credentials": "allow", "path_allowlist": [{"regex": regex}],
            "auth_scheme": "Basic", "auth_user": user, "token_env": "EGRESS_TOKEN_0",
        }]}));
        prop_assert!(!rendered.routes.contains("REF\n"));
        // One line for each key, and the head.
        prop_assert_eq!(rendered.routes.lines().count(), 10);
    }

    #[test]
    fn any_text_is_read_as_a_manifest_without_a_panic(text in any::<String>(), piece in hostile()) {
        for text in [&text, &format!("bottles: {{d: {{egress: {{routes: [{{host: a.test, {piece}}}]}}}}}}")] {
            if let Ok(manifest) = manifest::parse("m.md", text, Path::new("/nonexistent")) {
                for bottle in manifest.bottles() {
                    prop_assert!(bottle.render().is_ok());
                }
            }
            if let Ok(manifest) = read(text) {
                for bottle in manifest.bottles() {
                    prop_assert!(bottle.render().is_ok());
                }
            }
        }
    }
}
