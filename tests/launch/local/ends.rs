//! How a run ends: with its command, with its sidecar, with its launcher, by a signal, at a terminal.

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::harness::clients::{Running, run, system};
use crate::harness::within;
use crate::launch::host::{Host, User, processes};

#[tokio::test]
async fn a_box_ends_with_its_sidecar() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        let mut running = Running::spawn(&mut host.run(["bash", "-c", "echo up; sleep 1000"]));
        assert_eq!(line(&mut running).await, "up");
        kill(&host, " serve ", Signal::KILL);
        let output = running.finish().await;
        assert_eq!(output.status.code(), Some(3), "{output:#?}");
        assert!(
            output.stderr.contains("the sidecar has ended"),
            "{output:#?}"
        );
        host.assert_nothing_left();
    }
}

#[tokio::test]
async fn everything_ends_with_the_launcher_also_where_it_is_killed() {
    let host = Host::new(User::Own).await;
    let mut running =
        Running::spawn(&mut host.run(["bash", "-c", "echo up; sleep 1000 & sleep 1000"]));
    assert_eq!(line(&mut running).await, "up");
    let all = processes(&host.path("bin/egress"));
    assert!(
        all.len() >= 4,
        "launcher, sidecar and two of the box: {all:?}"
    );
    let before = all_pids(&all);
    kill(&host, " run ", Signal::KILL);
    within("end of all processes", async {
        while before.iter().any(|pid| is_alive(*pid)) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    // What it left is the next launch's to remove.
    let output = host.script("true").await;
    assert_eq!(output.status.code(), Some(0), "{output:#?}");
    host.assert_nothing_left();
}

/// Whether a process has not ended yet. One that has may wait for its parent to take note, with all its files closed; they
/// are open for as long as one of its threads is there.
fn is_alive(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    threads.into_iter().flatten().flatten().any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
    })
}

fn all_pids(all: &[(u32, String)]) -> Vec<u32> {
    all.iter().map(|(pid, _)| *pid).collect()
}

