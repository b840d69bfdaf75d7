//! `egress check`: each fault of a file, once, in each form.

use serde_json::Value;

use super::Bottle;

const FAULTY: &str = "\
routes:
  - hots: a.test
  - {host: b.test, port: 99999}
  - host: c.test
    methods: [get]
";

#[test]
fn each_fault_is_told_with_its_place_and_a_hint_and_all_forms_tell_the_same() {
    let bottle = Bottle::new(FAULTY);
    let text = bottle.egress(&["check", "routes.yaml"]);
    let json = bottle.egress(&["check", "--format", "json", "routes.yaml"]);
    let sarif = bottle.egress(&["check", "--format", "sarif", "routes.yaml"]);
    let said = [&text, &json, &sarif].map(|said| said.code);
    assert_eq!(said, [Some(1); 3]);
    let text = text.stderr;
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let sarif: Value = serde_json::from_str(&sarif.stdout).expect("JSON");

    let faults = json["faults"].as_array().expect("a list");
    assert_eq!(faults.len(), 3, "{json:#}");
    assert_eq!(text.matches("error: ").count(), faults.len(), "{text}");
    assert!(text.contains("did you mean `host`?"), "{text}");
    let of_json: Vec<_> = faults
        .iter()
        .map(|fault| {
            let (line, column) = (fault["line"].as_u64(), fault["column"].as_u64());
            let place = format!("routes.yaml:{}:{}", line.unwrap_or(0), column.unwrap_or(0));
            assert!(text.contains(&place), "{place}: {text}");
            let problem = fault["problem"].as_str().expect("a text");
            let told = match fault["hint"].as_str() {
                Some(hint) => format!("{problem}\nhint: {hint}"),
                None => problem.to_owned(),
            };
            (line, column, told)
        })
        .collect();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    assert_eq!(run["tool"]["driver"]["name"], "egress");
    let results = run["results"].as_array().expect("a list");
    let of_sarif: Vec<_> = results
        .iter()
        .map(|result| {
            let place = &result["locations"][0]["physicalLocation"];
            assert_eq!(place["artifactLocation"]["uri"], "routes.yaml");
            let region = &place["region"];
            let text = result["message"]["text"].as_str().expect("a text");
            let (line, column) = (&region["startLine"], &region["startColumn"]);
            (line.as_u64(), column.as_u64(), text.to_owned())
        })
        .collect();
    assert_eq!(of_sarif, of_json);
}

#[test]
fn a_file_without_faults_is_a_run_without_results() {
    let bottle = Bottle::new("routes: [{host: a.test}]\n");
    let sarif = bottle
        .egress(&["check", "--format", "sarif", "routes.yaml"])
        .data();
    let sarif: Value = serde_json::from_str(&sarif).expect("JSON");
    assert_eq!(sarif["runs"][0]["results"], Value::Array(Vec::new()));
}
