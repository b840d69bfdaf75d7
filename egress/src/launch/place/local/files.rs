//! The box's file system: an empty tree, into which parts of the host's are bound, and nothing that is not named.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::layout::HOME;
use super::plan::{Access, Bind, BoxFile, Failed, Plan, Step};

/// Builds the tree and makes it the root.
pub(super) fn build(plan: &Plan) -> Result<(), Failed> {
    let at = |about: &Path| {
        let about = about.display().to_string();
        move |error: io::Error| Failed::new(Step::Files, about, &error)
    };
    rustix::system::sethostname(plan.hostname.as_bytes())
        .map_err(|error| at(Path::new("host name"))(error.into()))?;
    enter_staging().map_err(at(Path::new(STAGING)))?;
    for path in ["/tmp", "/var/tmp"] {
        scratch(&inside(Path::new(path)), 0o1777).map_err(at(Path::new(path)))?;
    }
    make_home(plan.home.as_deref()).map_err(at(Path::new(HOME)))?;
    for bind in &plan.binds {
        bind.mount().map_err(at(&bind.source))?;
    }
    mount_proc().map_err(at(Path::new("/proc")))?;
    make_devices(plan.terminal.as_deref()).map_err(at(Path::new("/dev")))?;
    for (link, target) in &plan.links {
        make_link(&inside(link), target).map_err(at(link))?;
    }
    for file in &plan.files {
        write(file).map_err(at(&file.path))?;
    }
    leave_host().map_err(at(Path::new("/")))
}

/// Any directory that every system has. What is in it stays visible under [`OLD`].
const STAGING: &str = "/tmp";

/// The host's root, while the box's is built.
const OLD: &str = "/old";

/// The box's root, while it is built.
const NEW: &str = "/new";

/// Makes a tree of two directories the root: one holds the host's root, one is to be the box's.
fn enter_staging() -> io::Result<()> {
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    tmpfs(Path::new(STAGING), 0o755)?;
    let staging = Path::new(STAGING);
    for name in [OLD, NEW] {
        fs::create_dir(staging.join(name.trim_start_matches('/')))?;
    }
    rustix::process::pivot_root(STAGING, staging.join(OLD.trim_start_matches('/')))?;
    std::env::set_current_dir("/")?;
    tmpfs(Path::new(NEW), 0o755)
}

/// Lets go of the host's tree. The box's root itself is read-only from here on; the directories that are the agent's are
/// mounts of their own.
fn leave_host() -> io::Result<()> {
    rustix::mount::unmount(OLD, UnmountFlags::DETACH)?;
    std::env::set_current_dir(NEW)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
    rustix::mount::mount_remount("/", flags, c"").map_err(Into::into)
}

/// The agent's home: a directory of the host's, or one that ends with the box.
fn make_home(of_host: Option<&Path>) -> io::Result<()> {
    match of_host {
        None => scratch(&inside(Path::new(HOME)), 0o700),
        Some(source) => Bind {
            source: source.into(),
            target: HOME.into(),
            access: Access::ReadWrite,
            pinned: false,
        }
        .mount(),
    }
}

