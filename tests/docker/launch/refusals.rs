//! Launches that do not begin: each says what is wrong and what to do, and leaves nothing.

use super::bottle::{Bottle, GH_PAT};
use crate::harness::chatgpt::{access_token, unix_now};
use crate::harness::clients::{Output, run};
use crate::harness::docker::images;

#[tokio::test]
async fn an_image_that_is_of_no_use_is_refused() {
    let bottle = Bottle::new().await;
    for (image, wanted, hint) in [
        (
            "no-such-image",
            "there is no image `no-such-image`",
            "docker pull no-such-image",
        ),
        (
            images::SHELLLESS,
            "does not run /bin/sh",
            "take an image that has one",
        ),
    ] {
        let output = run(&mut bottle.launch(image, &["true"])).await;
        refused(&output, 2, wanted, hint);
        bottle.assert_nothing_left().await;
    }
    let mut launch = bottle.launch(images::AGENT, &["true"]);
    let output = run(launch.env("EGRESS_SIDECAR_IMAGE", "no-such-image")).await;
    refused(
        &output,
        2,
        "there is no image `no-such-image`",
        "docker/build",
    );
    let mut launch = bottle.command(crate::harness::sidecar::EGRESS);
    launch.args([
        "launch",
        "docker",
        "--image",
        images::AGENT,
        "--user",
        "nobody-here",
    ]);
    launch
        .arg("--manifest")
        .arg(bottle.path("bottle.yaml"))
        .args(["--", "true"]);
    refused(
        &run(&mut launch).await,
        2,
        "no user `nobody-here`",
        "there are: root, node",
    );
    bottle.assert_nothing_left().await;
}

#[tokio::test]
async fn what_the_agent_could_replace_in_its_workspace_is_refused() {
    let bottle = Bottle::new().await;
    for (option, file) in [("--log", "egress.log"), ("--audit", "egress.db")] {
        let mut launch = bottle.command(crate::harness::sidecar::EGRESS);
        launch
            .args(["launch", "docker", option, file, "--manifest"])
            .arg(bottle.path("bottle.yaml"))
            .args(["--image", images::AGENT, "--", "true"]);
        refused(
            &run(&mut launch).await,
            2,
            &format!("{file}, is in reach of the agent"),
            "outside of the workspace",
        );
    }
    bottle.assert_nothing_left().await;
}

#[tokio::test]
async fn a_program_that_is_not_in_the_image_is_told_before_it_is_run() {
    let bottle = Bottle::new().await;
    let output = run(&mut bottle.launch(images::AGENT, &["no-such-program"])).await;
    assert!(
        output.stderr.contains("`agent` has no `no-such-program`"),
        "{output:#?}"
    );
    assert_eq!(output.status.code(), Some(2), "{output:#?}");
    let mut launch = bottle.command(crate::harness::sidecar::EGRESS);
    launch.args(["launch", "docker", "codex", "--image", images::AGENT]);
    launch.arg("--manifest").arg(bottle.path("bottle.yaml"));
    let output = run(&mut launch).await;
    refused(&output, 2, "has no `codex`", "npm install -g @openai/codex");
    bottle.assert_nothing_left().await;
}

#[tokio::test]
async fn without_docker_or_its_engine_nothing_begins() {
    let bottle = Bottle::new().await;
    let mut launch = bottle.launch(images::AGENT, &["true"]);
    let output = run(launch.env("PATH", bottle.path("run"))).await;
    refused(&output, 2, "no `docker` on the PATH", "egress run");
    let mut launch = bottle.launch(images::AGENT, &["true"]);
    let output = run(launch.env("DOCKER_HOST", "unix:///nowhere/d.sock")).await;
    refused(&output, 3, "docker has no engine", "DOCKER_HOST");
    let mut launch = bottle.launch(images::AGENT, &["true"]);
    let tcp = run(launch.env("DOCKER_HOST", "tcp://127.0.0.1:1")).await;
    refused(&tcp, 3, "docker has no engine", "DOCKER_HOST");
    bottle.assert_nothing_left().await;
}

#[tokio::test]
async fn a_bottle_at_work_is_not_launched_again() {
    let bottle = Bottle::new().await;
    let working = bottle.at_work().await;
    let output = bottle.script("true").await;
    refused(&output, 3, "`dev` is at work already", "bottle of its own");
    // Another user has another runtime directory, and the same Docker.
    let other = tempfile::tempdir().expect("a temporary directory");
    let mut launch = bottle.launch(images::AGENT, &["true"]);
    let output = run(launch.env("XDG_RUNTIME_DIR", other.path())).await;
    refused(&output, 2, "`dev` is at work already", "bottle of its own");
    assert_eq!(bottle.beside("echo still").await, "still\n");
    working.stop().await;
    bottle.assert_nothing_left().await;
}

#[tokio::test]
async fn a_login_that_has_expired_stops_the_launch() {
    let bottle = Bottle::new().await;
    bottle.log_in(&access_token(unix_now() - 60));
    let mut launch = bottle.launch(images::AGENT, &["true"]);
    let output = run(launch.env_remove("GH_PAT")).await;
    refused(&output, 2, "expired", "codex login --device-auth");
    assert!(
        output.stderr.contains("GH_PAT"),
        "all that is missing is told: {output:#?}"
    );
    bottle.assert_nothing_left().await;
}

fn refused(output: &Output, code: i32, wanted: &str, hint: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:#?}");
    assert!(output.stderr.contains(wanted), "{output:#?}");
    let hints = output
        .stderr
        .lines()
        .filter(|line| line.starts_with("hint: "));
    assert!(hints.clone().any(|line| line.contains(hint)), "{output:#?}");
    assert!(!output.stderr.contains(GH_PAT), "{output:#?}");
    assert_eq!(output.stdout, "");
}
