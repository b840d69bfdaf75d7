//! Manifests: what a bottle renders to is the same each time, is a routes file, and tells nothing of this machine.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use egress::config::render::TokenRef;
use egress::config::{manifest, parse};
use egress_fuzz::assert_faults;
use libfuzzer_sys::fuzz_target;

/// Values of variables that are too long to be in a manifest by chance.
static VALUES: LazyLock<Vec<String>> = LazyLock::new(|| {
    std::env::vars()
        .map(|(_, value)| value)
        .filter(|value| value.len() >= 12)
        .collect()
});

fuzz_target!(|text: &str| {
    for name in ["m.yaml", "m.md"] {
        check(name, text);
    }
});

fn check(name: &str, text: &str) {
    let manifest = match manifest::parse(name, text, Path::new("/nonexistent")) {
        Ok(manifest) => manifest,
        Err(faults) => return assert_faults(&faults, text),
    };
    for (_, bottle) in manifest.agents() {
        assert!(manifest.bottle(Some(bottle)).is_ok());
    }
    for bottle in manifest.bottles() {
        let rendered = bottle.render().expect("a manifest without faults renders");
        assert_eq!(
            bottle.render().as_ref().ok(),
            Some(&rendered),
            "another rendering"
        );
        let rules = match parse("routes.yaml", &rendered.routes, Path::new("/nonexistent")) {
            Ok(rules) => rules,
            Err(faults) => panic!("{}\n{faults}", rendered.routes),
        };

        // One slot for a reference, in the order of first use, and no slot without a route.
        for (index, slot) in rendered.slots.iter().enumerate() {
            assert_eq!(slot.name.to_string(), format!("EGRESS_TOKEN_{index}"));
            let same = rendered
                .slots
                .iter()
                .filter(|other| other.reference == slot.reference);
            assert_eq!(same.count(), 1, "two slots for one reference");
            if slot.reference == TokenRef::CodexHost {
                assert!(
                    bottle.provider.forward_host_credentials
                        || text.contains("CODEX_HOST_ACCESS_TOKEN")
                );
            }
        }
        let mut used: Vec<String> = rules
            .iter()
            .filter_map(|(rule, _)| Some(rule.injection.as_ref()?.slot.to_string()))
            .collect();
        used.dedup();
        for slot in &rendered.slots {
            assert!(
                used.contains(&slot.name.to_string()),
                "{} is for no route",
                slot.name
            );
        }
        assert!(used.iter().all(|slot| {
            rendered
                .slots
                .iter()
                .any(|known| known.name.to_string() == *slot)
        }));
        for value in VALUES
            .iter()
            .filter(|value| rendered.routes.contains(value.as_str()))
        {
            assert!(
                text.contains(value.as_str()),
                "a variable's value in what is rendered"
            );
        }
    }
}
