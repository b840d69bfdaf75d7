//! How a launch ends: whatever ends it, nothing of it stays, and no agent works on without its sidecar.

use rustix::process::Signal;

use super::bottle::Bottle;
use crate::harness::within;

#[tokio::test]
async fn the_agent_ends_with_its_sidecar() {
    let bottle = Bottle::new().await;
    let working = bottle.at_work().await;
    bottle.docker.run(&["kill", "egress-dev-sidecar"]).await;
    let (code, said) = working.ended().await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("the sidecar has ended"), "{said}");
    bottle.assert_nothing_left().await;
}

#[tokio::test]
async fn a_signal_ends_the_agent_and_then_the_rest() {
    for (signal, expected) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let bottle = Bottle::new().await;
        let working = bottle.at_work().await;
        working.signal(signal);
        let (code, said) = working.ended().await;
        assert_eq!(code, Some(expected), "{signal:?}: {said}");
        bottle.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_signal_while_things_start_leaves_nothing() {
    let bottle = Bottle::new().await;
    let mut launch = bottle.launch(crate::harness::docker::images::AGENT, &["true"]);
    let child = launch.spawn().expect("the binary runs");
    within("the sidecar's container", async {
        while bottle
            .docker
            .attempt(&["inspect", "egress-dev-sidecar"])
            .await
            .code
            != Some(0)
        {}
    })
    .await;
    let pid = i32::try_from(child.id().expect("it runs")).expect("a process id");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, Signal::INT).expect("it runs");
    let output = within("the launcher's end", child.wait_with_output()).await;
    let output = output.expect("a child to wait for");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    bottle.assert_nothing_left().await;
}

#[tokio::test]
async fn a_launcher_that_is_killed_takes_its_agent_with_it_and_the_next_one_cleans_up() {
    let bottle = Bottle::new().await;
    let working = bottle.at_work().await;
    working.signal(Signal::KILL);
    working.ended().await;
    within("end of the containers", async {
        while !bottle
            .docker
            .run(&["ps", "--all", "--quiet"])
            .await
            .is_empty()
        {}
    })
    .await;
    let networks = bottle.docker.run(&["network", "ls"]).await;
    assert!(networks.contains("egress-dev-inside"), "{networks}");
    bottle.script("true").await.success();
    bottle.assert_nothing_left().await;
}

#[tokio::test]
async fn a_renewed_login_reaches_the_sidecar_and_its_dummy_the_agent() {
    use super::bottle::WEEK;
    use crate::harness::chatgpt::{access_token, unix_now};
    let bottle = Bottle::new().await;
    let working = bottle.at_work().await;
    let fetch = "curl -sS https://chatgpt.com/backend-api/wham/accounts/check >/dev/null";
    bottle.beside(fetch).await;
    let first = bottle.upstream.only();
    assert_eq!(
        first.all("authorization"),
        [format!("Bearer {}", bottle.token)]
    );

    let exp = unix_now() + 2 * WEEK;
    let renewed = access_token(exp);
    bottle.log_in(&renewed);
    within("the new dummy", async {
        while bottle.dummy_exp().await != exp {}
    })
    .await;
    bottle.beside(fetch).await;
    let seen = bottle.upstream.seen();
    let last = seen.last().expect("a request");
    assert_eq!(last.all("authorization"), [format!("Bearer {renewed}")]);
    let mode = bottle.beside("stat -c '%a %U' ~/.codex/auth.json").await;
    assert_eq!(mode.trim(), "600 node");
    working.stop().await;
}
