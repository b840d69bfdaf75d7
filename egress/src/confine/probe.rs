//! Tries from inside what a confined process must not be able to do, and logs what came of each. It is for tests: only
//! builds with debug assertions have it, and `docker/build` looks that no other has.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};
use rustix::process::{Signal, getppid, kill_process};

use crate::os;

/// Names a directory that is not the sidecar's: it has a file `foreign`, and a directory `bin` with a program in it.
const VARIABLE: &str = "EGRESS_DEBUG_PROBE";

/// Does so, where the environment says it.
pub fn run() {
    let Some(foreign) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        return;
    };
    let own = files(&foreign)
        .into_iter()
        .chain(programs())
        .chain(sockets(&foreign));
    for (attempt, came) in own.chain(os::attempts()) {
        let came = match came {
            Ok(()) => "done".into(),
            Err(error) => error.raw_os_error().map_or_else(
                || error.to_string(),
                |number| rustix::io::Errno::from_raw_os_error(number).to_string(),
            ),
        };
        tracing::info!(attempt, came, "probe");
    }
}

type Attempt = (&'static str, io::Result<()>);

fn files(foreign: &Path) -> Vec<Attempt> {
    let file = foreign.join("foreign");
    vec![
        ("read", fs::read(&file).map(drop)),
        ("write", File::options().append(true).open(&file).map(drop)),
        ("create", File::create(foreign.join("new")).map(drop)),
        ("remove", fs::remove_file(&file)),
        ("list", fs::read_dir(foreign).map(drop)),
        ("link", std::os::unix::fs::symlink(&file, foreign.join("l"))),
        (
            "chmod",
            rustix::fs::chmod(&file, rustix::fs::Mode::RWXU).map_err(Into::into),
        ),
    ]
}

fn programs() -> Vec<Attempt> {
    vec![
        ("exec", Err(Command::new("/bin/true").exec())),
        ("spawn", Command::new("/bin/true").spawn().map(drop)),
        ("thread", std::thread::Builder::new().spawn(|| ()).map(drop)),
        (
            "signal",
            getppid().map_or(Ok(()), |parent| {
                kill_process(parent, Signal::CONT).map_err(Into::into)
            }),
        ),
    ]
}

fn sockets(foreign: &Path) -> Vec<Attempt> {
    let open = |family, kind, protocol| {
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)
            .map(drop)
            .map_err(io::Error::from)
    };
    let raw = Some(rustix::net::ipproto::ICMP);
    let mptcp: Option<Protocol> = Some(rustix::net::ipproto::MPTCP);
    let name = foreign.as_os_str().as_encoded_bytes();
    let abstract_socket = || UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?);
    vec![
        (
            "netlink",
            open(AddressFamily::NETLINK, SocketType::RAW, None),
        ),
        (
            "packet",
            open(AddressFamily::PACKET, SocketType::DGRAM, None),
        ),
        (
            "vsock",
            open(AddressFamily::VSOCK, SocketType::STREAM, None),
        ),
        ("raw", open(AddressFamily::INET, SocketType::RAW, raw)),
        ("ping", open(AddressFamily::INET, SocketType::DGRAM, raw)),
        (
            "multipath",
            open(AddressFamily::INET, SocketType::STREAM, mptcp),
        ),
        (
            "stream",
            open(AddressFamily::INET6, SocketType::STREAM, None),
        ),
        ("port", TcpListener::bind("127.0.0.1:59999").map(drop)),
        ("abstract", abstract_socket().map(drop)),
    ]
}
