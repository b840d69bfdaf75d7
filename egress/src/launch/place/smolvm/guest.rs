//! What is done inside the machine before the agent starts: its home, the bottle's certificate, the relay where one is
//! needed, and the last check. All of it by `exec` and `cp`, as root of the guest, with nothing secret in it.

use std::fs;
use std::path::Path;
use std::process::Output;

use super::{Error, Machine, code, complaint, finish};
use crate::launch::agent::{Agent, HomeFile};

/// What an agent finds in its machine.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The agent.
    pub agent: &'a Agent,
    /// The bottle's certificate, and the bundle with the platform's roots (PEM).
    pub certificate: &'a str,
    /// The bundle.
    pub bundle: &'a str,
    /// The agent's environment.
    pub environment: &'a [(String, String)],
}

/// Where the bundle is in the machine.
pub const BUNDLE: &str = "/opt/egress/ca-bundle.pem";

/// Where the agent's working directory is mounted.
pub const WORKSPACE: &str = "/workspace";

/// The proxy that the relay makes of the mounted socket.
pub const PROXY: &str = "http://127.0.0.1:8080";

/// Where the sidecar's socket is mounted.
pub(super) const SOCKET: &str = "/opt/egress/proxy.sock";

const CERTIFICATE: &str = "/opt/egress/bottle.crt";
const RELAY: &str = "/opt/egress/egress";
const RELAY_READY: &str = "/opt/egress/relay.ready";

