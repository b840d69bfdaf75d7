//! The clients that are found here, each run once against the proxy: does it trust what it is shown?
//!
//! A refusal of the sidecar's is as good as an answer: it came through a TLS connection that the client trusted.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use self::answer::{Ran, Trust};
use super::Variables;
use super::exchange::PATIENCE;
use super::report::Finding;

mod answer;

/// Runs every client that is found, all at once.
pub(super) async fn examine(host: &str, variables: &Variables) -> Vec<Finding> {
    let path = variables.get("PATH");
    let runs = CLIENTS.iter().map(|client| {
        let (host, program) = (host.to_owned(), find(client.program, path));
        tokio::spawn(async move {
            let Some(program) = program else {
                let text = format!("`{}` is not found on the PATH", client.program);
                return Finding::skip(client.name, text);
            };
            let arguments = (client.arguments)(&host);
            client.finding(&host, run(program, &arguments).await)
        })
    });
    let runs: Vec<_> = runs.collect();
    let mut findings = Vec::new();
    for run in runs {
        findings.extend(run.await);
    }
    findings
}

/// Whether Node's own clients go through the proxy: they look at its variables where they are told to, and old versions
/// never.
pub(super) async fn node_proxy(variables: &Variables) -> Finding {
    const NAME: &str = "proxy.node";
    let Some(program) = find("node", variables.get("PATH")) else {
        return Finding::skip(NAME, "`node` is not found on the PATH");
    };
    let version = run(program, &["--version".into()]).await;
    judge_node(variables.get("NODE_USE_ENV_PROXY"), version.stdout.trim())
}

