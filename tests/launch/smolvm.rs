//! `egress launch smolvm`: an agent in a machine of the stand-in, which is held to the real program by `smolvm_stand_in`.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::host::{GH_PAT, Host, User};
use crate::harness::chatgpt::{HELLO, RESPONSES};
use crate::harness::clients::{Output, Running, files_under, node_modules, run, system, traces};
use crate::harness::sidecar::EGRESS;
use crate::harness::smolvm::{Smolvm, image, word};
use crate::harness::within;

/// A host, a `smolvm` and an image.
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) smolvm: Smolvm,
    pub(super) image: PathBuf,
    _dir: tempfile::TempDir,
}

/// How the guest reaches the sidecar: with a release of `smolvm` that has an interceptor, or one from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Interceptor,
    Socket,
}

const WAYS: [Way; 2] = [Way::Interceptor, Way::Socket];

impl Place {
    pub(super) async fn new(way: Way) -> Self {
        let place = Self::of(Smolvm::stand_in()).await;
        if way == Way::Socket {
            place.smolvm.fault("old", "");
        }
        place
    }

    pub(super) async fn of(smolvm: Smolvm) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let host = Host::new(User::Own).await;
        // A mounted directory keeps its owner, who has to be the agent's user.
        chown(host.project(), Some(1000), Some(1000)).expect("the tests of launchers run as root");
        Self {
            host,
            smolvm,
            image: image(dir.path()),
            _dir: dir,
        }
    }

    /// `egress launch smolvm` with further arguments, and a shell's script as the command.
    pub(super) fn launch(&self, arguments: &[&str], script: &str) -> Command {
        let mut launch = self.host.egress(["launch", "smolvm"]);
        launch.envs(
            self.smolvm
                .environment()
                .into_iter()
                .filter(|(name, _)| *name != "HOME"),
        );
        let paths: [(&str, &Path); 6] = [
            ("--manifest", &self.host.path("bottle.yaml")),
            ("--upstream-ca", &self.host.path("upstream-ca.pem")),
            ("--smolvm", self.smolvm.program()),
            ("--state-dir", &self.smolvm.state_dir()),
            ("--image", &self.image),
            ("--workspace", &self.host.project()),
        ];
        for (flag, path) in paths {
            if !arguments.contains(&flag) {
                launch.arg(flag).arg(path);
            }
        }
        launch.args(arguments).args(["--", "sh", "-c", script]);
        launch
    }

    pub(super) async fn script(&self, script: &str) -> Output {
        run(&mut self.launch(&[], script)).await
    }

    /// The file system of the one machine that there is.
    fn root(&self) -> PathBuf {
        self.smolvm.state_dir().join("machines/egress-dev/root")
    }

    pub(super) async fn assert_nothing_left(&self) {
        assert_eq!(self.smolvm.machines().await, "");
        self.host.assert_nothing_left();
    }
}

