//! The local box: what runs in it, what cannot be reached from it, and what is left when it ends.

mod agents;
mod ends;
mod hostile;
mod refusals;
mod walls;

use crate::harness::clients::run;
use crate::launch::host::{GH_PAT, Host, User};

#[tokio::test]
async fn an_agent_reaches_an_admitted_host_with_a_credential_that_it_never_holds() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let output = host
            .script("curl -sS -H 'authorization: Bearer mine' https://api.github.com/user")
            .await
            .success();
        assert_eq!(output.stdout, "ok\n");
        let seen = host.upstream.only();
        assert_eq!(seen.all("authorization"), [format!("Bearer {GH_PAT}")]);
        host.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_host_that_no_route_names_is_refused_by_the_sidecar() {
    let host = Host::new(User::Own).await;
    let output = host.script("curl -sS https://other.test/; echo $?").await;
    assert!(output.stderr.contains("403"), "{output:#?}");
    assert_eq!(host.upstream.connections(), 0);
}

#[tokio::test]
async fn a_box_is_found_healthy_from_inside() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let egress = host.path("bin/egress");
        let mut run_it = host.egress(["run", "-m", "../../bottle.yaml", "--upstream-ca"]);
        run_it.arg(host.path("upstream-ca.pem"));
        run_it.arg("--ro-bind").arg(host.path("bin")).arg("--");
        run_it
            .arg(egress)
            .args(["doctor", "--host", "api.github.com"]);
        let output = run(run_it.args(["--probe-direct", "192.0.2.1:443"])).await;
        let states: Vec<_> = output
            .stdout
            .lines()
            .filter_map(|line| {
                let (state, rest) = line.split_once(' ')?;
                Some((rest.split_whitespace().next()?, state))
            })
            .collect();
        for check in [
            "proxy.variables",
            "proxy.answer",
            "tunnel",
            "ca.bundle",
            "client.curl",
            "client.node",
            "clock",
            "box.route",
            "box.direct",
            "box.credentials",
            "box.codex",
            "box.ca_key",
            "box.admin",
        ] {
            assert!(states.contains(&(check, "ok")), "{check}: {output:#?}");
        }
        output.success();
    }
}

#[tokio::test]
async fn what_the_sidecar_refused_is_told_at_the_end() {
    let host = Host::new(User::Own).await;
    let output = host
        .script(
            "curl -s https://other.test/ https://chatgpt.com/no https://other.test/secret; exit 4",
        )
        .await;
    assert_eq!(output.status.code(), Some(4), "{output:#?}");
    assert_eq!(
        output.stderr,
        "note: the sidecar refused 3 requests: other.test 2 (host_not_allowed), chatgpt.com 1 (path_not_allowed); \
         --log FILE keeps each with its path\n"
    );
    let output = host.script("curl -s https://api.github.com/user").await;
    assert_eq!(output.success().stderr, "");
    // Without the upstream's CA.
    let mut command = host.egress(["run", "-m", "../../bottle.yaml", "--"]);
    let output = run(command.args(["curl", "-s", "https://api.github.com/user"])).await;
    assert_eq!(
        output.success().stderr,
        "note: behind the sidecar failed 1 request: api.github.com 1 (upstream_tls); --log FILE keeps each with its \
         path, and the reason\n"
    );
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_told_once_and_the_agent_works_on() {
    let host = Host::new(User::Own).await;
    let mut command = host.egress(["run", "-m", "../../bottle.yaml", "--log", "/dev/full"]);
    let output = run(command.args(["--", "echo", "done"])).await.success();
    assert_eq!(output.stdout, "done\n");
    let told = "warning: the sidecar's log is not written any more: No space left on device";
    assert!(output.stderr.starts_with(told), "{output:#?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:#?}");
}

#[tokio::test]
async fn what_an_agent_did_is_in_an_audit_file_out_of_its_reach() {
    let host = Host::new(User::Own).await;
    let curl = ["--", "curl", "-sS", "https://api.github.com/user"];
    let within = host.egress(["run", "-m", "../../bottle.yaml", "--audit", "audit.db"]);
    let refused = run({ within }.args(curl)).await;
    assert_eq!(refused.status.code(), Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("the audit file"), "{refused:#?}");

    let beside = "../../audit.db";
    let mut command = host.egress(["run", "-m", "../../bottle.yaml", "--audit", beside]);
    run(command.args(curl)).await.success();
    let rows = run(&mut host.egress(["audit", beside, "--json"]))
        .await
        .success();
    let row = rows.stdout.lines().find(|row| row.contains("\"/user\""));
    assert!(row.expect("a row").contains("\"bottle\":\""), "{rows:#?}");
}

#[tokio::test]
async fn a_program_that_knows_no_proxy_is_steered_to_the_sidecar() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let script = "env -u NODE_USE_ENV_PROXY -u HTTPS_PROXY -u https_proxy -u ALL_PROXY -u all_proxy \
             -u HTTP_PROXY -u http_proxy node -e \
             'fetch(\"https://api.github.com/user\").then(r => r.text()).then(t => process.stdout.write(t))'";
        let output = host.script(script).await.success();
        assert_eq!(output.stdout, "ok\n", "{output:#?}");
        let seen = host.upstream.only();
        assert_eq!(seen.all("authorization"), [format!("Bearer {GH_PAT}")]);
    }
}

