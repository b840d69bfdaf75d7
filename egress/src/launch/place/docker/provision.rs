//! What the agent finds in its container: its home's files, the bottle's certificate, and a check that it works.

use std::path::{Component, Path};

use super::image::User;
use super::tar::{Owner, ROOT, Tar};
use super::{Error, Place};
use crate::launch::agent::HomeFile;

/// Where the trust bundle is.
pub(super) const BUNDLE: &str = "/etc/egress/ca-bundle.pem";

impl Place {
    /// The root certificates of the agent's image (PEM), where it has any.
    ///
    /// # Errors
    ///
    /// Docker's.
    pub async fn roots(&self) -> Result<Option<String>, Error> {
        let text = self.as_root(ROOTS, &[]).await?;
        Ok(Some(text).filter(|text| text.contains("-----BEGIN CERTIFICATE-----")))
    }

    /// Puts the files into the agent's home, and the certificate into the bundle and the system's store.
    ///
    /// # Errors
    ///
    /// Docker's.
    pub async fn provision(
        &self,
        user: &User,
        home: &Path,
        files: &[HomeFile],
        certificate: &str,
        bundle: &str,
    ) -> Result<(), Error> {
        let owner = Owner {
            uid: user.uid,
            gid: user.gid,
        };
        let owned = format!("{}:{}", user.uid, user.gid);
        let home_text = home.display().to_string();
        self.as_root(HOME, &[&home_text, &owned]).await?;
        let mut tar = Tar::default();
        tar.directory("etc/egress", 0o755, ROOT)?;
        tar.file(
            "etc/egress/ca-cert.pem",
            0o644,
            ROOT,
            certificate.as_bytes(),
        )?;
        tar.file("etc/egress/ca-bundle.pem", 0o644, ROOT, bundle.as_bytes())?;
        for file in files {
            for parent in parents(&file.target) {
                let path = home.join(parent);
                tar.directory(&path.to_string_lossy(), 0o700, owner)?;
            }
            let path = home.join(&file.target);
            tar.file(&path.to_string_lossy(), file.mode, owner, &file.contents)?;
        }
        let target = format!("{}:/", self.names.agent);
        // Without --archive, which would give it all to the user that the container was made with.
        let copy = ["cp", "-", &target];
        self.engine.feed(&copy, &tar.finish()).await?;
        self.as_root(TRUST, &[]).await?;
        Ok(())
    }

    /// Whether a program is there for the agent's user.
    ///
    /// # Errors
    ///
    /// Docker's.
    pub async fn has(&self, user: &User, program: &str) -> Result<bool, Error> {
        let exec = ["exec", "--user", &user.name, &self.names.agent];
        let look = ["/bin/sh", "-c", "command -v \"$1\"", "sh", program];
        let look = [&exec[..], &look].concat();
        Ok(self.engine.output(&look, b"").await?.status.success())
    }

    /// Runs the agent's own check.
    ///
    /// # Errors
    ///
    /// [`Error::Test`] with what it said.
    pub async fn test(&self, user: &User, command: &[String]) -> Result<(), Error> {
        let exec = ["exec", "--user", &user.name, &self.names.agent];
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let test = [&exec[..], &words].concat();
        let tested = self.engine.output(&test, b"").await?;
        if tested.status.success() {
            return Ok(());
        }
        let said = [tested.stdout, tested.stderr].concat();
        Err(Error::Test {
            command: words.join(" "),
            status: tested.status.to_string(),
            said: String::from_utf8_lossy(&said).trim().replace('\n', "\n  "),
        })
    }

    /// Replaces a file of the agent's home in one step, as its user.
    ///
    /// # Errors
    ///
    /// Docker's, where the container has ended for one.
    pub async fn write(&self, user: &User, home: &Path, file: &HomeFile) -> Result<(), Error> {
        let path = home.join(&file.target).display().to_string();
        let mode = format!("{:o}", file.mode);
        let exec = [
            "exec",
            "--interactive",
            "--user",
            &user.name,
            &self.names.agent,
        ];
        let script = ["/bin/sh", "-c", REPLACE, "sh", &path, &mode];
        let arguments = [&exec[..], &script].concat();
        self.engine.feed(&arguments, &file.contents).await?;
        Ok(())
    }

    async fn as_root(&self, script: &str, arguments: &[&str]) -> Result<String, Error> {
        let exec = ["exec", "--user", "0:0", "--workdir", "/", &self.names.agent];
        let shell = ["/bin/sh", "-c", script, "sh"];
        let all = [&exec[..], &shell, arguments].concat();
        Ok(self.engine.run(&all).await?)
    }
}

/// The directories of a file's relative path, from the outermost on.
fn parents(target: &Path) -> Vec<&Path> {
    let mut found: Vec<&Path> = target
        .ancestors()
        .skip(1)
        .filter(|path| matches!(path.components().next(), Some(Component::Normal(_))))
        .collect();
    found.reverse();
    found
}

const ROOTS: &str = "\
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem
do [ -s \"$file\" ] && exec cat \"$file\"; done; exit 0";

const HOME: &str = "[ -d \"$1\" ] || { mkdir -p \"$1\" && chown \"$2\" \"$1\"; }";

/// An image without such a store, or with one that cannot be changed, has the bundle all the same.
const TRUST: &str = "\
if command -v update-ca-certificates; then
  mkdir -p /usr/local/share/ca-certificates &&
  cp /etc/egress/ca-cert.pem /usr/local/share/ca-certificates/egress.crt && update-ca-certificates
elif command -v update-ca-trust; then
  cp /etc/egress/ca-cert.pem /etc/pki/ca-trust/source/anchors/egress.pem && update-ca-trust
fi >/dev/null 2>&1; exit 0";

const REPLACE: &str = "\
umask 077 && mkdir -p \"${1%/*}\" && cat >\"$1.new\" && chmod \"$2\" \"$1.new\" && mv -f \"$1.new\" \"$1\"";
