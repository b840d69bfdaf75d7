//! Where a credential must not be: in a container's files, variables, arguments or description, or in a process list.

use std::fmt::Write as _;

use super::bottle::{Bottle, GH_PAT};
use crate::harness::chatgpt::{REFRESH_TOKEN, SIGNATURE};
use crate::harness::clients::traces;

#[tokio::test]
async fn no_secret_of_the_host_is_anywhere_but_in_the_sidecars_memory() {
    let bottle = Bottle::new().await;
    let working = bottle.at_work().await;
    bottle.beside("curl -sS https://api.github.com/user").await;
    let mut places = Vec::new();
    for container in ["egress-dev-agent", "egress-dev-sidecar"] {
        let files = bottle.path("files.tar");
        let target = files.to_str().expect("a UTF-8 path");
        bottle
            .docker
            .run(&["export", "-o", target, container])
            .await;
        places.push((
            format!("files of {container}"),
            std::fs::read(&files).expect("an archive"),
        ));
        for look in [
            &["inspect"][..],
            &["logs"],
            &["top"],
            &["diff"],
            &["history"],
        ] {
            let looked = bottle.docker.attempt(&[look, &[container]].concat()).await;
            places.push((
                format!("{look:?} of {container}"),
                (looked.stdout + &looked.stderr).into(),
            ));
        }
    }
    let images = bottle
        .docker
        .run(&["image", "inspect", "egress", "agent"])
        .await;
    places.push(("images".into(), images.into()));
    let agent = bottle
        .beside("cat /proc/*/environ /proc/*/cmdline; mount; cat ~/.codex/*")
        .await;
    places.push(("the agent's view".into(), agent.into()));
    places.push(("process list".into(), command_lines()));
    places.push(("dockerd's log".into(), bottle.docker.log().into()));
    for secret in [bottle.token.as_str(), GH_PAT, REFRESH_TOKEN, SIGNATURE] {
        let hex = secret.bytes().fold(String::new(), |mut text, byte| {
            _ = write!(text, "{byte:02x}");
            text
        });
        for (place, bytes) in &places {
            assert!(bytes.len() > 2, "{place} is empty");
            assert!(!traces(secret).is_match(bytes), "{place} holds {secret}");
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            assert!(!text.contains(&hex), "{place} holds {secret} in hex");
        }
    }
    working.stop().await;
}

/// The arguments of every process of the machine.
fn command_lines() -> Vec<u8> {
    let processes = std::fs::read_dir("/proc").expect("a process list");
    let lines = processes.filter_map(|process| {
        let file = process.ok()?.path().join("cmdline");
        std::fs::read(file).ok()
    });
    lines.flatten().collect()
}
