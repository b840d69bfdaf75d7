//! Puts a file in its place in one step: a temporary file beside it, flushed, then renamed over it.
//!
//! A reader sees the old file or the new one, never half of one, and a failure leaves nothing behind.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use super::dummy::WriteError;
use crate::file::directory_of;

/// Writes `bytes` to `path`, mode 0600, in a directory that not everybody may write to.
pub(super) fn atomically(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let name = path
        .file_name()
        .ok_or_else(|| WriteError::NotAFile(path.to_owned()))?;
    let directory = directory_of(path);
    prepare(directory)?;
    place(directory, name, path, bytes).map_err(|source| WriteError::File {
        path: path.to_owned(),
        source,
    })
}

/// Makes a missing directory. The mode of one that is there is its owner's business, but where everybody may write, a
/// file can be swapped for another, sticky bit or not, before the agent starts.
fn prepare(directory: &Path) -> Result<(), WriteError> {
    let fail = |source| WriteError::Directory {
        path: directory.to_owned(),
        source,
    };
    let metadata = match fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(directory).map_err(fail)?;
            fs::metadata(directory).map_err(fail)?
        }
        metadata => metadata.map_err(fail)?,
    };
    if !metadata.is_dir() {
        return Err(fail(io::ErrorKind::NotADirectory.into()));
    }
    if metadata.permissions().mode() & WRITABLE_BY_ALL != 0 {
        return Err(WriteError::OpenDirectory(directory.to_owned()));
    }
    Ok(())
}

fn place(directory: &Path, name: &OsStr, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (temporary, mut file) = Temporary::create(directory, name)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary.0, path)?;
    temporary.keep();
    Ok(())
}

/// A file that is removed again unless it was renamed.
struct Temporary(PathBuf);

impl Temporary {
    /// `create_new` follows no symlink and takes over no file, so a name that is taken already costs another try only.
    fn create(directory: &Path, name: &OsStr) -> io::Result<(Self, File)> {
        let mut tries = 0;
        loop {
            let path = directory.join(temporary_name(name, tries));
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            match made {
                Ok(file) => return Ok((Self(path), file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < MAX_TRIES => {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // There is nobody left to tell: the failure that led here is on its way already.
            let _ = fs::remove_file(&self.0);
        }
    }
}

fn temporary_name(name: &OsStr, tries: u32) -> OsString {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.unwrap_or_default().subsec_nanos();
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{nanos}-{tries}.tmp", process::id()));
    temporary
}

const WRITABLE_BY_ALL: u32 = 0o002;
const MAX_TRIES: u32 = 16;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    fn names(directory: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_directory_that_everybody_may_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for bits in [0o777, 0o1777, 0o702] {
            fs::set_permissions(root.path(), Permissions::from_mode(bits)).unwrap();
            let error = atomically(&root.path().join("auth.json"), b"x").unwrap_err();
            assert!(matches!(error, WriteError::OpenDirectory(_)), "{error}");
            assert_eq!(names(root.path()), Vec::<OsString>::new());
            assert_eq!(mode(root.path()), bits);
        }
    }

    #[test]
    fn a_failure_leaves_the_old_state_and_no_temporary_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("auth.json");
        fs::create_dir(&path).unwrap();
        let error = atomically(&path, b"x").unwrap_err();
        assert!(matches!(error, WriteError::File { .. }), "{error}");
        assert_eq!(names(root.path()), ["auth.json"]);

        let file = root.path().join("auth.json/file");
        fs::write(&file, "old").unwrap();
        let error = atomically(&file.join("auth.json"), b"x").unwrap_err();
        assert!(matches!(error, WriteError::Directory { .. }), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"old");
    }

    #[test]
    fn what_is_no_path_of_a_file_is_refused() {
        for path in ["", "/", "..", "a/.."] {
            let error = atomically(Path::new(path), b"x").unwrap_err();
            assert!(matches!(error, WriteError::NotAFile(_)), "{path}: {error}");
        }
    }

    #[test]
    fn a_missing_directory_is_made_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("home/.codex/auth.json");
        atomically(&path, b"new").unwrap();
        assert_eq!(mode(&root.path().join("home")), 0o700);
        assert_eq!(mode(&root.path().join("home/.codex")), 0o700);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_directory_that_is_there_keeps_its_mode() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o775)).unwrap();
        atomically(&root.path().join("auth.json"), b"x").unwrap();
        assert_eq!(mode(root.path()), 0o775);
    }

    #[test]
    fn an_open_file_is_replaced_by_a_closed_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("auth.json");
        fs::write(&path, "a longer old text").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        atomically(&path, b"new").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(root.path()), ["auth.json"]);
    }

    #[test]
    fn a_symlink_is_replaced_and_its_target_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (path, target) = (root.path().join("auth.json"), root.path().join("real"));
        fs::write(&target, "real").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        atomically(&path, b"new").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read(&target).unwrap(), b"real");
    }
}
