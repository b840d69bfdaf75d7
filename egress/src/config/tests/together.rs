//! Many faults in one file: all of them, in order, in both forms. And texts that no one would write.

use std::fmt::Write as _;

use proptest::prelude::{ProptestConfig, Strategy, any, prop, proptest};

use super::super::{Colour, Faults};
use super::{draft, faults};

const MANY: &str = "\
routez: []
routes:
  - hots: a.test
  - host: https://b.test/
    methods: [get]
    port: 0443
  - host: c.test
    auth_scheme: Bearer
    tls: passthrough
  - host: d.test
    token_env: D
    auth_scheme: Basic
    scheme: http
  - host: e.test
    path_allowlist: []
    websocket: yes
    ssrf_ip_allowlist: [10.0.0.1/8]
    connect_to: f.test
  - &anchor
    host: f.test
  - host: t.test
  - host: T.test
  - host: u.test
  - host: u.test
    path_allowlist: [/a]
    methods: [GET]
    port: 443
  - host: v.test
  - host: v.test
    tls: passthrough
    port: 443
  - host: w.test
    redact: 1
    token_env: not-a-name
    auth_scheme: raw
  - host: x.test
    port: 1
    port: 2
  - host: 'y.test
";

#[test]
fn all_faults_are_told_at_once_and_in_order() {
    let found: Vec<(u32, u32, String)> = faults(MANY)
        .into_iter()
        .map(|fault| {
            let key = fault.key.as_deref().unwrap_or("-").to_owned();
            (fault.line().unwrap(), fault.column().unwrap(), key)
        })
        .collect();
    let expected = [
        (1, 1, "routez"),
        (3, 5, "hots"),
        (4, 11, "host"),
        (5, 15, "methods"),
        (6, 11, "port"),
        // Without a slot, and on a route that passes through.
        (8, 5, "auth_scheme"),
        (8, 5, "auth_scheme"),
        (11, 5, "token_env"),
        (12, 18, "auth_scheme"),
        (15, 21, "path_allowlist"),
        (16, 16, "websocket"),
        (17, 25, "ssrf_ip_allowlist"),
        (18, 17, "connect_to"),
        (19, 5, "-"),
        (22, 11, "host"),
        (30, 10, "tls"),
        (33, 13, "redact"),
        (34, 16, "token_env"),
        (38, 5, "port"),
        // The quotation mark that never comes is missed at the end.
        (40, 1, "-"),
    ];
    let expected: Vec<_> = expected
        .map(|(line, column, key)| (line, column, key.to_owned()))
        .into();
    assert_eq!(found, expected);
}

#[test]
fn faults_are_shown_with_their_lines_and_hints() {
    let text = "routes:\n  - hots: a.test\n  - host: b.test\n    port: 0\n";
    let faults = draft(text).finish().unwrap_err();
    assert_eq!(
        faults.to_string(),
        "\
error: unknown key `hots`
 --> routes.yaml:2:5
  |
2 |   - hots: a.test
  |     ^^^^
  |
hint: did you mean `host`?

error: `0` is not a port
 --> routes.yaml:4:11
  |
4 |     port: 0
  |           ^
  |
hint: a port is a decimal number from 1 to 65535, without leading zeros"
    );
    assert!(faults.to_text(Colour::Always).contains("\u{1b}["));
}

#[test]
fn both_lines_of_a_tie_are_named() {
    let text = "routes:\n  - host: a.test\n\n  - host: a.test\n    description: again\n";
    let faults = draft(text).finish().unwrap_err();
    let fault = faults.iter().next().unwrap();
    assert_eq!((fault.line(), fault.related[0].line), (Some(4), 2));
    assert!(fault.problem.contains("line 2"), "{faults}");
    assert!(faults.to_string().contains("routes.yaml:4:11"), "{faults}");
}

#[test]
fn ties_in_one_line_of_json_are_told_apart() {
    let text = r#"{"routes": [{"host": "a.test"}, {"host": "b.test"}, {"host": "a.test"}]}"#;
    let found = faults(text);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].column(), Some(62), "{found:?}");
}

#[test]
fn a_line_that_may_hold_a_token_is_not_shown() {
    for text in [
        "routes:\n  - host: a.test\n    auth_scheme: Bearer\n    token_env: sk-s3cr3t\n",
        "routes:\n  - host: https://me:s3cr3t@a.test/\n",
        "routes:\n  - host: a.test\n    connect_to: http://me:s3cr3t@b.test:80\n",
        "routes:\n  - host: a.test\n    token: s3cr3t\n",
        "routes:\n  - host: a.test\n    api_key: s3cr3t\n",
        "routes:\n  - host: a.test\n    auth_scheme: Basic\n    token_env: A\n    auth_user: me:s3cr3t\n",
    ] {
        let faults = draft(text).finish().unwrap_err();
        for shown in [faults.to_string(), faults.to_json().to_string()] {
            assert!(!shown.contains("s3cr3t"), "{shown}");
        }
    }
}

