//! Files that the operator names and the running sidecar reads: opened without waiting for anybody.
//!
//! It knows nothing of what stands in them.

use std::fs::{File, FileType};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Opens a regular file for reading.
///
/// A FIFO would hold the reader up until somebody writes to it, and with the reader whoever waits for its turn; a device
/// may never end.
///
/// # Errors
///
/// What the system says, or that it is something else than a file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // A process that has given other files up is told of anything else that it must not open it, and not what it is.
    check(std::fs::metadata(path)?.file_type())?;
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    // The name may stand for something else by now.
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// The directory that a file is named in: a bare name's is the working one.
pub fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

/// A path as it stands in a URI (RFC 3986, section 3.3). Also by itself, since without a colon nothing in it is a scheme.
pub fn uri_path(path: &Path) -> String {
    let mut uri = String::with_capacity(path.as_os_str().len());
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

/// The user's home, as it is: `HOME`, else what `/etc/passwd` says.
///
/// The C library would load whatever modules `nsswitch.conf` names for users, and in a static program systemd's crashes. A
/// service has no `HOME` and a user that is in no file, so every one of them would get there.
pub fn home() -> Option<PathBuf> {
    let named = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = named.map(PathBuf::from).or_else(|| {
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        home_of(rustix::process::getuid().as_raw(), &users)
    });
    home?.canonicalize().ok()
}

/// A user's home in the text of passwd(5).
fn home_of(user: u32, users: &str) -> Option<PathBuf> {
    let user = user.to_string();
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [_, _, id, _, _, home, ..] if id == user && !home.is_empty() => Some(home.into()),
            _ => None,
        }
    })
}

fn check(kind: FileType) -> io::Result<()> {
    if kind.is_file() {
        Ok(())
    } else if kind.is_dir() {
        Err(io::ErrorKind::IsADirectory.into())
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::path::Path;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::{home_of, open_regular, uri_path};

    #[test]
    fn a_path_is_a_reference_whatever_is_in_it() {
        assert_eq!(uri_path(Path::new("a/routes.yaml")), "a/routes.yaml");
        assert_eq!(uri_path(Path::new("b:c d%.yaml")), "b%3Ac%20d%25.yaml");
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&fifo, &link).unwrap();
        for path in [&fifo, &link, Path::new("/dev/zero")] {
            let error = open_regular(path).unwrap_err();
            assert_eq!(
                error.to_string(),
                "not a regular file",
                "{}",
                path.display()
            );
        }
        let error = open_regular(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
        let error = open_regular(&dir.path().join("none")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_opened_also_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [file, link] {
            let text = std::io::read_to_string(open_regular(&path).unwrap()).unwrap();
            assert_eq!(text, "text");
        }
    }

    #[test]
    fn a_home_is_the_one_of_the_users_own_line() {
        let users = "root:x:0:0:root:/root:/bin/sh\n+nis\nme:x:1000:0:Me,,,:/home/me:/bin/sh\nno:x:7:7:::\n";
        assert_eq!(home_of(1000, users), Some("/home/me".into()));
        for user in [7, 100, 1] {
            assert_eq!(home_of(user, users), None, "{user}");
        }
    }
}
