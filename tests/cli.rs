//! The commands as an operator types them: the real binary, its exit codes, and what stands on stdout and stderr.

mod ca;
mod cases;
mod changes;
mod check;
mod doctor;
mod env;
mod hints;
mod init;
mod manual;
mod presets;
mod render;
mod schema;
mod suggest;

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::sidecar::EGRESS;

/// A directory with a routes file, in which commands run with nothing else in their environment.
struct Bottle(tempfile::TempDir);

impl Bottle {
    fn new(routes: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("routes.yaml"), routes).expect("a routes file");
        // Roots of the test's own, since a machine may have none.
        let roots = rcgen::generate_simple_self_signed(vec!["root.test".to_owned()]);
        let roots = roots.expect("a certificate").cert.pem();
        std::fs::write(dir.path().join("roots.pem"), roots).expect("a roots file");
        Self(dir)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a readable file")
    }

    /// Runs `egress` here, with `ca` as the CA's directory.
    fn egress(&self, arguments: &[&str]) -> Said {
        self.egress_with(arguments, &[])
    }

    fn egress_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
        let output = Command::new(EGRESS)
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .env("EGRESS_CA_DIR", "ca")
            .env("SSL_CERT_FILE", "roots.pem")
            .envs(environment.iter().copied())
            .output();
        Said::of(output.expect("the binary runs"))
    }
}

/// What a command said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// Fails unless it ended with 0; returns its data.
    #[track_caller]
    fn data(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Fails unless it refused with this code, said why and what to do, and printed no data.
    #[track_caller]
    fn refused(&self, code: i32, reason: &str) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        for part in ["error: ", "hint: ", reason] {
            assert!(self.stderr.contains(part), "no {part:?} in {self:#?}");
        }
    }
}

fn mode_of(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).expect("a file");
    metadata.permissions().mode() & 0o777
}
