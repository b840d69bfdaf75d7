//! A real dockerd in namespaces of the test run's own, so that no packet can leave the machine. It is started once for
//! all tests, which take turns, and it ends with the test run, however that ends.
//!
//! Beside it stands a second network, joined to the first by one cable: the internet, where the fake upstreams listen.

pub(crate) mod images;
pub(crate) mod network;
pub(crate) mod ways_out;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::{Mutex as Turns, MutexGuard};

use self::network::{Datagrams, Net};
use super::clients::system;
use super::command::Done;
use super::within;

/// A turn with the engine. It begins without a container or a network that an earlier test has left.
pub(crate) struct Docker(MutexGuard<'static, Option<Engine>>);

impl Docker {
    /// Waits for its turn, and starts the engine where it is the first.
    pub(crate) async fn turn() -> Self {
        let mut engine = ENGINE.lock().await;
        if engine.is_none() {
            let started = tokio::task::spawn_blocking(Engine::start).await;
            *engine = Some(started.expect("the engine starts"));
        }
        let turn = Self(engine);
        turn.clear();
        turn.sink().forget();
        turn.resolver().forget();
        turn
    }

    fn engine(&self) -> &Engine {
        self.0.as_ref().expect("a turn has an engine")
    }

    /// What `DOCKER_HOST` has to be.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}/d.sock", self.engine().dir.display())
    }

    /// The network beyond the host's.
    pub(crate) fn internet(&self) -> Net {
        self.engine().network("net")
    }

    /// `docker` with these arguments, which has to succeed. Returns what it printed.
    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let done = self.attempt(arguments).await;
        assert_eq!(done.code, Some(0), "docker {arguments:?}: {done:?}");
        done.stdout
    }

    /// `docker` with these arguments.
    pub(crate) async fn attempt(&self, arguments: &[&str]) -> Done {
        finish(self.command("docker").args(arguments)).await
    }

    /// Waits until the container's own check says that all is well.
    pub(crate) async fn healthy(&self, container: &str) {
        let format = "{{.State.Health.Status}}";
        within("health of the container", async {
            while self
                .run(&["inspect", "--format", format, container])
                .await
                .trim()
                != "healthy"
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    }

    /// A program that is told of this engine and of nothing else.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(system(program, "docker.io docker-compose"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.engine().dir)
            .env("DOCKER_HOST", self.host())
            // There is no buildx in Debian; the older builder reads the same files.
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null());
        command
    }

    /// What a UDP port of the internet, 198.51.100.2:9, was sent in this turn.
    pub(crate) fn sink(&self) -> &Datagrams {
        &self.engine().services().sink
    }

    /// What the host's own resolver was asked in this turn.
    pub(crate) fn resolver(&self) -> &Datagrams {
        &self.engine().services().resolver
    }

    /// Everything that dockerd has logged.
    pub(crate) fn log(&self) -> String {
        self.engine()
            .log
            .lock()
            .expect("no holder panicked")
            .clone()
    }

    fn clear(&self) {
        let clear = "docker ps -aq | xargs -r docker rm -fv; docker network prune -f; docker volume prune -f";
        let done = std::process::Command::new("sh")
            .args(["-c", clear])
            .env("DOCKER_HOST", self.host())
            .stdin(Stdio::null())
            .output();
        assert!(
            done.is_ok_and(|done| done.status.success()),
            "{}",
            self.log()
        );
    }
}

