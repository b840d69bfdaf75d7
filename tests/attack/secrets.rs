//! Looking into the sidecar from outside, and what is left to whoever has taken it over (threat model, rows 40 and 43).

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Signal, geteuid};
use serde_json::Value;
use tokio::process::Command;

use crate::harness::command::{self, Done};
use crate::harness::pki::Pki;
use crate::harness::rig::{REAL, Rig};
use crate::harness::sidecar::{Builder, EGRESS, Sidecar, as_nobody};
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
";

/// The system's own.
const PYTHON: &str = "/usr/bin/python3";

/// Tries each way in which a process looks into another of its user, and prints what came of it.
const LOOK_IN: &str = r#"
import ctypes, errno, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, action):
    try:
        action()
        print(name, "done")
    except OSError as error:
        print(name, errno.errorcode[error.errno])
def read(name):
    with open(f"/proc/{pid}/{name}", "rb") as file: file.read(1)
def call(function, *arguments):
    if function(*arguments) < 0: raise OSError(ctypes.get_errno(), "refused")
for name in ("environ", "maps", "mem", "auxv", "stack", "syscall", "io"):
    attempt(name, lambda: read(name))
for name in ("fd", "map_files", "task/%d/fd" % pid):
    attempt(name, lambda: os.listdir(f"/proc/{pid}/{name}"))
for name in ("exe", "cwd", "root"):
    attempt(name, lambda: os.readlink(f"/proc/{pid}/{name}"))
byte = ctypes.create_string_buffer(1)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
local, remote = Vector(ctypes.addressof(byte), 1), Vector(0x10000, 1)
attempt("process_vm_readv", lambda: call(libc.process_vm_readv, pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))
attempt("process_vm_writev", lambda: call(libc.process_vm_writev, pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))
ATTACH, SEIZE = 16, 0x4206
for name, request in (("attach", ATTACH), ("seize", SEIZE)):
    attempt(name, lambda: call(libc.ptrace, request, pid, None, None))
attempt("pidfd_getfd", lambda: call(libc.syscall, 438, os.pidfd_open(pid), 0, 0))
"#;

/// Root may look into every process; there is no defence against it, and none is claimed.
#[tokio::test]
async fn row_40_no_process_of_the_same_user_looks_into_the_sidecar() {
    let rig = Rig::with(ROUTES, Builder::ordinary).await;
    rig.agent.get("https://api.test/").await.assert_served();
    let arguments = [
        "-c",
        LOOK_IN,
        &rig.sidecar.pid().as_raw_nonzero().to_string(),
    ];
    let looked = ordinary(PYTHON, &arguments).await;
    assert_eq!(looked.code, Some(0), "{looked:?}");
    let came: Vec<&str> = looked.stdout.lines().collect();
    assert_eq!(came.len(), 18, "{looked:?}");
    let refused = |line: &&&str| line.ends_with(" EACCES") || line.ends_with(" EPERM");
    let open: Vec<_> = came.iter().filter(|line| !refused(line)).collect();
    assert!(open.is_empty(), "{open:?}");

    // That it would have got in elsewhere.
    let script = format!("sleep 60 >&- 2>&- & {PYTHON} -c \"$0\" $!; kill $!");
    let looked = ordinary("/bin/sh", &["-c", &script, LOOK_IN]).await;
    for name in ["environ", "maps", "fd", "exe"] {
        let line = format!("{name} done");
        assert!(looked.stdout.lines().any(|told| told == line), "{looked:?}");
    }
}

