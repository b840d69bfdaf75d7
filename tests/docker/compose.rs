//! `docker/compose.example.yaml`, as it stands, with what its head says is to be done before.

use std::os::unix::fs::chown;
use std::path::Path;

use futures_util::future::join_all;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::command::Done;
use crate::harness::docker::ways_out::{WAYS_OUT, WayOut};
use crate::harness::docker::{Docker, finish, images};
use crate::harness::pki::Pki;
use crate::harness::rig::REAL;
use crate::harness::sidecar::EGRESS;
use crate::harness::upstream::{self, Upstream};

#[tokio::test]
async fn the_example_leaves_the_agent_no_way_but_through_the_sidecar() {
    let bottle = Bottle::up(EXAMPLE).await;
    for way in WAYS_OUT {
        bottle.assert_open_outside(way).await;
    }
    // Each takes its time to fail. What goes one way only is seen where it would arrive.
    let one_way = [
        "curl --noproxy '*' -m 1 tftp://198.51.100.2:9/from-inside",
        "nslookup from-inside.example",
    ];
    let probes = WAYS_OUT.iter().map(|way| way.probe).chain(one_way);
    let tried = join_all(probes.map(|probe| bottle.inside(probe))).await;
    for (way, tried) in WAYS_OUT.iter().zip(tried) {
        assert_ne!(tried.code, Some(0), "{}: {tried:?}", way.what);
    }
    let outside =
        "curl --noproxy '*' -m 1 tftp://198.51.100.2:9/from-outside; nslookup from-outside.example";
    bottle.outside(outside).await;
    bottle.docker.sink().arrival("from-outside").await;
    bottle.docker.resolver().arrival("from-outside").await;
    assert!(!bottle.docker.sink().hold("from-inside"));
    assert!(!bottle.docker.resolver().hold("from-inside"));
}

#[tokio::test]
async fn an_admitted_host_gets_the_credential_that_the_agent_does_not_have() {
    let bottle = Bottle::up(EXAMPLE).await;
    let told = bottle
        .inside("curl -sS https://api.example.com/v1/models")
        .await;
    assert_eq!(told.stdout, "fine", "{told:?}");
    let seen = bottle.upstream.only();
    assert_eq!(seen.all("authorization"), [format!("Bearer {REAL}")]);

    let refused = bottle.inside("curl -sS https://paste.example.net/").await;
    assert!(refused.stderr.contains("403"), "{refused:?}");
    let all = bottle
        .inside("env; cat /etc/egress/*; mount; ps")
        .await
        .stdout;
    assert!(all.contains("HTTPS_PROXY") && !all.contains(REAL), "{all}");
    let containers = bottle.docker.run(&["ps", "-aq"]).await;
    for container in containers.split_whitespace() {
        let shown = bottle.docker.run(&["inspect", container]).await;
        assert!(!shown.contains(REAL), "{shown}");
    }
}

#[tokio::test]
async fn the_sidecar_of_the_example_has_nothing_that_it_does_not_need() {
    let bottle = Bottle::up(EXAMPLE).await;
    let shown = bottle.docker.run(&["inspect", "bottle_egress_1"]).await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let host = &shown[0]["HostConfig"];
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]));
    assert_eq!(
        host["SecurityOpt"],
        serde_json::json!(["no-new-privileges:true"])
    );
    assert_eq!(host["Sysctls"]["net.ipv4.ip_forward"], "0");
    assert_eq!(shown[0]["Config"]["User"], format!("{OPERATOR}:{OPERATOR}"));
}

#[tokio::test]
async fn without_the_lines_that_close_them_the_holes_are_open() {
    let open = EXAMPLE
        .replace(
            "com.docker.network.bridge.inhibit_ipv4",
            "org.example.nothing",
        )
        .replace("    dns: [10.203.0.2]\n", "");
    let bottle = Bottle::up(&open).await;
    let gateway = bottle.inside("nc -w 2 10.203.0.1 7 </dev/null").await;
    assert_eq!(gateway.stdout, "word", "the host is within reach");
    bottle.inside("nslookup from-inside.example").await;
    bottle.docker.resolver().arrival("from-inside").await;
}

