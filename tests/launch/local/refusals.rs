//! What a run refuses: one error, a hint, and nothing left behind. It sends nothing to anybody.

use crate::harness::chatgpt::{access_token, unix_now};
use crate::harness::clients::{Output, run, system};
use crate::launch::host::{Host, User};

fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{output:#?}");
    assert_eq!(output.stdout, "", "{output:#?}");
    for word in words {
        assert!(output.stderr.contains(word), "{word:?}: {output:#?}");
    }
    assert!(output.stderr.starts_with("error: "), "{output:#?}");
    assert!(output.stderr.contains("hint: "), "{output:#?}");
    assert!(!output.stderr.contains("panicked"), "{output:#?}");
}

#[tokio::test]
async fn a_directory_with_the_hosts_logins_is_not_given_to_an_agent() {
    let host = Host::new(User::Own).await;
    for directory in ["home", "", "home/.codex/.."] {
        let mut command = host.run(["true"]);
        command.current_dir(host.path(directory));
        assert_refused(&run(&mut command).await, 2, &["--workspace"]);
    }
    for directory in ["/", "/home", "/tmp", "/run"] {
        let mut command = host.run(["true"]);
        command.current_dir(directory).env_remove("HOME");
        assert_refused(&run(&mut command).await, 2, &[directory, "--workspace"]);
    }
    std::fs::create_dir(host.project().join(".ssh")).expect("a directory");
    assert_refused(&host.script("true").await, 2, &[".ssh", "--workspace"]);
    host.assert_nothing_left();
}

#[tokio::test]
async fn a_login_is_not_bound_into_a_box_by_its_own_name() {
    let host = Host::new(User::Own).await;
    for path in [".codex", ".codex/auth.json", ".netrc"] {
        for option in ["--bind", "--ro-bind"] {
            let mut command = host.egress(["run", "-m", "../../bottle.yaml", option]);
            command.arg(host.path("home").join(path));
            let output = run(command.args(["--", "true"])).await;
            assert_refused(&output, 2, &[path]);
        }
    }
    host.assert_nothing_left();
}

#[tokio::test]
async fn the_operators_own_home_does_not_become_the_agents_and_its_login_stays() {
    let host = Host::new(User::Own).await;
    let login = host.path("home/.codex/auth.json");
    let before = std::fs::read(&login).expect("a login");
    for (home, codex_home) in [("home", None), ("", None), ("home", Some("home/.codex"))] {
        for more in [None, Some("--no-box")] {
            let mut command = host.egress(["run", "-m", "../../bottle.yaml", "--home"]);
            command.arg(host.path(home)).args(more);
            if let Some(codex_home) = codex_home {
                command.env("CODEX_HOME", host.path(codex_home));
                command.env("HOME", host.path("run"));
            }
            let output = run(command.args(["--", "true"])).await;
            assert_refused(&output, 2, &["--home", "mkdir"]);
        }
    }
    assert_eq!(std::fs::read(&login).expect("a login"), before);
    host.assert_nothing_left();
}

#[tokio::test]
async fn every_credential_that_cannot_be_had_is_named_at_once() {
    let host = Host::new(User::Own).await;
    let to = "connect_to: \"127.0.0.1:1\", ssrf_ip_allowlist: [127.0.0.0/8]";
    host.write(
        "bottle.yaml",
        format!(
            "bottles:\n  dev:\n    agent_provider: {{template: custom}}\n    egress:\n      routes:\n        \
             - {{host: a.test, auth: {{scheme: Bearer, token_ref: NOT_SET}}, {to}}}\n        \
             - {{host: b.test, auth: {{scheme: Bearer, token_ref: \"file:/not/there\"}}, {to}}}\n        \
             - {{host: c.test, auth: {{scheme: Bearer, token_ref: \"cmd:false\"}}, {to}}}\n"
        ),
    );
    let output = host.script("true").await;
    assert_refused(
        &output,
        2,
        &[
            "NOT_SET",
            "/not/there",
            "false",
            "a.test",
            "b.test",
            "c.test",
        ],
    );
    host.assert_nothing_left();
}

#[tokio::test]
async fn an_expired_login_stops_the_launch() {
    let host = Host::new(User::Own).await;
    host.log_in(&access_token(unix_now() - 60));
    let output = host.script("true").await;
    assert_refused(&output, 2, &["expired", "codex login --device-auth"]);
    assert_eq!(host.upstream.connections(), 0);
    host.assert_nothing_left();
}