/// It waits for its routes, and has read nothing yet.
#[tokio::test]
async fn row_40_it_is_closed_before_it_reads_anything() {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("egress");
    std::fs::copy(EGRESS, &binary).expect("a copy");
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), everybody).expect("it is ours");
    let mut words = if geteuid().is_root() {
        as_nobody()
    } else {
        Vec::new()
    };
    words.push(binary.display().to_string());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .args(["serve", "--ca-ephemeral", "--routes", "-"])
        .args(["--listen", "127.0.0.1:0"])
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    let child = command.spawn().expect("it starts");
    let own = format!("/proc/{}", child.id().expect("a process"));
    let is_closed = || {
        let name = std::fs::read_to_string(format!("{own}/comm")).expect("a process");
        let environ = std::fs::metadata(format!("{own}/environ")).expect("a process");
        // Until the program has begun, the process is another one.
        name.trim() == "egress" && environ.uid() == 0
    };
    within("a closed process", async {
        while !is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn row_40_a_crash_leaves_no_core() {
    let dir = tempfile::tempdir().expect("a directory");
    let unlimited = format!(
        "cd {} && ulimit -c $(ulimit -H -c) && exec \"$@\"",
        dir.path().display()
    );
    let wrapper = ["/bin/sh", "-c", &unlimited, "sh"];
    let rig = Rig::with(ROUTES, |builder| builder.wrapped(wrapper)).await;
    rig.agent.get("https://api.test/").await.assert_served();
    rig.sidecar.signal(Signal::ABORT);
    let (status, log) = rig.sidecar.exit().await;
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{log}");
    assert!(!status.core_dumped(), "it left a core");
    let left = std::fs::read_dir(dir.path()).expect("a directory").count();
    assert_eq!(left, 0);

    // That there would have been one.
    let mut control = Command::new(wrapper[0]);
    control
        .args(&wrapper[1..])
        .args(["/bin/sh", "-c", "kill -ABRT $$"]);
    let status = within("the end of a shell", control.status()).await;
    assert!(
        status.expect("a shell runs").core_dumped(),
        "this machine makes no cores, and shows nothing here"
    );
}

#[tokio::test]
async fn row_43_every_thread_is_confined_and_every_measure_is_told() {
    for configure in [Builder::ordinary, |builder: Builder| builder] {
        let rig = Rig::with(ROUTES, |builder| {
            configure(builder).arg("--require-confinement")
        })
        .await;
        rig.agent.get("https://api.test/").await.assert_served();
        let tasks = format!("/proc/{}/task", rig.sidecar.pid().as_raw_nonzero());
        let mut threads = 0;
        for task in std::fs::read_dir(tasks).expect("a process") {
            let path = task.expect("a thread").path().join("status");
            let status = std::fs::read_to_string(path).expect("a thread");
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.map(str::trim).map(str::to_owned)
            };
            assert_eq!(field("NoNewPrivs:").as_deref(), Some("1"), "{status}");
            assert_eq!(field("Seccomp:").as_deref(), Some("2"), "{status}");
            threads += 1;
        }
        assert!(threads > 1, "{threads}");

        let ready = rig.sidecar.logged("\"confinement\":").await;
        let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
        let text = command::egress(["status", "--admin", &admin]).await.stdout;
        let states = states(&rig.sidecar).await;
        assert_eq!(
            states.keys().map(String::as_str).collect::<Vec<_>>(),
            MEASURES
        );
        for (name, state) in states {
            assert_eq!(state, "on", "{name}");
            assert!(ready.contains(&format!("{name}: on")), "{ready}");
            assert!(text.contains(&format!("\n  {name}: on\n")), "{text}");
        }
    }
}

/// What the sidecar tells of itself, in the order of the alphabet.
const MEASURES: [&str; 8] = [
    "environment wiped",
    "no core files",
    "no new privileges",
    "not dumpable",
    "own files only",
    "own ports only",
    "own processes only",
    "own system calls only",
];

#[tokio::test]
async fn row_43_who_has_taken_it_over_gets_at_nothing_else() {
    for configure in [Builder::ordinary, |builder: Builder| builder] {
        let foreign = tempfile::tempdir().expect("a directory");
        let open = |path: &Path, mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).expect("it is ours");
        };
        let file = foreign.path().join("foreign");
        std::fs::write(&file, "foreign").expect("a file");
        // Whatever its mode would not allow says nothing of the sidecar's walls.
        open(foreign.path(), 0o777);
        open(&file, 0o666);
        let name = SocketAddr::from_abstract_name(foreign.path().as_os_str().as_bytes());
        let _listens = UnixListener::bind_addr(&name.expect("a name")).expect("a listener");
        let rig = Rig::with(ROUTES, |builder| {
            let directory = foreign.path().display().to_string();
            configure(builder).env("EGRESS_DEBUG_PROBE", directory)
        })
        .await;
        let lines = rig.sidecar.logged_times("\"probe\"", EXPECTED.len()).await;
        let came: BTreeMap<String, String> = lines
            .iter()
            .map(|line| {
                let line: Value = serde_json::from_str(line).expect("a line of JSON");
                let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                (field("attempt"), field("came"))
            })
            .collect();
        let expected = EXPECTED.map(|(name, came)| (name.to_owned(), came.to_owned()));
        assert_eq!(came, BTreeMap::from(expected));
        assert_eq!(std::fs::read(&file).expect("the file"), b"foreign");
        let left = std::fs::read_dir(foreign.path()).expect("a directory");
        assert_eq!(left.count(), 1);
        // And it does its work.
        rig.agent.get("https://api.test/").await.assert_served();
        let sent = rig.upstream.only();
        assert_eq!(sent.all("authorization"), [format!("Bearer {REAL}")]);
    }
}

