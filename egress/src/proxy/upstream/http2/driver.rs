//! The task that reads and writes a connection, and notices when the upstream is gone.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

use super::super::super::limits::{PING_INTERVAL, PING_TIMEOUT};
use super::Link;

/// Drives a connection until nobody uses it any more, it fails, or the upstream is gone.
pub(super) async fn drive<T>(mut connection: Connection<T, Bytes>, link: Arc<Link>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let pings = connection.ping_pong().expect("it is taken once");
    let gathering = Gathering {
        connection,
        link: &link,
        has_waited: false,
    };
    tokio::select! {
        biased;
        // Why it ended each request says for itself.
        _ = gathering => {}
        () = silence(pings, &link) => {}
    }
}

/// A connection that lets requests gather before it writes.
///
/// Those of many agents become ready in one turn of the runtime. The first would have its thread drive the connection next, and
/// each would be a record of TLS and a system call of its own, which are most of what a small request costs.
struct Gathering<'a, T> {
    connection: Connection<T, Bytes>,
    link: &'a Link,
    has_waited: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Gathering<'_, T> {
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Whoever gave it up has reset a stream, and so woken this.
        if this.link.is_forsaken.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        this.has_waited = this.link.asks.swap(false, Ordering::Relaxed) && !this.has_waited;
        if this.has_waited {
            // Behind all that is ready now.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut this.connection).poll(cx)
    }
}

/// Ends once an upstream with open streams has been silent for too long.
async fn silence(mut pings: PingPong, link: &Link) {
    loop {
        sleep(PING_INTERVAL).await;
        if link.streams.load(Ordering::Relaxed) == 0 {
            continue;
        }
        link.moves.store(false, Ordering::Relaxed);
        let mut pong = pin!(pings.ping(Ping::opaque()));
        while timeout(PING_TIMEOUT, pong.as_mut()).await.is_err() {
            // The answer can be behind much else on a slow line.
            if !link.moves.swap(false, Ordering::Relaxed) {
                link.is_dead.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use h2::client::handshake;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    const NOTICED: Duration = PING_INTERVAL.saturating_add(PING_TIMEOUT);
    /// A PING's frame (RFC 9113, section 6.7), up to what it holds.
    const PING: [u8; 9] = [0, 0, 8, 6, 0, 0, 0, 0, 0];

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_answers_no_ping_is_gone() {
        let (link, driving, mut upstream) = start(1).await;
        let began = Instant::now();
        let mut sent = Vec::new();
        _ = upstream.read_to_end(&mut sent).await;
        driving.await.expect("no panic");
        assert_eq!(began.elapsed(), NOTICED);
        assert!(link.is_dead.load(Ordering::Relaxed));
        assert!(sent.windows(PING.len()).any(|bytes| bytes == PING));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_is_there_as_long_as_a_stream_moves_or_none_is_open() {
        let (link, driving, _upstream) = start(1).await;
        let began = Instant::now();
        while began.elapsed() < 4 * NOTICED {
            link.moves.store(true, Ordering::Relaxed);
            sleep(PING_TIMEOUT / 2).await;
            assert!(!driving.is_finished());
        }
        let (_, driving, _upstream) = start(0).await;
        sleep(4 * NOTICED).await;
        assert!(!driving.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_answers_every_ping_is_there() {
        let (_, driving, mut upstream) = start(1).await;
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while upstream
                .read_buf(&mut seen)
                .await
                .is_ok_and(|count| count > 0)
            {
                let Some(at) = seen.windows(PING.len()).position(|bytes| bytes == PING) else {
                    continue;
                };
                let Some(mut pong) = seen.get(at..at + 17).map(<[u8]>::to_vec) else {
                    continue;
                };
                seen.clear();
                if let Some(flags) = pong.get_mut(4) {
                    *flags = 1;
                }
                _ = upstream.write_all(&pong).await;
            }
        });
        sleep(4 * NOTICED).await;
        assert!(!driving.is_finished());
    }

    /// A connection with so many streams, and an upstream that has not said anything.
    async fn start(streams: usize) -> (Arc<Link>, tokio::task::JoinHandle<()>, DuplexStream) {
        let (near, far) = duplex(64 * 1024);
        let (requests, connection) = handshake(near).await.expect("room for a preface");
        let link = Arc::<Link>::default();
        link.streams.store(streams, Ordering::Relaxed);
        let driven = link.clone();
        let driving = tokio::spawn(async move {
            let _used = requests;
            drive(connection, driven).await;
        });
        (link, driving, far)
    }
}
