//! Finds and runs real clients. curl, git, python3, node and npm come from the machine; the rest is installed once, at
//! the pinned versions, under `target/clients`. Nothing is skipped: what is missing fails the test and says its name.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::sidecar::{EGRESS, Sidecar};

const PYTHON: &[&str] = &["requests==2.34.2", "httpx==0.28.1", "openai==3.54.0"];
const SSLYZE: &[&str] = &["sslyze==6.3.1"];
const SMOLVM: &[&str] = &["smolmachines==1.32.2"];
const NODE: &[&str] = &[
    "@openai/codex@0.169.0",
    "@anthropic-ai/claude-code@2.1.197",
    "undici@6.29.1",
];

const PAGE_PACKAGES: (&str, &str) = ("package.json", include_str!("../ui/package.json"));
const PAGE_LOCK: (&str, &str) = ("package-lock.json", include_str!("../ui/package-lock.json"));

/// How long a client may take. Claude Code alone takes four seconds to start on two cores.
const CLIENT_DEADLINE: Duration = Duration::from_secs(90);

/// A program of the machine. `package` is what Debian calls it.
pub(crate) fn system(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("`{program}` is not on the PATH: apt-get install {package}"))
}

/// The interpreter of the virtual environment that holds the Python clients.
pub(crate) async fn python() -> PathBuf {
    let dir = installed("python", PYTHON, async |dir| environment(dir, PYTHON).await);
    dir.await.join("bin").join("python")
}

/// The TLS scanner.
pub(crate) async fn sslyze() -> PathBuf {
    let dir = installed("sslyze", SSLYZE, async |dir| environment(dir, SSLYZE).await);
    dir.await.join("bin").join("sslyze")
}

/// Makes a virtual environment with these packages.
async fn environment(dir: &Path, packages: &[&str]) {
    let python = system("python3", "python3 python3-venv");
    setup(Command::new(python).args(["-m", "venv"]).arg(dir)).await;
    let pip = dir.join("bin").join("pip");
    setup(
        Command::new(pip)
            .args(["install", "--quiet"])
            .args(packages),
    )
    .await;
}

/// The real `smolvm`, and the directory of its libraries.
pub(crate) async fn smolvm() -> (PathBuf, PathBuf) {
    let dir = installed("smolvm", SMOLVM, async |dir| {
        environment(dir, SMOLVM).await;
        // The wheel calls it `smol-vmm`, and looks beside it for a packed machine of that name and for a guest to boot.
        let find =
            "import importlib.util as u; print(u.find_spec('smol').submodule_search_locations[0])";
        let mut python = Command::new(dir.join("bin").join("python"));
        let found = python
            .args(["-c", find])
            .output()
            .await
            .expect("python runs");
        let found = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
        std::fs::copy(found.join("smol-vmm"), dir.join("bin/smolvm")).expect("the wheel holds it");
        std::os::unix::fs::symlink(&found, dir.join("smol")).expect("a link to the package");
    });
    let dir = dir.await;
    (dir.join("bin/smolvm"), dir.join("smol"))
}

/// The directory whose `node_modules` holds the Node clients.
pub(crate) async fn node_modules() -> PathBuf {
    let npm = system("npm", "npm");
    let dir = installed("node", NODE, async |dir| {
        let mut install = Command::new(&npm);
        install.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--prefix",
        ]);
        setup(install.arg(dir).args(NODE)).await;
    });
    dir.await.join("node_modules")
}

/// The `node_modules` of the page's test, as its lock file has them.
pub(crate) async fn playwright() -> PathBuf {
    let npm = system("npm", "npm");
    let pins = [PAGE_PACKAGES.1, PAGE_LOCK.1];
    let dir = installed("page", &pins, async |dir| {
        for (name, text) in [PAGE_PACKAGES, PAGE_LOCK] {
            std::fs::write(dir.join(name), text).expect("a file of the install");
        }
        let mut install = Command::new(&npm);
        install.args(["ci", "--no-audit", "--no-fund", "--prefix"]);
        setup(install.arg(dir)).await;
    });
    dir.await.join("node_modules")
}

