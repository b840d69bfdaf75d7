//! Which parts of the host an agent sees. What is not named here is not in the box: no home directories, no /run with its
//! sockets, no /var, and of /etc only what programs need to run.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::plan::{Access, Bind};
use super::shared::leads_through;

/// The agent's home in the box.
pub(super) const HOME: &str = "/home/agent";

/// Where the trust bundle is in the box: where Debian has its own.
pub(super) const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Other places where programs look for the system's roots; each is a link to the bundle.
pub(super) const BUNDLE_LINKS: [&str; 3] = [
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// Programs and what they read: the same for every user of the host.
const SYSTEM: [&str; 35] = [
    "/usr",
    "/opt",
    // Not /nix itself: it has the socket of a service that fetches what it is asked for, with the host's network.
    "/nix/store",
    "/nix/var/nix/profiles",
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/ca-certificates.conf",
    "/etc/debian_version",
    "/etc/fonts",
    "/etc/inputrc",
    "/etc/java-17-openjdk",
    "/etc/java-21-openjdk",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/login.defs",
    "/etc/lsb-release",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/perl",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/protocols",
    "/etc/python3",
    "/etc/python3.11",
    "/etc/python3.13",
    "/etc/redhat-release",
    "/etc/services",
    "/etc/shells",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
    "/etc/timezone",
    "/etc/vim",
];

/// Directories that are links into /usr on most systems.
const ROOT_DIRECTORIES: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// The host's parts of a box.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Parents before children.
    pub(super) binds: Vec<Bind>,
    /// Links at the root.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
}

/// What decides the layout.
pub(super) struct Wanted<'a> {
    /// The agent's working directory, without symbolic links.
    pub(super) workspace: &'a Path,
    /// All directories that the agent may write to, without symbolic links.
    pub(super) writable: &'a [PathBuf],
    /// Directories in there in which it can change nothing.
    pub(super) pinned: &'a [PathBuf],
    /// The user's home, under each of its names; it stays outside.
    pub(super) homes: &'a [PathBuf],
    /// The value of `PATH`.
    pub(super) path: &'a OsStr,
    /// The command's program, as the host finds it.
    pub(super) program: Option<&'a Path>,
    /// What the operator adds.
    pub(super) more: &'a [(PathBuf, Access)],
}

impl Layout {
    /// Lays a box out.
    pub(super) fn new(wanted: &Wanted<'_>) -> Self {
        let mut layout = Self::default();
        for name in ROOT_DIRECTORIES {
            let path = Path::new("/").join(name);
            match fs::read_link(&path) {
                Ok(target) => layout.links.push((path, target)),
                Err(_) => layout.read_only(&path),
            }
        }
        for path in SYSTEM {
            layout.read_only(Path::new(path));
        }
        for path in tools(wanted) {
            layout.read_only(&path);
        }
        for (path, access) in wanted.more {
            layout.add(path, *access);
        }
        layout.add(wanted.workspace, Access::ReadWrite);
        for directory in wanted.pinned {
            layout.pin(directory, wanted.writable);
        }
        layout.sort();
        layout
    }

    fn read_only(&mut self, path: &Path) {
        self.add(path, Access::ReadOnly);
    }

    /// Adds a path of the host at its own place, where there is one.
    fn add(&mut self, path: &Path, access: Access) {
        let Ok(source) = path.canonicalize() else {
            return;
        };
        let target = self.through_links(path);
        self.binds.push(Bind {
            source,
            target,
            access,
            pinned: false,
        });
    }

    /// Makes a directory read-only, and every one between it and that which the agent may write to a mount of its own, which
    /// cannot be renamed to put another in its place (rename(2), EBUSY). A file would not do: its mount goes with it when
    /// somebody outside replaces it.
    fn pin(&mut self, directory: &Path, writable: &[PathBuf]) {
        let Some(tree) = writable.iter().find(|tree| directory.starts_with(tree)) else {
            return;
        };
        let pinned = |path: &Path, access| Bind {
            source: path.into(),
            target: path.into(),
            access,
            pinned: true,
        };
        let between = directory
            .ancestors()
            .skip(1)
            .take_while(|path| *path != tree);
        self.binds
            .extend(between.map(|path| pinned(path, Access::ReadWrite)));
        self.binds.push(pinned(directory, Access::ReadOnly));
    }

    /// Puts parents before children, and drops what a parent brings along.
    fn sort(&mut self) {
        let mut all = std::mem::take(&mut self.binds);
        all.sort_by_key(|bind| bind.target.components().count());
        for bind in all {
            let nearest = self
                .binds
                .iter()
                .rev()
                .find(|parent| bind.target.starts_with(&parent.target));
            let covered = nearest.is_some_and(|parent| {
                parent.access == bind.access && parent.source == parent.target
            });
            if bind.pinned || !covered {
                self.binds.push(bind);
            }
        }
    }
}

