//! `egress launch docker`: the whole way from a manifest to an agent at work, and what is left of it.

mod bottle;
mod ends;
mod refusals;
mod secrets;

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use futures_util::future::join_all;
use serde_json::{Value, json};

use self::bottle::{Bottle, GH_PAT};
use crate::harness::chatgpt::{HELLO, RESPONSES};
use crate::harness::clients::{Running, run, system};
use crate::harness::command;
use crate::harness::docker::images;
use crate::harness::docker::ways_out::WAYS_OUT;
use crate::harness::sidecar::EGRESS;

#[tokio::test]
async fn the_real_codex_works_in_a_container_with_a_login_that_it_does_not_have() {
    let bottle = Bottle::new().await;
    let image = images::codex(&bottle.docker).await;
    let mut launch = bottle.launch(image, &["codex", "exec", "--skip-git-repo-check", "say hi"]);
    let output = run(&mut launch).await.success();
    assert_eq!(output.stdout.trim(), HELLO, "{output:#?}");
    let real = format!("Bearer {}", bottle.token);
    let seen = bottle.upstream.seen();
    assert!(seen.iter().any(|request| request.path() == RESPONSES));
    assert!(
        seen.iter()
            .all(|request| request.all("authorization") == [real.as_str()]),
        "{seen:#?}"
    );
    bottle.assert_nothing_left().await;
}

#[tokio::test]
async fn an_admitted_host_gets_the_credential_and_no_other_host_gets_anything() {
    let bottle = Bottle::new().await;
    let fetched = bottle
        .script("curl -sS -H 'authorization: Bearer mine' https://api.github.com/user")
        .await;
    assert_eq!(fetched.success().stdout, "ok\n");
    let seen = bottle.upstream.only();
    assert_eq!(seen.all("authorization"), [format!("Bearer {GH_PAT}")]);
    let refused = bottle.script("curl -sS https://other.test/").await;
    assert!(refused.stderr.contains("403"), "{refused:#?}");
    assert_eq!(bottle.upstream.seen().len(), 1);
}

#[tokio::test]
async fn the_agent_has_no_way_out_but_through_the_sidecar() {
    let bottle = Bottle::new().await;
    let working = bottle.at_work().await;
    let outside = [
        "run",
        "-d",
        "--name",
        "outside",
        "--network",
        "egress-dev-outside",
        images::AGENT,
    ];
    bottle.docker.run(&outside).await;
    for way in WAYS_OUT {
        let tried = bottle
            .docker
            .attempt(&["exec", "outside", "sh", "-c", way.probe])
            .await;
        assert_eq!(
            tried.code,
            Some(0),
            "{} is not there at all: {tried:?}",
            way.what
        );
    }
    let one_way = [
        "curl --noproxy '*' -m 1 tftp://198.51.100.2:9/from-inside",
        "nslookup from-inside.example",
    ];
    let probes = WAYS_OUT.iter().map(|way| way.probe).chain(one_way);
    let agent = |probe: &'static str| ["exec", "-u", "node", "egress-dev-agent", "sh", "-c", probe];
    let tried = join_all(probes.map(|probe| {
        let (docker, arguments) = (&bottle.docker, agent(probe));
        async move { docker.attempt(&arguments).await }
    }))
    .await;
    for (way, tried) in WAYS_OUT.iter().zip(tried) {
        assert_ne!(tried.code, Some(0), "{}: {tried:?}", way.what);
    }
    let control = "curl -m 1 tftp://198.51.100.2:9/from-outside; nslookup from-outside.example";
    bottle
        .docker
        .attempt(&["exec", "outside", "sh", "-c", control])
        .await;
    bottle.docker.sink().arrival("from-outside").await;
    bottle.docker.resolver().arrival("from-outside").await;
    assert!(!bottle.docker.sink().hold("from-inside"));
    assert!(!bottle.docker.resolver().hold("from-inside"));
    bottle.docker.run(&["rm", "-f", "outside"]).await;
    working.stop().await;
    bottle.assert_nothing_left().await;
}

