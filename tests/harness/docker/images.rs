//! The images of the tests. There is no registry: they are made of what the machine has installed, programs with the
//! libraries that they are linked with, and the sidecar's by the project's own Dockerfile.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::clients::{files_under, node_modules, system};
use super::super::sidecar::EGRESS;
use super::{Docker, Engine};

/// The binary under test, by `docker/Dockerfile`.
pub(crate) const SIDECAR: &str = "egress";
/// A shell, curl, Node, a user `node`, and a store of root certificates.
pub(crate) const AGENT: &str = "agent";
/// One file, and no shell.
pub(crate) const SHELLLESS: &str = "agent-without-shell";

/// The same, with the real Codex.
pub(crate) const CODEX: &str = "agent-with-codex";

/// Makes the image with Codex, which is large and not for everybody.
pub(crate) async fn codex(docker: &Docker) -> &'static str {
    if docker.attempt(&["image", "inspect", CODEX]).await.code == Some(0) {
        return CODEX;
    }
    let codex = codex_program(&node_modules().await);
    let context = tempfile::tempdir().expect("a temporary directory");
    copy(&codex, &context.path().join("codex"));
    let file = format!("FROM {AGENT}\nCOPY codex /usr/local/bin/codex\n");
    write(context.path(), "Dockerfile", file);
    let context = context.path().to_str().expect("a UTF-8 path");
    docker.run(&["build", "-q", "-t", CODEX, context]).await;
    CODEX
}

/// The program itself, which npm's script would start. It is linked with nothing.
fn codex_program(modules: &Path) -> PathBuf {
    let found = files_under(&modules.join("@openai"));
    let found = found.into_iter().find(|file| file.ends_with("bin/codex"));
    found.expect("the platform's package of Codex")
}

pub(super) fn build_all(engine: &Engine) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    sidecar(engine, &dir.path().join("sidecar"));
    agent(engine, &dir.path().join("agent"));
    let shellless = dir.path().join("shellless");
    write(&shellless, "etc/motd", "nothing is here\n");
    import(engine, &shellless, SHELLLESS, &[]);
}

fn sidecar(engine: &Engine, context: &Path) {
    // The binary of the tests is not the static one, so its libraries go with it.
    let root = context.join("rootfs");
    program(&root, Path::new(EGRESS), "egress");
    for dir in ["run/egress", "var/lib/egress"] {
        std::fs::create_dir_all(root.join(dir)).expect("a directory");
        let mode = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(root.join(dir), mode).expect("its owner may do so");
    }
    let context = context.to_str().expect("a UTF-8 path");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docker/Dockerfile");
    engine.docker(&["build", "-t", SIDECAR, "-f", file, context], b"");
}

fn agent(engine: &Engine, root: &Path) {
    program(root, &system("busybox", "busybox-static"), "bin/busybox");
    let list = Command::new("busybox").arg("--list").output();
    let list = list.expect("busybox runs").stdout;
    for applet in String::from_utf8_lossy(&list).lines() {
        // It lists itself, too.
        _ = symlink("busybox", root.join("bin").join(applet));
    }
    program(root, &system("curl", "curl"), "usr/bin/curl");
    program(root, &system("node", "nodejs"), "usr/bin/node");
    write(root, "etc/passwd", PASSWD);
    write(root, "etc/group", "root:x:0:\nnode:x:1000:\n");
    for dir in ["tmp", "home/node"] {
        std::fs::create_dir_all(root.join(dir)).expect("a directory");
    }
    let home = root.join("home/node");
    std::os::unix::fs::chown(home, Some(1000), Some(1000)).expect("root may do so");
    write(root, "usr/bin/update-ca-certificates", UPDATE);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(root.join("usr/bin/update-ca-certificates"), mode)
        .expect("it is ours");
    let roots = std::fs::read("/etc/ssl/certs/ca-certificates.crt");
    write(
        root,
        "etc/ssl/certs/ca-certificates.crt",
        roots.expect("apt-get install ca-certificates"),
    );
    import(
        engine,
        root,
        AGENT,
        &[
            "ENV PATH=/usr/local/bin:/usr/bin:/bin",
            "CMD [\"sleep\", \"3600\"]",
        ],
    );
}

/// What Debian's does, in short.
const UPDATE: &str = "#!/bin/sh\nexec cat /usr/local/share/ca-certificates/*.crt >>/etc/ssl/certs/ca-certificates.crt\n";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n";

fn import(engine: &Engine, root: &Path, tag: &str, changes: &[&str]) {
    let tar = Command::new("tar")
        .args(["--numeric-owner", "-C"])
        .args([root, Path::new("-c"), Path::new(".")])
        .stdin(Stdio::null())
        .output()
        .expect("tar runs");
    assert!(tar.status.success(), "{tar:?}");
    let mut arguments = vec!["import"];
    for change in changes {
        arguments.extend(["-c", change]);
    }
    arguments.extend(["-", tag]);
    engine.docker(&arguments, &tar.stdout);
}

/// Copies a program, and the libraries that it is linked with to where it looks for them.
fn program(root: &Path, source: &Path, target: &str) {
    copy(source, &root.join(target));
    let source = source.canonicalize().expect("a program");
    let listed = Command::new("ldd").arg(&source).output().expect("ldd runs");
    for word in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
        if let Some(inside) = word.strip_prefix('/') {
            copy(Path::new(word), &root.join(inside));
        }
    }
}

fn copy(source: &Path, target: &Path) {
    std::fs::create_dir_all(target.parent().expect("a file in a directory")).expect("a directory");
    std::fs::copy(source, target).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
}

fn write(root: &Path, name: &str, content: impl AsRef<[u8]>) {
    let file: PathBuf = root.join(name);
    std::fs::create_dir_all(file.parent().expect("a file in a directory")).expect("a directory");
    std::fs::write(&file, content).expect("a writable directory");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(file, mode).expect("its owner may do so");
}
