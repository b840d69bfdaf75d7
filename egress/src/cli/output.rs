//! Where commands write. Whoever reads a file of theirs finds the old text or the new one, and never a part.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::anyhow;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Failure;

/// Writes a file that holds no secret in one step, mode 0644, unless the same text is there already. `elsewhere` is the
/// hint that says how to name another file.
///
/// # Errors
///
/// A runtime [`Failure`] that names the file.
pub(super) fn write(path: &Path, text: &str, elsewhere: &str) -> Result<(), Failure> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    replace(path, text).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk",
            _ => elsewhere,
        };
        let error = anyhow!(error).context(format!("cannot write {}", path.display()));
        Failure::runtime(error).hint(hint)
    })
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut staged = path.file_name().unwrap_or_default().to_owned();
    staged.push(format!(".new-{}", std::process::id()));
    let staged = path.with_file_name(staged);
    let written = File::create_new(&staged).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        // Whatever the umask: it is read by agents that run as other users.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&staged, path)
    });
    if written.is_err() {
        _ = fs::remove_file(&staged);
    }
    written
}

/// Whether stdout is a pipe or a socket that nobody reads any more (poll(2)). A write would tell as well, where there is
/// something to write.
pub(super) fn stdout_is_closed() -> bool {
    let stdout = rustix::stdio::stdout();
    let mut one = [PollFd::new(&stdout, PollFlags::empty())];
    let is_told = poll(&mut one, Some(&Timespec::default())).is_ok();
    let is_closed = |it: &PollFd<'_>| it.revents().intersects(PollFlags::ERR | PollFlags::HUP);
    is_told && one.iter().any(is_closed)
}
