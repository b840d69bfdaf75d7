//! What a process and its descendants took, out of `/proc`, and how a program is started to be measured.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A process with all that it started.
pub(crate) struct Tree {
    root: i32,
}

/// What a tree took until now, and what it holds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time, microseconds.
    pub(crate) cpu_us: f64,
    /// Resident memory, MiB.
    pub(crate) rss_mb: f64,
    /// The same, where a page that several processes share counts to each in part.
    pub(crate) pss_mb: f64,
}

impl Tree {
    pub(crate) fn of(root: i32) -> Self {
        Self { root }
    }

    /// What those that live now took; a child that ended takes its time with it.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for pid in self.members() {
            usage.cpu_us += cpu_us(pid).unwrap_or(0.0);
            usage.rss_mb += mib(&format!("/proc/{pid}/status"), "VmRSS:");
            usage.pss_mb += mib(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
        }
        usage
    }

    fn members(&self) -> Vec<i32> {
        let (mut members, mut unseen) = (Vec::new(), vec![self.root]);
        while let Some(pid) = unseen.pop() {
            members.push(pid);
            for task in fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                unseen.extend(
                    children
                        .split_whitespace()
                        .filter_map(|child| child.parse::<i32>().ok()),
                );
            }
        }
        members
    }
}

/// By the process's own clock, which counts nanoseconds where `/proc/PID/stat` has ticks of 10 ms.
fn cpu_us(pid: i32) -> nix::Result<f64> {
    let time = clock_gettime(clock_getcpuclockid(Pid::from_raw(pid))?)?;
    Ok(Duration::from(time).as_secs_f64() * 1e6)
}

fn mib(file: &str, key: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

#[derive(Debug, Args)]
pub(crate) struct SpawnArgs {
    /// The port of loopback that it is to listen on
    #[arg(long, value_name = "PORT")]
    port: u16,
    /// The processors that it may use
    #[arg(long, value_name = "N", value_delimiter = ',')]
    cpu: Vec<usize>,
    /// A file for what it says
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Prints the process id and how many milliseconds passed until the port accepted, and waits for the program's end, since some
/// programs end when their parent does.
pub(crate) fn spawn(args: &SpawnArgs) -> anyhow::Result<()> {
    if accepts(args.port) {
        bail!("something listens on port {} already", args.port);
    }
    // A signal of the terminal is for whoever drives the measurement, who then ends the program in good order.
    let _ = rustix::process::setsid();
    let begin = Instant::now();
    let mut child = pinned(args)?;
    while !accepts(args.port) {
        let ended = child.try_wait()?;
        if begin.elapsed() > Duration::from_secs(30) || ended.is_some() {
            let _ = child.kill();
            bail!(
                "{} does not listen on port {}",
                args.command.join(" "),
                args.port
            );
        }
        thread::sleep(Duration::from_micros(200));
    }
    println!("{} {:.1}", child.id(), begin.elapsed().as_secs_f64() * 1e3);
    child.wait()?;
    Ok(())
}

/// The child inherits the processors of this thread, which gets its own back.
fn pinned(args: &SpawnArgs) -> anyhow::Result<Child> {
    let Some((program, words)) = args.command.split_first() else {
        bail!("no program")
    };
    let log =
        File::create(&args.log).with_context(|| format!("cannot write {}", args.log.display()))?;
    let mut command = Command::new(program);
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let own = sched_getaffinity(None)?;
    if !args.cpu.is_empty() {
        let mut processors = CpuSet::new();
        args.cpu
            .iter()
            .for_each(|&processor| processors.set(processor));
        sched_setaffinity(None, &processors).context("no such processor")?;
    }
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {program}"));
    sched_setaffinity(None, &own)?;
    child
}

fn accepts(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}
