//! The files, ports and processes that the sidecar keeps, with landlock(7); what is not named is out of its reach.
//!
//! A rule holds for a file as it is now, or for all that is below a directory. A file that is to be replaced by another of
//! its name needs its directory.

use std::fs::canonicalize;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{MeasureState, Needs};
use crate::file::{self, directory_of};
use crate::os::landlock::{self, BIND_TCP, access, scope};

/// What came of it.
pub(super) struct Raised {
    pub(super) files: MeasureState,
    pub(super) ports: MeasureState,
    pub(super) processes: MeasureState,
}

/// Puts the calling thread, and all that it starts, behind the fence.
pub(super) fn raise(needs: &Needs) -> Raised {
    match landlock::version()
        .map_err(|error| absence(&error))
        .and_then(|version| restrict(needs, version).map_err(|error| error.to_string()))
    {
        Ok(version) => Raised {
            files: MeasureState::On,
            ports: since(version, 4, "6.7"),
            processes: since(version, 6, "6.12"),
        },
        Err(reason) => Raised {
            files: MeasureState::Off(reason.clone()),
            ports: MeasureState::Off(reason.clone()),
            processes: MeasureState::Off(reason),
        },
    }
}

fn since(version: u32, first: u32, kernel: &str) -> MeasureState {
    if version >= first {
        MeasureState::On
    } else {
        MeasureState::Off(format!("Landlock has this since Linux {kernel}"))
    }
}

fn absence(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no Landlock, or a container's filter hides it",
        Some(libc::EOPNOTSUPP) => "Landlock is not among the security modules of this kernel",
        Some(libc::EPERM) => "a container's filter refuses Landlock",
        _ => return error.to_string(),
    }
    .into()
}

fn restrict(needs: &Needs, version: u32) -> io::Result<u32> {
    let handled = access::all(version);
    let ports = if version < 4 { 0 } else { BIND_TCP };
    let scopes = if version < 6 {
        0
    } else {
        scope::ABSTRACT_SOCKETS | scope::SIGNALS
    };
    let ruleset = landlock::ruleset(handled, ports, scopes)?;
    for (path, allowed) in rules(needs, handled) {
        // What is not there is not read. Where it comes later, the reload that wants it says that it may not.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(&path, flags, Mode::empty()) {
            landlock::allow(&ruleset, allowed, file.as_fd())?;
        }
    }
    if ports != 0 {
        for port in &needs.ports {
            landlock::allow_port(&ruleset, ports, *port)?;
        }
    }
    landlock::restrict_self(&ruleset)?;
    Ok(version)
}

/// The paths that stay within reach, and what for.
fn rules(needs: &Needs, handled: u64) -> Vec<(PathBuf, u64)> {
    let home = file::home();
    let own = needs
        .files
        .iter()
        .flat_map(|file| sources(file, home.as_deref()));
    let system = resolver().chain(LIBRARIES.iter().map(PathBuf::from));
    let read = own.chain(system).map(|path| (path, access::READ_FILE));
    let sockets = needs.sockets.iter().map(|socket| {
        let replace = access::MAKE_SOCK | access::REMOVE_FILE;
        (directory_of(socket).to_owned(), replace)
    });
    let written = needs.written.iter().map(|directory| {
        let files = access::READ_FILE | access::WRITE_FILE | access::TRUNCATE;
        let names = access::MAKE_REG | access::REMOVE_FILE | access::READ_DIR;
        (directory.clone(), (files | names) & handled)
    });
    read.chain(sockets).chain(written).collect()
}

/// Where a file is, and where it leads to: a mounted secret is a link to a directory that is replaced as a whole. A
/// directory with a home below it has too much in it, and the file alone is kept.
fn sources(file: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let ends = canonicalize(file).ok();
    let named = canonicalize(directory_of(file)).ok();
    let target = ends.as_deref().map(|end| directory_of(end).to_owned());
    let too_wide =
        |path: &PathBuf| path.parent().is_none() || home.is_some_and(|home| home.starts_with(path));
    let (wide, narrow): (Vec<_>, Vec<_>) = named.into_iter().chain(target).partition(too_wide);
    let alone = ends.filter(|_| !wide.is_empty());
    narrow.into_iter().chain(alone).collect()
}

/// What the C library reads to look a name up, now and again whenever it was changed. All users may read what is in /etc
/// and is readable for this one, so its files may be replaced. Root reads more there, and is held to those that are there.
fn resolver() -> impl Iterator<Item = PathBuf> {
    let targets = RESOLVER.iter().filter_map(|file| canonicalize(file).ok());
    let directories = targets.clone().filter_map(|target| {
        let directory = target.parent()?;
        (directory != Path::new("/etc")).then(|| directory.to_owned())
    });
    let etc = (!rustix::process::geteuid().is_root()).then(|| "/etc".into());
    targets.chain(directories).chain(etc)
}

const RESOLVER: [&str; 6] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/ld.so.cache",
];

/// Where the C library finds the modules that nsswitch.conf names. It loads each when it is first needed.
const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::sources;

    #[test]
    fn a_file_that_is_replaced_has_its_directory_unless_a_home_is_below_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("a path");
        for inside in ["mount/..one", "home/me"] {
            std::fs::create_dir_all(root.join(inside)).expect("a directory");
        }
        std::fs::write(root.join("mount/..one/token"), "x").expect("a file");
        std::os::unix::fs::symlink("..one/token", root.join("mount/token")).expect("a link");
        std::fs::write(root.join("home/routes.yaml"), "x").expect("a file");
        let home = root.join("home/me");
        let of = |file: &str| sources(&root.join(file), Some(&home));
        assert_eq!(
            of("mount/token"),
            [root.join("mount"), root.join("mount/..one")]
        );
        assert_eq!(of("mount/later"), [root.join("mount")]);
        assert_eq!(of("home/routes.yaml"), [root.join("home/routes.yaml")]);
        assert!(of("home/later").is_empty());
        assert!(of("none/later").is_empty());
        assert!(!sources(Path::new("routes.yaml"), None).is_empty());
    }
}
