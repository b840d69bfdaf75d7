//! Slots that cannot be used, by themselves and beside faults of the file.

use std::time::SystemTime;

use super::draft;
use crate::credential::Environment;
use crate::policy::Policy;

const TWO: &str = "\
routes:
  - host: a.test
    auth_scheme: Bearer
    token_env: ONE
  - host: b.test
    auth_scheme: Bearer
    token_env: TWO
  - host: c.test
    auth_scheme: Bearer
    token_env: ONE
";

fn policy_faults(text: &str, pairs: &[(&str, &str)]) -> Vec<(u32, String, String)> {
    let environment = Environment::from_pairs(pairs.iter().copied());
    let faults = draft(text)
        .into_policy(&environment, None, SystemTime::now())
        .unwrap_err();
    faults
        .iter()
        .map(|fault| {
            let hint = fault.hint.clone().unwrap_or_default();
            (fault.line().unwrap_or(0), fault.problem.clone(), hint)
        })
        .collect()
}

#[test]
fn each_missing_slot_is_told_once_with_its_routes() {
    assert_eq!(
        policy_faults(TWO, &[]),
        [
            (
                4,
                "slot ONE is not set; named by a.test (line 2), c.test (line 8)".into(),
                "set ONE or ONE_FILE in the sidecar's environment".into()
            ),
            (
                7,
                "slot TWO is not set; named by b.test (line 5)".into(),
                "set TWO or TWO_FILE in the sidecar's environment".into()
            ),
        ]
    );
}

#[test]
fn a_reload_says_that_a_new_variable_takes_a_restart() {
    let environment = Environment::from_pairs([("ONE", "x")]);
    let old = Policy::default();
    let draft = draft(TWO);
    let faults = draft.into_policy(&environment, Some(&old), SystemTime::now());
    let faults = faults.unwrap_err();
    let hint = faults.iter().next().and_then(|fault| fault.hint.clone());
    let expected = "set TWO or TWO_FILE in the sidecar's environment, and restart it";
    assert_eq!(hint.as_deref(), Some(expected));
}

#[test]
fn missing_slots_are_told_beside_the_faults_of_the_file() {
    let text = TWO.replace("host: b.test", "host: b.test\n    port: 0");
    let found = policy_faults(&text, &[("ONE", "x")]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].1, "`0` is not a port");
    assert!(found[1].1.starts_with("slot TWO is not set"), "{found:?}");
}

#[test]
fn the_value_of_a_slot_is_never_told() {
    for value in ["Bearer s3cr3t", "s3cr3t s3cr3t", "s3cr3t\n", "s3cr3t\u{e9}"] {
        let found = policy_faults(TWO, &[("ONE", value), ("TWO", "s3cr3t")]);
        assert_eq!(found.len(), 1, "{value:?}");
        assert!(!format!("{found:?}").contains("s3cr3t"), "{found:?}");
    }
    let found = policy_faults(TWO, &[("ONE", "s3cr3t"), ("ONE_FILE", "/x"), ("TWO", "t")]);
    assert!(
        found[0].1.contains("both as a value and as a file"),
        "{found:?}"
    );
}

#[test]
fn good_slots_make_a_policy() {
    let environment = Environment::from_pairs([("ONE", "x"), ("TWO", "y")]);
    let policy = draft(TWO)
        .into_policy(&environment, None, SystemTime::now())
        .unwrap();
    assert_eq!(policy.routes.iter().len(), 3);
    let names: Vec<String> = draft(TWO).slots().map(ToString::to_string).collect();
    assert_eq!(names, ["ONE", "TWO"]);
}
