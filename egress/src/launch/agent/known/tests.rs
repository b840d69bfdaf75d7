//! Which files are recognised. The values are made up.

use super::*;

fn refused(kind: Option<Kind>) -> bool {
    matches!(kind, Some(Kind::Refused(_)))
}

#[test]
fn a_credential_file_is_recognised_by_its_name() {
    for path in [
        "/home/u/.claude/.credentials.json",
        "/home/u/.claude.json",
        "/home/u/.gemini/oauth_creds.json",
        "/home/u/.config/gh/hosts.yml",
        "/home/u/.netrc",
        "/home/u/.git-credentials",
        "/home/u/.config/git/credentials",
        "/home/u/.local/share/opencode/auth.json",
        "/home/u/.ssh/id_ed25519",
        "/home/u/.ssh/work/key",
        "/home/u/.aws/credentials",
        "/home/u/.config/gcloud/application_default_credentials.json",
        "/home/u/.kube/config",
        "/home/u/.gnupg/private-keys-v1.d/x.key",
        "/home/u/.cargo/credentials.toml",
    ] {
        assert!(refused(by_name(Path::new(path))), "{path}");
    }
    for path in [
        "/home/u/.ssh/known_hosts",
        "/home/u/.ssh/config",
        "/home/u/.ssh/id_ed25519.pub",
        "/home/u/.tool/settings.json",
        "/home/u/hosts.yml",
        "/home/u/.npmrc",
    ] {
        assert_eq!(by_name(Path::new(path)), None, "{path}");
    }
}

#[test]
fn a_secret_is_recognised_by_its_form_or_by_its_name() {
    for text in [
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl",
        "-----BEGIN PRIVATE KEY-----",
        "x ghp_abcdefghijklmnopqrstuvwxyz0123456789 y",
        "github_pat_11AAAAAAA0abcdefghijklmnop",
        "glpat-abcdefghijklmnopqrst",
        "sk-ant-oat01-abcdefghijklmnop",
        "sk-proj-abcdefghijklmnop",
        "AIzaSyA1234567890abcdefghijklmnopqrstuvw",
        "AKIAABCDEFGHIJKLMNOP",
        "xoxb-1234567890-abcdefghij",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "https://user:passw0rd@registry.example/",
        "Authorization: Bearer abcdefghijkl",
        r#"{"claudeAiOauth": {"accessToken": "abcdefgh"}}"#,
        r#"{"refresh_token": "abcdefgh"}"#,
        "client_secret = 'abcdefgh'",
        "apiKey: abcdefgh",
        "password=abcdefgh",
        "//registry.npmjs.org/:_authToken=abcdefgh",
        "_auth=YWJjZGVmZ2g=",
        "access-token: dop_v1_0123456789abcdef",
        "api-key = \"abcdefgh\"",
        r#"{"token": "abcdefgh"}"#,
        "[auth]\ntoken=sntrys_0123456789",
        "secret: abcdefgh",
        r#"{"accessTokens": "abcdefgh"}"#,
        r#"{"auths": {"r.example": {"auth": "dXNlcjpwYXNz"}}}"#,
    ] {
        let kind = by_contents(text.as_bytes());
        assert!(refused(Some(kind)), "{text}: {kind:?}");
    }
    assert!(refused(Some(by_contents(b"SQLite format 3\0\xff\xfe"))));
}

#[test]
fn what_is_no_secret_or_says_that_it_is_a_placeholder_may_be_copied() {
    for text in [
        "",
        r#"{"theme": "dark", "model": "some-model-4.1"}"#,
        r#"{"apiKey": "placeholder", "token": ""}"#,
        "ANTHROPIC_API_KEY=sk-ant-api03-placeholder",
        "registry=https://registry.npmjs.org/\nsave-exact=true",
        "access_token: ''",
        "max_tokens: 100000",
        "model_auto_compact_token_limit = 100000",
        "secret_scanning: enabled",
        "path: /usr/local/bin",
        "url: https://api.example/v1/tokens",
    ] {
        assert_eq!(by_contents(text.as_bytes()), Kind::Other, "{text}");
    }
}

#[test]
fn a_codex_login_is_recognised_wherever_it_stands() {
    let login = br#"{"tokens": {"refresh_token": "rt_x"}}"#;
    assert_eq!(by_contents(login), Kind::CodexLogin);
    let key = br#"{"OPENAI_API_KEY": "sk-abcdefghijklmnopqrst"}"#;
    assert_eq!(by_contents(key), Kind::CodexApiKey);
}
