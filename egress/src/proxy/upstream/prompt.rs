//! A TCP stream that asks the kernel whether bytes are there, and not only the runtime.
//!
//! hyper reads an idle connection before it writes a request, and gives a connection up on which it finds anything. But the
//! runtime answers such a read from what the last poll of the kernel told it. What came since, as an answer that nobody
//! asked for, would be taken for the answer to the request that goes out next.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::interim::Interim;

/// A connection to an upstream, below its TLS.
#[derive(Debug)]
pub struct Prompt {
    tcp: TcpStream,
    asks: bool,
    interim: Interim,
}

impl Prompt {
    /// A stream that reads as `tcp` does, until it is told to [ask](Self::ask).
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            asks: false,
            interim: Interim::default(),
        }
    }

    /// The counter of interim answers. A read fails once there were too many.
    pub(super) fn interim(&self) -> Interim {
        self.interim.clone()
    }

    /// From now on, a read finds nothing only where the kernel has nothing. It costs a system call each time.
    pub(super) fn ask(&mut self) {
        self.asks = true;
    }
}

impl AsyncRead for Prompt {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.interim.check()?;
        // First, so that the task is woken by what comes after the kernel was asked.
        let read = Pin::new(&mut this.tcp).poll_read(cx, out);
        if read.is_ready() || !this.asks {
            return read;
        }
        // Looked at before it is taken: only then is it worth to have room for it cleared.
        let looked = received(recv(&this.tcp, &mut [0; 1], LOOK));
        if looked.is_pending() {
            return Poll::Pending;
        }
        received(recv(&this.tcp, out.initialize_unfilled(), TAKE))
            .map_ok(|(_, count)| out.advance(count))
    }
}

const TAKE: RecvFlags = RecvFlags::DONTWAIT;
const LOOK: RecvFlags = TAKE.union(RecvFlags::PEEK);

fn received<T>(result: Result<T, Errno>) -> Poll<io::Result<T>> {
    match result {
        Err(Errno::WOULDBLOCK | Errno::INTR) => Poll::Pending,
        other => Poll::Ready(other.map_err(io::Error::from)),
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::task::Waker;

    use super::*;

    /// The test never waits, so that its runtime never asks the kernel.
    #[tokio::test]
    async fn what_the_runtime_does_not_know_of_yet_is_read_where_the_kernel_is_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let mut stream = Prompt::new(TcpStream::connect(address).await.expect("a connection"));
        let (mut peer, _) = listener.accept().expect("a connection");
        let mut read = |asks: bool| {
            stream.asks = asks;
            let mut room = [0; 16];
            let mut out = ReadBuf::new(&mut room);
            let mut cx = Context::from_waker(Waker::noop());
            match Pin::new(&mut stream).poll_read(&mut cx, &mut out) {
                Poll::Ready(read) => Some(read.map(|()| out.filled().to_vec()).expect("no error")),
                Poll::Pending => None,
            }
        };
        assert_eq!(read(true), None);
        peer.write_all(b"stray").expect("a reader");
        assert_eq!(read(false), None);
        assert_eq!(read(true), Some(b"stray".to_vec()));
        assert_eq!(read(true), None);
        drop(peer);
        assert_eq!(read(false), None);
        assert_eq!(read(true), Some(Vec::new()), "the end");
    }
}
