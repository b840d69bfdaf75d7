//! `--slots-fd`: the launcher hands slot values over through a descriptor, at the start and whenever one is renewed.

use std::fs::File;
use std::os::fd::RawFd;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use rustix::fs::{FileType, OFlags};
use tokio::sync::oneshot;

use super::super::Failure;
use crate::credential::handed::Lines;
use crate::credential::{Environment, SlotName};
use crate::os;
use crate::proxy::State;

/// Takes the descriptor over. Call it before a second thread runs.
pub(super) fn take(number: RawFd) -> Result<Lines, Failure> {
    let readable = || {
        let fd = os::take_descriptor(number)?;
        let mode = rustix::fs::fstat(&fd)?.st_mode;
        // What is left has nothing to read: a directory, an epoll, an event.
        let has_bytes = matches!(
            FileType::from_raw_mode(mode),
            FileType::Fifo | FileType::Socket | FileType::RegularFile | FileType::CharacterDevice
        );
        let access = rustix::fs::fcntl_getfl(&fd)? & OFlags::RWMODE;
        if !has_bytes || access == OFlags::WRONLY {
            return Err(anyhow!("nothing can be read from the descriptor"));
        }
        Ok(Lines::new(File::from(fd)))
    };
    readable()
        .with_context(|| format!("--slots-fd {number}"))
        .map_err(|error| {
            Failure::usage(error).hint(
                "whatever starts this program has to leave a pipe's reading end open under that number",
            )
        })
}

/// Waits for the first line, and takes its values over. Returns the slots that it gave.
pub(super) fn first(
    lines: &mut Lines,
    environment: &Environment,
) -> Result<Vec<SlotName>, Failure> {
    let values = match lines.next_line() {
        Ok(Some(Ok(values))) => values,
        Ok(Some(Err(bad))) => return Err(Failure::usage(anyhow!(bad).context("--slots-fd"))),
        Ok(None) => {
            let error = anyhow!("--slots-fd ended before its first line");
            return Err(Failure::usage(error)
                .hint("write {\"EGRESS_TOKEN_0\":\"...\"} and a line break to it"));
        }
        Err(error) => {
            return Err(Failure::usage(
                anyhow!(error).context("cannot read from --slots-fd"),
            ));
        }
    };
    let names = values.names().cloned().collect();
    environment.hand_over(values).map_err(|slot| {
        Failure::usage(anyhow!(
            "{slot} is given both on --slots-fd and in the environment"
        ))
    })?;
    Ok(names)
}

/// Takes over what comes later, on a thread of its own: the descriptor may be one that cannot be made non-blocking
/// without its other holders noticing. The receiver is told when the launcher has closed its end.
pub(super) fn follow(
    mut lines: Lines,
    state: Arc<State>,
) -> Result<oneshot::Receiver<()>, Failure> {
    let (ended, closed) = oneshot::channel();
    let follow = move || {
        loop {
            match lines.next_line() {
                Ok(Some(Ok(values))) => {
                    if let Err(slot) = state.hand_over(values) {
                        tracing::error!(%slot, "a line of --slots-fd names a slot that the environment gives; nothing of it is taken");
                    }
                }
                Ok(Some(Err(error))) => {
                    tracing::error!(%error, "a line of --slots-fd is bad; the values before stay")
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "--slots-fd cannot be read any more");
                    break;
                }
            }
        }
        tracing::info!("--slots-fd has ended");
        _ = ended.send(());
    };
    std::thread::Builder::new()
        .name("slots".into())
        .spawn(follow)
        .map_err(Failure::runtime)?;
    Ok(closed)
}
