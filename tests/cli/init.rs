//! `egress init`.

use super::Bottle;

#[test]
fn what_is_no_preset_and_a_file_that_is_there_are_refused() {
    let bottle = Bottle::new("mine\n");
    let unknown = bottle.egress(&["init", "--preset", "nmp"]);
    unknown.refused(2, "one of codex, claude");
    let there = bottle.egress(&["init", "-o", "routes.yaml"]);
    there.refused(2, "routes.yaml is there already");
    assert_eq!(bottle.read("routes.yaml"), "mine\n");
    assert_eq!(bottle.egress(&["init", "--agent", "cursor"]).code, Some(2));
}

#[test]
fn check_and_render_take_what_is_written_for_each_agent() {
    let bottle = Bottle::new("");
    for agent in ["codex", "claude", "gemini", "opencode", "custom"] {
        for presets in [
            &[][..],
            &["--preset", "github-read,npm,pypi"],
            &["--preset", "crates"],
        ] {
            let arguments = [&["init", "--agent", agent], presets].concat();
            let text = bottle.egress(&arguments).data();
            std::fs::write(bottle.path("bottle.yaml"), &text).expect("a manifest");
            let checked = bottle.egress(&["check", "bottle.yaml"]).data();
            assert!(checked.contains("a manifest with 1 bottle"), "{checked}");
            bottle
                .egress(&["render-routes", "-m", "bottle.yaml"])
                .data();
        }
    }
}

#[test]
fn each_preset_by_itself_makes_a_manifest_in_a_file() {
    let bottle = Bottle::new("");
    let listed = bottle.egress(&["presets"]).data();
    let names: Vec<_> = listed
        .lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.len() > 5, "{listed}");
    for name in names {
        let file = format!("{name}.yaml");
        let arguments = ["init", "--agent", "custom", "--preset", name, "-o", &file];
        assert_eq!(bottle.egress(&arguments).data(), "", "{name}");
        let routes = bottle.egress(&["render-routes", "-m", &file]).data();
        assert!(routes.contains("- host: "), "{name}: {routes}");
    }
}
