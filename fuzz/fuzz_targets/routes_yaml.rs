//! Routes files: faults stand within the file, and an accepted one says to another YAML reader, and after being printed,
//! what it said.

#![no_main]

use std::path::Path;

use egress::config::{Colour, Draft, parse, render};
use egress::route::host::HostPattern;
use egress::route::{Line, Routes, Rule};
use egress_fuzz::assert_faults;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const NOWHERE: &str = "/nonexistent";

fuzz_target!(|text: &str| {
    let draft = Draft::parse("routes.yaml", text.into(), Path::new(NOWHERE));
    let slots: Vec<String> = draft.slots().map(ToString::to_string).collect();
    let file = match draft.finish() {
        Ok(file) => file,
        Err(faults) => {
            assert_faults(&faults, text);
            let again = Draft::parse("routes.yaml", text.into(), Path::new(NOWHERE)).finish();
            let again = again.expect_err("the same text").to_text(Colour::Never);
            assert_eq!(again, faults.to_text(Colour::Never));
            return;
        }
    };
    // YAML 1.2, section 5.4: a carriage return alone ends a line, too.
    let breaks = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines = u32::try_from(breaks.lines().count()).expect("a short text");
    let injections = || {
        file.rules
            .iter()
            .filter_map(|(rule, _)| rule.injection.as_ref())
    };
    assert!(injections().all(|injection| slots.contains(&injection.slot.to_string())));
    for (rule, line) in &file.rules {
        assert!(1 <= *line && *line <= lines, "line {line} of {lines}");
        assert_ne!(rule.port, 0);
    }
    // What ties is a fault with a place in the text.
    Routes::new(file.rules.clone(), None).expect("no ties in a file without faults");

    let read: Value = serde_yaml::from_str(text).expect("YAML to others");
    let items = read["routes"].as_array().expect("a list to others");
    assert_eq!(items.len(), file.rules.len());
    for (item, (rule, _)) in items.iter().zip(&file.rules) {
        // `n`, `off` and the like are words of YAML 1.2, and truths to readers of YAML 1.1.
        if let Some(host) = item["host"].as_str() {
            assert_eq!(host.parse::<HostPattern>().as_ref(), Ok(&rule.host));
        } else {
            assert!(item["host"].is_boolean(), "a text to others");
        }
        let slot = rule
            .injection
            .as_ref()
            .map(|injection| injection.slot.to_string());
        if !item["token_env"].is_boolean() {
            assert_eq!(item["token_env"].as_str(), slot.as_deref());
        }
        let count = |key: &str| item[key].as_array().map(Vec::len);
        assert_eq!(count("path_allowlist"), rule.paths.as_ref().map(Vec::len));
        assert_eq!(count("methods"), rule.methods.as_ref().map(Vec::len));
    }

    let rendered: Vec<Value> = file
        .rules
        .iter()
        .map(|(rule, _)| render::json(rule))
        .collect();
    let printed = json!({ "routes": rendered }).to_string();
    match parse("routes.yaml", &printed, Path::new(NOWHERE)) {
        Ok(again) => assert_eq!(sorted(&again), sorted(&file.rules), "{printed}"),
        Err(faults) => panic!("{printed}\n{faults}"),
    }
});

/// The rules, with their conditions in the order of JSON's maps.
fn sorted(rules: &[(Rule, Line)]) -> Vec<Rule> {
    let sort = |(rule, _): &(Rule, Line)| {
        let mut rule = rule.clone();
        rule.query.sort();
        rule
    };
    rules.iter().map(sort).collect()
}
