//! Documents that say they are complete, or show what a command prints: they are held to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::rig::Rig;
use crate::harness::scrape::Scrape;
use crate::harness::sidecar::EGRESS;

#[test]
fn every_error_code_is_explained_to_the_operator() {
    let operations = read("docs/operations.md");
    let mut seen = 0;
    for file in ["proxy/reject.rs", "proxy/gate/fault.rs", "route/denial.rs"] {
        let source = read(&format!("egress/src/{file}"));
        let from = source.find("fn code(self)").expect("a function `code`");
        let body = source
            .get(from..)
            .and_then(|rest| rest.split("\n    }\n").next());
        for piece in body.expect("its body").split("=> \"").skip(1) {
            let code = piece.split('"').next().expect("a code");
            assert!(
                operations.contains(&format!("| `{code}` |")),
                "{file}: {code}"
            );
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} codes were found");
}

#[test]
fn the_recipe_for_little_memory_stays_below_what_it_promises() {
    let operations = read("docs/operations.md");
    let (_, recipe) = operations
        .split_once("To keep that number below ")
        .expect("a recipe");
    let (promised, rest) = recipe.split_once(" MiB:").expect("a number");
    let promised: u64 = promised.parse().expect("a number");
    let command = fenced(rest, "sh")[0].trim();
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("routes.yaml"), "routes: []\n").expect("a routes file");
    let said = run(&format!("{command} --format json"), dir.path());
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let ceiling = said["memory_ceiling"].as_u64().expect("a ceiling");
    assert!(ceiling < promised << 20, "{} MiB", ceiling >> 20);
}

#[test]
fn the_memory_line_is_the_one_that_check_prints() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("routes.yaml"), "routes: []\n").expect("a routes file");
    let said = run("egress check routes.yaml", dir.path());
    let line = said.lines().find(|line| line.starts_with("  memory  "));
    let line = line.expect("a line about memory");
    assert!(read("docs/operations.md").contains(&format!("\n{line}\n")));
}

#[test]
fn the_consoles_about_routes_show_what_the_commands_print() {
    let text = read("docs/routes.md");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let routes = fenced(&text, "yaml")[0];
    std::fs::write(dir.path().join("routes.yaml"), routes).expect("a routes file");
    let consoles = fenced(&text, "console");
    assert!(consoles.len() > 1, "{consoles:?}");
    for console in consoles {
        let exchanges = console.strip_prefix("$ ").expect("a command");
        for exchange in exchanges.split("\n$ ") {
            let (command, shown) = exchange.split_once('\n').expect("a command");
            let said = run(command, dir.path());
            assert_eq!(said.trim_end(), shown.trim_end(), "$ {command}");
        }
    }
}

#[tokio::test]
async fn the_dashboard_the_alerts_and_the_table_name_metrics_that_there_are() {
    let rig = Rig::new("- {host: api.test, connect_to: 'UPSTREAM'}\n").await;
    // A family without a sample has no name in the answer: there has to be a request, and a slot with an end.
    rig.agent.get("https://api.test/").await.assert_served();
    rig.sidecar.logged("\"code\":\"ok\"").await;
    let scrape = Scrape::of(&rig.sidecar).await;
    let watching = read("docs/watching.md");
    let (_, section) = watching.split_once("\n## Metrics\n").expect("a section");
    let section = section.split("\n## ").next().expect("its text");
    for (file, text, least) in [
        ("docs/grafana.json", &*read("docs/grafana.json"), 20),
        ("docs/alerts.yaml", &read("docs/alerts.yaml"), 6),
        ("docs/watching.md", section, 20),
    ] {
        let is_other = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let words = text
            .split(is_other)
            .filter(|word| word.starts_with("egress_"));
        let names: BTreeSet<&str> = words.collect();
        assert!(names.len() >= least, "{file}: {names:?}");
        for name in names {
            assert!(scrape.has(name), "{file}: {name}");
        }
    }
    // And none goes without a word.
    for name in scrape.families() {
        assert!(section.contains(&format!("`{name}")), "{name}");
    }
}

