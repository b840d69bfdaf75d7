//! `smolvm`: the real program from PyPI, which answers without a guest, and the stand-in beside this file, in which
//! machines run as namespaces of this host. `launch::smolvm_stand_in` holds the second to the first.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use super::clients;
use super::command::{Done, finish};

/// A `smolvm` with machines of its own.
pub(crate) struct Smolvm {
    program: PathBuf,
    libraries: Option<PathBuf>,
    dir: TempDir,
}

impl Smolvm {
    /// The real one. No guest can boot: it is given no agent to boot it with.
    pub(crate) async fn real() -> Self {
        let (program, libraries) = clients::smolvm().await;
        Self {
            program,
            libraries: Some(libraries),
            dir: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// The one whose machines run here.
    pub(crate) fn stand_in() -> Self {
        clients::system("python3", "python3");
        Self {
            program: Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../tests/harness/smolvm/standin.py"),
            libraries: None,
            dir: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// What it needs in its environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let path = std::env::var_os("PATH").expect("PATH is set");
        let mut environment = vec![
            ("PATH", PathBuf::from(path)),
            ("HOME", self.dir.path().to_owned()),
        ];
        if let Some(libraries) = &self.libraries {
            environment.push(("LD_LIBRARY_PATH", libraries.clone()));
            environment.push(("SMOLVM_LIB_DIR", libraries.clone()));
        }
        environment
    }

    /// Runs a command line, split at spaces; `--state-dir` is added where it belongs.
    pub(crate) async fn run(&self, line: &str, environment: &[(&str, &str)]) -> Done {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let mut command = Command::new(&self.program);
        if let Some(first) = words.next() {
            command.arg(first);
        }
        if let Some(second) = words.next() {
            command.arg(second).arg("--state-dir").arg(self.state_dir());
        }
        command.args(words.map(|word| if word == "''" { "" } else { word }));
        command.env_clear().envs(self.environment());
        finish(command.envs(environment.iter().copied())).await
    }

    /// The machines that there are.
    pub(crate) async fn machines(&self) -> String {
        let done = self.run("machine ls --quiet", &[]).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        done.stdout
    }

    /// Every call of the stand-in: its words and its environment.
    pub(crate) fn calls(&self) -> Vec<(Vec<String>, BTreeMap<String, String>)> {
        let given = std::fs::read_dir(self.state_dir().join("given")).into_iter();
        let files = given.flatten().flatten().map(|entry| entry.path());
        let calls = files.filter(|path| path.to_string_lossy().ends_with("-call"));
        calls
            .map(|path| {
                let call = std::fs::read(path).expect("a readable file");
                serde_json::from_slice(&call).expect("words and an environment")
            })
            .collect()
    }

    /// Waits until the stand-in was given this command.
    pub(crate) async fn was_given(&self, command: &str) {
        while !self
            .calls()
            .iter()
            .any(|(words, _)| words.iter().any(|word| word == command))
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Makes a command of the stand-in go wrong with this message; `HANG` makes it hang.
    pub(crate) fn fault(&self, command: &str, message: &str) {
        let faults = self.state_dir().join("faults");
        std::fs::create_dir_all(&faults).expect("a directory");
        std::fs::write(faults.join(command), message).expect("a writable directory");
    }
}

impl Drop for Smolvm {
    fn drop(&mut self) {
        // A machine whose test failed would outlive it.
        let Ok(machines) = std::fs::read_dir(self.state_dir().join("machines")) else {
            return;
        };
        for machine in machines.flatten() {
            let mut command = std::process::Command::new(&self.program);
            command.args(["machine", "delete", "--force", "--state-dir"]);
            command
                .arg(self.state_dir())
                .arg("--name")
                .arg(machine.file_name());
            let _ = command.output();
        }
    }
}

/// An unpacked root file system with a user `node`, whose programs are those of this machine.
pub(crate) fn image(dir: &Path) -> PathBuf {
    let root = dir.join("image");
    let write = |name: &str, content: &str| {
        let file = root.join(name);
        std::fs::create_dir_all(file.parent().expect("a file in a directory"))
            .expect("a directory");
        std::fs::write(file, content).expect("a writable directory");
    };
    for name in [
        "usr",
        "root",
        "run",
        "proc",
        "dev",
        "tmp",
        "home/node",
        "etc/ssl/certs",
    ] {
        std::fs::create_dir_all(root.join(name)).expect("a directory");
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(Path::new("usr").join(name), root.join(name)).expect("a link");
    }
    write(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n",
    );
    write("etc/group", "root:x:0:\nnode:x:1000:\n");
    write("etc/hosts", "127.0.0.1 localhost\n");
    write("etc/nsswitch.conf", "hosts: files dns\n");
    write("etc/ca-certificates.conf", "");
    let rules = [
        "auth sufficient pam_rootok.so",
        "account required pam_permit.so",
    ];
    write(
        "etc/pam.d/runuser",
        &format!("{}\nsession required pam_permit.so\n", rules.join("\n")),
    );
    std::fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).expect("a mode");
    chown(root.join("home/node"), Some(1000), Some(1000))
        .expect("the tests of launchers run as root");
    root
}

/// The flags that a help text names, each as it is written there.
pub(crate) fn flags(help: &str) -> Vec<&str> {
    let named = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let end = line.find("  ").unwrap_or(line.len());
        line.starts_with('-').then(|| &line[..end])
    });
    named.collect()
}

/// A command line's argument, which has no space.
pub(crate) fn word(text: &(impl AsRef<OsStr> + ?Sized)) -> &str {
    let text = text.as_ref().to_str().expect("UTF-8");
    assert!(!text.contains(' '), "{text}");
    text
}
