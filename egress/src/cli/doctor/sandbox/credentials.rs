//! Credentials in the environment that are none of the placeholders: told from other values by their looks.

use super::super::Variables;
use super::super::report::Finding;
use crate::config::pasted::is_token;
use crate::credential::UPSTREAM_PROXY;
use crate::launch::variables::{is_ours, is_placeholder};
use crate::proxy::steer::preamble::TOKEN_NAME;

/// Names what should not be there. No value is told, not in part either.
pub(super) fn examine(variables: &Variables) -> Vec<Finding> {
    const NAME: &str = "box.credentials";
    let of = |wanted| {
        let names = variables
            .iter()
            .filter(|(name, value)| suspicion(name, value) == Some(wanted))
            .map(|(name, _)| name);
        names.collect::<Vec<_>>().join(", ")
    };
    let (certain, likely) = (of(Suspicion::Credential), of(Suspicion::Token));
    let mut findings = Vec::new();
    if !certain.is_empty() {
        findings.push(Finding::fail(
            NAME,
            format!("the environment holds what looks like a credential, and no placeholder: {certain}"),
            "take it out of the agent's environment, give it to the sidecar as a slot, and change it at its issuer if an \
             agent has been here",
        ));
    }
    if !likely.is_empty() {
        findings.push(Finding::warn(
            NAME,
            format!("a value in the environment could be a token: {likely}"),
            "look whether it is; an identifier is no harm",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            NAME,
            "the environment holds no credential but placeholders",
        ));
    }
    findings
}

/// What a variable's value is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspicion {
    /// By its name or its beginning it is a credential.
    Credential,
    /// It has the looks of one, and so have many an identifier.
    Token,
}

fn suspicion(name: &str, value: &str) -> Option<Suspicion> {
    /// How the well-known issuers begin what they issue.
    const BEGINNINGS: [&str; 16] = [
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "github_pat_",
        "glpat-",
        "sk-",
        "xoxb-",
        "xoxp-",
        "AKIA",
        "ASIA",
        "AIza",
        "npm_",
        "pypi-",
        "hf_",
        "eyJ",
    ];
    const ENDINGS: [&str; 8] = [
        "TOKEN",
        "API_KEY",
        "APIKEY",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "ACCESS_KEY",
        "PRIVATE_KEY",
    ];
    /// Shorter values are words.
    const LEAST: usize = 8;
    let upper = name.to_ascii_uppercase();
    let is_slot = upper.starts_with("EGRESS_TOKEN_") && !upper.ends_with("_FILE");
    if is_slot || [UPSTREAM_PROXY, TOKEN_NAME].contains(&name) {
        return (!value.is_empty()).then_some(Suspicion::Credential);
    }
    let is_stand_in = is_placeholder(value) || value.to_ascii_lowercase().contains("placeholder");
    // A path names a file, which is not in the environment.
    if value.len() < LEAST || is_stand_in || is_ours(name) || value.starts_with('/') {
        return None;
    }
    let begins = BEGINNINGS.iter().any(|known| value.starts_with(known));
    let ends = ENDINGS.iter().any(|known| upper.ends_with(known));
    if begins || (ends && !value.contains(char::is_whitespace)) {
        return Some(Suspicion::Credential);
    }
    is_token(value).then_some(Suspicion::Token)
}

#[cfg(test)]
mod tests {
    use super::{Suspicion, examine, suspicion};
    use crate::cli::doctor::Variables;

    #[test]
    fn a_credential_is_told_by_its_name_and_a_placeholder_is_none() {
        for (name, value, expected) in [
            ("GH_TOKEN", "placeholder", None),
            ("ANTHROPIC_API_KEY", "sk-ant-api03-placeholder", None),
            ("GH_TOKEN", "0123456789", Some(Suspicion::Credential)),
            ("ANYTHING", "ghp_0123456789", Some(Suspicion::Credential)),
            (
                "aws_secret_access_key",
                "wJalrXUtnFEMI",
                Some(Suspicion::Credential),
            ),
            ("EGRESS_TOKEN_0", "x", Some(Suspicion::Credential)),
            ("EGRESS_TOKEN_0_FILE", "/run/secrets/token", None),
            (
                "COMMIT",
                "da39a3ee5e6b4b0d3255bfef95601890",
                Some(Suspicion::Token),
            ),
            (
                "HTTPS_PROXY",
                "http://user:p4ssw0rdP4ssw0rdP4ss@egress:1",
                None,
            ),
            ("LS_COLORS", "rs=0:di=01;34:ln=01;36", None),
            ("MAX_TOKEN", "4096", None),
            ("PASSWORD_STORE", "nothing of it", None),
            ("GIT_ASKPASS_PASSWORD", "two words here", None),
        ] {
            assert_eq!(suspicion(name, value), expected, "{name}={value}");
        }
        let found = examine(&Variables::of([("MY_TOKEN", "geheim-0123456789")]));
        assert!(found[0].is("fail", "placeholder: MY_TOKEN"), "{found:?}");
        assert!(!format!("{found:?}").contains("geheim"));
        assert!(examine(&Variables::of([]))[0].is("ok", ""));
    }
}
