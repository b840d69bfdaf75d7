//! `egress ca`.

use super::{Bottle, EGRESS, Said, mode_of};

const ROUTES: &str = "routes:\n  - host: api.test\n  - host: '*.wild.test'\n  - {host: raw.test, tls: passthrough}\n";

#[test]
fn to_print_a_ca_that_is_not_there_creates_none() {
    let bottle = Bottle::new(ROUTES);
    for command in [&["ca", "cert"][..], &["ca", "bundle"]] {
        bottle.egress(command).refused(2, "there is no CA in ca");
    }
    assert!(!bottle.path("ca").exists());
}

#[test]
fn a_ca_without_a_home_is_not_put_where_the_command_runs() {
    let bottle = Bottle::new(ROUTES);
    for command in [&["ca", "init"][..], &["ca", "cert"], &["serve"]] {
        let output = std::process::Command::new(EGRESS)
            .args(command)
            .current_dir(bottle.path(""))
            .env_clear()
            .output();
        Said::of(output.expect("the binary runs")).refused(2, "HOME is not set");
    }
    assert!(!bottle.path("egress").exists());
}

#[test]
fn routes_with_a_fault_create_no_ca() {
    let bottle = Bottle::new("routes:\n  - {host: api.test, no_such_key: 1}\n");
    let said = bottle.egress(&["ca", "init"]);
    said.refused(2, "no_such_key");
    assert!(!bottle.path("ca").exists());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let bottle = Bottle::new(ROUTES);
    bottle.egress(&["ca", "init"]).data();
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(bottle.path("ca/ca-key.pem"), open).expect("a file of ours");
    bottle.egress(&["ca", "cert"]).refused(3, "not private");
    // What is wrong with the old pair does not keep it from being replaced.
    bottle.egress(&["ca", "init", "--renew"]).data();
    bottle.egress(&["ca", "cert"]).data();
}

#[test]
fn a_ca_that_does_not_cover_the_routes_is_neither_accepted_nor_changed() {
    let bottle = Bottle::new(ROUTES);
    bottle.egress(&["ca", "init"]).data();
    let before = bottle.read("ca/ca-cert.pem");
    std::fs::write(bottle.path("more.yaml"), "routes: [{host: other.test}]\n").expect("a file");
    let said = bottle.egress(&["ca", "init", "-r", "more.yaml"]);
    said.refused(2, "other.test");
    let said = bottle.egress(&["ca", "init", "--no-name-constraints"]);
    said.refused(2, "has name constraints");
    assert_eq!(bottle.read("ca/ca-cert.pem"), before);
}

#[test]
fn a_bundle_without_public_roots_is_refused() {
    let bottle = Bottle::new(ROUTES);
    bottle.egress(&["ca", "init"]).data();
    let nowhere = [("SSL_CERT_FILE", "nowhere.pem")];
    let said = bottle.egress_with(&["ca", "bundle", "-o", "bundle.pem"], &nowhere);
    said.refused(3, "no root certificates");
    assert!(!bottle.path("bundle.pem").exists());
}

#[test]
fn a_new_ca_stands_for_the_intercepted_hosts_only_and_says_so() {
    let bottle = Bottle::new(ROUTES);
    let told = bottle.egress(&["ca", "init"]).data();
    for part in ["created", "api.test", "wild.test", "fingerprint", "expires"] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    assert!(!told.contains("raw.test"), "{told}");
    assert_eq!(mode_of(&bottle.path("ca")), 0o700);
    assert_eq!(mode_of(&bottle.path("ca/ca-key.pem")), 0o600);

    let before = bottle.read("ca/ca-cert.pem");
    let again = bottle.egress(&["ca", "init"]).data();
    assert!(again.contains("stays"), "{again}");
    assert_eq!(bottle.read("ca/ca-cert.pem"), before);
    bottle.egress(&["ca", "init", "--renew"]).data();
    assert_ne!(bottle.read("ca/ca-cert.pem"), before);
}

#[test]
fn the_certificate_is_data_and_the_rest_is_not() {
    let bottle = Bottle::new(ROUTES);
    bottle.egress(&["ca", "init"]).data();
    let said = bottle.egress(&["ca", "cert"]);
    assert!(said.stderr.contains("fingerprint"), "{said:#?}");
    assert_eq!(said.data(), bottle.read("ca/ca-cert.pem"));
}

#[test]
fn a_bundle_holds_the_public_roots_and_this_bottles_certificate_alone() {
    let bottle = Bottle::new(ROUTES);
    bottle.egress(&["ca", "init"]).data();
    let old = bottle.read("ca/ca-cert.pem");
    bottle.egress(&["ca", "bundle", "-o", "bundle.pem"]).data();
    let bundle = bottle.read("bundle.pem");
    assert_eq!(
        bundle,
        format!("{}{}", old, bottle.read("roots.pem").replace("\r\n", "\n"))
    );
    assert_eq!(mode_of(&bottle.path("bundle.pem")), 0o644);

    // A shell that was given `egress env` names the old bundle as its roots.
    bottle.egress(&["ca", "init", "--renew"]).data();
    let stale = [("SSL_CERT_FILE", "bundle.pem")];
    let bundle = bottle.egress_with(&["ca", "bundle"], &stale).data();
    assert!(bundle.starts_with(&bottle.read("ca/ca-cert.pem")));
    assert!(!bundle.contains(&old));
    assert_eq!(bundle.matches("-----BEGIN").count(), 2);
}