#[tokio::test]
async fn the_command_has_its_arguments_its_input_and_its_code() {
    let host = Host::new(User::Own).await;
    let output = run(&mut host.run(["printf", "%s|", "a b", "", "$x", "ü"])).await;
    assert_eq!(output.success().stdout, "a b||$x|ü|");
    for code in [0, 1, 42, 255] {
        let output = host.script(&format!("exit {code}")).await;
        assert_eq!(output.status.code(), Some(code), "{output:#?}");
    }
    let output = host.script("kill -KILL $$").await;
    assert_eq!(output.status.code(), Some(137), "{output:#?}");

    let mut cat = host.run(["cat"]);
    cat.stdin(std::fs::File::open(host.path("bottle.yaml")).expect("a file"));
    assert_eq!(run(&mut cat).await.success().stdout, host.manifest());
}

#[tokio::test]
async fn the_project_is_the_agents_and_the_home_is_forgotten() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let script =
            "pwd; id -un; echo kept > kept; echo gone > ~/gone; echo gone > /tmp/gone; ls -A ~";
        let output = host.script(script).await.success();
        let project = host.project();
        let mut lines = output.stdout.lines();
        assert_eq!(lines.next(), project.to_str());
        assert_eq!(lines.next(), Some("agent"));
        assert_eq!(
            std::fs::read_to_string(project.join("kept"))
                .ok()
                .as_deref(),
            Some("kept\n")
        );
        let output = host.script("ls -A ~ /tmp").await.success();
        assert!(!output.stdout.contains("gone"), "{output:#?}");
        let kept = project.join("kept").metadata().expect("a file");
        let ours = project.metadata().expect("a directory");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(
            kept.uid(),
            ours.uid(),
            "the operator owns what the agent wrote"
        );
    }
}

#[tokio::test]
async fn directories_variables_and_a_home_are_given_where_they_are_asked_for() {
    let host = Host::new(User::Own).await;
    for directory in ["read", "write", "agent-home"] {
        std::fs::create_dir(host.path(directory)).expect("a directory");
        host.write(&format!("{directory}/file"), directory);
    }
    let mut run_it = host.egress([
        "run",
        "-m",
        "../../bottle.yaml",
        "--env",
        "NAME=value",
        "-e",
        "LANG",
        "-e",
        "NOT_SET",
    ]);
    run_it.arg("--ro-bind").arg(host.path("read"));
    run_it.arg("--bind").arg(host.path("write"));
    run_it.arg("--home").arg(host.path("agent-home"));
    let (read, write) = (host.path("read"), host.path("write"));
    let script = format!(
        "cat {read}/file {write}/file ~/file; echo; echo $NAME $LANG; echo more >> {write}/file; echo more > ~/more; \
         echo more 2>/dev/null >> {read}/file || echo refused",
        read = read.display(),
        write = write.display(),
    );
    let output = run(run_it.args(["--", "bash", "-c", &script])).await;
    assert_eq!(
        output.stderr,
        "note: --env NOT_SET: environment variable not found, so the agent has none\n"
    );
    assert_eq!(
        output.stdout, "readwriteagent-home\nvalue C.UTF-8\nrefused\n",
        "{output:#?}"
    );
    let text = |name: &str| std::fs::read_to_string(host.path(name)).expect("a file");
    assert_eq!(text("write/file"), "writemore\n");
    assert_eq!(text("agent-home/more"), "more\n");
    assert_eq!(text("read/file"), "read");
}