/// Looks for what a launch needs of an image. The user's numbers are all that it prints.
const CHECK: &str = "\
command -v runuser >/dev/null 2>&1 || exit 91
id -u \"$1\" >/dev/null 2>&1 || exit 92
[ -d \"$2\" ] || exit 93
mkdir -p /opt/egress || exit 94
echo \"$(id -u \"$1\"):$(id -g \"$1\")\"";

/// A file that was copied beside its place gets its owner and its mode, and then its name.
const SETTLE: &str = "\
set -e
chown \"$1\" \"$3.new\"
chmod \"$2\" \"$3.new\"
mv -f \"$3.new\" \"$3\"";

/// The system's own store, for clients that look at no variable.
const TRUST: &str = "\
if command -v update-ca-certificates >/dev/null 2>&1; then
  mkdir -p /usr/local/share/ca-certificates &&
  cp \"$1\" /usr/local/share/ca-certificates/egress-bottle.crt && update-ca-certificates
elif command -v update-ca-trust >/dev/null 2>&1; then
  mkdir -p /etc/pki/ca-trust/source/anchors &&
  cp \"$1\" /etc/pki/ca-trust/source/anchors/egress-bottle.crt && update-ca-trust
fi >/dev/null";

/// The relay binds its port a moment after it was started.
const RELAY_WAIT: &str = "n=0
until [ -e \"$1\" ]; do n=$((n+1)); [ $n -lt 100 ] || exit 1; sleep 0.1; done";

impl Machine {
    /// Makes the machine ready for its agent. Returns what the operator should hear.
    ///
    /// # Errors
    ///
    /// The image lacks something, or the engine fails.
    pub async fn settle(&mut self, contents: &Contents<'_>) -> Result<Vec<String>, Error> {
        let mut notes = Vec::new();
        self.owner = self.check().await?;
        self.put(contents.bundle.as_bytes(), BUNDLE, "0:0", 0o644)
            .await?;
        self.put(contents.certificate.as_bytes(), CERTIFICATE, "0:0", 0o644)
            .await?;
        let trusted = self.script(TRUST, &[CERTIFICATE]).await?;
        if !trusted.status.success() {
            let said = complaint(&trusted);
            notes.push(format!(
                "the bottle's certificate is not in the machine's own store: {said}"
            ));
        }
        for file in &contents.agent.files {
            self.write(file).await?;
        }
        Ok(notes)
    }

    /// Starts the relay, by which a mounted socket becomes a proxy that every client knows to use.
    ///
    /// # Errors
    ///
    /// This program does not run in the image.
    pub async fn relay(&self, program: &Path) -> Result<(), Error> {
        self.copy(program, RELAY).await?;
        let runs = self
            .script("chmod 755 \"$1\" && \"$1\" --version", &[RELAY])
            .await?;
        if !runs.status.success() {
            return Err(Error::Image(
                format!("this program does not run in it: {}", complaint(&runs)),
                "this smolvm has no --egress-interceptor, so a relay has to run in the machine: use the static build of egress, \
                 or a newer smolvm",
            ));
        }
        let mut exec = self.engine.command("exec");
        exec.args(["--name", &self.name, "--detach", "--", RELAY, "relay"]);
        exec.args(["--listen", PROXY.trim_start_matches("http://")]);
        exec.args(["--to", SOCKET, "--ready-file", RELAY_READY]);
        let started = finish(exec).await?;
        let ready = self.script(RELAY_WAIT, &[RELAY_READY]).await?;
        if started.status.success() && ready.status.success() {
            return Ok(());
        }
        Err(Error::Command(
            "exec",
            format!("the relay does not start: {}", complaint(&started)),
        ))
    }

    /// Puts a file into the agent's home, or replaces it in one step.
    ///
    /// # Errors
    ///
    /// The system's or the engine's.
    pub async fn write(&self, file: &HomeFile) -> Result<(), Error> {
        let target = self.home.join(&file.target);
        let target = target.to_str().ok_or_else(|| Error::Path(target.clone()))?;
        if let Some(parent) = Path::new(target).parent().and_then(Path::to_str) {
            // By the agent's user, whose directories they are.
            let command = ["mkdir", "-p", "-m", "700", parent].map(String::from);
            let output = self.exec(&self.as_agent(&[], &command)).await?;
            if !output.status.success() {
                return Err(Error::Image(
                    format!(
                        "its user `{}` cannot make {parent}: {}",
                        self.user,
                        complaint(&output)
                    ),
                    "name the home of the image's user with --agent-home, and the user with --user",
                ));
            }
        }
        self.put(&file.contents, target, &self.owner, file.mode)
            .await
    }

    /// The words that run a command as the agent. Nothing of what was given at `create` reaches an `exec`, so the
    /// environment is passed each time.
    pub(super) fn as_agent(
        &self,
        environment: &[(String, String)],
        command: &[String],
    ) -> Vec<String> {
        let mut words = ["runuser", "-u", self.user.as_str(), "--", "env"]
            .map(String::from)
            .to_vec();
        words.extend(
            environment
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        words.extend(command.iter().cloned());
        words
    }

    async fn check(&self) -> Result<String, Error> {
        let home = self
            .home
            .to_str()
            .ok_or_else(|| Error::Path(self.home.clone()))?;
        let output = self.script(CHECK, &[&self.user, home]).await?;
        let user = &self.user;
        let (problem, hint) = match code(output.status) {
            0 => return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            91 => (
                "it has no `runuser`".into(),
                "install util-linux into the image",
            ),
            92 => (
                format!("it has no user `{user}`"),
                "name a user of the image with --user, and its home with --agent-home",
            ),
            93 => (
                format!("there is no directory {home} in it"),
                "name the home of the image's user with --agent-home",
            ),
            94 => (
                "/opt/egress cannot be made in it".into(),
                "the image's file system has to be writable",
            ),
            _ => (
                format!("no shell runs in it: {}", complaint(&output)),
                "the image needs a POSIX shell at /bin/sh",
            ),
        };
        Err(Error::Image(problem, hint))
    }

    /// The agent's own test, where it has one and the image has the agent.
    ///
    /// # Errors
    ///
    /// The test fails.
    pub async fn test(&self, contents: &Contents<'_>) -> Result<(), Error> {
        let environment = contents.environment;
        let Some((test, program)) = contents
            .agent
            .test
            .as_ref()
            .and_then(|test| Some((test, test.first()?)))
        else {
            return Ok(());
        };
        let there = ["sh", "-c", "command -v \"$1\" >/dev/null", "sh", program].map(String::from);
        if !self
            .exec(&self.as_agent(environment, &there))
            .await?
            .status
            .success()
        {
            return Ok(());
        }
        let output = self.exec(&self.as_agent(environment, test)).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Test {
            command: test.join(" "),
            code: code(output.status),
            said: complaint(&output),
        })
    }

    async fn put(
        &self,
        contents: &[u8],
        target: &str,
        owner: &str,
        mode: u32,
    ) -> Result<(), Error> {
        let staged = self.staging.join("staged");
        fs::write(&staged, contents).map_err(|source| Error::Io(staged.clone(), source))?;
        let copied = self.copy(&staged, &format!("{target}.new")).await;
        _ = fs::remove_file(&staged);
        copied?;
        let settled = self
            .script(SETTLE, &[owner, &format!("{mode:o}"), target])
            .await?;
        if settled.status.success() {
            return Ok(());
        }
        Err(Error::Command(
            "exec",
            format!("{target}: {}", complaint(&settled)),
        ))
    }

    async fn copy(&self, source: &Path, target: &str) -> Result<(), Error> {
        let mut copy = self.engine.command("cp");
        if source.to_str().is_none_or(|text| text.contains(':')) {
            return Err(Error::Path(source.into()));
        }
        copy.arg(source).arg(format!("{}:{target}", self.name));
        let output = finish(copy).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Command("cp", complaint(&output)))
    }

    async fn script(&self, script: &str, arguments: &[&str]) -> Result<Output, Error> {
        let mut words = ["sh", "-c", script, "egress"].map(String::from).to_vec();
        words.extend(arguments.iter().map(|&argument| argument.into()));
        self.exec(&words).await
    }

    /// Runs a command in the machine to its end.
    async fn exec(&self, words: &[String]) -> Result<Output, Error> {
        let mut exec = self.engine.command("exec");
        exec.args(["--name", &self.name, "--timeout", "120s", "--"])
            .args(words);
        finish(exec).await
    }
}