/// A program that an npm package of `NODE` brings.
pub(crate) async fn node_program(name: &str) -> PathBuf {
    system("node", "nodejs");
    let program = node_modules().await.join(".bin").join(name);
    assert!(program.exists(), "{} was not installed", program.display());
    program
}

/// An agent's home directory and its environment: nothing is inherited, all of it goes through the sidecar.
pub(crate) struct Home {
    dir: TempDir,
    environment: BTreeMap<String, String>,
}

impl Home {
    pub(crate) fn behind(sidecar: &Sidecar) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("work")).expect("a working directory");
        // The agent gets a copy, so that nothing of the sidecar's own directory is named in its environment.
        let bundle = dir.path().join("ca-bundle.pem");
        std::fs::copy(sidecar.ca_cert(), &bundle).expect("the bottle's certificate is readable");
        let bundle = bundle.to_str().expect("a UTF-8 path");

        let mut environment = BTreeMap::new();
        let mut set =
            |name: &str, value: &str| environment.insert(name.to_owned(), value.to_owned());
        set("PATH", &std::env::var("PATH").expect("PATH is set"));
        set("HOME", dir.path().to_str().expect("a UTF-8 path"));
        set("LANG", "C.UTF-8");
        // What `egress env` says is what a user has, so it is what the clients get here.
        let told = std::process::Command::new(EGRESS)
            .args(["env", "--format", "json", "--proxy", &sidecar.url()])
            .args(["--bundle", bundle])
            .output()
            .expect("the binary runs");
        assert!(told.status.success(), "{told:?}");
        let told: BTreeMap<String, String> =
            serde_json::from_slice(&told.stdout).expect("a JSON object of strings");
        environment.extend(told);
        Self { dir, environment }
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The working directory of everything that runs here.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.dir.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a file in a directory"))
            .expect("a directory");
        std::fs::write(&file, content).expect("a writable home");
        file
    }

    /// A client in this home, with nothing on stdin.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(&self.environment)
            .current_dir(self.work())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Fails if the secret stands anywhere in the agent's home or in what the client printed.
    pub(crate) fn assert_free_of(&self, secret: &str, output: &Output) {
        let forms = traces(secret);
        let check = |place: &str, bytes: &[u8]| {
            assert!(
                !forms.is_match(bytes),
                "the agent holds the real credential: {place}"
            );
        };
        check("stdout", output.stdout.as_bytes());
        check("stderr", output.stderr.as_bytes());
        for file in files_under(self.path()) {
            check(
                &file.display().to_string(),
                &std::fs::read(&file).expect("a readable file"),
            );
        }
    }
}

/// What a client left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Output {
    /// Fails with everything that the client printed, if it did not exit with 0.
    pub(crate) fn success(self) -> Self {
        assert!(self.status.success(), "{self:#?}");
        self
    }
}

/// Runs a client to its end. At the deadline it is killed with all of its children, and the test fails.
pub(crate) async fn run(command: &mut Command) -> Output {
    Running::spawn(command).finish().await
}

/// A client that runs while the test does something else.
pub(crate) struct Running {
    child: Child,
    _group: ProcessGroup,
    started: Instant,
}

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pid = i32::try_from(child.id().expect("a running child")).expect("a process id");
        Self {
            child,
            _group: ProcessGroup(Pid::from_raw(pid).expect("a process id")),
            started: Instant::now(),
        }
    }

    pub(crate) fn stdin(&mut self) -> tokio::process::ChildStdin {
        self.child.stdin.take().expect("a piped stdin")
    }

    /// For a test that reads as the client prints. `finish` then returns an empty stdout.
    pub(crate) fn stdout(&mut self) -> tokio::process::ChildStdout {
        self.child.stdout.take().expect("a piped stdout")
    }

    pub(crate) async fn finish(mut self) -> Output {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let ending = async {
            let (stdout, stderr, status) =
                tokio::join!(drain(stdout), drain(stderr), self.child.wait());
            (stdout, stderr, status.expect("a child to wait for"))
        };
        let Ok((stdout, stderr, status)) = tokio::time::timeout(CLIENT_DEADLINE, ending).await
        else {
            panic!("the client did not end within {CLIENT_DEADLINE:?}");
        };
        Output {
            status,
            stdout,
            stderr,
            took: self.started.elapsed(),
        }
    }
}

