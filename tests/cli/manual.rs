//! `egress completions` and `egress man`.

use super::Bottle;

#[test]
fn an_unknown_shell_is_refused() {
    let said = Bottle::new("").egress(&["completions", "cobol"]);
    assert_eq!(said.code, Some(2), "{said:#?}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let said = Bottle::new("").egress(&["man", "--dir", "routes.yaml/man"]);
    said.refused(3, "routes.yaml/man");
}

#[test]
fn completions_know_every_command() {
    let bottle = Bottle::new("");
    for shell in ["bash", "zsh", "fish"] {
        let script = bottle.egress(&["completions", shell]).data();
        for word in ["serve", "bundle", "dummy-auth", "no-name-constraints"] {
            assert!(script.contains(word), "no {word} for {shell}");
        }
    }
}

#[test]
fn each_command_has_a_page_with_its_examples() {
    let bottle = Bottle::new("");
    bottle.egress(&["man", "--dir", "man"]).data();
    assert!(bottle.read("man/egress.1").contains("egress\\-serve"));
    let page = bottle.read("man/egress-ca-bundle.1");
    assert!(page.contains("egress ca bundle \\-o"), "{page}");
    assert!(bottle.egress(&["man"]).data().contains(".TH egress 1"));
}