const EXPECTED: [(&str, &str); 35] = [
    ("read", DENIED),
    ("write", DENIED),
    ("create", DENIED),
    ("remove", DENIED),
    ("list", DENIED),
    ("link", DENIED),
    ("chmod", REFUSED),
    ("exec", REFUSED),
    ("spawn", REFUSED),
    ("thread", "done"),
    ("signal", REFUSED),
    ("netlink", REFUSED),
    ("packet", REFUSED),
    ("vsock", REFUSED),
    ("raw", REFUSED),
    ("ping", REFUSED),
    ("multipath", REFUSED),
    ("stream", "done"),
    ("port", DENIED),
    ("abstract", REFUSED),
    ("ptrace", REFUSED),
    ("process_vm_readv", REFUSED),
    ("mprotect", REFUSED),
    ("mmap", REFUSED),
    ("memfd_create", REFUSED),
    ("io_uring_setup", REFUSED),
    ("bpf", REFUSED),
    ("unshare", REFUSED),
    ("clone3", "Function not implemented (os error 38)"),
    ("ioctl", REFUSED),
    ("prlimit64", REFUSED),
    ("setpriority", REFUSED),
    ("sched_setattr", REFUSED),
    ("ioprio_set", REFUSED),
    ("ftruncate", REFUSED),
];

/// EACCES, which Landlock gives.
const DENIED: &str = "Permission denied (os error 13)";

/// EPERM, which seccomp gives, and Landlock for what is no file.
const REFUSED: &str = "Operation not permitted (os error 1)";

/// Starts a program under a filter that refuses one system call, as a container or an old kernel does.
const WITHOUT: &str = r#"
import ctypes, os, struct, sys
number, error = int(sys.argv[1]), int(sys.argv[2])
code = b"".join(struct.pack("HBBI", *line) for line in (
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | error), (0x06, 0, 0, 0x7fff0000)))
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[3], sys.argv[3:])
"#;

#[tokio::test]
async fn row_43_where_the_system_refuses_a_measure_it_is_told_and_can_be_insisted_on() {
    const LANDLOCK: i64 = 444;
    const SECCOMP: i64 = if cfg!(target_arch = "x86_64") {
        317
    } else {
        277
    };
    let landlock = ["own files only", "own ports only", "own processes only"];
    let cases = [
        (LANDLOCK, 38, &landlock[..], "this kernel has no Landlock"),
        (LANDLOCK, 95, &landlock, "not among the security modules"),
        (LANDLOCK, 1, &landlock, "a container's filter refuses"),
        (SECCOMP, 1, &["own system calls only"], "not permitted"),
    ];
    for (number, error, missing, reason) in cases {
        let (number, error) = (number.to_string(), error.to_string());
        let without = [PYTHON, "-c", WITHOUT, &number, &error];
        let rig = Rig::with(ROUTES, |builder| builder.wrapped(without)).await;
        rig.agent.get("https://api.test/").await.assert_served();
        for (name, state) in states(&rig.sidecar).await {
            if missing.contains(&name.as_str()) {
                assert!(state.starts_with("off ("), "{name}: {state}");
                let quoted = format!("\"measure\":\"{name}\"");
                let warned = rig.sidecar.logged(&quoted).await;
                assert!(warned.contains("WARN"), "{warned}");
                assert!(state.contains(reason), "{name}: {state}");
            } else {
                assert_eq!(state, "on", "{name}");
            }
        }
        let insisting = Sidecar::with_routes(&Pki::new(), "routes: []\n")
            .wrapped(without)
            .arg("--require-confinement");
        let Err(refusal) = insisting.try_start().await else {
            panic!("it started without {missing:?}")
        };
        assert_eq!(refusal.status.code(), Some(3), "{refusal:?}");
        let told = refusal.log.lines().find(|line| line.starts_with("error: "));
        let told = told.expect("an error");
        for name in MEASURES {
            assert_eq!(told.contains(name), missing.contains(&name), "{told}");
        }
        assert!(told.contains(reason), "{told}");
        assert!(refusal.log.contains("\nhint: "), "{}", refusal.log);
    }
}

