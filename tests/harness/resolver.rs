//! A DNS server that fails as it is told, for sidecars whose `/etc/resolv.conf` names it alone.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::net::UdpSocket;

use super::sidecar::Builder;

/// What becomes of a query.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// An A record; nothing for other types.
    Address(Ipv4Addr),
    /// A response code, and no record.
    Code(u8),
    /// No answer.
    Silence,
    /// The truncation bit and no record, with nobody at the TCP port.
    Truncated,
}

pub(crate) const SERVFAIL: u8 = 2;
pub(crate) const NXDOMAIN: u8 = 3;
pub(crate) const REFUSED: u8 = 5;

/// A running server. It stops when it is dropped.
pub(crate) struct Resolver {
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
    dir: TempDir,
    serving: tokio::task::JoinHandle<()>,
}

impl Resolver {
    /// Answers each name by `reply`. The port has to be 53, so it takes an address of its own out of 127.0.0.0/8.
    pub(crate) async fn start(
        reply: impl Fn(&str) -> Reply + Send + 'static,
        options: &str,
    ) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let socket = loop {
            let [_, n] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let address = Ipv4Addr::new(127, high | 1, low, n);
            match UdpSocket::bind((address, 53)).await {
                Ok(socket) => break socket,
                Err(error) => assert!(n < 250, "port 53 needs root: {address}: {error}"),
            }
        };
        let SocketAddr::V4(address) = socket.local_addr().expect("a bound socket") else {
            panic!("an IPv4 socket");
        };
        let dir = tempfile::tempdir().expect("a directory");
        let conf = format!("nameserver {}\noptions {options}\n", address.ip());
        std::fs::write(dir.path().join("resolv.conf"), conf).expect("a file");
        std::fs::write(dir.path().join("nsswitch.conf"), "hosts: files dns\n").expect("a file");
        let asked: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let record = asked.clone();
        let serving = tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut query).await {
                let query = &query[..length];
                let name = name_in(query);
                *record
                    .lock()
                    .expect("no holder panicked")
                    .entry(name.clone())
                    .or_default() += 1;
                if let Some(answer) = answer(query, reply(&name)) {
                    _ = socket.send_to(&answer, peer).await;
                }
            }
        });
        Self {
            asked,
            dir,
            serving,
        }
    }

    /// Has a sidecar ask this server and no other.
    pub(crate) fn before(&self, builder: Builder) -> Builder {
        let file = |name: &str| -> PathBuf { self.dir.path().join(name) };
        builder.mounting(&format!(
            "mount --bind {} /etc/resolv.conf && mount --bind {} /etc/nsswitch.conf",
            file("resolv.conf").display(),
            file("nsswitch.conf").display(),
        ))
    }

    /// How often a name was asked for.
    pub(crate) fn asked(&self, name: &str) -> u32 {
        let asked = self.asked.lock().expect("no holder panicked");
        asked.get(name).copied().unwrap_or_default()
    }

    /// How many names were asked for.
    pub(crate) fn names(&self) -> usize {
        self.asked.lock().expect("no holder panicked").len()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The name of the one question (RFC 1035, section 4.1.2).
fn name_in(query: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = &query[12..];
    while let Some((length @ 1.., tail)) = rest.split_first() {
        let (label, tail) = tail.split_at(usize::from(*length));
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        rest = tail;
    }
    labels.join(".")
}

fn answer(query: &[u8], reply: Reply) -> Option<Vec<u8>> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0)? + 5;
    let is_a = query[end - 4..end - 2] == [0, 1];
    // A response, recursion desired and available (RFC 1035, section 4.1.1).
    let (flags, record) = match reply {
        Reply::Silence => return None,
        Reply::Code(code) => ([0x81, 0x80 | code], None),
        Reply::Truncated => ([0x83, 0x80], None),
        Reply::Address(address) => ([0x81, 0x80], is_a.then_some(address)),
    };
    let mut answer = query[..2].to_vec();
    answer.extend(flags);
    answer.extend([0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    if let Some(address) = record {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
