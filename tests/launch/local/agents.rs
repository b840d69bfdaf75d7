//! Agents that are known: they start with a dummy login, and follow the host's.

use std::time::Duration;

use http::Response;
use serde_json::Value;
use tokio::process::Command;

use crate::harness::chatgpt::{self, HELLO, RESPONSES, access_token, unix_now};
use crate::harness::clients::{Running, node_modules, run};
use crate::harness::forward::Forward;
use crate::harness::upstream::{self, Call};
use crate::launch::host::{Host, User, path};

/// The operator's PATH with the real Codex on it.
async fn with_codex(command: &mut Command) -> &mut Command {
    let bin = node_modules().await.join(".bin");
    command.env("PATH", format!("{}:{}", bin.display(), path()))
}

#[tokio::test]
async fn the_real_codex_works_in_the_box_on_placeholders_alone() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let mut command = host.run(["codex", "exec", "--skip-git-repo-check", "say hi"]);
        let output = run(with_codex(&mut command).await).await.success();
        assert_eq!(output.stdout.trim(), HELLO, "{output:#?}");
        let seen = host.upstream.at(RESPONSES);
        assert!(!seen.is_empty());
        for request in seen {
            assert_eq!(
                request.all("authorization"),
                [format!("Bearer {}", host.token)]
            );
        }
        host.assert_nothing_left();
    }
}

/// The example as it is checked in: its hosts are real names, which a further proxy leads to the upstream.
#[tokio::test]
async fn the_example_manifest_runs_the_real_codex() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let network = Forward::to(host.upstream.addr()).await;
        host.write(
            "bottle.yaml",
            include_str!("../../../docker/example/bottle.yaml"),
        );
        let mut command = host.run(["codex", "exec", "--skip-git-repo-check", "say hi"]);
        command.env(
            "EGRESS_UPSTREAM_PROXY",
            format!("http://{}", network.addr()),
        );
        let output = run(with_codex(&mut command).await).await.success();
        assert_eq!(output.stdout.trim(), HELLO, "{output:#?}");
        for request in host.upstream.at(RESPONSES) {
            assert_eq!(
                request.all("authorization"),
                [format!("Bearer {}", host.token)]
            );
        }
        host.assert_nothing_left();
    }
}

#[tokio::test]
async fn an_agent_that_is_named_runs_with_its_own_command() {
    let host = Host::new(User::Own).await;
    let mut command = host.egress(["run", "codex", "-m", "../../bottle.yaml"]);
    command.args([
        "--upstream-ca",
        "../../upstream-ca.pem",
        "--",
        "login",
        "status",
    ]);
    let output = run(with_codex(&mut command).await).await.success();
    assert!(
        output.stderr.contains("Logged in using ChatGPT"),
        "{output:#?}"
    );
}

#[tokio::test]
async fn an_agent_without_a_manifest_and_without_a_credential_says_so_and_how_to_give_it_one() {
    let host = Host::new(User::Own).await;
    let mut command = host.egress(["run", "claude", "--", "--version"]);
    let output = run(with_codex(&mut command).await).await.success();
    let (note, manifest) = output
        .stderr
        .split_once("(--manifest FILE): ")
        .expect("a manifest");
    assert!(note.contains("claude has no credential"), "{output:#?}");
    // What it says to write is right.
    host.write("bottle.yaml", manifest);
    let mut command = host.egress([
        "run",
        "claude",
        "-m",
        "../../bottle.yaml",
        "--",
        "--version",
    ]);
    command.env("CLAUDE_TOKEN", "sk-ant-oat01-real-token");
    let output = run(with_codex(&mut command).await).await.success();
    assert_eq!(output.stderr, "");
}

#[tokio::test]
async fn a_renewed_login_reaches_sidecar_and_agent_and_no_request_is_lost() {
    let host = Host::answering(User::Own, async |call: Call| match call.seen.path() {
        "/backend-api/ping" => upstream::typed(200, "text/plain", "pong"),
        "/oauth/token" => panic!("somebody redeems the refresh token"),
        _ => Response::new(http_body_util::BodyExt::boxed(
            http_body_util::Full::default(),
        )),
    })
    .await;
    // Prints each answer's status, and the dummy's end whenever it has changed.
    let script = r#"
last=
while [ ! -e done ]; do
  now=$(cat ~/.codex/auth.json)
  [ "$now" = "$last" ] || { printf '%s\n' "$now" | tr -d '\n' >> dummies; echo >> dummies; last=$now; }
  curl -sS -o /dev/null -w '%{http_code}\n' https://chatgpt.com/backend-api/ping >> answers
done"#;
    let running = Running::spawn(&mut host.run(["bash", "-c", script]));
    let first = host.token.clone();
    let bearer = |token: &str| format!("Bearer {token}");
    host.upstream
        .arrival("a request with the first token", |seen| {
            seen.all("authorization") == [bearer(&first)]
        })
        .await;

    let renewed = access_token(unix_now() + 30 * 86_400);
    let rotated = std::time::Instant::now();
    host.log_in(&renewed);
    host.upstream
        .arrival("a request with the renewed token", |seen| {
            seen.all("authorization") == [bearer(&renewed)]
        })
        .await;
    let sidecar_took = rotated.elapsed();
    let dummies = async {
        loop {
            let text = std::fs::read_to_string(host.project().join("dummies")).unwrap_or_default();
            if text.lines().count() >= 2 {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let dummies = crate::harness::within("renewed dummy", dummies).await;
    let agent_took = rotated.elapsed();
    // The promise is two seconds; a test is no benchmark, so there is room for a busy machine.
    for took in [sidecar_took, agent_took] {
        assert!(
            took < Duration::from_secs(10),
            "{sidecar_took:?}, {agent_took:?}"
        );
    }

    // Half-written, and logged out: the last good one is kept.
    for broken in ["{\"tokens\": {\"access_", "{}"] {
        let before = host.upstream.seen().len();
        host.write("home/.codex/auth.json", broken);
        host.upstream
            .arrival("requests after a broken login", |_| {
                host.upstream.seen().len() > before + 3
            })
            .await;
    }
    host.write("home/project/done", "");
    let output = running.finish().await.success();

    let answers = std::fs::read_to_string(host.project().join("answers")).expect("answers");
    assert!(
        answers.lines().all(|status| status == "200"),
        "{answers} {output:#?}"
    );
    let seen = host.upstream.seen();
    let tokens: Vec<_> = seen.iter().map(|seen| seen.all("authorization")).collect();
    let switch = tokens
        .iter()
        .position(|token| *token == [bearer(&renewed)])
        .expect("the renewed token arrived");
    assert!(
        tokens[..switch]
            .iter()
            .all(|token| *token == [bearer(&first)])
    );
    assert!(
        tokens[switch..]
            .iter()
            .all(|token| *token == [bearer(&renewed)])
    );
    let last: Value = dummies
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .expect("a dummy");
    let access = last["tokens"]["access_token"].as_str().expect("a token");
    assert_ne!(access, renewed);
    assert!(host.upstream.at("/oauth/token").is_empty());
    assert!(
        output.stderr.contains("warning: the host's Codex login"),
        "{output:#?}"
    );
    let _ = chatgpt::ACCOUNT;
    host.assert_nothing_left();
}