impl Layout {
    /// The path with a link at the root followed: `/bin/x` is `/usr/bin/x` where `/bin` is a link.
    fn through_links(&self, path: &Path) -> PathBuf {
        let followed = self.links.iter().find_map(|(link, target)| {
            let rest = path.strip_prefix(link).ok()?;
            Some(Path::new("/").join(target).join(rest))
        });
        followed.unwrap_or_else(|| path.into())
    }
}

/// Where `PATH` finds programs outside of the system's directories: those directories, and what is known to stand beside
/// them. Never a directory that has the user's home or a login in it, and nothing that is found by way of a directory that
/// the agent can write to: it would choose by a link what it is shown. What is in there it has already.
fn tools(wanted: &Wanted<'_>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::env::split_paths(wanted.path).filter(|entry| entry.is_absolute()) {
        found.extend(beside(&entry));
        found.push(entry);
    }
    found.extend(wanted.program.map(Path::to_owned));
    found.retain(|path| !leads_through(path, wanted.writable));
    // What a link leads to has to be there as well.
    let real: Vec<_> = found
        .iter()
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    found.extend(real);
    found.retain(|path| {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        let is_private = wanted.homes.iter().any(|home| is_private(&real, home));
        let is_system = NO_TOOLS.iter().any(|system| real.starts_with(system));
        !is_private && !is_system && real != Path::new("/")
    });
    found
}

/// Whether a directory has the home in it, or has to do with a login of the user. An agent of an earlier launch may have
/// put a link into a directory of `PATH`.
fn is_private(real: &Path, home: &Path) -> bool {
    let home = home.canonicalize().unwrap_or_else(|_| home.to_owned());
    let near = |login: &&str| {
        let login = home.join(login);
        login.starts_with(real) || real.starts_with(login)
    };
    home.starts_with(real) || LOGINS.iter().any(near)
}

/// Where no program is that an agent should see, whatever `PATH` says: settings of the host, sockets of its services.
const NO_TOOLS: [&str; 7] = ["/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/var/run"];

/// Packages that the programs of a directory are links into.
fn beside(bin: &Path) -> Option<PathBuf> {
    let parent = bin.parent()?;
    // Shims are scripts of a version manager (pyenv, rbenv, asdf, mise), which keeps the programs beside them.
    let whole = bin.ends_with("node_modules/.bin")
        || bin.ends_with("shims")
        || parent.join("pyvenv.cfg").is_file();
    if whole {
        return Some(parent.into());
    }
    let modules = parent.join("lib/node_modules");
    modules.is_dir().then_some(modules)
}

/// What of the host's secrets stands in a directory that the agent is to be given: `None` is what one hopes for.
pub(super) fn secret_inside(path: &Path, homes: &[PathBuf]) -> Option<PathBuf> {
    if let Some(home) = homes.iter().find(|home| home.starts_with(path)) {
        return Some(home.clone());
    }
    LOGINS.iter().find_map(|name| login_inside(path, name))
}

/// A login that stands in a directory, whose own name may be the beginning of the login's, or all of it.
fn login_inside(path: &Path, login: &str) -> Option<PathBuf> {
    let login = Path::new(login);
    login.ancestors().find_map(|beginning| {
        let rest = login.strip_prefix(beginning).ok()?;
        if !path.ends_with(beginning) {
            return None;
        }
        let found = if rest.as_os_str().is_empty() {
            path.to_owned()
        } else {
            path.join(rest)
        };
        found.exists().then_some(found)
    })
}

/// The home directory of a user, as passwd(5) lists it.
pub(super) fn home_of(users: &str, user: u32) -> Option<PathBuf> {
    let number = user.to_string();
    users.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()? == number).then(|| fields.nth(2).map(PathBuf::from))?
    })
}

/// Directories that no agent works in: whatever is in them is the system's or everybody's, sockets among it.
pub(super) const SYSTEMS_OWN: [&str; 22] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/dev/shm",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/mnt",
    "/nix",
    "/opt",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/local",
    "/var",
    "/var/lib",
    "/var/tmp",
];

