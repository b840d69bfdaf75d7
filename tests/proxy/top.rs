//! `egress top` on a terminal, against a running sidecar.

use std::path::Path;

use rustix::process::Signal;
use tokio::process::Command;

use crate::harness::command::egress;
use crate::harness::rig::Rig;
use crate::harness::sidecar::EGRESS;
use crate::harness::terminal::Terminal;

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1], connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn from_a_refusal_on_the_screen_to_the_route_that_would_admit_it() {
    let rig = Rig::new(ROUTES).await;
    let mut top = top(&rig.sidecar.admin_socket());
    top.shows("first screen", |screen| screen.contains("healthy"))
        .await;
    rig.agent.get("https://api.test/v2/models").await;
    assert!(rig.agent.connect("other.test:443").await.is_err());
    top.shows("refusals", |screen| {
        screen.contains("path_not_allowed") && screen.contains("host_not_allowed")
    })
    .await;

    top.press("/MODELS\r");
    top.shows("filtered list", |screen| {
        screen.contains("path_not_allowed") && !screen.contains("other.test")
    })
    .await;
    top.press("\r");
    let screen = top
        .shows("record", |screen| screen.contains("path_allowlist:"))
        .await;
    assert!(screen.contains("host: api.test"), "{screen}");
    assert!(screen.contains("/v2/models"), "{screen}");
    top.press("G");
    top.shows("last value", |screen| screen.contains("\nid         "))
        .await;

    top.press("q");
    assert_eq!(top.ends().await.code(), Some(0));
}

#[tokio::test]
async fn a_sidecar_that_goes_away_is_waited_for_and_a_signal_gives_the_terminal_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let admin = dir.path().join("admin.sock");
    let address = format!("unix:{}", admin.display());
    let rig = Rig::with(ROUTES, |builder| builder.admin(&address)).await;
    let mut top = top(&admin);
    top.shows("first screen", |screen| screen.contains("healthy"))
        .await;
    rig.sidecar.terminate().await;
    top.shows("word of its end", |screen| screen.contains("GONE"))
        .await;
    let rig = Rig::with(ROUTES, |builder| builder.admin(&address)).await;
    rig.agent.get("https://api.test/v2/again").await;
    top.shows("request of the next sidecar", |screen| {
        screen.contains("/v2/again") && screen.contains("healthy")
    })
    .await;
    top.signal(Signal::TERM);
    assert_eq!(top.ends().await.code(), Some(128 + 15));
}

#[tokio::test]
async fn without_a_terminal_it_says_what_to_use() {
    let said = egress(["top", "--admin", "unix:/nowhere"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("needs a terminal"), "{said:?}");
    assert!(said.stderr.contains("hint: `egress tail`"), "{said:?}");
}

#[tokio::test]
async fn a_sidecar_that_is_not_there_is_told_on_the_screen_that_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut top = top(&dir.path().join("none.sock"));
    top.shows("error", |screen| {
        screen.contains("error: cannot ask the sidecar") && screen.contains("hint: is it running")
    })
    .await;
    assert_eq!(top.ends().await.code(), Some(3));
}

fn top(admin: &Path) -> Terminal {
    let admin = format!("unix:{}", admin.display());
    Terminal::run(
        Command::new(EGRESS)
            .args(["top", "--admin", &admin])
            .env_clear(),
    )
}
