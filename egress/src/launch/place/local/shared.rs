//! What an agent shares with the operator: the directories that it is given, what may not be given to it, and what the
//! operator must not look for in there.
//!
//! An agent that writes to a directory decides what every name in it leads to, now and at the next launch. So no name that
//! is looked up in there may decide what is mounted, run, read or written outside of the box.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::layout::{self, HOME};
use crate::file::home;

/// The directories of the host that an agent is given, without symbolic links.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// Those that it may write to.
    pub writable: &'a [PathBuf],
    /// Those that it may read.
    pub readable: &'a [PathBuf],
}

impl Shared<'_> {
    /// Whether the agent has a say in what a path leads to: a name on the way to it stands in a directory that the agent
    /// can write to.
    pub fn decides(&self, path: &Path) -> bool {
        leads_through(path, self.writable)
    }

    /// Whether the agent can read what a path leads to, or decides what that is.
    pub fn shows(&self, path: &Path) -> bool {
        let in_sight = |real: PathBuf| self.readable.iter().any(|tree| real.starts_with(tree));
        self.decides(path) || path.canonicalize().is_ok_and(in_sight)
    }

    /// Whether a path is in another directory that the agent has in any case.
    fn holds(&self, real: &Path) -> bool {
        let holds = |tree: &PathBuf| tree != real && real.starts_with(tree);
        self.writable.iter().any(holds)
    }

    /// Why a path may not be given to the agent that is `real` without symbolic links: `None` where it may.
    pub fn refusal(&self, path: &Path, real: &Path, runtime: Option<&Path>) -> Option<String> {
        let shown = real.display();
        if let Some(own) = OWN.iter().find(|own| Path::new(own).starts_with(real)) {
            return Some(format!("the box has {own} of its own, which is in {shown}"));
        }
        if let Some(kernel) = KERNEL.iter().find(|kernel| real.starts_with(kernel)) {
            return Some(format!(
                "the box has {kernel} of its own, and {shown} is in it"
            ));
        }
        if runtime.is_some_and(|runtime| real.starts_with(runtime) || runtime.starts_with(real)) {
            return Some(format!("the launcher keeps its own files in {shown}"));
        }
        if let Some(home) = home().filter(|home| home.starts_with(real)) {
            return Some(format!("your home {} is in {shown}", home.display()));
        }
        (self.decides(path) && !self.holds(real)).then(|| {
            format!(
                "{} is in a directory that the agent can write to, and leads to {shown}",
                path.display()
            )
        })
    }
}

/// What the box makes itself, beside [`layout::BUNDLE_LINKS`]. A directory of the host in its place would be written to.
const OWN: [&str; 12] = [
    "/bin",
    "/dev",
    "/etc/group",
    "/etc/passwd",
    "/etc/resolv.conf",
    layout::BUNDLE,
    "/etc/pki/tls/certs/ca-bundle.crt",
    HOME,
    "/proc",
    "/tmp",
    "/usr/bin",
    "/var/tmp",
];

/// File systems in which nothing is the operator's.
const KERNEL: [&str; 2] = ["/dev", "/proc"];

/// Whether a name on the way to a path stands in one of these directories, or below one. They are real paths.
pub(super) fn leads_through(path: &Path, trees: &[PathBuf]) -> bool {
    /// As many links as the system follows.
    const MOST: usize = 40;
    let Ok(path) = std::path::absolute(path) else {
        return true;
    };
    let mut at = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = names(&path);
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        if trees.iter().any(|tree| at.starts_with(tree)) {
            return true;
        }
        let next = at.join(&name);
        match std::fs::read_link(&next) {
            Ok(target) => {
                links += 1;
                if links > MOST {
                    return true;
                }
                if target.is_absolute() {
                    at = "/".into();
                }
                let mut further = names(&target);
                further.append(&mut ahead);
                ahead = further;
            }
            Err(_) => at = next,
        }
    }
    false
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    use super::{Shared, leads_through};

    fn tree() -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().expect("a directory");
        let real = top.path().canonicalize().expect("it is there");
        for name in ["work/sub", "secret", "other"] {
            fs::create_dir_all(real.join(name)).expect("made");
        }
        (top, real)
    }

    #[test]
    fn a_name_in_the_agents_directory_is_found_on_every_way() {
        let (_kept, top) = tree();
        let trees = [top.join("work")];
        symlink(top.join("secret"), top.join("work/out")).expect("made");
        symlink("work/out", top.join("by-link")).expect("made");
        symlink("..", top.join("other/up")).expect("made");
        symlink("loop", top.join("loop")).expect("made");
        for inside in [
            "work/sub",
            "work/missing",
            "work/out",
            "work/out/x",
            "work/sub/..",
            "work/sub/../../secret",
            "by-link/x",
            "other/up/work/sub",
            "loop",
        ] {
            assert!(leads_through(&top.join(inside), &trees), "{inside}");
        }
        for outside in [
            "work",
            "secret",
            "secret/missing",
            "other/up/secret",
            "workshop/x",
        ] {
            assert!(!leads_through(&top.join(outside), &trees), "{outside}");
        }
    }

    #[test]
    fn what_the_box_makes_itself_is_not_given() {
        let none = Shared {
            writable: &[],
            readable: &[],
        };
        for own in [
            "/",
            "/etc",
            "/tmp",
            "/dev",
            "/dev/null",
            "/proc/self",
            "/usr",
            "/etc/ssl",
        ] {
            let own = Path::new(own);
            assert!(none.refusal(own, own, None).is_some(), "{}", own.display());
        }
        let (_kept, top) = tree();
        let work = top.join("work");
        assert_eq!(none.refusal(&work, &work, None), None);
        for near in [top.clone(), top.join("work"), top.join("work/sub")] {
            assert!(none.refusal(&near, &near, Some(&work)).is_some());
        }
    }

    #[test]
    fn a_link_out_of_the_agents_directory_is_not_given() {
        let (_kept, top) = tree();
        symlink(top.join("secret"), top.join("work/out")).expect("made");
        symlink("sub", top.join("work/in")).expect("made");
        // What a link leads to is writable itself once it is given.
        let writable = [top.join("work"), top.join("secret")];
        let shared = Shared {
            writable: &writable,
            readable: &[],
        };
        let refusal = |name: &str| {
            let path = top.join(name);
            let real = path.canonicalize().expect("it is there");
            shared.refusal(&path, &real, None)
        };
        assert!(refusal("work/out").is_some());
        assert_eq!(refusal("work/in"), None);
        assert_eq!(refusal("secret"), None);
    }
}