#[tokio::test]
async fn neither_container_has_what_it_does_not_need() {
    let bottle = Bottle::new().await;
    let working = bottle.at_work().await;
    let shown = ["inspect", "egress-dev-sidecar", "egress-dev-agent"];
    let shown: Value = serde_json::from_str(&bottle.docker.run(&shown).await).expect("JSON");
    let (sidecar, agent) = (&shown[0]["HostConfig"], &shown[1]["HostConfig"]);
    assert_eq!(sidecar["ReadonlyRootfs"], true);
    assert_eq!(sidecar["CapDrop"], json!(["ALL"]));
    assert_eq!(sidecar["Sysctls"]["net.ipv4.ip_forward"], "0");
    assert_eq!(shown[0]["Config"]["User"], "65532:65532");
    let dropped = agent["CapDrop"].to_string();
    assert!(
        dropped.contains("NET_RAW") && dropped.contains("MKNOD"),
        "{dropped}"
    );
    for host in [sidecar, agent] {
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
        assert_eq!(host["Privileged"], false);
        assert_eq!(host["CapAdd"], Value::Null);
    }
    let network = [
        "network",
        "inspect",
        "--format",
        "{{.Internal}}",
        "egress-dev-inside",
    ];
    assert_eq!(bottle.docker.run(&network).await, "true\n");
    // The workspace is all of the host's that is in either.
    let mounts = |container: &Value| {
        let mounts = container["Mounts"].as_array().expect("a list").iter();
        let bound = mounts.filter(|mount| mount["Type"] == "bind");
        bound
            .map(|mount| mount["Source"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(mounts(&shown[0]), Vec::<Value>::new());
    assert_eq!(mounts(&shown[1]), [json!(bottle.path("project"))]);
    working.stop().await;
}

#[tokio::test]
async fn the_sidecar_writes_an_audit_file_of_the_operators_that_the_agent_does_not_see() {
    let bottle = Bottle::new().await;
    std::fs::create_dir(bottle.path("kept")).expect("a directory");
    let file = bottle.path("kept/egress.db");
    // Whoever ends at once takes no row along.
    let script = "ls /var/log/egress; curl -sS https://other.test/; curl -sS 'https://api.github.com/user/[1-40]'";
    let mut launch = bottle.command(EGRESS);
    launch.args(["launch", "docker", "--audit"]).arg(&file);
    launch.arg("--manifest").arg(bottle.path("bottle.yaml"));
    launch.args(["--image", images::AGENT, "--", "sh", "-c", script]);
    let output = run(&mut launch).await;
    assert_eq!(output.stdout, "ok\n".repeat(40), "{output:#?}");
    assert!(output.stderr.contains("No such file"), "{output:#?}");
    // SQLite takes it along only where the sidecar came to its end.
    assert!(!bottle.path("kept/egress.db-wal").exists());
    let audit =
        command::egress([OsStr::new("audit"), file.as_os_str(), OsStr::new("--json")]).await;
    let rows = audit.stdout.lines().map(|line| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        ["bottle", "host", "code"].map(|name| row[name].as_str().unwrap_or_default().to_owned())
    });
    let rows: Vec<_> = rows.filter(|[_, _, code]| code != "tunnel").collect();
    assert_eq!(rows.len(), 41, "{audit:?}");
    assert_eq!(rows[0], ["dev", "other.test:443", "host_not_allowed"]);
    for row in &rows[1..] {
        assert_eq!(*row, ["dev", "api.github.com:443", "ok"]);
    }
    let meta = std::fs::metadata(&file).expect("a file");
    let owner = (meta.uid(), meta.mode() & 0o777);
    assert_eq!(owner, (rustix::process::geteuid().as_raw(), 0o600));
    bottle.assert_nothing_left().await;

    for (file, problem) in [
        ("/nowhere/egress.db", "cannot find /nowhere"),
        ("../egress.db", "holds the workspace or your home"),
        ("../home/egress.db", "holds the workspace or your home"),
    ] {
        let mut launch = bottle.command(EGRESS);
        launch.args(["launch", "docker", "--audit", file]);
        launch.arg("--manifest").arg(bottle.path("bottle.yaml"));
        let output = run(launch.args(["--image", images::AGENT, "--", "true"])).await;
        assert_eq!(output.status.code(), Some(2), "{output:#?}");
        assert!(output.stderr.contains(problem), "{output:#?}");
        bottle.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_program_that_knows_no_proxy_is_steered_to_the_sidecar() {
    let bottle = Bottle::new().await;
    let script = "env -u NODE_USE_ENV_PROXY -u HTTPS_PROXY -u https_proxy -u ALL_PROXY -u all_proxy \
                  -u HTTP_PROXY -u http_proxy node -e \
                  'fetch(\"https://api.github.com/user\").then(r => r.text()).then(t => process.stdout.write(t))'";
    let output = bottle.script(script).await.success();
    assert_eq!(output.stdout, "ok\n", "{output:#?}");
    let seen = bottle.upstream.only();
    assert_eq!(seen.all("authorization"), [format!("Bearer {GH_PAT}")]);
}

#[tokio::test]
async fn the_command_has_its_arguments_its_input_its_place_and_its_code() {
    let bottle = Bottle::new().await;
    let printed =
        run(&mut bottle.launch(images::AGENT, &["printf", "%s|", "a b", "", "$x", "ü"])).await;
    assert_eq!(printed.success().stdout, "a b||$x|ü|");
    let place = bottle.script("pwd; id -un; echo $HOME; cat; echo kept >kept; exit 42");
    let place = place.await;
    assert_eq!(place.status.code(), Some(42), "{place:#?}");
    assert_eq!(place.stdout, "/workspace\nnode\n/home/node\n");
    let kept = std::fs::read_to_string(bottle.path("project/kept"));
    assert_eq!(kept.expect("the workspace is the project"), "kept\n");

    let mut cat = bottle.launch(images::AGENT, &["cat"]);
    let mut cat = Running::spawn(cat.stdin(Stdio::piped()));
    let mut stdin = cat.stdin();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"through\n")
        .await
        .expect("it reads");
    drop(stdin);
    assert_eq!(cat.finish().await.success().stdout, "through\n");
}

#[tokio::test]
async fn an_agent_at_a_terminal_has_a_terminal() {
    let bottle = Bottle::new().await;
    let launch = bottle.launch(
        images::AGENT,
        &[
            "sh",
            "-c",
            "test -t 0 && test -t 1 && echo at $TERM; exit 7",
        ],
    );
    let words: Vec<String> = std::iter::once(launch.as_std().get_program())
        .chain(launch.as_std().get_args())
        .map(|word| format!("'{}'", word.to_str().expect("UTF-8")))
        .collect();
    let mut script = bottle.command(system("script", "bsdutils"));
    script.env("TERM", "xterm-256color");
    let output = run(script.args(["-qec", &words.join(" "), "/dev/null"])).await;
    assert!(output.stdout.contains("at xterm-256color"), "{output:#?}");
    assert_eq!(output.status.code(), Some(7), "{output:#?}");
}

#[tokio::test]
async fn the_systems_own_store_trusts_the_bottle_where_it_can_be_told_to() {
    let bottle = Bottle::new().await;
    let count = "grep -c BEGIN /etc/ssl/certs/ca-certificates.crt /etc/egress/ca-bundle.pem";
    let counted = bottle.script(count).await.success();
    let counts: Vec<&str> = counted
        .stdout
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .collect();
    // One more than the host has, whose store the image was given.
    let roots = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").expect("a store");
    let roots = (roots.matches("-----BEGIN").count() + 1).to_string();
    assert_eq!(counts, [roots.as_str(), roots.as_str()], "{counted:#?}");
}