#[tokio::test]
async fn row_43_a_reload_that_would_read_elsewhere_fails_and_says_what_to_do() {
    let pki = Pki::new();
    let elsewhere = pki.ca_file();
    let rig = Rig::new(ROUTES).await;
    let old = std::fs::read_to_string(rig.sidecar.routes_file()).expect("the routes");
    let with = |path: &Path| {
        old.replace(
            "connect_to",
            &format!("upstream_ca: '{}', connect_to", path.display()),
        )
    };
    let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
    rig.sidecar.write_routes(&with(&elsewhere.path()));
    let reloaded = command::egress(["reload", "--admin", &admin]).await;
    assert_eq!(reloaded.code, Some(1), "{reloaded:?}");
    for part in ["upstream-ca.pem", "keeps to the directories", "restart"] {
        assert!(reloaded.stderr.contains(part), "{part}: {reloaded:?}");
    }
    rig.agent.get("https://api.test/").await.assert_served();
    // Beside the routes file it is read, also where it came later.
    let beside = rig.sidecar.dir().join("later.pem");
    std::fs::copy(elsewhere.path(), &beside).expect("a copy");
    rig.sidecar.write_routes(&with(&beside));
    let reloaded = command::egress(["reload", "--admin", &admin]).await;
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
}

#[tokio::test]
async fn row_43_a_mounted_secret_is_followed_however_it_is_replaced() {
    let mount = tempfile::tempdir().expect("a directory");
    let outside = tempfile::tempdir().expect("a directory");
    let path = |name: &str| mount.path().join(name);
    // As Kubernetes mounts it: the name leads through a link to a directory, and that link is replaced.
    let place = |directory: &str, value: &str| {
        std::fs::create_dir(path(directory)).expect("a directory");
        std::fs::write(path(directory).join("token"), value).expect("a file");
        symlink(directory, path("..next")).expect("a link");
        std::fs::rename(path("..next"), path("..data")).expect("a rename");
    };
    place("..one", "value-one");
    symlink("..data/token", path("token")).expect("a link");
    // As a link to a file elsewhere, which an agent of the host's renews.
    let renewed = outside.path().join("renewed");
    std::fs::write(&renewed, "other-one").expect("a file");
    symlink(&renewed, path("other")).expect("a link");
    let routes = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_5, connect_to: 'UPSTREAM'}
- {host: b.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_6, connect_to: 'UPSTREAM'}
";
    let rig = Rig::with(routes, |builder| {
        builder
            .env("EGRESS_TOKEN_5_FILE", path("token").display().to_string())
            .env("EGRESS_TOKEN_6_FILE", path("other").display().to_string())
    })
    .await;
    place("..two", "value-two");
    std::fs::remove_dir_all(path("..one")).expect("a directory");
    let next = outside.path().join("next");
    std::fs::write(&next, "other-two").expect("a file");
    std::fs::rename(next, renewed).expect("a rename");
    rig.sidecar.logged_times("value was rotated", 2).await;
    for (host, value) in [("api", "value-two"), ("b", "other-two")] {
        let answer = rig.agent.get(&format!("https://{host}.test/")).await;
        answer.assert_served();
        let sent = rig.upstream.seen().pop().expect("a request");
        assert_eq!(sent.all("authorization"), [format!("Bearer {value}")]);
    }
}

async fn states(sidecar: &Sidecar) -> BTreeMap<String, String> {
    let status = sidecar.status().await;
    let measures = status["confinement"].as_array().expect("a list").iter();
    let field = |measure: &Value, name: &str| measure[name].as_str().expect("a text").to_owned();
    measures
        .map(|measure| (field(measure, "name"), field(measure, "state")))
        .collect()
}

/// Runs a program as the user of [`Builder::ordinary`].
async fn ordinary(program: &str, arguments: &[&str]) -> Done {
    let mut words = if geteuid().is_root() {
        as_nobody()
    } else {
        Vec::new()
    };
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .args(arguments)
        .stdin(Stdio::null());
    command::finish(&mut command).await
}