const EXAMPLE: &str = include_str!("../../docker/compose.example.yaml");

/// The user who makes the bottle and whom the sidecar runs as.
const OPERATOR: u32 = 1000;

/// The example's two containers, and a third one beside them that nothing is kept from.
struct Bottle {
    docker: Docker,
    upstream: Upstream,
    _dir: TempDir,
}

impl Bottle {
    async fn up(example: &str) -> Self {
        let docker = Docker::turn().await;
        let pki = Pki::new();
        let upstream = Upstream::tls(&pki)
            .start_on(
                docker.internet().listen("198.51.100.2:443"),
                async |_call| upstream::text(200, "fine"),
            )
            .await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path();
        for sub in ["config", "secrets"] {
            std::fs::create_dir(path.join(sub)).expect("a directory");
        }
        let write = |name: &str, text: &str| {
            std::fs::write(path.join(name), text).expect("a writable directory");
        };
        write("compose.example.yaml", example);
        write("config/routes.yaml", ROUTES);
        write("secrets/token_0", &format!("{REAL}\n"));
        write(
            ".env",
            &format!(
                "EGRESS_USER={OPERATOR}:{OPERATOR}\nAGENT_IMAGE={}\n",
                images::AGENT
            ),
        );
        std::fs::copy(pki.ca_file().path(), path.join("config/upstream-ca.pem")).expect("a copy");
        egress(path, "ca init -r config/routes.yaml --ca-dir ca").await;
        egress(path, "ca bundle --ca-dir ca -o ca-bundle.pem").await;
        let env = "env --proxy http://10.203.0.2:8080 --bundle /etc/egress/ca-bundle.pem -r config/routes.yaml --format docker";
        write("agent.env", &egress(path, env).await.stdout);
        give_to_operator(path);
        let mut up = docker.command("docker-compose");
        up.args(["-p", "bottle", "-f", "compose.example.yaml", "up", "-d"]);
        let up = finish(up.current_dir(path)).await;
        if up.code != Some(0) {
            let log = docker.attempt(&["logs", "bottle_egress_1"]).await;
            panic!("{up:?}\n{log:?}");
        }
        let outside = [
            "run",
            "-d",
            "--name",
            "outside",
            "--network",
            "bottle_outside",
            images::AGENT,
        ];
        docker.run(&outside).await;
        Self {
            docker,
            upstream,
            _dir: dir,
        }
    }

    async fn inside(&self, script: &str) -> Done {
        self.docker
            .attempt(&["exec", "bottle_agent_1", "sh", "-c", script])
            .await
    }

    async fn outside(&self, script: &str) -> Done {
        self.docker
            .attempt(&["exec", "outside", "sh", "-c", script])
            .await
    }

    /// A probe that fails everywhere shows nothing.
    async fn assert_open_outside(&self, way: &WayOut) {
        let tried = self.outside(way.probe).await;
        assert_eq!(
            tried.code,
            Some(0),
            "{} is not there at all: {tried:?}",
            way.what
        );
    }
}

const ROUTES: &str = "\
routes:
  - host: api.example.com
    path_allowlist: [/v1/]
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
    connect_to: 198.51.100.2:443
    upstream_ca: upstream-ca.pem
";

async fn egress(dir: &Path, arguments: &str) -> Done {
    let mut command = tokio::process::Command::new(EGRESS);
    let done = finish(command.args(arguments.split(' ')).current_dir(dir)).await;
    assert_eq!(done.code, Some(0), "egress {arguments}: {done:?}");
    done
}

/// The operator's files are the operator's, and readable for nobody else.
fn give_to_operator(path: &Path) {
    chown(path, Some(OPERATOR), Some(OPERATOR)).expect("root may do so");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a readable directory") {
            give_to_operator(&entry.expect("a readable entry").path());
        }
    }
}
