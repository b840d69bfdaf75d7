//! `egress presets`.

use serde_json::Value;

use super::Bottle;

#[test]
fn what_is_no_preset_is_refused() {
    let bottle = Bottle::new("");
    bottle
        .egress(&["presets", "nmp"])
        .refused(2, "one of codex, claude, gemini");
    bottle
        .egress(&["presets", "npm", "--scheme", "Bearer"])
        .refused(2, "takes no credential");
    bottle
        .egress(&["presets", "claude", "--scheme", "Basic"])
        .refused(2, "one of Bearer, raw");
}

#[test]
fn each_preset_that_is_listed_prints_routes_that_are_good() {
    let bottle = Bottle::new("");
    let all = bottle.egress(&["presets", "--json"]).data();
    let all: Value = serde_json::from_str(&all).expect("JSON");
    let names = all["presets"].as_array().expect("a list").iter();
    let names: Vec<_> = names
        .map(|preset| preset["name"].as_str().expect("a name"))
        .collect();
    let expected = [
        "codex",
        "claude",
        "gemini",
        "opencode",
        "github-read",
        "npm",
        "pypi",
        "crates",
        "mise",
    ];
    assert_eq!(names, expected);
    let list = bottle.egress(&["presets"]).data();
    for name in names {
        assert!(
            list.lines()
                .any(|line| line.starts_with(&format!("{name} "))),
            "{list}"
        );
        let routes = bottle.egress(&["presets", name]).data();
        std::fs::write(bottle.path("routes.yaml"), routes).expect("a routes file");
        let checked = bottle
            .egress(&["check", "--format", "json", "routes.yaml"])
            .data();
        let checked: Value = serde_json::from_str(&checked).expect("JSON");
        let one = bottle.egress(&["presets", name, "--json"]).data();
        let one: Value = serde_json::from_str(&one).expect("JSON");
        assert_eq!(
            Some(one["routes"].as_array().expect("a list").len() as u64),
            checked["routes"].as_u64()
        );
    }
}

/// What a preset is to let through, and what it is to keep out.
#[test]
fn a_preset_admits_what_its_client_needs_and_not_more() {
    let bottle = Bottle::new("");
    let cases = [
        (
            "codex",
            "GET",
            "wss://chatgpt.com/backend-api/codex/responses",
            true,
        ),
        (
            "codex",
            "POST",
            "https://chatgpt.com/backend-api/codex/responses",
            true,
        ),
        (
            "codex",
            "GET",
            "https://chatgpt.com/backend-api/wham/accounts/check",
            true,
        ),
        (
            "codex",
            "GET",
            "https://chatgpt.com/backend-api/codex/models?client_version=1",
            true,
        ),
        (
            "codex",
            "GET",
            "https://chatgpt.com/backend-api/ps/plugins/list",
            true,
        ),
        (
            "codex",
            "GET",
            "https://chatgpt.com/backend-api/wham/settings/user",
            true,
        ),
        (
            "codex",
            "POST",
            "https://chatgpt.com/backend-api/ps/mcp",
            true,
        ),
        (
            "codex",
            "POST",
            "https://chatgpt.com/backend-api/codex/analytics-events/events",
            false,
        ),
        (
            "codex",
            "POST",
            "https://chatgpt.com/backend-api/wham/accounts/check",
            false,
        ),
        (
            "codex",
            "GET",
            "https://chatgpt.com/backend-api/conversations",
            false,
        ),
        (
            "codex",
            "POST",
            "https://ab.chatgpt.com/otlp/v1/metrics",
            false,
        ),
        (
            "codex",
            "POST",
            "https://auth.openai.com/oauth/token",
            false,
        ),
        ("codex", "POST", "https://api.openai.com/v1/files", false),
        (
            "claude",
            "POST",
            "https://api.anthropic.com/v1/messages?beta=true",
            true,
        ),
        (
            "claude",
            "POST",
            "https://api.anthropic.com/v1/messages/count_tokens",
            true,
        ),
        (
            "claude",
            "POST",
            "https://api.anthropic.com/api/event_logging/batch",
            false,
        ),
        (
            "gemini",
            "POST",
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
            true,
        ),
        ("gemini", "POST", "https://play.googleapis.com/log", false),
        (
            "opencode",
            "POST",
            "https://api.anthropic.com/v1/messages",
            true,
        ),
        (
            "opencode",
            "GET",
            "https://models.opencode.ai/api.json",
            true,
        ),
        (
            "github-read",
            "GET",
            "https://api.github.com/repos/o/r/pulls",
            true,
        ),
        (
            "github-read",
            "POST",
            "https://api.github.com/repos/o/r/pulls",
            false,
        ),
        (
            "github-read",
            "POST",
            "https://api.github.com/graphql",
            false,
        ),
        (
            "github-read",
            "GET",
            "https://github.com/o/r.git/info/refs?service=git-upload-pack",
            true,
        ),
        (
            "github-read",
            "GET",
            "https://github.com/o/r.git/info/refs?service=git-receive-pack",
            false,
        ),
        (
            "github-read",
            "POST",
            "https://github.com/o/r.git/git-upload-pack",
            true,
        ),
        (
            "github-read",
            "POST",
            "https://github.com/o/r.git/git-receive-pack",
            false,
        ),
        (
            "npm",
            "GET",
            "https://registry.npmjs.org/@types%2fnode",
            true,
        ),
        (
            "npm",
            "GET",
            "https://registry.npmjs.org/left-pad/-/left-pad-1.3.0.tgz",
            true,
        ),
        ("npm", "PUT", "https://registry.npmjs.org/left-pad", false),
        ("pypi", "GET", "https://pypi.org/simple/requests/", true),
        (
            "pypi",
            "GET",
            "https://files.pythonhosted.org/packages/a/b/c.whl",
            true,
        ),
        ("pypi", "POST", "https://upload.pypi.org/legacy/", false),
        ("pypi", "POST", "https://pypi.org/simple/", false),
        ("crates", "GET", "https://index.crates.io/se/rd/serde", true),
        (
            "crates",
            "GET",
            "https://static.crates.io/crates/serde/1.0.0/download",
            true,
        ),
        (
            "crates",
            "PUT",
            "https://crates.io/api/v1/crates/new",
            false,
        ),
        (
            "mise",
            "GET",
            "https://mise-versions.jdx.dev/tools/node.toml",
            true,
        ),
        (
            "mise",
            "GET",
            "https://github.com/o/r/releases/download/v1/r.tar.gz",
            true,
        ),
        (
            "mise",
            "GET",
            "https://api.github.com/repos/o/r/releases/tags/v1",
            true,
        ),
        ("mise", "GET", "https://api.github.com/user", false),
    ];
    let mut written = "";
    for (preset, method, url, admitted) in cases {
        if written != preset {
            let routes = bottle.egress(&["presets", preset]).data();
            std::fs::write(bottle.path("routes.yaml"), routes).expect("a routes file");
            written = preset;
        }
        let said = bottle.egress(&["explain", "-r", "routes.yaml", method, url]);
        assert_eq!(
            said.code,
            Some(i32::from(!admitted)),
            "{preset}: {method} {url}\n{said:#?}"
        );
    }
}
