//! What stands in the way of an agent in a machine: one error with a hint, and nothing left behind.

use super::smolvm::{Place, Way, appears};
use crate::harness::clients::{Output, Running, run};
use crate::harness::smolvm::{Smolvm, word};
use crate::harness::within;

#[tokio::test]
async fn what_is_missing_is_told_with_a_hint_before_anything_is_left() {
    let cases: [(&[&str], i32, &str, &str); 9] = [
        (
            &["--log", "egress.log"],
            2,
            "egress.log, is in reach of the agent",
            "outside of the workspace",
        ),
        (
            &["--smolvm", "/nonexistent/smolvm"],
            2,
            "smolvm is not installed",
            "--smolvm PATH",
        ),
        (
            &["--smolvm", "/bin/false"],
            3,
            "/bin/false cannot be used",
            "1.32 is known",
        ),
        (
            &["--image", "./nothing.tar"],
            3,
            "cannot read archive ./nothing.tar",
            "docker save",
        ),
        (
            &["--workspace", "/nonexistent"],
            2,
            "cannot find /nonexistent",
            "--workspace DIR",
        ),
        (
            &["--workspace", "/run"],
            2,
            "/run, which belongs to the system",
            "--workspace DIR",
        ),
        (
            &["--user", "nobody-here"],
            3,
            "it has no user `nobody-here`",
            "--user",
        ),
        (
            &["--agent-home", "/home/other"],
            3,
            "there is no directory /home/other",
            "--agent-home",
        ),
        (&["--name", "a.b"], 3, "invalid character", "--name"),
    ];
    for (arguments, code, error, hint) in cases {
        let place = Place::new(Way::Socket).await;
        let output = run(&mut place.launch(arguments, "echo reached")).await;
        assert_eq!(output.status.code(), Some(code), "{output:#?}");
        refused(&output, error, hint);
        place.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn what_an_image_lacks_is_told_with_a_hint() {
    let cases: [(&str, &str, &str); 3] = [
        ("usr", "the machine does not start", "POSIX shell"),
        (
            "home/node",
            "there is no directory /home/node",
            "--agent-home",
        ),
        ("etc/passwd", "it has no user `node`", "--user"),
    ];
    for (lacks, error, hint) in cases {
        let place = Place::new(Way::Socket).await;
        let path = place.image.join(lacks);
        match lacks {
            "usr" => std::fs::write(path.join("empty"), ""),
            "home/node" => std::fs::remove_dir(&path),
            _ => std::fs::remove_file(&path),
        }
        .expect("a part of the image");
        let output = place.script("echo reached").await;
        assert_eq!(output.status.code(), Some(3), "{output:#?}");
        refused(&output, error, hint);
        place.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn an_agent_whose_own_test_fails_is_not_started() {
    let place = Place::new(Way::Socket).await;
    let codex = place.image.join("opt/bin/codex");
    std::fs::create_dir_all(codex.parent().expect("a directory")).expect("a directory");
    std::fs::write(
        &codex,
        "#!/bin/sh\necho 'this login is of no use' >&2\nexit 1\n",
    )
    .expect("a program");
    std::fs::set_permissions(&codex, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("a mode");
    let output = run(&mut place.launch(&["--env", "PATH=/opt/bin:/usr/bin"], "echo reached")).await;
    assert_eq!(output.status.code(), Some(3), "{output:#?}");
    refused(
        &output,
        "`codex login status` ended with 1: this login is of no use",
        "by hand",
    );
    place.assert_nothing_left().await;
}

#[tokio::test]
async fn an_engine_that_fails_in_the_middle_leaves_nothing() {
    for command in ["start", "exec", "cp"] {
        let place = Place::new(Way::Socket).await;
        place.smolvm.fault(command, "out of order");
        let output = place.script("echo reached").await;
        assert_eq!(output.status.code(), Some(3), "{output:#?}");
        refused(&output, "out of order", "");
        place.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_machine_that_cannot_be_removed_is_named() {
    let place = Place::new(Way::Socket).await;
    place.smolvm.fault("delete", "out of order");
    let output = place.script("exit 5").await;
    assert_eq!(output.status.code(), Some(3), "{output:#?}");
    refused(
        &output,
        "the machine `egress-dev` cannot be removed",
        "delete --force --name egress-dev",
    );
    std::fs::remove_file(place.smolvm.state_dir().join("faults/delete")).expect("the fault");
}

#[tokio::test]
async fn a_name_that_is_in_use_is_nobody_elses_loss() {
    let place = Place::new(Way::Socket).await;
    let image = word(&place.image).to_owned();
    let done = place
        .smolvm
        .run(&format!("machine create -n egress-dev -I {image}"), &[])
        .await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let output = place.script("echo reached").await;
    assert_eq!(output.status.code(), Some(3), "{output:#?}");
    refused(
        &output,
        "there is a machine `egress-dev` already (created)",
        "delete --force --name egress-dev",
    );
    assert_eq!(place.smolvm.machines().await, "egress-dev\n");
    place.host.assert_nothing_left();
}

#[tokio::test]
async fn a_bottle_is_launched_once_at_a_time() {
    let place = Place::new(Way::Socket).await;
    let script = "touch /workspace/ready; until [ -e /workspace/go ]; do sleep 0.05; done";
    let first = Running::spawn(&mut place.launch(&[], script));
    within(
        "the agent's work",
        appears(&place.host.project().join("ready")),
    )
    .await;
    let second = run(&mut place.launch(&["--name", "other"], "echo reached")).await;
    assert_eq!(second.status.code(), Some(3), "{second:#?}");
    refused(
        &second,
        "the bottle `dev` is at work already",
        "end the other launch",
    );
    std::fs::write(place.host.project().join("go"), "").expect("a file");
    first.finish().await.success();
    place.assert_nothing_left().await;
}

#[tokio::test]
async fn a_credential_that_is_not_there_is_told_before_any_machine_is_made() {
    let place = Place::new(Way::Socket).await;
    let output = run(place.launch(&[], "echo reached").env_remove("GH_PAT")).await;
    assert_eq!(output.status.code(), Some(2), "{output:#?}");
    refused(&output, "GH_PAT", "");
    place.assert_nothing_left().await;
}

#[tokio::test]
async fn with_the_real_program_a_machine_that_does_not_come_up_leaves_nothing() {
    let place = Place::of(Smolvm::real().await).await;
    let output = place.script("echo reached").await;
    assert_eq!(output.status.code(), Some(3), "{output:#?}");
    refused(&output, "the machine does not start", "/dev/kvm");
    assert!(
        output.stderr.contains("agent rootfs not found"),
        "{output:#?}"
    );
    place.assert_nothing_left().await;
}

#[tokio::test]
async fn with_the_real_program_a_name_that_is_in_use_is_told() {
    let place = Place::of(Smolvm::real().await).await;
    let image = word(&place.image).to_owned();
    let done = place
        .smolvm
        .run(&format!("machine create -n egress-dev -I {image}"), &[])
        .await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let output = place.script("echo reached").await;
    assert_eq!(output.status.code(), Some(3), "{output:#?}");
    refused(
        &output,
        "there is a machine `egress-dev` already (created)",
        "delete --force --name egress-dev",
    );
    assert_eq!(place.smolvm.machines().await, "egress-dev\n");
}

/// One error with a hint, and no agent.
fn refused(output: &Output, error: &str, hint: &str) {
    assert!(!output.stdout.contains("reached"), "{output:#?}");
    let lines = |word: &str| {
        output
            .stderr
            .lines()
            .filter(|line| line.starts_with(word))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (errors, hints) = (lines("error: "), lines("hint: "));
    assert!(
        errors.len() == 1 && errors[0].contains(error),
        "{error:?}: {output:#?}"
    );
    assert!(
        hints.len() == 1 && hints[0].contains(hint),
        "{hint:?}: {output:#?}"
    );
}
