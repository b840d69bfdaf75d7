//! Sockets in a network namespace. A socket stays in the namespace that it was made in, so a thread enters it, makes the
//! socket and ends, and the test serves it from where it is.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::super::{DEADLINE, within};

/// A named network namespace.
pub(crate) struct Net(File);

impl Net {
    pub(super) fn named(name: &str) -> Self {
        let file = File::open(format!("/run/netns/{name}"));
        Self(file.unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    /// A listener in this network, for an upstream or for a service that must not be reached.
    ///
    /// The test before may have had the port, and its runtime ends a little later than its turn.
    pub(crate) fn listen(&self, addr: &str) -> TcpListener {
        let addr: SocketAddr = addr.parse().expect("an address with a port");
        let deadline = Instant::now() + DEADLINE;
        self.inside(move || {
            loop {
                match TcpListener::bind(addr) {
                    Ok(listener) => return listener,
                    Err(error) if Instant::now() > deadline => panic!("{addr}: {error}"),
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        })
    }

    /// A TCP service that takes every connection and says `word`.
    pub(crate) fn say(&self, addr: &str, word: &'static str) {
        let listener = self.listen(addr);
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                _ = std::io::Write::write_all(&mut stream, word.as_bytes());
            }
        });
    }

    /// A UDP sink.
    pub(crate) fn sink(&self, addr: &str) -> Datagrams {
        self.datagrams(addr, |_| None)
    }

    /// A resolver that has an address for every name.
    pub(crate) fn resolver(&self, addr: &str) -> Datagrams {
        self.datagrams(addr, answer)
    }

    fn datagrams(&self, addr: &str, reply: fn(&[u8]) -> Option<Vec<u8>>) -> Datagrams {
        let addr: SocketAddr = addr.parse().expect("an address with a port");
        let socket = self.inside(move || UdpSocket::bind(addr).expect("a free port"));
        let seen = Datagrams::default();
        let sink = seen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let bytes = &buffer[..length];
                if let Some(reply) = reply(bytes) {
                    _ = socket.send_to(&reply, from);
                }
                let text = String::from_utf8_lossy(bytes).into_owned();
                sink.0.lock().expect("no holder panicked").insert(text);
            }
        });
        seen
    }

    fn inside<T: Send + 'static>(&self, make: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.0.try_clone().expect("a descriptor");
        let made = std::thread::spawn(move || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network).expect("root may enter it");
            make()
        });
        made.join().expect("the socket is made")
    }
}

/// What a UDP socket was sent, as text.
#[derive(Clone, Default)]
pub(crate) struct Datagrams(Arc<Mutex<BTreeSet<String>>>);

impl Datagrams {
    pub(crate) fn hold(&self, text: &str) -> bool {
        let seen = self.0.lock().expect("no holder panicked");
        seen.iter().any(|datagram| datagram.contains(text))
    }

    pub(super) fn forget(&self) {
        self.0.lock().expect("no holder panicked").clear();
    }

    /// Waits until one that holds `text` has come.
    pub(crate) async fn arrival(&self, text: &str) {
        within(text, async {
            while !self.hold(text) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// RFC 1035, section 4: the question back, and for A one answer.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)? + 5;
    let question = query.get(12..end)?;
    let is_a = question.ends_with(&[0, 1, 0, 1]);
    let mut reply = query.get(..2)?.to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(question);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        reply.extend(Ipv4Addr::new(198, 51, 100, 2).octets());
    }
    Some(reply)
}
