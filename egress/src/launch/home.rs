//! Puts files into an agent's home on this machine, also while the agent is at work in it.
//!
//! The agent may be hostile and may put a link wherever a file is about to be written. The home is held open, every step
//! goes from one directory to the next without following a link, and a file is there in full or not at all.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchown, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::agent::HomeFile;

/// An agent's home, held open.
#[derive(Debug)]
pub struct Home {
    directory: OwnedFd,
    owner: Option<(Uid, Gid)>,
}

impl Home {
    /// Opens a directory as a home. What is made in it belongs to `owner`, or else to this process's user.
    ///
    /// # Errors
    ///
    /// It is no directory, or is a link to one.
    pub fn open(path: &Path, owner: Option<(Uid, Gid)>) -> io::Result<Self> {
        let directory = openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self { directory, owner })
    }

    /// Writes a file in one step, in place of whatever has its name. Missing directories are made with mode 0700.
    ///
    /// # Errors
    ///
    /// A directory on the way is a link or a file, or the system refuses. Nothing is left behind then.
    pub fn place(&self, file: &HomeFile) -> io::Result<()> {
        let (parent, name) = match (file.target.parent(), file.target.file_name()) {
            (Some(parent), Some(name)) => (parent, name),
            _ => return Err(io::ErrorKind::InvalidFilename.into()),
        };
        let mut directory = self.directory.try_clone()?;
        for part in parent.components() {
            let Component::Normal(part) = part else {
                return Err(io::ErrorKind::InvalidFilename.into());
            };
            directory = self.step(&directory, part)?;
        }
        self.write(&directory, name, file)
    }

    fn step(&self, from: &OwnedFd, part: &OsStr) -> io::Result<OwnedFd> {
        match mkdirat(from, part, Mode::RWXU) {
            Err(Errno::EXIST) => Ok(openat(from, part, DIRECTORY, Mode::empty())?),
            Err(error) => Err(error.into()),
            Ok(()) => {
                let made = openat(from, part, DIRECTORY, Mode::empty())?;
                self.give(&made)?;
                Ok(made)
            }
        }
    }

    fn write(&self, directory: &OwnedFd, name: &OsStr, file: &HomeFile) -> io::Result<()> {
        let mut staged = OsStr::new(".").to_owned();
        staged.push(name);
        staged.push(format!(".{}.new", std::process::id()));
        // One that an earlier end left behind, or that the agent put there. Whatever it is, it is not written to.
        let _ = unlinkat(directory, &staged, AtFlags::empty());
        let mode = Mode::from_raw_mode(file.mode);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(directory, &staged, flags, mode)?;
        let written = self.give(&opened).and_then(|()| {
            File::from(opened).write_all(&file.contents)?;
            Ok(renameat(directory, &staged, directory, name)?)
        });
        if written.is_err() {
            let _ = unlinkat(directory, &staged, AtFlags::empty());
        }
        written
    }

    fn give(&self, made: &OwnedFd) -> io::Result<()> {
        match self.owner {
            Some((user, group)) => Ok(fchown(made, Some(user), Some(group))?),
            None => Ok(()),
        }
    }
}

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::RDONLY)
    .union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn file(target: &str) -> HomeFile {
        HomeFile {
            target: target.into(),
            mode: 0o600,
            contents: b"new".into(),
        }
    }

    #[test]
    fn a_link_that_the_agent_made_is_never_followed() {
        let root = tempfile::tempdir().unwrap();
        let (home, outside) = (root.path().join("home"), root.path().join("outside"));
        fs::create_dir(&home).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("auth.json"), "the host's").unwrap();
        symlink(&outside, home.join(".codex")).unwrap();
        let opened = Home::open(&home, None).unwrap();
        assert!(opened.place(&file(".codex/auth.json")).is_err());
        assert!(opened.place(&file(".codex/deep/x")).is_err());

        // A link in place of the file itself is replaced, and so is one with the name of the staged file.
        symlink(outside.join("auth.json"), home.join("auth.json")).unwrap();
        let staged = home.join(format!(".auth.json.{}.new", std::process::id()));
        symlink(outside.join("auth.json"), staged).unwrap();
        opened.place(&file("auth.json")).unwrap();
        assert!(
            fs::symlink_metadata(home.join("auth.json"))
                .unwrap()
                .is_file()
        );
        assert_eq!(fs::read(outside.join("auth.json")).unwrap(), b"the host's");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);

        // A home that is another one by now is not the one that was opened.
        fs::rename(&home, root.path().join("moved")).unwrap();
        symlink(&outside, &home).unwrap();
        opened.place(&file("late")).unwrap();
        assert!(root.path().join("moved/late").exists());
        assert!(Home::open(&home, None).is_err());
    }

    #[test]
    fn what_leaves_the_home_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("home")).unwrap();
        let home = Home::open(&root.path().join("home"), None).unwrap();
        for target in ["", "/", "..", "../x", "/etc/x", "a/../../x"] {
            assert!(home.place(&file(target)).is_err(), "{target:?}");
        }
        assert!(!root.path().join("x").exists());
    }

    #[test]
    fn a_file_that_cannot_take_its_place_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("x/full")).unwrap();
        let home = Home::open(root.path(), None).unwrap();
        assert!(home.place(&file("x")).is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_and_its_directories_are_the_agents_alone() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::open(root.path(), None).unwrap();
        for _ in 0..2 {
            home.place(&file(".tool/deep/settings")).unwrap();
        }
        let mode = |name: &str| {
            let metadata = fs::metadata(root.path().join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode(".tool"), 0o700);
        assert_eq!(mode(".tool/deep"), 0o700);
        assert_eq!(mode(".tool/deep/settings"), 0o600);
        assert_eq!(
            fs::read_dir(root.path().join(".tool/deep"))
                .unwrap()
                .count(),
            1
        );
    }
}