/// Where the host's programs keep their logins, below a home directory.
const LOGINS: [&str; 12] = [
    ".aws/credentials",
    ".claude/.credentials.json",
    ".codex/auth.json",
    ".config/gcloud/credentials.db",
    ".config/gh/hosts.yml",
    ".docker/config.json",
    ".gemini/oauth_creds.json",
    ".git-credentials",
    ".kube/config",
    ".local/share/opencode/auth.json",
    ".netrc",
    ".ssh",
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Access, Layout, Wanted, home_of, secret_inside};

    #[test]
    fn a_workspace_with_the_home_or_a_login_in_it_is_found_out() {
        let top = tempfile::tempdir().expect("a directory");
        let top = top.path().canonicalize().expect("it is there");
        let home = top.join("home/me");
        let work = home.join("work");
        fs::create_dir_all(&work).expect("made");
        let homes = [home.clone()];
        assert_eq!(secret_inside(&work, &homes), None);
        for above in [&home, &top.join("home"), &top, Path::new("/")] {
            assert_eq!(secret_inside(above, &homes), Some(home.clone()));
        }
        fs::create_dir(work.join(".ssh")).expect("made");
        assert_eq!(secret_inside(&work, &[]), Some(work.join(".ssh")));
    }

    #[test]
    fn a_login_is_found_out_by_its_own_name_too() {
        let top = tempfile::tempdir().expect("a directory");
        let claude = top.path().join(".claude");
        let login = claude.join(".credentials.json");
        fs::create_dir(&claude).expect("made");
        fs::write(claude.join("settings.json"), "{}").expect("written");
        assert_eq!(secret_inside(&claude, &[]), None);
        fs::write(&login, "{}").expect("written");
        assert_eq!(secret_inside(&claude, &[]), Some(login.clone()));
        assert_eq!(secret_inside(&login, &[]), Some(login.clone()));
        assert_eq!(secret_inside(&claude.join("settings.json"), &[]), None);
        let other = top.path().join("other");
        fs::create_dir(&other).expect("made");
        assert_eq!(secret_inside(&other, &[]), None);
    }

    #[test]
    fn a_users_home_is_the_sixth_field_of_the_list() {
        let users = "root:x:0:0:root:/root:/bin/bash\n\nme:x:1000:100::/home/me:\nbroken\n";
        assert_eq!(home_of(users, 0), Some("/root".into()));
        assert_eq!(home_of(users, 1000), Some("/home/me".into()));
        assert_eq!(home_of(users, 100), None);
    }

    #[test]
    fn a_directory_of_the_path_that_is_a_link_shows_no_login() {
        let top = tempfile::tempdir().expect("a directory");
        let home = top.path().canonicalize().expect("it is there");
        let work = home.join("work");
        let logins =
            [".ssh", ".codex", ".local/share/opencode", ".config"].map(|name| home.join(name));
        let others = [home.join("plain"), "/etc".into(), "/run".into()];
        fs::create_dir_all(&work).expect("made");
        fs::create_dir_all(home.join("earlier")).expect("made");
        for (number, led_to) in logins.iter().chain(&others).enumerate() {
            fs::create_dir_all(led_to).expect("made");
            let entries = [
                work.join(format!("{number}")),
                home.join(format!("earlier/{number}")),
            ];
            let path = std::env::join_paths(&entries).expect("a PATH");
            for entry in &entries {
                std::os::unix::fs::symlink(led_to, entry).expect("made");
            }
            let layout = Layout::new(&Wanted {
                workspace: &work,
                pinned: &[],
                writable: std::slice::from_ref(&work),
                homes: std::slice::from_ref(&home),
                path: &path,
                program: None,
                more: &[],
            });
            let is_shown = layout.binds.iter().any(|bind| bind.source == *led_to);
            assert_eq!(is_shown, led_to.ends_with("plain"), "{}", led_to.display());
            let by_agent = layout.binds.iter().any(|bind| bind.target == entries[0]);
            assert!(!by_agent, "{}", led_to.display());
        }
    }

    #[test]
    fn tools_of_the_user_are_in_the_box_and_the_home_is_not() {
        let top = tempfile::tempdir().expect("a directory");
        let home = top.path().canonicalize().expect("it is there");
        let work = home.join("work");
        let bin = home.join("node/bin");
        let modules = home.join("node/lib/node_modules");
        for directory in [&work, &bin, &modules] {
            fs::create_dir_all(directory).expect("made");
        }
        let path = std::env::join_paths([&bin, &home, Path::new("relative"), Path::new("/")]);
        let layout = Layout::new(&Wanted {
            workspace: &work,
            pinned: &[],
            writable: std::slice::from_ref(&work),
            homes: std::slice::from_ref(&home),
            path: &path.expect("a PATH"),
            program: None,
            more: &[],
        });
        let access = |path: &Path| {
            let found = layout.binds.iter().find(|bind| bind.target == path);
            found.map(|bind| bind.access)
        };
        assert_eq!(access(&work), Some(Access::ReadWrite));
        assert_eq!(access(&bin), Some(Access::ReadOnly));
        assert_eq!(access(&modules), Some(Access::ReadOnly));
        assert_eq!(access(Path::new("/usr")), Some(Access::ReadOnly));
        for outside in [home.as_path(), Path::new("/"), Path::new("/etc")] {
            assert_eq!(access(outside), None, "{}", outside.display());
        }
    }
}
