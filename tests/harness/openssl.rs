//! openssl(1): certificates that our own library rightly cannot make, and servers that it rightly cannot be.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::clients::system;
use super::{command, within};

/// A directory in which openssl(1) makes its files.
pub(crate) struct OpenSsl(TempDir);

impl OpenSsl {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), text).expect("a file");
        self.path(name)
    }

    /// Runs the words of `line` here, and returns what was printed.
    pub(crate) async fn run(&self, line: &str) -> String {
        let mut openssl = Command::new(system("openssl", "openssl"));
        let openssl = openssl
            .args(line.split_whitespace())
            .current_dir(self.0.path());
        let done = command::finish(openssl).await;
        assert_eq!(done.code, Some(0), "openssl {line}: {done:?}");
        done.stdout
    }

    /// Serves TLS on a port of its own, with the words of `line` as further arguments.
    pub(crate) async fn serve(&self, line: &str) -> Server {
        // openssl(1) tells the port that it got for 0.
        let mut openssl = Command::new(system("openssl", "openssl"));
        openssl
            .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "100"])
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = openssl.spawn().expect("openssl runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let addr = within("openssl's port", async {
            let mut line = String::new();
            loop {
                line.clear();
                let read = stdout.read_line(&mut line).await.expect("a pipe");
                assert_ne!(read, 0, "openssl s_server ended");
                if let Some(addr) = line.trim().strip_prefix("ACCEPT ") {
                    return addr.parse().expect("an address");
                }
            }
        })
        .await;
        let said = watch::Sender::new(String::new());
        collect(stdout, said.clone());
        collect(child.stderr.take().expect("a pipe"), said.clone());
        Server {
            addr,
            said,
            _child: child,
        }
    }
}

/// A running `openssl s_server`: it prints each handshake, and all that a client sends. It is killed when it is dropped.
pub(crate) struct Server {
    addr: SocketAddr,
    said: watch::Sender<String>,
    _child: Child,
}

impl Server {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until it printed `needle`, and returns all that it printed.
    pub(crate) async fn said(&self, needle: &str) -> String {
        let mut said = self.said.subscribe();
        let said = within(needle, said.wait_for(|said| said.contains(needle))).await;
        said.expect("a sender").clone()
    }
}

fn collect(
    mut output: impl tokio::io::AsyncRead + Unpin + Send + 'static,
    said: watch::Sender<String>,
) {
    tokio::spawn(async move {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = output.read(&mut piece).await {
            let text = String::from_utf8_lossy(&piece[..read]);
            said.send_modify(|said| said.push_str(&text));
        }
    });
}
