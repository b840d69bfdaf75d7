//! `cmd:...`: a credential that a program prints.
//!
//! No shell, nothing on stdin, bounded in time and in bytes. What the program says on stderr is shown as it says it;
//! what it prints on stdout is the credential, and enters no message, not even where the program fails.

use std::io::{self, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use super::{ABANDONED, Limits, Problem, line_of};
use crate::credential::Secret;

/// Runs the program and takes its output, without its trailing newline.
pub(super) fn output(argv: &[String], limits: Limits) -> Result<Secret, Problem> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Problem::new("names no program"));
    };
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| {
            Problem::new(format!("cannot be run: {error}"))
                .hint("install the program, or name it by its whole path")
        })?;
    let mut running = Running {
        child,
        ended: false,
    };
    let Some(mut stdout) = running.child.stdout.take() else {
        return Err(Problem::new("its output cannot be read"));
    };
    let mut bytes = Zeroizing::new(vec![0; limits.bytes + 1]);
    let (status, length) =
        running.collect(&mut stdout, &mut bytes, Instant::now() + limits.time)?;
    if !status.success() {
        return Err(Problem::new(ending(status)));
    }
    line_of(bytes.get(..length).unwrap_or_default())
}

/// A program at work. It is killed with its group if nobody waits for its end.
struct Running {
    child: Child,
    ended: bool,
}

impl Running {
    /// Reads until the program has ended, even where a child of its own holds the pipe open.
    fn collect(
        &mut self,
        stdout: &mut ChildStdout,
        bytes: &mut [u8],
        deadline: Instant,
    ) -> Result<(ExitStatus, usize), Problem> {
        let failed = |error: io::Error| Problem::new(format!("its output cannot be read: {error}"));
        let (mut length, mut at_end) = (0, false);
        loop {
            // Asked before the pipe is: what the program printed is in there once it has ended.
            let status = self.child.try_wait().map_err(failed)?;
            self.ended = status.is_some();
            while !at_end && readable(stdout).map_err(failed)? {
                let room = bytes.get_mut(length..).unwrap_or_default();
                if room.is_empty() {
                    let most = bytes.len() - 1;
                    return Err(Problem::new(format!("prints more than {most} bytes")));
                }
                let read = stdout.read(room).map_err(failed)?;
                at_end = read == 0;
                length += read;
            }
            if let Some(status) = status {
                return Ok((status, length));
            }
            if ABANDONED.load(Ordering::Relaxed) {
                return Err(Problem::new("was stopped with the launch"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Problem::new("does not end in time, and was stopped").hint(
                    "it has 10 s, and no terminal to ask on: unlock what it needs before the launch",
                ));
            }
            pause(stdout, at_end, left.min(TICK)).map_err(failed)?;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Not waited for yet, so the number is still its own, and the group's.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = pid {
            // It fails where all of them have ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn readable(stdout: &ChildStdout) -> io::Result<bool> {
    wait_for(stdout, Duration::ZERO)
}

/// Waits for more output, or, where there is none to come, for a moment.
fn pause(stdout: &ChildStdout, at_end: bool, time: Duration) -> io::Result<()> {
    if at_end {
        std::thread::sleep(time);
    } else {
        wait_for(stdout, time)?;
    }
    Ok(())
}

fn wait_for(stdout: &ChildStdout, time: Duration) -> io::Result<bool> {
    let mut waiting = [PollFd::new(stdout, PollFlags::IN)];
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    match poll(&mut waiting, Some(&time)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ends with exit code {code}"),
        (None, Some(signal)) => format!("is ended by signal {signal}"),
        (None, None) => "ends without an exit code".into(),
    }
}

/// How often a program that prints nothing is looked at.
const TICK: Duration = Duration::from_millis(5);
