//! What a client's end says of its trust: curl by its code, git by its words, and the scripts of ours by one.

use serde_json::Value;

use super::super::exchange::PATIENCE;

/// What a client did.
#[derive(Clone, Debug, Default)]
pub(super) struct Ran {
    /// `None` where a signal or our patience ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Whether a client trusts what it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Trusted,
    Untrusted(String),
    /// It got no further than that.
    Unclear(String),
    /// The program is there, and not the library.
    Absent,
}

/// curl's codes of the CA file, the handshake and the certificate (libcurl-errors(3)).
pub(super) fn curl(ran: &Ran) -> Trust {
    match ran.code {
        Some(0) => Trust::Trusted,
        Some(35 | 51 | 58 | 60 | 77 | 82 | 83 | 90 | 91) => Trust::Untrusted(first_line(ran)),
        _ => Trust::Unclear(first_line(ran)),
    }
}

/// git has one code for everything. What it says is libcurl's, or its own where it was answered.
pub(super) fn git(ran: &Ran) -> Trust {
    const ANSWERED: [&str; 6] = [
        "returned error:",
        "not found",
        "Authentication failed",
        "could not read Username",
        "not valid: is this a git repository",
        "unable to update url base from redirection",
    ];
    let says = |word: &&str| ran.stderr.contains(*word);
    if ran.code == Some(0) {
        return Trust::Trusted;
    }
    if ["certificate", "SSL", "CAfile"].iter().any(says) {
        return Trust::Untrusted(first_line(ran));
    }
    if ANSWERED.iter().any(says) {
        return Trust::Trusted;
    }
    Trust::Unclear(first_line(ran))
}

/// Codex tells of the provider's URL in words of its own: `URL reachable (HTTP 403)` where it was answered. A version that
/// has no such report tells nothing.
pub(super) fn codex(ran: &Ran) -> Trust {
    let report: Option<Value> = serde_json::from_str(&ran.stdout).ok();
    let details = report.as_ref().and_then(|report| {
        report
            .pointer("/checks/network.provider_reachability/details")?
            .as_object()
    });
    let told = details
        .into_iter()
        .flatten()
        .find(|(name, _)| name.ends_with("inference URL"))
        .and_then(|(_, text)| text.as_str());
    match told {
        Some(text) if text.contains("(HTTP ") => Trust::Trusted,
        Some(text) if text.contains("certificate") => Trust::Untrusted(text.into()),
        Some(text) => Trust::Unclear(text.into()),
        None => Trust::Unclear(first_line(ran)),
    }
}

/// A script of ours says it in a word.
pub(super) fn told(ran: &Ran) -> Trust {
    let (word, rest) = ran
        .stdout
        .trim()
        .split_once(' ')
        .unwrap_or((ran.stdout.trim(), ""));
    match word {
        "trusted" => Trust::Trusted,
        "absent" => Trust::Absent,
        "untrusted" => Trust::Untrusted(rest.into()),
        "unclear" => Trust::Unclear(rest.into()),
        _ => Trust::Unclear(first_line(ran)),
    }
}

fn first_line(ran: &Ran) -> String {
    match ran.stderr.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => line.trim().into(),
        None if ran.code.is_none() => format!("no end within {} s", PATIENCE.as_secs()),
        None => format!("exit code {}", ran.code.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Ran, Trust, codex, curl, git, told};

    fn ran(code: i32, stdout: &str, stderr: &str) -> Ran {
        Ran {
            code: Some(code),
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    #[test]
    fn what_curl_says_is_read_from_its_code() {
        assert_eq!(curl(&ran(0, "", "")), Trust::Trusted);
        let said = "curl: (60) SSL certificate problem: unable to get local issuer certificate";
        assert_eq!(curl(&ran(60, "", said)), Trust::Untrusted(said.into()));
        let said = "curl: (56) CONNECT tunnel failed, response 403";
        assert_eq!(curl(&ran(56, "", said)), Trust::Unclear(said.into()));
        assert_eq!(
            curl(&Ran::default()),
            Trust::Unclear("no end within 10 s".into())
        );
    }

    #[test]
    fn what_git_says_is_read_from_its_words() {
        let of = |stderr: &str| git(&ran(128, "", stderr));
        let fatal = |what: &str| format!("fatal: unable to access 'https://api.test/': {what}");
        for said in [
            "fatal: repository 'https://api.test/' not found",
            "fatal: could not read Username for 'https://api.test': terminal prompts disabled",
            &fatal("The requested URL returned error: 403"),
            "fatal: https://api.test/info/refs not valid: is this a git repository?",
        ] {
            assert_eq!(of(said), Trust::Trusted, "{said}");
        }
        for said in [
            &fatal("server certificate verification failed. CAfile: /b.pem CRLfile: none"),
            &fatal("SSL certificate problem: unable to get local issuer certificate"),
            &fatal("error setting certificate file: /none.pem"),
        ] {
            assert_eq!(of(said), Trust::Untrusted(said.into()), "{said}");
        }
        for said in [
            &fatal("Received HTTP code 403 from proxy after CONNECT"),
            &fatal("CONNECT tunnel failed, response 403"),
            &fatal("Failed to connect to 127.0.0.1 port 1: Connection refused"),
        ] {
            assert_eq!(of(said), Trust::Unclear(said.into()), "{said}");
        }
    }

    #[test]
    fn what_codex_says_is_read_from_its_report() {
        let of = |what: &str| {
            let details = json!({"egress API inference URL": what, "egress API route probe": "y"});
            let report = json!({"checks": {"network.provider_reachability": {"details": details}}});
            codex(&ran(1, &report.to_string(), ""))
        };
        assert_eq!(
            of("https://a/responses reachable (HTTP 403)"),
            Trust::Trusted
        );
        let said = "https://a/responses TLS handshake or certificate validation failed (required)";
        assert_eq!(of(said), Trust::Untrusted(said.into()));
        let said = "https://a/responses connect failed (required)";
        assert_eq!(of(said), Trust::Unclear(said.into()));
        let said = "error: unrecognized subcommand 'doctor'";
        assert_eq!(codex(&ran(2, "", said)), Trust::Unclear(said.into()));
    }

    #[test]
    fn a_script_says_it_in_a_word() {
        assert_eq!(told(&ran(0, "trusted\n", "")), Trust::Trusted);
        assert_eq!(told(&ran(0, "absent\n", "")), Trust::Absent);
        let reason = "CERT_X of it";
        let said = format!("untrusted {reason}\n");
        assert_eq!(told(&ran(0, &said, "")), Trust::Untrusted(reason.into()));
        assert_eq!(told(&ran(1, "", "boom\n")), Trust::Unclear("boom".into()));
        assert_eq!(told(&ran(1, "", "")), Trust::Unclear("exit code 1".into()));
    }
}
