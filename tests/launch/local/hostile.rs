//! What an agent tries that knows how its box is made: links for the next launch, the host's devices and control groups,
//! files that outlive it, signals to whoever started it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::clients::{Output, Running, run, system};
use crate::harness::within;
use crate::launch::host::{Host, User};

/// The system's own, which is in every box.
const PYTHON: &str = "/usr/bin/python3";

#[tokio::test]
async fn a_link_in_the_path_shows_nothing_of_the_host() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        host.write("home/project/placeholder", "");
        let login = host.path("home/.codex/auth.json");
        let before = std::fs::read(&login).expect("a login");
        // What an agent leaves behind: a directory of the operator's PATH that leads to the login, directly, and through a
        // link of its own, by way of which the mount was once left as it came.
        let bin = host.project().join("node_modules/.bin");
        for nested in [false, true] {
            let script = if nested {
                "mv node_modules nm && ln -s nm node_modules"
            } else {
                "mkdir node_modules && ln -s ../../.codex node_modules/.bin"
            };
            host.script(script).await.success();
            let script = format!(
                "cat {login}; echo spoilt >> {login}; ls {bin}/",
                login = login.display(),
                bin = bin.display()
            );
            let mut command = host.run(["bash", "-c", &script]);
            let path = format!("{}:/usr/bin:/bin", bin.display());
            let output = run(command.env("PATH", path)).await;
            assert_eq!(output.stdout, "", "{output:#?}");
            assert_eq!(std::fs::read(&login).expect("a login"), before);
        }
    }
}

/// Prints the system calls that are let through.
const TRY_WHAT_OUTLIVES: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
path, here = b"mine", -100
file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
def attempt(name, *arguments):
    if libc.syscall(*arguments) >= 0: print(name, "REACHED")
for device in ["null", "zero", "full", "random", "urandom", "tty"]:
    try: os.chmod("/dev/" + device, 0o666); print(device, "REACHED")
    except OSError: pass
    try: os.utime("/dev/" + device); print(device, "time REACHED")
    except OSError: pass
attempt("fchmodat2", 452, here, path, 0o4755, 0)
attempt("openat2", 437, here, b"/etc", ctypes.create_string_buffer(24), 24)
attempt("clone3", 435, ctypes.create_string_buffer(64), 64)
for name in ["chmod", "chmod with more bits"]:
    mode = 0o4755 | ((1 << 32) if "more" in name else 0)
    if os.uname().machine == "x86_64":
        attempt(name, 90, path, ctypes.c_long(mode))
        attempt("x32 " + name, 0x40000000 + 90, path, ctypes.c_long(mode))
        attempt("x32 getpid", 0x40000000 + 39)
for name, action in [
    ("fchmod", lambda: os.fchmod(file, 0o4755)),
    ("fchmodat", lambda: os.chmod("mine", 0o4755)),
    ("open", lambda: os.open("made", os.O_CREAT | os.O_WRONLY, 0o4755)),
    ("tmpfile", lambda: os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o4755)),
    ("mknod", lambda: os.mknod("node", 0o104755)),
    ("capability", lambda: os.setxattr("mine", "security.capability", bytes([1, 0, 0, 2, 0, 0, 32]) + bytes(13))),
]:
    try: action(); print(name, "REACHED")
    except OSError: pass
attempt("unshare", 272 if os.uname().machine == "x86_64" else 97, 0x10000000)
os.chmod("mine", 0o755)
print("done")
"#;

#[tokio::test]
async fn nothing_that_is_left_behind_has_more_power_than_a_file() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let output = run(&mut host.run([PYTHON, "-c", TRY_WHAT_OUTLIVES])).await;
        assert_eq!(output.success().stdout, "done\n");
    }
}

#[tokio::test]
async fn the_hosts_control_groups_are_not_mounted() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let output = host
            .script(
                "mkdir /tmp/c; unshare -Urm --cgroup mount -t cgroup2 none /tmp/c && echo MOUNTED",
            )
            .await;
        assert_eq!(output.stdout, "", "{output:#?}");
        assert!(output.stderr.contains("not permitted"), "{output:#?}");
    }
}

#[tokio::test]
async fn a_signal_to_the_process_group_stays_in_the_box() {
    if !has_signal_scopes() {
        eprintln!("skipped: this kernel is older than Linux 6.12");
        return;
    }
    let host = Host::new(User::Own).await;
    let script = format!(
        "trap 'echo the script was hit' TERM; {} run -m {} -- bash -c 'trap : TERM; kill -TERM 0; exit 7'; \
         echo \"the box ended with $?\"",
        host.path("bin/egress").display(),
        host.path("bottle.yaml").display(),
    );
    host.write("script.sh", script);
    // The script, the launcher and the agent are one job at this terminal.
    let job = format!("bash {}", host.path("script.sh").display());
    let mut terminal = host.program(&system("script", "bsdutils"), ["-qec", &job, "/dev/null"]);
    let output = run(&mut terminal).await;
    assert!(output.stdout.contains("ended with 7"), "{output:#?}");
    assert!(!output.stdout.contains("was hit"), "{output:#?}");
    host.assert_nothing_left();
}