/// Runs a command to its end, which may take as long as a client does.
pub(crate) async fn finish(command: &mut Command) -> Done {
    let shown = format!("{command:?}");
    let output = command.kill_on_drop(true).output();
    let Ok(output) = tokio::time::timeout(DEADLINE, output).await else {
        panic!("{shown} did not end within {DEADLINE:?}");
    };
    let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
    Done {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

const DEADLINE: Duration = Duration::from_secs(90);

/// Where every test's turn comes from. It is never dropped: the keeper sees the end of the test run instead.
static ENGINE: Turns<Option<Engine>> = Turns::const_new(None);

/// The engine, and the shell that keeps it.
struct Engine {
    keeper: Child,
    name: String,
    dir: PathBuf,
    log: Arc<Mutex<String>>,
    services: Option<Services>,
}

/// What an agent must not reach, and has to be there for that.
struct Services {
    sink: Datagrams,
    resolver: Datagrams,
}

impl Services {
    fn start(internet: &Net, host: &Net) -> Self {
        for addr in ["198.51.100.2:7", "203.0.113.9:7", "169.254.169.254:80"] {
            internet.say(addr, "word");
        }
        host.say("0.0.0.0:7", "word");
        internet.resolver("203.0.113.9:53");
        Self {
            sink: internet.sink("198.51.100.2:9"),
            resolver: host.resolver("127.0.0.53:53"),
        }
    }
}

impl Engine {
    fn network(&self, which: &str) -> Net {
        Net::named(&format!("{}-{which}", self.name))
    }

    fn services(&self) -> &Services {
        self.services
            .as_ref()
            .expect("they are started with the engine")
    }

    fn start() -> Self {
        for (program, package) in PROGRAMS {
            system(program, package);
        }
        let dir = tempfile::tempdir().expect("a temporary directory").keep();
        let mut keeper = std::process::Command::new("/bin/sh")
            .args(["-c", KEEPER, "sh"])
            .args([Path::new(CAGE), &dir])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("/bin/sh runs");
        let name = format!("egress-{}", keeper.id());
        let log = Arc::<Mutex<String>>::default();
        let mut lines = BufReader::new(keeper.stderr.take().expect("a piped stderr")).lines();
        let sink = log.clone();
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while let Some(Ok(line)) = lines.next() {
                let mut log = sink.lock().expect("no holder panicked");
                log.push_str(&line);
                log.push('\n');
                if line.contains("API listen on") {
                    _ = ready.send(());
                }
            }
        });
        let mut engine = Self {
            keeper,
            name,
            dir,
            log,
            services: None,
        };
        // It ends at once where the shell does, since the thread drops the sender.
        let started = is_ready.recv_timeout(Duration::from_secs(30));
        let log = engine.log.lock().expect("no holder panicked").clone();
        assert!(
            started.is_ok(),
            "dockerd did not start (it takes root):\n{log}"
        );
        engine.services = Some(Services::start(
            &engine.network("net"),
            &engine.network("host"),
        ));
        images::build_all(&engine);
        engine
    }

    /// `docker` with these arguments, and `input` on its stdin.
    fn docker(&self, arguments: &[&str], input: &[u8]) {
        let mut child = std::process::Command::new("docker")
            .args(arguments)
            .env(
                "DOCKER_HOST",
                format!("unix://{}/d.sock", self.dir.display()),
            )
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker runs");
        let mut stdin = child.stdin.take().expect("a piped stdin");
        _ = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().expect("docker ends");
        assert!(output.status.success(), "docker {arguments:?}: {output:?}");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        _ = self.keeper.wait();
    }
}

/// What the tests need of the machine, and the packages that bring it.
const PROGRAMS: &[(&str, &str)] = &[
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("busybox", "busybox-static"),
];

/// Makes the two networks and what is to be cleaned away, runs the cage, and cleans up after it.
///
/// Named network namespaces, because the test process enters them too, for the sockets of its upstreams.
const KEEPER: &str = r#"
cage=$1 dir=$2 host=egress-$$-host net=egress-$$-net group=egress-$$
trap 'ip netns del $host; ip netns del $net; rm -rf "$dir"
      find /sys/fs/cgroup -depth -type d -path "*/$group*" -exec rmdir {} + ' EXIT
set -e
ip netns add $host
ip netns add $net
ip -n $host link set lo up
ip -n $net link set lo up
ip -n $host link add cable type veth peer name cable netns $net
ip -n $host addr add 198.51.100.1/24 dev cable
ip -n $net addr add 198.51.100.2/24 dev cable
ip -n $host link set cable up
ip -n $net link set cable up
ip -n $host route add default via 198.51.100.2
# What the agent must not reach has to be there to be reached: another host, and a cloud's metadata service.
ip -n $net addr add 203.0.113.9/32 dev lo
ip -n $net addr add 169.254.169.254/32 dev lo
ip -n $host route add 169.254.169.254 via 198.51.100.2
nsenter --net=/run/netns/$host \
  unshare --mount --pid --fork --mount-proc --kill-child /bin/sh -c "$cage" sh "$dir" "$group"
"#;

/// The first process of dockerd's own process namespace: with it ends all that runs there, and all that is mounted.
/// It ends when the other end of its stdin does.
///
/// The host's resolver is one on loopback, as with systemd-resolved; Docker treats those in a way of its own.
const CAGE: &str = r#"
dir=$1 group=$2
echo "nameserver 127.0.0.53" >"$dir/resolv.conf"
mount --bind "$dir/resolv.conf" /etc/resolv.conf
dockerd -H "unix://$dir/d.sock" --data-root "$dir/data" --exec-root "$dir/exec" -p "$dir/d.pid" \
  --cgroup-parent "/$group" </dev/null &
read -r _
"#;
