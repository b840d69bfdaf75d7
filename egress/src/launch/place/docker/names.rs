//! What a bottle's containers and networks are called, and how those of an earlier launch are told from those at work.
//!
//! A container runs for as long as its launcher does, so one that runs is somebody's. What does not run is left over.

use std::process::Stdio;
use std::time::Duration;

use super::Error;
use super::engine::Engine;

/// The names of one bottle.
#[derive(Debug)]
pub(super) struct Names {
    bottle: String,
    pub(super) sidecar: String,
    pub(super) agent: String,
    pub(super) inside: String,
    pub(super) outside: String,
    /// The agent's host name.
    pub(super) host: String,
}

impl Names {
    pub(super) fn of(bottle: &str) -> Self {
        let plain = plain(bottle);
        let name = |part: &str| format!("egress-{plain}-{part}");
        let host: String = plain
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(63)
            .collect();
        Self {
            sidecar: name("sidecar"),
            agent: name("agent"),
            inside: name("inside"),
            outside: name("outside"),
            host: if host.is_empty() {
                "agent".into()
            } else {
                host
            },
            bottle: bottle.into(),
        }
    }

    /// What everything of the bottle is marked with.
    pub(super) fn label(&self) -> String {
        format!("{LABEL}={}", self.bottle)
    }

    /// Removes what a launcher that was killed has left.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`] where a container of the bottle runs, and goes on running.
    pub(super) async fn clear_leavings(&self, engine: &Engine) -> Result<(), Error> {
        let mut patience = PATIENCE;
        while let Some(container) = self.running(engine).await? {
            // The launcher may have been killed only now.
            patience = patience.saturating_sub(PAUSE);
            if patience.is_zero() {
                return Err(Error::Taken {
                    bottle: self.bottle.clone(),
                    container,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
        let filter = format!("label={}", self.label());
        let left = engine
            .run(&["ps", "--all", "--quiet", "--filter", &filter])
            .await?;
        for id in left.split_whitespace() {
            // One that was about to go by itself is gone, which is as good.
            _ = engine.run(&["rm", "--force", "--volumes", id]).await;
        }
        let left = engine
            .run(&["network", "ls", "--quiet", "--filter", &filter])
            .await?;
        for id in left.split_whitespace() {
            engine.run(&["network", "rm", id]).await?;
        }
        Ok(())
    }

    async fn running(&self, engine: &Engine) -> Result<Option<String>, Error> {
        let filter = format!("label={}", self.label());
        let asked = ["ps", "--filter", &filter, "--format", "{{.Names}}"];
        let names = engine.run(&asked).await?;
        Ok(names.lines().next().map(str::to_owned))
    }

    /// Removes all of it, whatever there is, and waits for that: nothing is left when this process ends.
    pub(super) fn remove_all(&self) {
        let remove = [
            ["rm", "--force", "--volumes"].as_slice(),
            &[self.agent.as_str(), &self.sidecar],
        ];
        let networks = [
            ["network", "rm"].as_slice(),
            &[self.inside.as_str(), &self.outside],
        ];
        for arguments in [remove.concat(), networks.concat()] {
            let mut command = std::process::Command::new("docker");
            command
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            // A second key at the terminal must not end this.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            // What cannot be removed now is removed by the bottle's next launch.
            _ = command.status();
        }
    }
}

const LABEL: &str = "egress.bottle";
const PATIENCE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(200);

/// A bottle's name as a part of one of Docker's: what is not plain is written in hex, so that two never share one.
fn plain(bottle: &str) -> String {
    let mut name = String::new();
    for byte in bottle.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!(".{byte:02x}"));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn names_stay_apart_and_are_ones_that_docker_takes() {
        let names = Names::of("my bottle/ü");
        assert_eq!(names.agent, "egress-my.20bottle.2f.c3.bc-agent");
        assert_eq!(names.host, "my20bottle2fc3bc");
        assert_eq!(names.label(), "egress.bottle=my bottle/ü");
        assert_ne!(Names::of("a b").agent, Names::of("a.20b").agent);
        assert_eq!(Names::of("-").host, "agent");
    }
}
