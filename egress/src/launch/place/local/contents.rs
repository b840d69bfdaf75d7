//! What an agent is given in a box, and the plan that becomes of it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::layout::{self, HOME, Layout, Wanted};
use super::plan::{Access, BoxFile, Plan};
use super::{network, privileges};
use crate::launch::agent::HomeFile;

/// What an agent is given in a box.
#[derive(Debug)]
pub struct Contents {
    /// The bottle's name.
    pub name: String,
    /// The agent's working directory on the host, and in the box.
    pub workspace: PathBuf,
    /// A directory of the host that is the agent's home; without it the home is forgotten at the end.
    pub home: Option<PathBuf>,
    /// Further directories and files of the host, with whether the agent may write there.
    pub more: Vec<(PathBuf, bool)>,
    /// Directories in those of the host in which the agent can change nothing.
    pub pinned: Vec<PathBuf>,
    /// The files of its home.
    pub files: Vec<HomeFile>,
    /// The trust bundle.
    pub bundle: String,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// The program and its arguments.
    pub command: Vec<String>,
}

impl Contents {
    /// The directories of the host that the agent may write to.
    fn writable(&self) -> Vec<PathBuf> {
        let more = self.more.iter().filter(|(_, writable)| *writable);
        let more = more.map(|(path, _)| path);
        let all = [&self.workspace].into_iter().chain(&self.home).chain(more);
        all.cloned().collect()
    }

    pub(super) fn plan(self) -> Plan {
        let writable = self.writable();
        let path = self
            .environment
            .iter()
            .find(|(name, _)| name == "PATH")
            .map(|(_, value)| OsString::from(value))
            .unwrap_or_default();
        let program = self
            .command
            .first()
            .and_then(|program| find_program(program, &path));
        let more: Vec<_> = self
            .more
            .into_iter()
            .map(|(path, writable)| {
                let access = if writable {
                    Access::ReadWrite
                } else {
                    Access::ReadOnly
                };
                (path, access)
            })
            .collect();
        let layout = Layout::new(&Wanted {
            workspace: &self.workspace,
            writable: &writable,
            pinned: &self.pinned,
            homes: &user_homes(),
            path: &path,
            program: program.as_deref(),
            more: &more,
        });
        let mut links = layout.links;
        links.extend(layout::BUNDLE_LINKS.map(|link| (link.into(), layout::BUNDLE.into())));
        Plan {
            hostname: host_name(&self.name),
            binds: layout.binds,
            home: self.home,
            links,
            files: system_files(&self.name, self.bundle),
            home_files: self.files.iter().map(BoxFile::from).collect(),
            environment: self.environment,
            command: self.command,
            directory: self.workspace,
            terminal: terminal(),
        }
    }
}

/// The program that a shell would start.
pub fn find_program(name: &str, path: &OsStr) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    if name.contains('/') {
        return std::path::absolute(name).ok().filter(runs);
    }
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(runs)
}

/// What of the host's secrets an agent would see that is given this directory.
pub fn secret_inside(workspace: &Path) -> Option<PathBuf> {
    layout::secret_inside(workspace, &user_homes())
}

/// Whether a directory is the user's home, or has it in it.
pub fn has_users_home(directory: &Path) -> bool {
    let homes = user_homes();
    homes.iter().any(|home| home.starts_with(directory))
}

/// Whether a directory is one of those that the system has, or keeps everybody's things in.
pub fn is_systems_own(directory: &Path) -> bool {
    layout::SYSTEMS_OWN
        .iter()
        .any(|own| directory == Path::new(own))
}

/// The user's home, without symbolic links: what `HOME` says, which may be nothing or something else for the moment, and
/// what the system says.
fn user_homes() -> Vec<PathBuf> {
    let named = std::env::var_os("HOME").map(PathBuf::from);
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let listed = layout::home_of(&users, rustix::process::geteuid().as_raw());
    let homes = named.into_iter().chain(listed);
    homes
        .filter(|home| home.is_absolute())
        .filter_map(|home| home.canonicalize().ok())
        .collect()
}

/// The terminal that this process works at, if any.
pub fn terminal() -> Option<PathBuf> {
    use std::io::IsTerminal as _;
    let standard = [
        (io::stdin().is_terminal(), 0),
        (io::stdout().is_terminal(), 1),
        (io::stderr().is_terminal(), 2),
    ];
    let (_, number) = standard.iter().find(|(is_terminal, _)| *is_terminal)?;
    std::fs::read_link(format!("/proc/self/fd/{number}")).ok()
}

/// The files of /etc that a box has of its own: who is who in it, and where names are looked up.
fn system_files(name: &str, bundle: String) -> Vec<BoxFile> {
    let user = privileges::inside(rustix::process::geteuid().as_raw());
    let group = privileges::inside(rustix::process::getegid().as_raw());
    let host = host_name(name);
    let file = |path: &str, contents: String| BoxFile {
        path: path.into(),
        mode: 0o644,
        contents: contents.into_bytes(),
    };
    vec![
        file(
            "/etc/passwd",
            format!(
                "root:x:0:0:root:/root:/bin/sh\n\
                 agent:x:{user}:{group}:agent:{HOME}:/bin/bash\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            ),
        ),
        file(
            "/etc/group",
            format!("root:x:0:\nagent:x:{group}:\nnogroup:x:65534:\n"),
        ),
        file(
            "/etc/hosts",
            format!("127.0.0.1 localhost {host}\n::1 localhost\n"),
        ),
        file(
            "/etc/resolv.conf",
            format!("nameserver {}\n", network::SIDECAR),
        ),
        file(
            "/etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n".into(),
        ),
        file("/etc/hostname", format!("{host}\n")),
        file(layout::BUNDLE, bundle),
    ]
}

/// A bottle's name as a label of a host name (RFC 1123, section 2.1).
fn host_name(bottle: &str) -> String {
    let mut name: String = bottle
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    name = name.trim_matches('-').into();
    if name.is_empty() {
        "bottle".into()
    } else {
        name
    }
}