fn judge_node(variable: Option<&str>, version: &str) -> Finding {
    const NAME: &str = "proxy.node";
    let knows = match numbers(version) {
        // Node's release notes of 22.21.0 and 24.0.0: `NODE_USE_ENV_PROXY`.
        Some((22, minor)) => minor >= 21,
        Some((major, _)) => major >= 24,
        None => {
            let text = format!("`node --version` says {version:?}");
            return Finding::warn(NAME, text, "look whether this is Node");
        }
    };
    if !knows {
        return Finding::warn(
            NAME,
            format!(
                "Node {version} reads no proxy variable, so its own `fetch` goes around the proxy"
            ),
            "install Node 22.21, 24 or newer, or steer its connections to the sidecar (`egress serve --steer-tls`)",
        );
    }
    if variable != Some("1") {
        return Finding::warn(
            NAME,
            "NODE_USE_ENV_PROXY is not 1, so Node's own `fetch` goes around the proxy",
            "set NODE_USE_ENV_PROXY=1, as `egress env` does",
        );
    }
    Finding::ok(NAME, format!("Node {version} reads the proxy variables"))
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.strip_prefix('v')?.split_once('.')?;
    let minor = rest.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A client, how it is asked for a host, and how its answer is read.
struct Client {
    name: &'static str,
    program: &'static str,
    arguments: fn(&str) -> Vec<String>,
    judge: fn(&Ran) -> Trust,
    /// The variables with which it is told whom to trust.
    reads: &'static str,
}

static CLIENTS: [Client; 6] = [
    Client {
        name: "client.curl",
        program: "curl",
        arguments: |host| {
            let mut words = ["-sS", "-o", "/dev/null", "--max-time"]
                .map(String::from)
                .to_vec();
            words.extend([PATIENCE.as_secs().to_string(), format!("https://{host}/")]);
            words
        },
        judge: answer::curl,
        reads: "CURL_CA_BUNDLE, SSL_CERT_FILE",
    },
    Client {
        name: "client.git",
        program: "git",
        arguments: |host| {
            // No credential helper is asked, since nobody waits for a question.
            let words = ["-c", "credential.helper=", "ls-remote"].map(String::from);
            [&words[..], &[format!("https://{host}/")]].concat()
        },
        judge: answer::git,
        reads: "GIT_SSL_CAINFO",
    },
    Client {
        name: "client.node",
        program: "node",
        arguments: |host| vec!["-e".into(), NODE.into(), host.into()],
        judge: answer::told,
        reads: "NODE_EXTRA_CA_CERTS",
    },
    Client {
        name: "client.python",
        program: "python3",
        arguments: |host| vec!["-c".into(), PYTHON.into(), host.into()],
        judge: answer::told,
        reads: "SSL_CERT_FILE",
    },
    Client {
        name: "client.requests",
        program: "python3",
        arguments: |host| vec!["-c".into(), REQUESTS.into(), host.into()],
        judge: answer::told,
        reads: "REQUESTS_CA_BUNDLE",
    },
    Client {
        name: "client.codex",
        program: "codex",
        arguments: codex_arguments,
        judge: answer::codex,
        reads: "CODEX_CA_CERTIFICATE, SSL_CERT_FILE",
    },
];

const NODE: &str = include_str!("clients/node.js");

const PYTHON: &str = include_str!("clients/python.py");

const REQUESTS: &str = include_str!("clients/requests.py");

/// Its own examination of a provider, which is the host, and which gets no login.
fn codex_arguments(host: &str) -> Vec<String> {
    let provider = [
        "model_provider=egress".into(),
        "model_providers.egress.name=egress".into(),
        format!("model_providers.egress.base_url=https://{host}"),
        "model_providers.egress.wire_api=responses".into(),
        "model_providers.egress.requires_openai_auth=false".into(),
    ];
    let words = ["doctor", "--network-only", "--json"].map(String::from);
    let provider = provider.into_iter().flat_map(|pair| ["-c".into(), pair]);
    words.into_iter().chain(provider).collect()
}

impl Client {
    fn finding(&self, host: &str, ran: Ran) -> Finding {
        match (self.judge)(&ran) {
            Trust::Trusted => Finding::ok(self.name, format!("trusts what it is shown for {host}")),
            Trust::Absent => Finding::skip(self.name, "not found"),
            Trust::Untrusted(reason) => Finding::fail(
                self.name,
                format!("does not trust what it is shown for {host}: {reason}"),
                format!(
                    "set {} to the bottle's bundle, as `egress env` does",
                    self.reads
                ),
            ),
            Trust::Unclear(reason) => Finding::warn(
                self.name,
                format!("got no answer of {host}, so its trust is not known: {reason}"),
                "mend what is said of the proxy first, or name another host with --host",
            ),
        }
    }
}

/// Runs a program with nothing to read, for as long as there is patience.
async fn run(program: PathBuf, arguments: &[String]) -> Ran {
    let spawned = Command::new(&program)
        .args(arguments)
        // What is read of it is in English, and it asks nobody.
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_ASKPASS")
        .env_remove("SSH_ASKPASS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let stderr = format!("{}: {error}", program.display());
            return Ran {
                stderr,
                ..Ran::default()
            };
        }
    };
    let group = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let mut ending = pin!(child.wait_with_output());
    let ended = tokio::time::timeout(PATIENCE + PATIENCE / 2, &mut ending).await;
    let Ok(Ok(output)) = ended else {
        if let Some(group) = group {
            // git's helper holds the pipes, too.
            _ = kill_process_group(group, Signal::KILL);
        }
        return Ran::default();
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn find(program: &str, path: Option<&str>) -> Option<PathBuf> {
    std::env::split_paths(OsStr::new(path?))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::judge_node;

    #[test]
    fn node_reads_the_proxy_variables_from_some_version_on() {
        for (variable, version, state, text) in [
            (Some("1"), "v22.21.0", "ok", "22.21.0"),
            (Some("1"), "v24.0.0", "ok", ""),
            (Some("1"), "v22.20.1", "warn", "no proxy variable"),
            (Some("1"), "v23.11.0", "warn", "no proxy variable"),
            (Some("1"), "v18.19.0", "warn", "no proxy variable"),
            (None, "v24.1.0", "warn", "NODE_USE_ENV_PROXY"),
            (Some("true"), "v24.1.0", "warn", "NODE_USE_ENV_PROXY"),
            (Some("1"), "deno 2", "warn", "says"),
        ] {
            let found = judge_node(variable, version);
            assert!(found.is(state, text), "{version}: {found:?}");
        }
    }
}