#[tokio::test]
async fn a_bottle_or_a_manifest_that_is_not_there_is_named() {
    let host = Host::new(User::Own).await;
    let manifest = host.path("bottle.yaml");
    let manifest = manifest.to_str().expect("a plain path");
    for (arguments, words) in [
        (
            vec!["run", "-m", manifest, "-b", "dve", "--", "true"],
            vec!["dve", "dev"],
        ),
        (
            vec!["run", "-m", "/not/there.yaml", "--", "true"],
            vec!["/not/there.yaml"],
        ),
        (vec!["run", "-m", manifest], vec!["egress run codex"]),
        (vec!["run", "--", "true"], vec!["--manifest"]),
        (vec!["run"], vec!["egress run codex", "--manifest"]),
        (
            vec!["run", "codex", "-b", "dev"],
            vec!["--bottle dev", "--manifest"],
        ),
        (
            vec!["run", "-m", manifest, "-w", manifest, "--", "true"],
            vec!["--workspace", "not a directory"],
        ),
        (
            vec!["run", "-m", manifest, "--home", manifest, "--", "true"],
            vec!["--home", "not a directory"],
        ),
        (
            vec![
                "run",
                "-m",
                manifest,
                "--ro-bind",
                "/not/there",
                "--",
                "true",
            ],
            vec!["--ro-bind /not/there"],
        ),
        (
            vec!["run", "copilot", "-m", manifest],
            vec!["copilot", "opencode"],
        ),
        (
            vec!["run", "-m", manifest, "-w", "/not/there", "--", "true"],
            vec!["/not/there"],
        ),
    ] {
        let output = run(&mut host.egress(arguments)).await;
        assert_eq!(output.status.code(), Some(2), "{output:#?}");
        for word in words {
            assert!(output.stderr.contains(word), "{word:?}: {output:#?}");
        }
        host.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let host = Host::new(User::Own).await;
    let output = run(&mut host.run(["no-such-program"])).await;
    assert_refused(&output, 2, &["no-such-program", "PATH"]);
    let output = run(&mut host.run(["./no-such-program"])).await;
    assert_refused(&output, 3, &["no-such-program", "--ro-bind"]);
    let mut command = host.egress(["run", "-m", "../../bottle.yaml", "--no-box"]);
    let output = run(command.args(["--", "./no-such-program"])).await;
    assert_eq!(output.status.code(), Some(3), "{output:#?}");
    assert!(
        output.stderr.contains("./no-such-program does not start"),
        "{output:#?}"
    );
    let output = run(&mut host.egress(["run", "codex", "-m", "../../bottle.yaml"])).await;
    assert_refused(&output, 2, &["codex", "npm install -g @openai/codex"]);
    host.assert_nothing_left();
}

#[tokio::test]
async fn a_sidecar_that_does_not_start_says_why_and_nothing_runs() {
    let host = Host::new(User::Own).await;
    let mut command = host.egress(["run", "-m", "../../bottle.yaml"]);
    command.args(["--upstream-ca", "/not/there.pem", "--", "touch", "started"]);
    let output = run(&mut command).await;
    assert_eq!(output.status.code(), Some(2), "{output:#?}");
    assert!(output.stderr.contains("/not/there.pem"), "{output:#?}");
    assert!(!host.project().join("started").exists());
    host.assert_nothing_left();
}

#[tokio::test]
async fn without_namespaces_nothing_runs_unless_it_is_asked_for_and_then_it_is_told() {
    let host = Host::new(User::Own).await;
    let without = |more: &str| {
        let script = format!(
            "echo 0 > /proc/sys/user/max_user_namespaces && exec {} run {more} -m {} --upstream-ca {} -- \
             bash -c 'touch started; curl -sS https://api.github.com/user'",
            host.path("bin/egress").display(),
            host.path("bottle.yaml").display(),
            host.path("upstream-ca.pem").display(),
        );
        host.program(
            &system("unshare", "util-linux"),
            ["--user", "--map-root-user", "sh", "-c", &script],
        )
    };
    let output = run(&mut without("")).await;
    assert_refused(&output, 3, &["namespaces", "--no-box"]);
    assert!(!host.project().join("started").exists());

    let output = run(&mut without("--no-box")).await.success();
    assert_eq!(output.stdout, "ok\n");
    assert!(output.stderr.contains("NOT enforced"), "{output:#?}");
    host.assert_nothing_left();
}