impl Bind {
    fn mount(&self) -> io::Result<()> {
        let target = inside(&self.target);
        let source = hold(&under(OLD, &self.source))?;
        if is_directory(&source)? {
            make_directory(&target, 0o755)?;
        } else {
            make_place(&target)?;
        }
        rustix::mount::mount_bind_recursive(
            by_descriptor(&source),
            by_descriptor(&hold(&target)?),
        )?;
        let access = match self.access {
            Access::ReadOnly => MountFlags::RDONLY,
            Access::ReadWrite => MountFlags::empty(),
        };
        let mounts = mounts_below(&target)?;
        if !mounts.contains(&target) {
            // It stands elsewhere, and nothing of what was asked for would hold there.
            return Err(io::Error::other("the mount is not where it should be"));
        }
        for mount in mounts {
            match remount(&mount, access) {
                // A mount inside that its owner closed to everybody cannot be reached by the agent either.
                Err(error) if mount != target && is_closed(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }
}

/// Opens a path of the tree on which no link stands. What the agent can write to is bound into the box before it is whole,
/// and a link in there would lead into the host's tree, which is still at hand.
fn hold(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    // With these flags the last name itself may be one.
    match FileType::from_raw_mode(rustix::fs::fstat(&held)?.st_mode) {
        FileType::Symlink => Err(rustix::io::Errno::LOOP.into()),
        _ => Ok(held),
    }
}

/// A path that leads to what is held, whoever moves the names on the way to it.
fn by_descriptor(held: &OwnedFd) -> PathBuf {
    under(OLD, Path::new("/proc/self/fd")).join(held.as_raw_fd().to_string())
}

fn is_directory(held: &OwnedFd) -> io::Result<bool> {
    let mode = rustix::fs::fstat(held)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Directory)
}

fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// No set-user-ID programs and no devices, and what else is asked for.
fn remount(path: &Path, access: MountFlags) -> io::Result<()> {
    restrict(path, MountFlags::NOSUID | MountFlags::NODEV | access)
}

/// Adds flags to a mount. Those that the host set are kept: the kernel locks them in a user namespace
/// (mount_namespaces(7)).
fn restrict(path: &Path, more: MountFlags) -> io::Result<()> {
    let mount = hold(path)?;
    let flags = rustix::fs::fstatvfs(&mount)?.f_flag;
    let kept = [
        (rustix::fs::StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (rustix::fs::StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (rustix::fs::StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (rustix::fs::StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (
            rustix::fs::StatVfsMountFlags::NODIRATIME,
            MountFlags::NODIRATIME,
        ),
        (
            rustix::fs::StatVfsMountFlags::RELATIME,
            MountFlags::RELATIME,
        ),
    ];
    let kept = kept
        .into_iter()
        .filter(|(is_set, _)| flags.contains(*is_set))
        .fold(MountFlags::empty(), |all, (_, flag)| all | flag);
    let flags = MountFlags::BIND | more | kept;
    rustix::mount::mount_remount(by_descriptor(&mount), flags, c"").map_err(Into::into)
}

/// A mount and all that came with it, from the kernel's list (proc_pid_mountinfo(5)): a read-only bind mount does not
/// make those inside it read-only.
fn mounts_below(target: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read(under(OLD, Path::new("/proc/self/mountinfo")))?;
    Ok(mount_points(&table)
        .filter(|mount| mount.starts_with(target))
        .collect())
}

fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(unescape(field)))
    })
}

/// Blanks, tabs, line breaks and backslashes stand in that list in octal.
fn unescape(field: &[u8]) -> std::ffi::OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() {
            rest.get(4..).unwrap_or_default()
        } else {
            tail
        };
    }
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

/// The box's own processes. Where the launcher is root, the files of the kernel's settings would be the agent's to write,
/// since they ask for the user and not for a capability: they are read-only.
fn mount_proc() -> io::Result<()> {
    let proc = inside(Path::new("/proc"));
    make_directory(&proc, 0o555)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", &proc, "proc", flags, None)?;
    for name in [
        "sys",
        "sysrq-trigger",
        "irq",
        "bus",
        "fs",
        "acpi",
        "scsi",
        "driver",
        "mtrr",
        "dynamic_debug",
    ] {
        let path = proc.join(name);
        if path.exists() {
            rustix::mount::mount_bind(&path, &path)?;
            remount(&path, MountFlags::RDONLY)?;
        }
    }
    Ok(())
}

/// The devices that programs expect, and terminals of the box's own. The launcher's terminal is the console, which is where
/// programs look for the name of a terminal that /dev/pts does not have.
fn make_devices(terminal: Option<&Path>) -> io::Result<()> {
    let dev = inside(Path::new("/dev"));
    make_directory(&dev, 0o755)?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        mount_device(&Path::new("/dev").join(name), &dev.join(name))?;
    }
    if let Some(terminal) = terminal {
        mount_device(terminal, &dev.join("console"))?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, dev.join(link))?;
    }
    let terminals = dev.join("pts");
    fs::create_dir(&terminals)?;
    rustix::mount::mount(
        "devpts",
        &terminals,
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(c"newinstance,ptmxmode=0666,mode=0620"),
    )?;
    scratch(&dev.join("shm"), 0o1777)
}

/// Root's agent owns the host's devices, and could change who else may use them: as read-only mounts they can be written
/// to, and their permissions cannot.
fn mount_device(source: &Path, target: &Path) -> io::Result<()> {
    make_place(target)?;
    rustix::mount::mount_bind(under(OLD, source), target)?;
    restrict(
        target,
        MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC,
    )
}

/// A directory that the agent can write to, and that is forgotten. All of them are parts of the one file system that the
/// box's root is on, so that together they take no more of the memory than one may: half of it.
fn scratch(path: &Path, mode: u32) -> io::Result<()> {
    make_directory(path, 0o755)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, mode)?;
    rustix::mount::mount_bind(path, path).map_err(Into::into)
}

fn tmpfs(path: &Path, mode: u32) -> io::Result<()> {
    make_directory(path, 0o755)?;
    let data = std::ffi::CString::new(format!("mode={mode:o}")).unwrap_or_default();
    rustix::mount::mount(
        "tmpfs",
        path,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(data.as_c_str()),
    )
    .map_err(Into::into)
}

/// Makes a directory and those on the way to it; one that is there is as good. A link on the way is an error.
fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    make_parent(path)?;
    step(path, mode)
}

fn make_parent(path: &Path) -> io::Result<()> {
    let mut parent = PathBuf::from("/");
    for part in path.parent().unwrap_or(Path::new("/")).components() {
        if let Component::Normal(part) = part {
            parent.push(part);
            step(&parent, 0o755)?;
        }
    }
    Ok(())
}

fn step(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if is_directory(&hold(path)?)? {
        Ok(())
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

/// Makes an empty file for something to be mounted on, where there is none.
fn make_place(path: &Path) -> io::Result<()> {
    make_parent(path)?;
    match create(path, 0o444) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn create(path: &Path, mode: u32) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(path)
}

fn make_link(link: &Path, target: &Path) -> io::Result<()> {
    make_parent(link)?;
    symlink(target, link)
}

/// Writes a file of the box's own. Where the place is taken, that is an error: it would be one of the host's files.
fn write(file: &BoxFile) -> io::Result<()> {
    let path = inside(&file.path);
    make_parent(&path)?;
    let mut made = create(&path, file.mode)?;
    io::Write::write_all(&mut made, &file.contents)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(file.mode);
    made.set_permissions(mode)
}

/// A path of the box, while it is built.
fn inside(path: &Path) -> PathBuf {
    under(NEW, path)
}

fn under(root: &str, path: &Path) -> PathBuf {
    Path::new(root).join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::mount_points;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let table = b"36 35 98:0 / /new/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n\
            37 35 98:0 /x /new/c\\134d rw - tmpfs none rw\n\n";
        let found: Vec<_> = mount_points(table).collect();
        assert_eq!(
            found,
            [PathBuf::from("/new/a b"), PathBuf::from("/new/c\\d")]
        );
    }
}