#[tokio::test]
async fn an_agent_works_with_credentials_that_it_never_holds() {
    for way in WAYS {
        let place = Place::new(way).await;
        let script = "id -un; pwd; echo kept > /workspace/kept; stat -c '%U %a' ~/.codex/auth.json; \
                      curl -sS https://api.github.com/user; exit 7";
        let output = place.script(script).await;
        assert_eq!(output.status.code(), Some(7), "{way:?}: {output:#?}");
        assert_eq!(
            output.stdout, "node\n/workspace\nnode 600\nok\n",
            "{way:?}: {output:#?}"
        );
        let seen = place.host.upstream.only();
        assert_eq!(seen.headers["authorization"], format!("Bearer {GH_PAT}"));
        let kept = std::fs::read_to_string(place.host.project().join("kept"));
        assert_eq!(kept.expect("a file of the agent's"), "kept\n");
        place.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn the_doctor_follows_the_way_that_a_machine_is_steered() {
    for way in WAYS {
        let place = Place::new(way).await;
        std::fs::copy(EGRESS, place.host.project().join("egress")).expect("a copy");
        let doctor = async |host: &str| {
            let script = format!("./egress doctor --host {host} --format json");
            let output = place.script(&script).await;
            let found: Value = serde_json::from_str(&output.stdout)
                .unwrap_or_else(|error| panic!("{way:?}: {error}: {output:#?}"));
            let checks = found["checks"].as_array().expect("a list").iter();
            let checks = checks.map(|check| [&check["name"], &check["state"], &check["text"]]);
            let checks =
                checks.map(|check| check.map(|text| text.as_str().unwrap_or("").to_owned()));
            (output.status.code(), checks.collect::<Vec<_>>())
        };
        let (code, checks) = doctor("api.github.com").await;
        assert_eq!(code, Some(0), "{way:?}: {checks:#?}");
        let state = |name: &str| {
            let found = checks.iter().find(|[check, ..]| check == name);
            found.map(|[_, state, _]| state.as_str())
        };
        for name in [
            "tunnel",
            "ca.bundle",
            "client.curl",
            "client.node",
            "box.codex",
        ] {
            assert_eq!(state(name), Some("ok"), "{way:?}: {checks:#?}");
        }
        // What an interceptor leads to the sidecar needs a route, and no variable.
        let expected = match way {
            Way::Interceptor => ("skip", "skip"),
            Way::Socket => ("ok", "ok"),
        };
        let found = (state("proxy.variables"), state("box.route"));
        assert_eq!(found, (Some(expected.0), Some(expected.1)), "{checks:#?}");
        let (code, checks) = doctor("other.test").await;
        assert_eq!(code, Some(1), "{way:?}: {checks:#?}");
        place.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn nothing_but_admitted_hosts_can_be_reached() {
    for way in WAYS {
        let place = Place::new(way).await;
        let script = "\
for url in https://evil.test https://198.51.100.7 http://169.254.169.254/ http://100.96.0.1:8080 http://127.0.0.1:9; do
  curl -sS -m 5 --noproxy '*' $url >/dev/null 2>&1 && echo reached $url
  curl -sSf -m 5 $url >/dev/null 2>&1 && echo served $url
done
getent hosts evil.test
curl -sS --noproxy '*' -m 5 --resolve api.github.com:443:198.51.100.7 https://api.github.com/user
echo end";
        let output = place.script(script).await.success();
        assert_eq!(output.stdout, "end\n", "{way:?}: {output:#?}");
        assert_eq!(place.host.upstream.seen().len(), 0, "{way:?}");
        place.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn no_secret_of_the_host_gets_into_the_machine_or_to_the_engine() {
    for way in WAYS {
        let place = Place::new(way).await;
        // The process list and every environment, as the agent sees them, and then the disk, as it is while the agent works.
        let script = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; curl -sS \
                      https://api.github.com/user; touch /workspace/ready; until [ -e /workspace/go ]; do sleep 0.05; done";
        let launched = Running::spawn(&mut place.launch(&[], script));
        within(
            "the agent's work",
            appears(&place.host.project().join("ready")),
        )
        .await;
        let mut places = vec![
            ("the disk", place.root()),
            (
                "what the engine was given",
                place.smolvm.state_dir().join("given"),
            ),
        ];
        places.push(("the workspace", place.host.project()));
        let mut searched = 0;
        for (what, directory) in places {
            for file in files_under(&directory) {
                // The program itself is copied into a machine without an interceptor.
                let content = std::fs::read(&file).expect("a readable file");
                for secret in place.host.secrets() {
                    let found = forms(secret).is_match(&content);
                    assert!(!found, "{way:?}: {what} has {secret:?}: {}", file.display());
                }
                searched += 1;
            }
        }
        assert!(searched > 30, "{searched} files are not all of it");
        let dummy =
            std::fs::read(place.root().join("home/node/.codex/auth.json")).expect("a dummy");
        assert!(String::from_utf8_lossy(&dummy).contains("placeholder"));
        std::fs::write(place.host.project().join("go"), "").expect("a file");
        let output = launched.finish().await.success();
        assert!(
            output.stdout.contains("CODEX_HOME=/home/node/.codex\n"),
            "{output:#?}"
        );
        for secret in place.host.secrets() {
            assert!(
                !forms(secret).is_match(output.stdout.as_bytes()),
                "{way:?}: {secret:?} is in a process"
            );
            assert!(
                !forms(secret).is_match(output.stderr.as_bytes()),
                "{way:?}: {secret:?} is printed"
            );
        }
        assert_eq!(
            place.host.upstream.only().headers["authorization"],
            format!("Bearer {GH_PAT}")
        );
    }
}

#[tokio::test]
async fn a_machines_token_goes_to_its_network_and_nowhere_else() {
    let place = Place::new(Way::Interceptor).await;
    let script = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'";
    let output = place.script(script).await.success();
    let mut tokens = Vec::new();
    let calls = place.smolvm.calls();
    for (words, environment) in &calls {
        let token = environment.get("SMOLVM_INTERCEPTOR_TOKEN");
        assert_eq!(
            token.is_some(),
            words.contains(&"start".to_owned()) && !words.contains(&"--help".to_owned()),
            "{words:?}"
        );
        tokens.extend(token);
    }
    let [token] = tokens.as_slice() else {
        panic!("one machine was started: {tokens:?}");
    };
    assert_eq!(token.len(), 64);
    assert!(!output.stdout.contains(token.as_str()), "the agent sees it");
    assert!(
        calls
            .iter()
            .all(|(words, _)| !words.iter().any(|word| word.contains(token.as_str())))
    );
    let other = Place::new(Way::Interceptor).await;
    other.script("true").await.success();
    assert!(
        other
            .smolvm
            .calls()
            .iter()
            .all(|(_, environment)| environment.get("SMOLVM_INTERCEPTOR_TOKEN") != Some(token))
    );
}

#[tokio::test]
async fn the_real_codex_works_in_the_machine() {
    for way in WAYS {
        let place = Place::new(way).await;
        // The machine's programs are this one's, and Codex is in the directory that is mounted.
        let modules = node_modules().await;
        let modules = word(modules.parent().expect("a directory with node_modules")).to_owned();
        let path = "PATH=/workspace/node_modules/.bin:/usr/local/bin:/usr/bin";
        let script = "cd && codex exec --skip-git-repo-check 'say hello' </dev/null";
        let output = run(&mut place.launch(&["--workspace", &modules, "--env", path], script))
            .await
            .success();
        assert!(output.stdout.contains(HELLO), "{way:?}: {output:#?}");
        let asked = place.host.upstream.at(RESPONSES);
        let bearer = format!("Bearer {}", place.host.token);
        assert!(
            !asked.is_empty()
                && asked
                    .iter()
                    .all(|seen| seen.headers["authorization"] == bearer.as_str())
        );
        place.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_terminal_is_the_agents_with_its_keys() {
    let place = Place::new(Way::Socket).await;
    let work = "trap 'echo got INT; exit 7' INT; test -t 0 && test -t 1 && echo up; while :; do sleep 0.01; done";
    let launch = place.launch(&[], work);
    let words = std::iter::once(launch.as_std().get_program()).chain(launch.as_std().get_args());
    let quoted = words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")));
    let line = format!("exec {}", quoted.collect::<Vec<_>>().join(" "));
    let arguments = ["--quiet", "--return", "--command", &line, "/dev/null"];
    let mut script = place.host.program(&system("script", "bsdutils"), arguments);
    let mut running = Running::spawn(script.stdin(std::process::Stdio::piped()));
    let mut stdin = running.stdin();
    let mut stdout = BufReader::new(running.stdout());
    let mut text = String::new();
    while !text.contains("up\r\n") {
        let read = within("the agent's start", stdout.read_line(&mut text)).await;
        assert!(read.expect("it prints") > 0, "{text}");
    }
    stdin.write_all(b"\x03").await.expect("a terminal");
    within("the end of its output", stdout.read_to_string(&mut text))
        .await
        .expect("it ends");
    let output = running.finish().await;
    assert_eq!(text.matches("got INT").count(), 1, "{text}");
    assert_eq!(output.status.code(), Some(7), "{text}");
    place.assert_nothing_left().await;
}

#[tokio::test]
async fn a_launcher_that_is_killed_leaves_no_way_out() {
    let place = Place::new(Way::Interceptor).await;
    let script = "touch /workspace/ready; until [ -e /workspace/go ]; do sleep 0.05; done
                  curl -sS -m 5 https://api.github.com/user >/dev/null 2>&1; echo $? > /workspace/code.new
                  mv /workspace/code.new /workspace/code";
    let mut launch = place.launch(&[], script);
    let mut child = launch.spawn().expect("the binary runs");
    within(
        "the agent's work",
        appears(&place.host.project().join("ready")),
    )
    .await;
    child.kill().await.expect("it runs");
    within("the sidecar's end", async {
        while !super::host::processes(&place.host.path("bin/egress")).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    std::fs::write(place.host.project().join("go"), "").expect("a file");
    within(
        "the agent's attempt",
        appears(&place.host.project().join("code")),
    )
    .await;
    let code = std::fs::read_to_string(place.host.project().join("code")).expect("a code");
    assert_ne!(code, "0\n");
    assert_eq!(place.host.upstream.seen().len(), 0);
    assert_eq!(place.smolvm.machines().await, "egress-dev\n");
}

#[tokio::test]
async fn the_bottles_certificate_is_in_the_machines_own_store() {
    let place = Place::new(Way::Socket).await;
    let script = "test -s /etc/ssl/certs/ca-certificates.crt && unset SSL_CERT_FILE CURL_CA_BUNDLE && \
                  curl -sS --cacert /etc/ssl/certs/ca-certificates.crt https://plain.test/";
    let output = place.script(script).await.success();
    assert_eq!(output.stdout, "ok\n", "{output:#?}");
}

#[tokio::test]
async fn a_renewed_login_reaches_the_sidecar_and_the_dummy() {
    for way in WAYS {
        let place = Place::new(way).await;
        let before = place.host.token.clone();
        let script = "\
ask() { curl -sS -o /dev/null https://chatgpt.com/backend-api/wham/accounts/check; }
ask; touch /workspace/ready; cp ~/.codex/auth.json /tmp/first
until ! cmp -s ~/.codex/auth.json /tmp/first; do sleep 0.05; done
ask; stat -c '%U %a' ~/.codex/auth.json";
        let launched = Running::spawn(&mut place.launch(&[], script));
        within(
            "the agent's work",
            appears(&place.host.project().join("ready")),
        )
        .await;
        let after =
            crate::harness::chatgpt::access_token(crate::harness::chatgpt::unix_now() + 999_999);
        place.host.log_in(&after);
        let output = launched.finish().await.success();
        assert_eq!(output.stdout, "node 600\n", "{output:#?}");
        let tokens: Vec<_> = place
            .host
            .upstream
            .seen()
            .iter()
            .map(|seen| seen.headers["authorization"].clone())
            .collect();
        assert_eq!(
            tokens,
            [format!("Bearer {before}"), format!("Bearer {after}")]
        );
        place.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn the_machine_goes_when_its_sidecar_is_killed() {
    let place = Place::new(Way::Socket).await;
    let launched = Running::spawn(&mut place.launch(&[], "touch /workspace/ready; sleep 1000"));
    within(
        "the agent's work",
        appears(&place.host.project().join("ready")),
    )
    .await;
    let running = super::host::processes(&place.host.path("bin/egress"));
    let (sidecar, _) = running
        .iter()
        .find(|(_, arguments)| arguments.contains(" serve "))
        .expect("a sidecar");
    kill(*sidecar, rustix::process::Signal::KILL);
    let output = launched.finish().await;
    assert_eq!(output.status.code(), Some(3), "{output:#?}");
    assert!(
        output.stderr.contains("error: the sidecar has ended"),
        "{output:#?}"
    );
    place.assert_nothing_left().await;
}

#[tokio::test]
async fn a_machine_that_dies_is_told_apart_from_its_agent() {
    let place = Place::new(Way::Socket).await;
    let launched = Running::spawn(&mut place.launch(&[], "touch /workspace/ready; sleep 1000"));
    within(
        "the agent's work",
        appears(&place.host.project().join("ready")),
    )
    .await;
    let pids = std::fs::read(place.root().with_file_name("pids")).expect("a running machine");
    let pids: Value = serde_json::from_slice(&pids).expect("JSON");
    let monitor = pids["monitor"].as_u64().expect("a number");
    kill(
        u32::try_from(monitor).expect("a process id"),
        rustix::process::Signal::KILL,
    );
    let output = launched.finish().await;
    assert_eq!(output.status.code(), Some(3), "{output:#?}");
    assert!(
        output
            .stderr
            .contains("error: the machine `egress-dev` has ended"),
        "{output:#?}"
    );
    place.assert_nothing_left().await;
}

#[tokio::test]
async fn a_signal_ends_the_launch_wherever_it_is_and_leaves_nothing() {
    use rustix::process::Signal;
    for (hangs, signal, code) in [
        (None, Signal::INT, 130),
        (None, Signal::TERM, 143),
        (Some("start"), Signal::INT, 130),
        (Some("exec"), Signal::TERM, 143),
        (Some("cp"), Signal::INT, 130),
    ] {
        let place = Place::new(Way::Socket).await;
        if let Some(command) = hangs {
            place.smolvm.fault(command, "HANG");
        }
        let mut launch = place.launch(&[], "touch /workspace/ready; sleep 1000");
        let child = launch.spawn().expect("the binary runs");
        let pid = child.id().expect("a running child");
        match hangs {
            None => {
                within(
                    "the agent's work",
                    appears(&place.host.project().join("ready")),
                )
                .await
            }
            Some(command) => {
                within("the command that hangs", place.smolvm.was_given(command)).await
            }
        }
        kill(pid, signal);
        let output = within("the end of the launch", child.wait_with_output())
            .await
            .expect("an end");
        assert_eq!(output.status.code(), Some(code), "{hangs:?}: {output:?}");
        assert_eq!(place.smolvm.machines().await, "", "{hangs:?}");
        place.host.assert_nothing_left();
    }
}

/// A secret plain, in base64 and base64url at any alignment, in hex, and as a URL would have it.
fn forms(secret: &str) -> regex::bytes::Regex {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let url: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let found = [
        traces(secret).as_str(),
        &regex::escape(&hex),
        &regex::escape(&url),
    ]
    .join("|");
    regex::bytes::Regex::new(&format!("(?i-u){found}")).expect("an alternation of literals")
}

#[test]
fn a_secret_is_found_in_every_form() {
    let secret = "ghp_a-real.one/+?";
    let found = forms(secret);
    let hex: String = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
    for text in [
        secret,
        &hex,
        &BASE64_URL_SAFE_NO_PAD.encode(format!("a{secret}bc")),
    ] {
        assert!(found.is_match(text.as_bytes()), "{text}");
    }
    assert!(!found.is_match(b"ghp_another-one"));
}

pub(super) async fn appears(path: &Path) {
    let dir = path.parent().expect("a file in a directory");
    let seen = || path.file_name().is_some_and(|name| has(dir, name));
    while !seen() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn has(dir: &Path, name: &OsStr) -> bool {
    dir.join(name)
        .symlink_metadata()
        .is_ok_and(|found| found.ino() > 0)
}

fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    rustix::process::kill_process(pid.expect("a process id"), signal).expect("it runs");
}
