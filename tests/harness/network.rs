//! A network of a test's own: no way leads out of it, each address there is is its own, and names are what the test says.
//! So a connection to whatever address arrives, and is seen. Only root can make one, and CI is root.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

/// A network. It goes when it is dropped, and what runs in it is then alone.
pub(crate) struct Network {
    holder: Child,
    queries: Queries,
    answering: tokio::task::JoinHandle<()>,
    _files: TempDir,
}

/// Each question that the name server got: the name, and `A` or `AAAA`.
type Queries = Arc<Mutex<Vec<(String, &'static str)>>>;

impl Network {
    /// A network whose names have the addresses that `names` says. It is asked with the name, and with how often each kind
    /// of its addresses was asked for before.
    pub(crate) async fn new<F>(names: F) -> Self
    where
        F: Fn(&str, usize) -> Vec<IpAddr> + Send + 'static,
    {
        assert!(
            rustix::process::geteuid().is_root(),
            "a network namespace needs root: run this test as root"
        );
        let files = tempfile::tempdir().expect("a directory");
        for (name, text) in [
            (
                "resolv.conf",
                "nameserver 127.0.0.1\nsearch .\noptions timeout:5 attempts:1\n",
            ),
            ("hosts", "127.0.0.1 localhost\n"),
            ("nsswitch.conf", "hosts: files dns\n"),
        ] {
            std::fs::write(files.path().join(name), text).expect("a file");
        }
        // Traffic to any address at all is for this machine ("AnyIP"), and comes to whoever listens on all addresses.
        let set_up = "ip link set lo up && ip route add local default dev lo && ip -6 route add local default dev lo \
             && for file in resolv.conf hosts nsswitch.conf; do mount --bind \"$0/$file\" /etc/$file || exit 1; done \
             && echo ready && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "/bin/sh", "-c", set_up])
            .arg(files.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`unshare` runs");
        let mut ready = String::new();
        let stdout = holder.stdout.take().expect("a pipe");
        _ = BufReader::new(stdout).read_line(&mut ready);
        assert_eq!(ready, "ready\n", "the network was not made");
        let mut network = Self {
            holder,
            queries: Arc::default(),
            answering: tokio::spawn(async {}),
            _files: files,
        };
        let socket = network.inside(|| UdpSocket::bind("127.0.0.1:53").expect("a free port"));
        network.answering = tokio::spawn(answer(socket, network.queries.clone(), names));
        network
    }

    /// What goes before a command so that it runs here.
    pub(crate) fn enter(&self) -> Vec<String> {
        let space = |name: &str| format!("/proc/{}/ns/{name}", self.holder.id());
        vec![
            "nsenter".into(),
            format!("--net={}", space("net")),
            format!("--mount={}", space("mnt")),
            "--".into(),
        ]
    }

    /// Makes a socket here, on a thread that goes over.
    pub(crate) fn inside<T: Send>(&self, make: impl FnOnce() -> T + Send) -> T {
        let space = File::open(format!("/proc/{}/ns/net", self.holder.id())).expect("a namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may go over");
                make()
            });
            thread.join().expect("the thread did not panic")
        })
    }

    /// A listener on all addresses of both families.
    pub(crate) fn listener(&self, port: u16) -> TcpListener {
        self.inside(|| TcpListener::bind(("::", port)).expect("a free port"))
    }

    /// The questions so far.
    pub(crate) fn queries(&self) -> Vec<(String, &'static str)> {
        self.queries.lock().expect("no holder panicked").clone()
    }

    /// How often a name was asked for: its IPv4 addresses, and its IPv6 addresses.
    pub(crate) fn asked(&self, name: &str) -> (usize, usize) {
        let queries = self.queries();
        let of = |kind| {
            let same = queries
                .iter()
                .filter(|query| query.0 == name && query.1 == kind);
            same.count()
        };
        (of("A"), of("AAAA"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.answering.abort();
        // `cat` ends with its input.
        drop(self.holder.stdin.take());
        _ = self.holder.wait();
    }
}

/// A name server. What has no address does not exist.
async fn answer(
    socket: UdpSocket,
    queries: Queries,
    names: impl Fn(&str, usize) -> Vec<IpAddr> + Send + 'static,
) {
    socket
        .set_nonblocking(true)
        .expect("a socket of this process");
    let socket = tokio::net::UdpSocket::from_std(socket).expect("a runtime");
    let mut times: HashMap<(String, u16), usize> = HashMap::new();
    let mut query = [0; 512];
    while let Ok((length, peer)) = socket.recv_from(&mut query).await {
        let Some((name, kind, end)) = question(&query[..length]) else {
            continue;
        };
        let shown = if kind == A { "A" } else { "AAAA" };
        queries
            .lock()
            .expect("no holder panicked")
            .push((name.clone(), shown));
        let time = times.entry((name.clone(), kind)).or_default();
        let all = names(&name, *time);
        *time += 1;
        let code = if all.is_empty() { NXDOMAIN } else { 0 };
        let found: Vec<_> = all
            .into_iter()
            .filter(|ip| ip.is_ipv4() == (kind == A))
            .collect();
        let count = u8::try_from(found.len()).expect("few addresses");
        // The identifier, then an authoritative answer with recursion, one question, and the records.
        let mut message = query[..2].to_vec();
        message.extend([0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        message.extend(&query[12..end]);
        for ip in found {
            let octets = match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            // The question's name, its kind and class, no time to live, the address.
            message.extend([0xc0, 12]);
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 0, 0]);
            message.push(u8::try_from(octets.len()).expect("an address"));
            message.extend(octets);
        }
        _ = socket.send_to(&message, peer).await;
    }
}

const A: u16 = 1;
const NXDOMAIN: u8 = 3;

/// The name, the type, and where the question ends.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}
