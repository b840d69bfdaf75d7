//! Host patterns: whole labels are compared, and what is printed is read back as the same pattern.
//!
//! Input: a pattern, a line feed, a host.

#![no_main]

use egress::route::host::{Host, HostPattern};
use egress_fuzz::assert_host_text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (pattern_text, host_text) = input.split_once('\n').unwrap_or((input, "a.example.test"));
    if let Ok(host) = Host::parse(host_text) {
        let shown = host.to_string();
        assert_host_text(&shown);
        assert!(
            shown.eq_ignore_ascii_case(host_text),
            "a host that was mended: {host_text:?}"
        );
        assert_eq!(Host::parse(&shown).as_ref(), Ok(&host));
    }
    let Ok(pattern) = pattern_text.parse::<HostPattern>() else {
        return;
    };
    let shown = pattern.to_string();
    assert_host_text(shown.strip_prefix("*.").unwrap_or(&shown));
    assert_eq!(
        shown.parse::<HostPattern>().as_ref(),
        Ok(&pattern),
        "{shown}"
    );

    let matches = |text: &str| Host::parse(text).is_ok_and(|host| pattern.matches(&host));
    if Host::parse(host_text).is_ok() {
        assert_eq!(
            matches(host_text),
            naive(&shown, host_text),
            "{shown} {host_text}"
        );
    }
    match shown.strip_prefix("*.") {
        None => {
            assert!(matches(&shown));
            assert!(!matches(&format!("a.{shown}")) && !matches(&format!("a{shown}")));
            assert!(!matches(&format!("{shown}.a")));
        }
        Some(suffix) => {
            // The longest name has no room for a label before it.
            assert_eq!(matches(&format!("a.{suffix}")), suffix.len() + 2 <= 253);
            assert!(!matches(suffix), "a wildcard covers its apex");
            assert!(
                !matches(&format!("a.b.{suffix}")),
                "a wildcard covers two labels"
            );
            assert!(!matches(&format!("a{suffix}")) && !matches(&format!("a.{suffix}.b")));
        }
    }
});

/// Label by label.
fn naive(pattern: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let pattern: Vec<&str> = pattern.split('.').collect();
    let labels: Vec<&str> = host.split('.').collect();
    pattern.len() == labels.len()
        && pattern
            .iter()
            .zip(&labels)
            .enumerate()
            .all(|(place, (wanted, label))| wanted == label || (place == 0 && *wanted == "*"))
}