#[test]
fn json_names_file_place_key_problem_and_hint() {
    let json = draft("routes:\n  - hots: a.test\n")
        .finish()
        .unwrap_err()
        .to_json();
    assert_eq!(
        json,
        serde_json::json!({
            "version": 1,
            "ok": false,
            "faults": [{
                "file": "routes.yaml",
                "line": 2,
                "column": 5,
                "key": "hots",
                "problem": "unknown key `hots`",
                "hint": "did you mean `host`?",
                "related": [],
            }],
        })
    );
}

#[test]
fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let faults = draft("routes:\n  - \"\\e[31mhost\": a\n")
        .finish()
        .unwrap_err();
    assert!(!faults.to_string().contains('\u{1b}'), "{faults}");
}

#[test]
fn a_fault_deep_in_a_long_line_shows_the_place_and_not_the_line() {
    let mut text = String::from("{\"routes\": [");
    for n in 0..5_000 {
        let _ = write!(text, "{{\"host\": \"h{n}.test\"}}, ");
    }
    text.push_str("{\"hots\": \"ü.test\"}]}");
    let faults = draft(&text).finish().unwrap_err();
    let column = text.find("\"hots\"").unwrap() + 1;
    let shown = faults.to_string();
    let place = format!("routes.yaml:1:{column}\n");
    assert!(shown.contains(&place), "{shown}");
    assert!(shown.len() < 1_000, "{}", shown.len());
}

#[test]
fn a_line_that_ends_as_on_old_machines_is_shown_alone() {
    let text = "routes:\r  - host: a.test\r    prot: 1\r\n  - host: b.test\n    prot: 2\n";
    let faults = draft(text).finish().unwrap_err();
    let shown = faults.to_string();
    assert!(shown.contains("routes.yaml:3:5\n"), "{shown}");
    assert!(shown.contains("routes.yaml:5:5\n"), "{shown}");
    assert!(!shown.contains("host"), "{shown}");
    let hint = super::faults("routes: [\r\t- a\r")
        .first()
        .and_then(|fault| fault.hint.clone());
    assert_eq!(hint.as_deref(), Some("indent with spaces, not with tabs"));
}

#[test]
fn the_place_that_is_shown_is_that_of_the_fault() {
    for (before, line) in [("", 1), ("\n", 2), ("# first\n\n", 3)] {
        let text = format!("{before}\u{feff}hots: 1\nroutes: []\n");
        let faults = draft(&text).finish().unwrap_err();
        let shown = faults.to_string();
        assert_eq!(faults.iter().next().unwrap().column(), Some(1));
        assert!(
            shown.contains(&format!("routes.yaml:{line}:1\n")),
            "{shown}"
        );
    }
}

#[test]
fn a_long_place_is_cut_between_characters() {
    for before in 115..125 {
        let text = format!(
            "routes:\n  - {}{}: 1\n",
            "x".repeat(before),
            "\u{80bc0}".repeat(40)
        );
        let faults = draft(&text).finish().unwrap_err();
        render(&faults);
        assert!(faults.to_string().contains("routes.yaml:2:5\n"), "{faults}");
    }
}

#[test]
fn an_error_in_the_syntax_does_not_hide_what_stands_before_it() {
    let found = faults("routes:\n  - host: a.test\n    prot: 1\n  - host: b.test\n    port: [1\n");
    let problems: Vec<&str> = found.iter().map(|fault| &*fault.problem).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(problems[0], "unknown key `prot`");
    assert!(problems[1].starts_with("not valid YAML"), "{problems:?}");
}

#[test]
fn a_route_with_a_fault_is_not_held_against_others() {
    let found = faults("routes:\n  - host: a.test\n    prot: 8443\n  - host: a.test\n");
    let problems: Vec<&str> = found.iter().map(|fault| &*fault.problem).collect();
    assert_eq!(problems, ["unknown key `prot`"]);
}

/// Pieces that bring random texts near to being routes files.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "routes:",
        "\n  - ",
        "\n    ",
        "host",
        ": ",
        "a.test",
        "'",
        "\"",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "!!str ",
        "---\n",
        "<<",
        "|",
        ">",
        "#",
        "\t",
        "%",
        "~",
        "path_allowlist",
        "regex",
        "methods",
        "GET",
        "query",
        "port",
        "443",
        "tls",
        "passthrough",
        "ü",
        "\u{feff}",
        "\r\n",
        "\0",
        "\u{1b}",
        "\\x",
        "?",
        "-",
        "upstream_ca",
        "token_env",
        "auth_scheme",
        "Basic",
    ];
    prop::sample::select(words.map(String::from).to_vec())
}

fn read(text: &str) {
    if let Err(faults) = draft(text).finish() {
        assert!(!faults.is_empty());
        render(&faults);
    }
}

fn render(faults: &Faults) {
    let _ = (
        faults.to_text(Colour::Always),
        faults.to_text(Colour::Never),
        faults.to_json(),
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_text_is_read_without_a_panic(text in any::<String>()) {
        read(&text);
        read(&format!("routes:\n  - host: {text}"));
    }

    #[test]
    fn any_sequence_of_pieces_is_read_without_a_panic(
        pieces in prop::collection::vec(piece(), 0..40),
    ) {
        read(&pieces.concat());
        read(&format!("routes:\n  - host: a.test\n    {}", pieces.concat()));
    }
}