/// Kills a client's children with it: npm's programs are a Node script around the real one.
struct ProcessGroup(Pid);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // It fails where they have all ended, which is the usual case.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// Every variable that names a CA file to some client (clients without one read their own store).
pub(crate) const CA_VARIABLES: &[&str] = &[
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CODEX_CA_CERTIFICATE",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "npm_config_cafile",
];

/// Finds a secret in the forms in which it can lie about: plain, and inside base64 text at any of the three alignments.
pub(crate) fn traces(secret: &str) -> regex::bytes::Regex {
    let mut forms = vec![regex::escape(secret)];
    for skip in 0..3 {
        let padded = [&b"\0\0"[..skip], secret.as_bytes()].concat();
        for engine in [&BASE64_STANDARD_NO_PAD, &BASE64_URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded);
            // The first characters and the last depend on the neighbours; the middle does not.
            let middle = text.get(4..text.len() - 4);
            forms.push(regex::escape(middle.expect("a secret of some length")));
        }
    }
    regex::bytes::Regex::new(&forms.join("|")).expect("an alternation of literals")
}

pub(crate) fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).expect("a readable directory") {
            let entry = entry.expect("a readable entry");
            let kind = entry.file_type().expect("a known type");
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files
}

async fn drain(output: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut output) = output {
        output
            .read_to_end(&mut bytes)
            .await
            .expect("a readable pipe");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Installs `packages` into a directory of their own, unless a complete install of just these is there already.
async fn installed(name: &str, packages: &[&str], install: impl AsyncFnOnce(&Path)) -> PathBuf {
    let root = std::env::var_os("EGRESS_CLIENTS_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients"),
        PathBuf::from,
    );
    std::fs::create_dir_all(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    // npm and venv write absolute paths into what they install.
    let root = root.canonicalize().expect("a directory that exists");
    let dir = root.join(name);
    let marker = dir.join("installed");

    let lock = File::create(root.join(format!("{name}.lock"))).expect("a lock file");
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
    let _lock = lock.await.expect("the lock task").expect("a lock");

    if std::fs::read_to_string(&marker).is_ok_and(|pins| pins == packages.join("\n")) {
        return dir;
    }
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("an old install is removed");
    }
    std::fs::create_dir_all(&dir).expect("a directory for the install");
    install(&dir).await;
    std::fs::write(&marker, packages.join("\n")).expect("the marker is written");
    dir
}

/// One step of an install, in the inherited environment: the machine's own proxy and CA settings reach the registry.
async fn setup(command: &mut Command) {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let run = tokio::time::timeout(Duration::from_secs(300), command.output());
    let output = run
        .await
        .unwrap_or_else(|_| panic!("{command:?} did not end; is the registry reachable?"));
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} failed; is the registry reachable?\n{printed}"
    );
}

#[test]
fn a_secret_is_found_in_every_form_and_its_absence_too() {
    let secret = "real?token>of~the~host";
    let traces = traces(secret);
    assert!(traces.is_match(format!("a{secret}b").as_bytes()));
    for before in ["", "x", "xy", "xyz"] {
        let text = format!("{before}{secret}after");
        for engine in [&BASE64_STANDARD_NO_PAD, &BASE64_URL_SAFE_NO_PAD] {
            assert!(traces.is_match(engine.encode(&text).as_bytes()), "{text}");
        }
    }
    assert!(!traces.is_match(b"real-token-of-another-host"));
}