#[tokio::test]
async fn signals_reach_the_command() {
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
    ] {
        let host = Host::new(User::Own).await;
        let script =
            format!("trap 'echo got {name}; exit 7' {name}; echo up; while :; do sleep 0.01; done");
        let mut running = Running::spawn(&mut host.run(["bash", "-c", &script]));
        let mut stdout = BufReader::new(running.stdout());
        let mut text = String::new();
        within("start", stdout.read_line(&mut text))
            .await
            .expect("it prints");
        kill(&host, " run ", signal);
        within("end of its output", stdout.read_to_string(&mut text))
            .await
            .expect("it ends");
        let output = running.finish().await;
        assert_eq!(text, format!("up\ngot {name}\n"), "{output:#?}");
        assert_eq!(output.status.code(), Some(7), "{output:#?}");
        host.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_command_that_a_signal_ends_gives_its_number() {
    let host = Host::new(User::Own).await;
    let mut running = Running::spawn(&mut host.run(["bash", "-c", "echo up; exec sleep 1000"]));
    assert_eq!(line(&mut running).await, "up");
    kill(&host, " run ", Signal::TERM);
    assert_eq!(running.finish().await.status.code(), Some(143));
    host.assert_nothing_left();
}

#[tokio::test]
async fn what_the_command_leaves_running_ends_with_it() {
    let host = Host::new(User::Own).await;
    let output = host
        .script("(setsid sleep 1000 &); (trap '' TERM INT HUP; sleep 1000) & exit 5")
        .await;
    assert_eq!(output.status.code(), Some(5), "{output:#?}");
    host.assert_nothing_left();
}

#[tokio::test]
async fn a_terminal_is_the_commands_with_its_keys_and_its_size() {
    let host = Host::new(User::Own).await;
    let run_it = format!(
        "exec {} run -m {} -- bash -c \"{}\"",
        host.path("bin/egress").display(),
        host.path("bottle.yaml").display(),
        "trap 'echo got INT; exit 7' INT; test -t 0 && test -t 1 && tty && echo up; while :; do sleep 0.01; done",
    );
    let mut script = host.program(
        &system("script", "bsdutils"),
        ["--quiet", "--return", "--command", &run_it, "/dev/null"],
    );
    script.stdin(std::process::Stdio::piped());
    let mut running = Running::spawn(&mut script);
    let mut stdin = running.stdin();
    let mut stdout = BufReader::new(running.stdout());
    let mut text = String::new();
    while !text.contains("up\r\n") {
        let read = within("start", stdout.read_line(&mut text))
            .await
            .expect("it prints");
        assert!(read > 0, "{text}");
    }
    // The key that interrupts, once: the launcher must not send a signal of its own on top of the terminal's.
    stdin.write_all(b"\x03").await.expect("a terminal");
    within("end of its output", stdout.read_to_string(&mut text))
        .await
        .expect("it ends");
    let output = running.finish().await;
    assert_eq!(text.matches("got INT").count(), 1, "{text}");
    assert_eq!(output.status.code(), Some(7), "{text}");
    host.assert_nothing_left();
}

#[tokio::test]
async fn a_launch_that_waits_for_a_credential_is_ended_at_once_and_so_is_the_program() {
    let host = Host::new(User::Own).await;
    host.write(
        "bottle.yaml",
        "bottles: {dev: {agent_provider: {template: custom}, egress: {routes: [{host: a.test, auth: \
         {scheme: Bearer, token_ref: \"cmd:sh -c 'echo $$ >waiting; exec sleep 1000'\"}}]}}}",
    );
    let running = Running::spawn(&mut host.run(["true"]));
    let waiting = host.project().join("waiting");
    let started = async {
        loop {
            let text = std::fs::read_to_string(&waiting).unwrap_or_default();
            if let Ok(pid) = text.trim().parse() {
                return pid;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let pid: u32 = within("start of the program", started).await;
    let asked = std::time::Instant::now();
    kill(&host, " run ", Signal::INT);
    assert_eq!(running.finish().await.status.code(), Some(130));
    assert!(asked.elapsed() < std::time::Duration::from_secs(5));
    assert!(!is_alive(pid));
    host.assert_nothing_left();
}

/// Nothing of a launch is a moment at which the key is lost: the launcher has it, or the command does.
#[tokio::test]
async fn the_key_that_interrupts_ends_a_launch_at_each_moment() {
    let host = Host::new(User::Own).await;
    let run_it = format!(
        "exec {} run -m {} -- sleep 1000",
        host.path("bin/egress").display(),
        host.path("bottle.yaml").display(),
    );
    for delay in (0..100).step_by(10) {
        let mut script = host.program(
            &system("script", "bsdutils"),
            ["--quiet", "--return", "--command", &run_it, "/dev/null"],
        );
        script.stdin(std::process::Stdio::piped());
        let mut running = Running::spawn(&mut script);
        let mut stdin = running.stdin();
        // Before that, the terminal has nobody to interrupt.
        within("start", async {
            while processes(&host.path("bin/egress")).is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        })
        .await;
        tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
        stdin.write_all(b"\x03").await.expect("a terminal");
        let output = running.finish().await;
        assert_eq!(output.status.code(), Some(130), "{delay} ms: {output:#?}");
        host.assert_nothing_left();
    }
}

#[tokio::test]
async fn an_agent_without_a_manifest_may_be_launched_in_several_projects_at_a_time() {
    let host = Host::new(User::Own).await;
    for name in ["codex", "claude"] {
        let program = host.path("bin").join(name);
        std::fs::write(&program, "#!/bin/sh\nhostname\nexec cat\n").expect("written");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, executable).expect("it is ours");
    }
    let path = format!("{}:/usr/bin:/bin", host.path("bin").display());
    let mut running = Vec::new();
    for (agent, box_name) in [
        ("codex", "codex"),
        ("codex", "codex-2"),
        ("claude", "claude"),
    ] {
        let mut command = host.egress(["run", agent]);
        command
            .env("PATH", &path)
            .stdin(std::process::Stdio::piped());
        let mut launched = Running::spawn(&mut command);
        let stdin = launched.stdin();
        assert_eq!(line(&mut launched).await, box_name);
        running.push((launched, stdin));
    }
    for (launched, stdin) in running {
        drop(stdin);
        assert_eq!(launched.finish().await.status.code(), Some(0));
    }
    host.assert_nothing_left();
}

#[tokio::test]
async fn a_second_launch_of_a_bottle_is_refused_and_the_first_one_goes_on() {
    let host = Host::new(User::Own).await;
    let mut first = host.run(["cat"]);
    first.stdin(std::process::Stdio::piped());
    let mut first = Running::spawn(&mut first);
    let mut stdin = first.stdin();
    let mut stdout = BufReader::new(first.stdout());
    stdin.write_all(b"up\n").await.expect("it reads");
    let mut text = String::new();
    within("echo", stdout.read_line(&mut text))
        .await
        .expect("it prints");
    let second = run(&mut host.run(["true"])).await;
    assert_eq!(second.status.code(), Some(3), "{second:#?}");
    assert!(
        second
            .stderr
            .starts_with("error: the bottle `dev` is at work already\nhint: "),
        "{second:#?}"
    );
    stdin.write_all(b"still\n").await.expect("it reads");
    within("echo", stdout.read_line(&mut text))
        .await
        .expect("it prints");
    assert_eq!(text, "up\nstill\n");
    drop(stdin);
    assert_eq!(first.finish().await.status.code(), Some(0));
    host.assert_nothing_left();
}

async fn line(running: &mut Running) -> String {
    let mut stdout = BufReader::new(running.stdout());
    let mut text = String::new();
    within("start", stdout.read_line(&mut text))
        .await
        .expect("it prints");
    text.trim_end().to_owned()
}

/// Sends a signal to the one process of the host's binary whose arguments contain `which`.
fn kill(host: &Host, which: &str, signal: Signal) {
    let all = processes(&host.path("bin/egress"));
    let found: Vec<_> = all
        .iter()
        .filter(|(_, arguments)| arguments.contains(which))
        .collect();
    let [(pid, _)] = found.as_slice() else {
        panic!("one process with {which:?} was expected: {all:?}");
    };
    let pid = Pid::from_raw(i32::try_from(*pid).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("it runs");
}