/// landlock(7): since Linux 6.12.
fn has_signal_scopes() -> bool {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

fn assert_refused(output: &Output, word: &str) {
    assert_eq!(output.status.code(), Some(2), "{output:#?}");
    assert!(output.stderr.starts_with("error: "), "{output:#?}");
    assert!(output.stderr.contains(word), "{word:?}: {output:#?}");
    assert!(output.stderr.contains("hint: "), "{output:#?}");
}

#[tokio::test]
async fn the_operators_home_is_no_agents_home_and_its_login_stays_what_it_is() {
    let host = Host::new(User::Own).await;
    let login = host.path("home/.codex/auth.json");
    let before = std::fs::read(&login).expect("a login");
    for option in ["--home", "--bind", "--ro-bind"] {
        let mut command = host.egress(["run", "-m", "../../bottle.yaml", option]);
        command.arg(host.path("home")).args(["--", "true"]);
        assert_refused(&run(&mut command).await, "home");
    }
    assert_eq!(std::fs::read(&login).expect("a login"), before);
}

#[tokio::test]
async fn what_the_box_makes_itself_and_the_launchers_own_files_are_not_given() {
    let host = Host::new(User::Own).await;
    for path in [
        "/",
        "/etc",
        "/etc/ssl",
        "/tmp",
        "/home",
        "/proc",
        "/proc/self/task",
        "/dev",
        "/usr",
    ] {
        for option in ["--workspace", "--home", "--bind", "--ro-bind"] {
            if !Path::new(path).exists() {
                continue;
            }
            let mut command = host.egress(["run", "-m", "../../bottle.yaml", option, path]);
            let output = run(command.args(["--", "true"])).await;
            assert_eq!(
                output.status.code(),
                Some(2),
                "{option} {path}: {output:#?}"
            );
        }
    }
    let mut command = host.egress(["run", "-m", "../../bottle.yaml", "--bind"]);
    command.arg(host.path("run")).args(["--", "true"]);
    assert_refused(&run(&mut command).await, "the launcher keeps");
    host.assert_nothing_left();
}

#[tokio::test]
async fn nothing_that_the_agent_can_change_decides_what_runs_or_is_written_outside() {
    let host = Host::new(User::Own).await;
    let victim = host.path("home/.bashrc");
    std::fs::write(&victim, "").expect("a file");
    symlink(&victim, host.project().join("egress.log")).expect("a link");
    std::fs::create_dir(host.path("home/private")).expect("a directory");
    symlink(host.path("home/private"), host.project().join("out")).expect("a link");
    host.write("home/project/token", "a-token-of-the-operator");
    host.write(
        "home/project/give.sh",
        "#!/bin/sh\necho a-token-of-the-operator\n",
    );
    let script = host.project().join("give.sh");
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    for (option, path, word) in [
        ("--manifest", "out/../bottle.yaml", "the manifest"),
        ("--agents", "agents.yaml", "the agents file"),
        ("--log", "egress.log", "log"),
        ("--log", "out/egress.log", "log"),
        ("--admin", "unix:admin.sock", "admin"),
        ("--upstream-ca", "ca.pem", "certificate"),
        ("--bind", "out", "leads to"),
        ("--ro-bind", "out", "leads to"),
        ("--home", "out", "leads to"),
    ] {
        let mut command = host.egress(["run"]);
        if option != "--manifest" {
            command.args(["--manifest", "../../bottle.yaml"]);
        }
        let output = run(command.args([option, path, "--", "touch", "started"])).await;
        assert_refused(&output, word);
    }
    let token = format!("file:{}", host.project().join("token").display());
    for reference in [&token, "cmd:./give.sh", "cmd:sh give.sh"] {
        let manifest = host
            .manifest()
            .replace("GH_PAT", &format!("\"{reference}\""));
        host.write("bottle.yaml", manifest);
        assert_refused(&host.script("touch started").await, "in reach of the agent");
    }
    assert!(!host.project().join("started").exists());
    assert_eq!(std::fs::read(&victim).expect("a file"), b"");
    host.assert_nothing_left();
}

#[tokio::test]
async fn a_manifest_in_a_directory_of_the_workspace_can_be_neither_changed_nor_replaced() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        std::fs::create_dir_all(host.project().join("a/b")).expect("a directory");
        host.write("home/project/a/b/bottle.yaml", host.manifest());
        host.write("home/project/a/beside", "");
        host.give("home/project");
        let script = "cat a/b/bottle.yaml; exec 2>/dev/null; echo x >> a/b/bottle.yaml || echo 1; \
             rm -f a/b/bottle.yaml || echo 2; mv a/b/bottle.yaml y || echo 3; mv a/b c || echo 4; mv a c || echo 5; \
             touch a/b/new || echo 6; ln -f /etc/hosts a/b/bottle.yaml || echo 7; chmod 777 a/b/bottle.yaml || echo 8; \
             mv a/beside a/moved && echo the rest is writable; touch started; \
             until [ -e renewed ]; do sleep 0.01; done; echo x >> a/b/bottle.yaml || echo 9; rm -f a/b/bottle.yaml || echo 10";
        let run_it = |command: [&str; 3]| {
            let mut run_it = host.egress(["run", "-m", "a/b/bottle.yaml", "--"]);
            run_it.args(command);
            run_it
        };
        let running = Running::spawn(&mut run_it(["bash", "-c", script]));
        within("start", async {
            while !host.project().join("started").exists() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        // As editors save: what is mounted must not go with the file that it is mounted on.
        host.write("home/project/a/b/bottle.new", host.manifest());
        let (new, old) = (
            "home/project/a/b/bottle.new",
            "home/project/a/b/bottle.yaml",
        );
        std::fs::rename(host.path(new), host.path(old)).expect("it is replaced");
        host.write("home/project/renewed", "");
        let output = running.finish().await;
        let numbers = "1\n2\n3\n4\n5\n6\n7\n8\nthe rest is writable\n9\n10\n";
        assert_eq!(
            output.stdout,
            format!("{}{numbers}", host.manifest()),
            "{output:#?}"
        );
        assert!(
            output.stderr.contains("a/b is in the workspace"),
            "{output:#?}"
        );

        let program = host.manifest().replace("GH_PAT", "\"cmd:gh auth token\"");
        host.write("home/project/a/b/bottle.yaml", program);
        let output = run(&mut run_it(["touch", "late", "now"])).await;
        assert_refused(&output, "has a program run on this machine");
        host.write("home/project/bottle.yaml", host.manifest());
        let mut at_the_top = host.egress(["run", "-m", "bottle.yaml", "--", "touch", "late"]);
        assert_refused(&run(&mut at_the_top).await, "in reach of the agent");
        assert!(!host.project().join("late").exists());
    }
}

#[tokio::test]
async fn what_a_box_takes_of_the_machine_is_bounded() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let script = "stat -c %d / /tmp /var/tmp ~ /dev /dev/shm | sort -u | wc -l; cat /proc/self/oom_score_adj; \
                      echo 0 > /proc/self/oom_score_adj; ulimit -u; touch /dev/x 2>/dev/null || echo refused";
        let output = host.script(script).await;
        assert_eq!(output.stdout, "1\n500\n8192\nrefused\n", "{output:#?}");
    }
    let host = Host::new(User::Ordinary).await;
    let script = "ulimit -u 50; (for i in $(seq 60); do sleep 5 & done) 2>&1 | grep -q unavailable && echo stopped";
    let output = host.script(script).await;
    assert_eq!(output.stdout, "stopped\n", "{output:#?}");
}

