//! Tells when a file may have changed: written in place, replaced by another, or reached through a link or a directory
//! that is another one now.
//!
//! Directories are watched, since a file that is replaced takes its own watch with it. What the system does not tell
//! (network file systems, or no watches left) is found by looking at what the path leads to.

use std::ffi::OsString;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::told::Told;

/// A watch over one path.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    places: Vec<Place>,
    file: Option<Mark>,
    told: Option<Told>,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The file may be another one.
    Changed,
    /// Time is up.
    Quiet,
    /// The other end of `stop` has gone.
    Stopped,
}

/// A name in a directory that is on the way to the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    directory: PathBuf,
    name: OsString,
    /// Which directory it is.
    mark: Option<(u64, u64)>,
}

/// What tells one state of a file from another, short of reading it.
type Mark = (u64, u64, u64, (i64, i64), (i64, i64));

impl Watch {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            places: Vec::new(),
            file: None,
            told: None,
        }
    }

    /// Watches the directories that lead to the file now. Says whether these, or the file, are others than before.
    pub(super) fn renew(&mut self) -> bool {
        let places = places(&self.path);
        let moved = places != self.places;
        if moved {
            // One that cannot be had is one that is done without: the tick finds everything, a little later.
            self.told = Told::new(&places).ok();
            self.places = places;
        }
        let file = fs::metadata(&self.path).ok().map(|file| {
            let (written, changed) = (
                (file.mtime(), file.mtime_nsec()),
                (file.ctime(), file.ctime_nsec()),
            );
            (file.dev(), file.ino(), file.size(), written, changed)
        });
        let changed = file != self.file;
        self.file = file;
        moved || changed
    }

    /// Takes the system's word away, as on a file system that tells nothing.
    #[cfg(test)]
    pub(super) fn deafen(&mut self) {
        self.told = None;
    }

    /// Waits until something happened to the file, at most as long as `patience`.
    pub(super) fn wait(&mut self, patience: Duration, stop: Option<BorrowedFd<'_>>) -> Woken {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = Vec::with_capacity(2);
            fds.extend(stop.as_ref().map(|stop| PollFd::new(stop, PollFlags::IN)));
            fds.extend(self.told.as_ref().and_then(Told::poll_fd));
            let ready = match Timespec::try_from(left) {
                Ok(left) => poll(&mut fds, Some(&left)),
                Err(_) => Ok(0),
            };
            let stopped = stop.is_some() && fds.first().is_some_and(|fd| !fd.revents().is_empty());
            drop(fds);
            match ready {
                _ if stopped => return Woken::Stopped,
                Ok(0) => return Woken::Quiet,
                Ok(_) if self.told.as_mut().is_some_and(Told::concerns_us) => {
                    return Woken::Changed;
                }
                // Another file of the directory, or a signal.
                Ok(_) | Err(_) if left.is_zero() => return Woken::Quiet,
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// Each directory entry on the way to the file: its own, that of its directory, and the same for each link that the file
/// is. Where a directory is a link, its own move is seen from inside.
fn places(path: &Path) -> Vec<Place> {
    /// As many links as the system follows.
    const MOST: usize = 40;
    let mut places = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..MOST {
        let Some(directory) = path.parent().map(Path::to_owned) else {
            break;
        };
        places.extend(Place::of(&path));
        places.extend(Place::of(&directory));
        match fs::read_link(&path) {
            Ok(target) => path = directory.join(target),
            Err(_) => break,
        }
    }
    places
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        let directory = path.parent()?.to_owned();
        let mark = fs::metadata(&directory).ok();
        Some(Self {
            name: path.file_name()?.to_owned(),
            mark: mark.map(|metadata| (metadata.dev(), metadata.ino())),
            directory,
        })
    }
}

/// inotify(7).
#[cfg(target_os = "linux")]
mod told {
    use std::ffi::OsString;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::os::unix::ffi::OsStrExt as _;

    use rustix::event::{PollFd, PollFlags};
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

    use super::Place;

    #[derive(Debug)]
    pub(super) struct Told {
        inotify: OwnedFd,
        names: Vec<(i32, OsString)>,
    }

    impl Told {
        pub(super) fn new(places: &[Place]) -> io::Result<Self> {
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let mut names = Vec::with_capacity(places.len());
            for place in places {
                // Two places in one directory share its watch.
                let flags = EVENTS | WatchFlags::MASK_ADD | WatchFlags::ONLYDIR;
                // A directory that is missing is one that its own directory will tell of.
                if let Ok(watch) = inotify::add_watch(&inotify, &place.directory, flags) {
                    names.push((watch, place.name.clone()));
                }
            }
            Ok(Self { inotify, names })
        }

        pub(super) fn poll_fd(&self) -> Option<PollFd<'_>> {
            Some(PollFd::new(&self.inotify, PollFlags::IN))
        }

        /// Takes what has been told, and says whether any of it is about us.
        pub(super) fn concerns_us(&mut self) -> bool {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(&self.inotify, &mut buffer);
            let mut concerned = false;
            // An error is that there is no more for now, and any other one is for the tick to make good.
            while let Ok(event) = reader.next() {
                // An event without a name is about the directory itself, or says that some were lost.
                concerned |= event.file_name().is_none_or(|name| {
                    let named = (event.wd(), name.to_bytes());
                    let ours = |(watch, ours): &(i32, OsString)| (*watch, ours.as_bytes()) == named;
                    self.names.iter().any(ours)
                });
                concerned |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            }
            concerned
        }
    }

    const EVENTS: WatchFlags = WatchFlags::MODIFY
        .union(WatchFlags::ATTRIB)
        .union(WatchFlags::CREATE)
        .union(WatchFlags::DELETE)
        .union(WatchFlags::MOVED_FROM)
        .union(WatchFlags::MOVED_TO)
        .union(WatchFlags::DELETE_SELF)
        .union(WatchFlags::MOVE_SELF);
}

/// Elsewhere nothing is told, and the tick finds everything.
#[cfg(not(target_os = "linux"))]
mod told {
    use std::io;

    use rustix::event::PollFd;

    use super::Place;

    #[derive(Debug)]
    pub(super) struct Told;

    impl Told {
        pub(super) fn new(_places: &[Place]) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) fn poll_fd(&self) -> Option<PollFd<'_>> {
            None
        }

        pub(super) fn concerns_us(&mut self) -> bool {
            false
        }
    }
}
