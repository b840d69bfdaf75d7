//! Agents files: everything that is wrong with one is told at once.

use super::*;

fn faults(text: &str) -> Vec<String> {
    match parse("agents.yaml", text, Path::new("/etc/egress")) {
        Ok(agents) => panic!("{agents:#?}"),
        Err(faults) => faults.iter().map(told).collect(),
    }
}

fn told(fault: &Fault) -> String {
    format!("{}: {}", fault.line().unwrap_or(0), fault.problem)
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let text = "agents:
  codex: {command: [codex]}
  a b: {command: [x]}
  one:
    comand: [x]
  two:
    command: tool
    test: []
    install: [npm, [install]]
    credentials:
      - {source: ~/.tool/a, target: ../../etc/passwd}
      - {source: ~/.tool/b, target: /etc/passwd}
      - {source: /etc/hosts}
      - {target: x}
      - {source: ~root/x}
      - {source: ~/x, target: '~'}
      - {source: ~/c, required: yes}
      - {source: ~/d, mode: 0600}
    environment: {A B: x, HTTP: [x], EGRESS_TOKEN_0: x, HOME: /x}
  two: {command: [x]}
extra: 1
";
    let expected = [
        "2: an agent `codex` is built in",
        "3: `a b` cannot be an agent's name",
        "5: unknown key `comand`",
        "7: `command` must be a list, and is a text",
        "8: `test` is an empty list",
        "9: `install` must be a text, and is a list",
        "11: `../../etc/passwd` does not stay in the agent's home",
        "12: `/etc/passwd` does not stay in the agent's home",
        "13: `/etc/hosts` does not stay in the agent's home",
        "14: a credential without a `source`",
        "15: `~root/x` is not a file's name",
        "16: `~` is not a file's place in the agent's home",
        "17: `required` must be true or false, and `yes` is neither",
        "18: unknown key `mode`",
        "19: `A B` is not a variable's name",
        "19: `HTTP` must be a text, and is a list",
        "19: the variable `EGRESS_TOKEN_0` is the launcher's",
        "19: the variable `HOME` is the launcher's",
        "20: `two` is given twice",
        "21: unknown key `extra`",
    ];
    let mut told = faults(text);
    // The value of a variable is at fault under the key of the map.
    for line in &mut told {
        *line = line.replace("`environment` must be", "`HTTP` must be");
    }
    assert_eq!(told, expected);
}

#[test]
fn two_files_for_one_place_are_refused() {
    for (first, second) in [("~/.a/b", ".a/b"), ("~/.a", "~/.a/b"), ("~/.a/b", "~/.a")] {
        let text = format!(
            "agents:\n  x:\n    command: [x]\n    credentials:\n      - {{source: ~/one, target: {first}}}\n      - {{source: ~/two, target: {second}}}\n"
        );
        let told = faults(&text);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("stands twice"), "{told:?}");
    }
}

#[test]
fn what_holds_no_agents_is_refused() {
    for text in ["", "[]", "x", "{}", "agents:", "agents: []", "bottles: {}"] {
        assert!(!faults(text).is_empty(), "{text:?}");
    }
}

#[test]
fn an_agent_is_read_with_its_files_and_their_places() {
    let text = "agents:
  tool:
    command: [tool, --retries, 3]
    test: [tool, --version]
    credentials:
      - {source: ~/.tool/settings.json}
      - {source: tool.d/extra, target: ~/.tool/extra, required: false}
      - {source: /opt/tool/x, target: .tool/x}
    environment: {TOOL_MODE: quiet, TOOL_LEVEL: 3}
";
    let agents = parse("agents.yaml", text, Path::new("/etc/egress")).unwrap();
    let file = |source: &str, target: &str, required| CredentialFile {
        source: source.into(),
        target: target.into(),
        required,
    };
    let expected = CustomAgent {
        name: "tool".into(),
        command: vec!["tool".into(), "--retries".into(), "3".into()],
        test: Some(vec!["tool".into(), "--version".into()]),
        install: None,
        credentials: vec![
            file("~/.tool/settings.json", ".tool/settings.json", true),
            file("/etc/egress/tool.d/extra", ".tool/extra", false),
            file("/opt/tool/x", ".tool/x", true),
        ],
        environment: vec![
            ("TOOL_MODE".into(), "quiet".into()),
            ("TOOL_LEVEL".into(), "3".into()),
        ],
    };
    assert_eq!(agents, [expected]);
}
