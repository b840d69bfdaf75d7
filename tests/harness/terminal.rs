//! A program on a pseudo-terminal, and what stands on its screen: as much of a terminal as full-screen programs use.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::within;

/// A running program and its terminal. It is killed when it is dropped.
pub(crate) struct Terminal {
    child: Child,
    ours: File,
    theirs: OwnedFd,
    /// What the program writes, piece by piece.
    written: UnboundedReceiver<Vec<u8>>,
    screen: Screen,
}

impl Terminal {
    /// Runs a command on a terminal of 80 columns and 24 lines.
    pub(crate) fn run(command: &mut Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let ours = ours.expect("a pseudo-terminal");
        grantpt(&ours).expect("it is ours");
        unlockpt(&ours).expect("it is ours");
        let name = ptsname(&ours, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(name, flags, Mode::empty()).expect("its other side");
        let size = Winsize {
            ws_row: Screen::LINES as u16,
            ws_col: Screen::COLUMNS as u16,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&ours, size).expect("a terminal");
        let ours = File::from(ours);
        let copy = || Stdio::from(theirs.try_clone().expect("a descriptor"));
        let child = command
            .stdin(copy())
            .stdout(copy())
            .stderr(copy())
            .env("TERM", "xterm-256color")
            .kill_on_drop(true)
            .spawn();
        Self {
            child: child.expect("the binary runs"),
            written: pieces(ours.try_clone().expect("a descriptor")),
            ours,
            theirs,
            screen: Screen::default(),
        }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.ours
            .write_all(keys.as_bytes())
            .expect("few keys have room");
    }

    /// Waits until the screen is as wanted, and returns it.
    pub(crate) async fn shows(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let Self {
            written, screen, ..
        } = self;
        let reached = async {
            loop {
                let text = screen.text();
                if is_it(&text) {
                    return text;
                }
                screen.take(&written.recv().await.expect("our side is open"));
            }
        };
        match tokio::time::timeout(super::DEADLINE, reached).await {
            Ok(text) => text,
            Err(_) => panic!("no {what} on\n{}", self.screen.text()),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(Pid::from_raw).expect("it runs");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for the end of the program, and insists that the terminal is as it was before.
    pub(crate) async fn ends(mut self) -> ExitStatus {
        let status = within("end of the program", self.child.wait()).await;
        let modes = tcgetattr(self.theirs.as_fd())
            .expect("a terminal")
            .local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        // With its last holder, the other side ends, and with it what there is to read.
        drop(self.theirs);
        let screen = &mut self.screen;
        within("rest of the output", async {
            while let Some(piece) = self.written.recv().await {
                screen.take(&piece);
            }
        })
        .await;
        assert!(!screen.is_alternate, "the other screen is back");
        assert!(!screen.is_cursor_hidden, "the cursor is back");
        status.expect("a status")
    }
}

/// Reads until the other side has ended.
fn pieces(mut ours: File) -> UnboundedReceiver<Vec<u8>> {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = ours.read(&mut piece) {
            if sender.send(piece[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What stands on the screen.
struct Screen {
    cells: Vec<Vec<char>>,
    line: usize,
    column: usize,
    is_alternate: bool,
    is_cursor_hidden: bool,
    pending: Vec<u8>,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            cells: vec![vec![' '; Self::COLUMNS]; Self::LINES],
            line: 0,
            column: 0,
            is_alternate: false,
            is_cursor_hidden: false,
            pending: Vec::new(),
        }
    }
}

impl Screen {
    const LINES: usize = 24;
    const COLUMNS: usize = 80;

    fn text(&self) -> String {
        let lines = self.cells.iter();
        lines
            .map(|line| line.iter().collect::<String>().trim_end().to_owned() + "\n")
            .collect()
    }

    fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        while let Some(taken) = self.step() {
            self.pending.drain(..taken);
        }
    }

    /// Does what comes first, and returns how long it is; `None` where it is not there whole.
    fn step(&mut self) -> Option<usize> {
        match self.pending[..] {
            [0x1b, b'[', ref rest @ ..] => {
                let end = rest.iter().position(|byte| (0x40..0x7f).contains(byte))?;
                let parameters = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.control(&parameters, rest[end]);
                Some(end + 3)
            }
            // An operating system command, up to its BEL.
            [0x1b, b']', ref rest @ ..] => Some(rest.iter().position(|byte| *byte == 7)? + 3),
            [0x1b, _, ..] => Some(2),
            [0x1b] | [] => None,
            [b'\r', ..] => {
                self.column = 0;
                Some(1)
            }
            [b'\n', ..] => {
                self.line += 1;
                Some(1)
            }
            ref other => {
                let length = match other[0] {
                    ..0x80 => 1,
                    0x80..0xe0 => 2,
                    0xe0..0xf0 => 3,
                    _ => 4,
                };
                let char = String::from_utf8_lossy(other.get(..length)?).chars().next();
                let line = self.cells.get_mut(self.line);
                if let Some(cell) = line.and_then(|line| line.get_mut(self.column)) {
                    *cell = char.unwrap_or('?');
                }
                self.column += 1;
                Some(length)
            }
        }
    }

    fn control(&mut self, parameters: &str, last: u8) {
        match (parameters, last) {
            ("?1049", b'h' | b'l') => {
                self.is_alternate = last == b'h';
                self.cells = Self::default().cells;
            }
            ("?25", b'h' | b'l') => self.is_cursor_hidden = last == b'l',
            (_, b'H') => {
                let mut numbers = parameters
                    .split(';')
                    .map(|number| number.parse().unwrap_or(1));
                self.line = numbers.next().unwrap_or(1) - 1;
                self.column = numbers.next().unwrap_or(1) - 1;
            }
            ("2", b'J') => self.cells = Self::default().cells,
            _ => {}
        }
    }
}
