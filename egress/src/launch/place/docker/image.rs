//! An agent's image: whether it is there, whether it can be worked with, and who its user is.

use super::engine::{Engine, Error as EngineError};

/// A user of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As `docker exec --user` takes it.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its group's.
    pub gid: u32,
}

/// Whether an image is there. Nothing is pulled: what runs is what the operator has looked at.
///
/// # Errors
///
/// [`Error::Missing`], or docker's.
pub async fn check(engine: &Engine, image: &str, flag: &'static str) -> Result<(), Error> {
    let ask = ["image", "inspect", "--format", "{{.Id}}", image];
    if engine.output(&ask, b"").await?.status.success() {
        return Ok(());
    }
    Err(Error::Missing {
        image: image.into(),
        flag,
    })
}

/// Starts the image once, without any network, to see that it has a shell and this user.
///
/// # Errors
///
/// [`Error::NoShell`], [`Error::NoUser`], or docker's.
pub async fn user(engine: &Engine, image: &str, name: &str) -> Result<User, Error> {
    let run = ["run", "--rm", "--network", "none", "--user", "0:0"];
    let shell = ["--entrypoint", "/bin/sh", image, "-c", "cat /etc/passwd"];
    let output = engine.output(&[&run[..], &shell[..]].concat(), b"").await?;
    if !output.status.success() {
        // 126 and 127 are what docker says of a program that it cannot start; the rest is something else.
        return Err(Error::NoShell {
            image: image.into(),
            said: super::engine::said(&output),
        });
    }
    let passwd = String::from_utf8_lossy(&output.stdout);
    find(&passwd, name).ok_or_else(|| Error::NoUser {
        image: image.into(),
        name: name.into(),
        there: people(&passwd),
    })
}

/// A user by name, or by number as `UID` or `UID:GID`, which need not be listed.
fn find(passwd: &str, name: &str) -> Option<User> {
    let listed = entries(passwd).find(|(listed, ..)| *listed == name);
    let (uid, gid) = match listed {
        Some((_, uid, gid)) => (uid, gid),
        None => {
            let (uid, gid) = name.split_once(':').unwrap_or((name, name));
            (uid.parse().ok()?, gid.parse().ok()?)
        }
    };
    Some(User {
        name: name.into(),
        uid,
        gid,
    })
}

fn entries(passwd: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some((name, uid, fields.next()?.parse().ok()?))
    })
}

/// The users who are somebody, and root.
fn people(passwd: &str) -> Vec<String> {
    let some = |uid: &u32| *uid == 0 || (1000..60_000).contains(uid);
    let found = entries(passwd).filter(|(_, uid, _)| some(uid));
    found.map(|(name, ..)| name.to_owned()).collect()
}

/// Why an image is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such image here.
    #[error("there is no image `{image}` on this Docker")]
    Missing {
        /// Which.
        image: String,
        /// What named it.
        flag: &'static str,
    },
    /// It has no shell, or does not run at all.
    #[error("the image `{image}` does not run /bin/sh: {said}")]
    NoShell {
        /// Which.
        image: String,
        /// Docker's reason.
        said: String,
    },
    /// It has no such user.
    #[error("the image `{image}` has no user `{name}`")]
    NoUser {
        /// Which.
        image: String,
        /// The user.
        name: String,
        /// Those who are there.
        there: Vec<String>,
    },
    /// Docker's own.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Error {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { flag, .. } if *flag == "--sidecar-image" => Some(
                "make it with `docker/build` of the sources, or name another with --sidecar-image"
                    .into(),
            ),
            Self::Missing { image, flag } => Some(format!(
                "`docker pull {image}`, or build it; {flag} names another"
            )),
            Self::NoShell { .. } => {
                Some("an agent is set up by a shell; take an image that has one".into())
            }
            Self::NoUser { there, .. } => Some(format!(
                "--user names another, and --agent-home that one's home; there are: {}",
                there.join(", ")
            )),
            Self::Engine(error) => error.hint().map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{find, people};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbin:x:2:2:bin:/bin:/sbin/nologin\n\
                          node:x:1000:1001::/home/node:/bin/sh\nbroken\nnobody:x:65534:65534::/:/bin/false\n";

    #[test]
    fn a_user_is_found_by_name_or_is_a_number() {
        let ids = |name| find(PASSWD, name).map(|user| (user.uid, user.gid));
        assert_eq!(ids("node"), Some((1000, 1001)));
        assert_eq!(ids("1234"), Some((1234, 1234)));
        assert_eq!(ids("1234:5"), Some((1234, 5)));
        for name in ["nod", "", "broken", ":", "1:x", "-1"] {
            assert_eq!(ids(name), None, "{name:?}");
        }
    }

    #[test]
    fn only_people_are_offered() {
        assert_eq!(people(PASSWD), ["root", "node"]);
    }
}
