//! The socket between the launcher and the box: messages, each with the descriptors that belong to it.
//!
//! One message is a length of four bytes (big-endian), that many bytes of JSON, and descriptors on its first byte
//! (unix(7), SCM_RIGHTS). The box's end is in the hands of a process that shares its user with the agent, so what comes
//! from there is bounded and decides nothing but how the launch ends.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Sends a message and its descriptors.
///
/// # Errors
///
/// The socket's, `InvalidInput` for more than [`MOST_DESCRIPTORS`].
pub(super) fn send(
    socket: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?
        .to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = rustix::net::sendmsg(
        socket,
        &[IoSlice::new(&length)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    let mut stream = socket;
    stream.write_all(length.get(sent..).unwrap_or_default())?;
    stream.write_all(&body)
}

/// Waits for a message; `None` where the other end is closed.
///
/// # Errors
///
/// The socket's, and `InvalidData` for a message that is longer than `most` bytes, or not the one that is expected.
pub(super) fn receive<T: DeserializeOwned>(
    socket: &UnixStream,
    most: usize,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket.as_fd(),
        &mut [IoSliceMut::new(&mut length)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let mut stream = socket;
    stream.read_exact(length.get_mut(received.bytes..).unwrap_or_default())?;
    let length = u32::from_be_bytes(length) as usize;
    if length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, descriptors)))
}

/// How many descriptors one message carries at the most.
pub(super) const MOST_DESCRIPTORS: usize = 8;

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::{receive, send};

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (a, b) = UnixStream::pair().expect("a pair");
        let (here, there) = UnixStream::pair().expect("another pair");
        send(&a, &"hello", &[there.as_fd()]).expect("it is sent");
        drop(there);
        let (text, descriptors): (String, _) = receive(&b, 100).expect("read").expect("one");
        assert_eq!(text, "hello");
        let [descriptor] = <[_; 1]>::try_from(descriptors).expect("one descriptor");
        drop(descriptor);
        let mut end = Vec::new();
        (&here).read_to_end(&mut end).expect("closed by now");
        drop(a);
        assert!(receive::<String>(&b, 100).expect("the end").is_none());
    }

    #[test]
    fn a_message_that_is_too_long_or_no_json_is_an_error() {
        let (a, b) = UnixStream::pair().expect("a pair");
        send(&a, &"x".repeat(99), &[]).expect("it is sent");
        assert!(receive::<String>(&b, 100).is_err());
        let (a, b) = UnixStream::pair().expect("a pair");
        std::io::Write::write_all(&mut &a, b"\0\0\0\x01{").expect("written");
        assert!(receive::<String>(&b, 100).is_err());
    }
}