#[tokio::test]
async fn a_standard_descriptor_leads_nowhere_and_shows_nothing_that_was_there_before() {
    if !has_landlock() {
        eprintln!("skipped: this kernel has no landlock, or an old one");
        return;
    }
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let fd = "/proc/self/fd";
        // A directory leads up to the root of the host.
        let login = "home/.codex/auth.json";
        let script = format!("cat {fd}/0/{login}; cd {fd}/0 && cat {login}; touch {fd}/0/home/new");
        let mut command = host.run(["bash", "-c", &script]);
        let top = host.path("home/..");
        let output = run(command.stdin(std::fs::File::open(top).expect("a directory"))).await;
        assert_eq!(output.stdout, "", "{output:#?}");
        assert!(!host.path("home/new").exists());

        // A file stays what it was opened as.
        host.write("home/prompt", "prompt\n");
        host.write("home/log", "before\n");
        let script = format!(
            "cat < {fd}/1 >&2; echo > {fd}/0; cat; cat < /dev/stdin; echo more >> /dev/stdout"
        );
        let mut command = host.run(["bash", "-c", &script]);
        let log = std::fs::File::options()
            .append(true)
            .open(host.path("home/log"));
        let output = run(command
            .stdin(std::fs::File::open(host.path("home/prompt")).expect("a file"))
            .stdout(log.expect("a file")))
        .await;
        assert!(!output.stderr.contains("before"), "{output:#?}");
        let text = |name: &str| std::fs::read_to_string(host.path(name)).expect("a file");
        assert_eq!(text("home/prompt"), "prompt\n");
        assert_eq!(
            text("home/log"),
            "before\nprompt\nprompt\nmore\n",
            "{output:#?}"
        );
    }
}

/// Since Linux 5.19, where it is switched on.
fn has_landlock() -> bool {
    egress::os::landlock::version().is_ok_and(|version| version >= 2)
}