#[test]
fn the_consoles_about_policy_show_what_the_commands_print() {
    let text = read("docs/policy.md");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let refusal = |time: &str, host: &str, path: &str, code: &str| {
        format!(
            r#"{{"time":"2026-11-29T{time}Z","method":"GET","host":"{host}.example.com:443","scheme":"https","path":"{path}",{code}}}"#
        )
    };
    let records = [
        refusal(
            "10:00:00",
            "api",
            "/v2/models",
            r#""verdict":"denied","code":"path_not_allowed""#,
        ),
        refusal(
            "11:00:00",
            "api",
            "/v2/models",
            r#""verdict":"denied","code":"path_not_allowed""#,
        ),
        refusal(
            "10:00:00",
            "files",
            "/b",
            r#""verdict":"denied","code":"address_not_allowed""#,
        ),
        refusal(
            "10:00:00",
            "files",
            "/a",
            r#""verdict":"allowed","code":"ok","route":7"#,
        ),
    ];
    let key = "auth_scheme: Bearer, token_env: EGRESS_TOKEN_0";
    let api = |methods: &str| {
        format!(
            "  - {{host: api.example.com, path_allowlist: [/v1/], methods: [{methods}], {key}}}\n"
        )
    };
    let files = [
        ("audit.jsonl", records.join("\n")),
        (
            "routes.yaml",
            format!("routes:\n{}  - host: files.example.com\n", api("GET")),
        ),
        ("new.yaml", format!("routes:\n{}", api("GET, POST"))),
        ("cases.yaml", fenced(&text, "yaml")[0].to_owned()),
    ];
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("a file");
    }
    let consoles = fenced(&text, "console");
    assert!(consoles.len() > 3, "{consoles:?}");
    for console in consoles {
        let exchange = console.strip_prefix("$ ").expect("a command");
        let (command, shown) = exchange.split_once('\n').expect("a command");
        assert_eq!(
            run(command, dir.path()).trim_end(),
            shown.trim_end(),
            "$ {command}"
        );
    }
}

/// Each number of the threat model up to the last has its row but the one that it says is gone, each file that a row names
/// is there, and so is each test in the file that is named before it.
#[test]
fn the_threat_model_names_tests_that_there_are_and_leaves_no_row_out() {
    let model = read("docs/threat-model.md");
    for path in quoted(&model).filter(|word| word.ends_with(".rs")) {
        assert!(root().join(path).exists(), "{path}");
    }
    let (mut rows, mut tests) = (BTreeSet::new(), 0);
    for table in model
        .split("\n\n")
        .filter(|text| text.contains("| shown by |"))
    {
        for row in table
            .lines()
            .skip_while(|line| !line.starts_with("|---"))
            .skip(1)
        {
            let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
            let number: u32 = cells[0].trim().parse().expect(row);
            assert!(rows.insert(number), "two rows {number}");
            let mut file = None;
            for word in quoted(cells.last().expect("a cell")) {
                if word.ends_with(".rs") {
                    file = Some((word, read(word)));
                    continue;
                }
                let (path, source) = file.as_ref().unwrap_or_else(|| panic!("{number}: {word}"));
                // `row_33_*` is any number of tests, `row_33_x` is one.
                let function = match word.strip_suffix('*') {
                    Some(beginning) => format!("fn {beginning}"),
                    None => format!("fn {word}("),
                };
                assert!(source.contains(&function), "{number}: no {word} in {path}");
                tests += 1;
            }
        }
    }
    let last = *rows.last().expect("a row");
    let missing: Vec<u32> = (1..=last).filter(|number| !rows.contains(number)).collect();
    assert_eq!(missing, [29]);
    assert!(last > 60 && tests > 100, "{last} rows, {tests} tests");
}

/// What a command of `egress` without quotes prints, faults included.
fn run(command: &str, dir: &Path) -> String {
    let words = command.strip_prefix("egress ").expect("egress");
    let output = Command::new(EGRESS)
        .args(words.split(' '))
        .current_dir(dir)
        .env_clear()
        .output()
        .expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).expect("text")
}

/// The fenced blocks of a kind.
fn fenced<'t>(text: &'t str, kind: &str) -> Vec<&'t str> {
    let opening = format!("\n```{kind}\n");
    let blocks: Vec<_> = text
        .split(&opening)
        .skip(1)
        .map(|rest| rest.split("\n```").next().expect("a first piece"))
        .collect();
    assert!(!blocks.is_empty(), "no {kind}");
    blocks
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).expect(file)
}
