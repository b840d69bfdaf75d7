//! The real Codex behind the routes of its preset.

use std::process::Command;

use super::{HELLO, Scene, answer};
use crate::harness::sidecar::EGRESS;
use crate::harness::upstream::Upstream;

#[tokio::test]
async fn exec_works_with_the_preset_and_its_telemetry_stays_blocked() {
    let scene = Scene::routed(preset, answer).await;
    let output = scene.exec().await.success();
    assert_eq!(output.stdout.trim(), HELLO);
    assert!(
        scene
            .upstream
            .seen()
            .iter()
            .all(|request| !request.path().contains("analytics"))
    );
    scene.assert_only_the_real_token_arrived();
    scene.assert_clean(&output);
}

/// What a manifest with the preset and a forwarded login renders to, with every host dialled at the upstream.
fn preset(upstream: &Upstream) -> String {
    let manifest = "bottles: {dev: {agent_provider: {template: codex, forward_host_credentials: true}, \
                    egress: {routes: [{preset: codex}]}}}";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("bottle.yaml");
    std::fs::write(&path, manifest).expect("a manifest");
    let mut command = Command::new(EGRESS);
    let output = command.args(["render-routes", "-m"]).arg(&path).output();
    let routes = String::from_utf8(output.expect("the binary runs").stdout).expect("text");
    let dialled = format!("\n    connect_to: {}\n    description:", upstream.addr());
    assert_eq!(routes.matches("\n    description:").count(), 3, "{routes}");
    routes.replace("\n    description:", &dialled)
}
