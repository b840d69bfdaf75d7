//! Entering the namespaces, and giving up all that came with them before the command starts.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::fence;
use super::plan::{Failed, Step};
use crate::confine::filter::{self, has};
use crate::os::{self, Namespaces};

/// Who the agent is where the launcher is root: some agents refuse to work as user 0.
const AGENT_ID: u32 = 1000;

/// Moves the process into the box's namespaces. It keeps its user, so that the workspace stays the agent's own, and has
/// every capability over the namespaces alone.
pub(super) fn enter_namespaces() -> Result<(), Failed> {
    let failed = |about| move |error: io::Error| Failed::new(Step::Namespaces, about, &error);
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    os::unshare(Namespaces::Box).map_err(failed("unshare"))?;
    // Without this an unprivileged process may not map its group (user_namespaces(7)).
    write("/proc/self/setgroups", "deny").map_err(failed("/proc/self/setgroups"))?;
    write("/proc/self/uid_map", &format!("{} {user} 1", inside(user)))
        .map_err(failed("/proc/self/uid_map"))?;
    write(
        "/proc/self/gid_map",
        &format!("{} {group} 1", inside(group)),
    )
    .map_err(failed("/proc/self/gid_map"))?;
    keep_for_init().map_err(failed("capabilities"))
}

/// A user or group as the box sees it.
pub(super) fn inside(id: u32) -> u32 {
    if id == 0 { AGENT_ID } else { id }
}

fn write(path: &str, text: &str) -> io::Result<()> {
    // In one write: the kernel takes these maps whole or not at all.
    std::fs::write(path, text)
}

/// What the box's first process needs: mounts, host name, and dropping what it has.
const FOR_INIT: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SETPCAP);

/// A process that is not user 0 loses its capabilities in execve(2), but for ambient ones.
fn keep_for_init() -> io::Result<()> {
    let held = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            inheritable: FOR_INIT,
            ..held
        },
    )?;
    for capability in FOR_INIT.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Bounds what a box may do to the machine that it runs on: where memory runs short, its processes go before the
/// operator's, and there may be only so many of them. Root's are not counted by the kernel.
pub(super) fn bound() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // It fails where the launcher's own score is higher, and nothing is lost then.
    _ = write("/proc/self/oom_score_adj", OOM_SCORE);
    // In a user namespace of its own the box's processes are counted by themselves (user_namespaces(7)).
    let limit = getrlimit(Resource::Nproc);
    let most = |found: Option<u64>| Some(found.unwrap_or(u64::MAX).min(MOST_PROCESSES));
    _ = setrlimit(
        Resource::Nproc,
        Rlimit {
            current: most(limit.current),
            maximum: most(limit.maximum),
        },
    );
}

/// As if they held half of the memory more than they do.
const OOM_SCORE: &str = "500";

/// Processes and threads: more than a build on a large machine has.
const MOST_PROCESSES: u64 = 8192;

/// Gives up every capability for this process and all that come of it, and closes the ways around that.
pub(super) fn give_up(input: Option<BorrowedFd<'_>>) -> Result<(), Failed> {
    let failed = |about| move |error: io::Error| Failed::new(Step::Privileges, about, &error);
    drop_capabilities().map_err(failed("capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(|error| failed("no_new_privs")(error.into()))?;
    // The agent is the same user, and may neither look into this process nor stop it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| failed("PR_SET_DUMPABLE")(error.into()))?;
    fence::raise(input).map_err(failed("landlock"))?;
    for program in [refusals(), absences()] {
        let program = program.map_err(|error| failed("seccomp")(io::Error::other(error)))?;
        seccompiler::apply_filter(&program)
            .map_err(|error| failed("seccomp")(io::Error::other(error)))?;
    }
    Ok(())
}

fn drop_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel knows no more of them.
            Err(rustix::io::Errno::INVAL) => break,
            other => other?,
        }
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, sets).map_err(Into::into)
}

/// System calls that lead out of the namespaces, or round this filter:
///
/// - `ioctl` with TIOCSTI and TIOCLINUX types into the terminal that the launcher was started from (CVE-2017-5226);
/// - sockets of families that no network namespace holds, such as VSOCK to the machine that this one runs on;
/// - `io_uring` opens sockets without `socket`;
/// - keys are kept by user, and not by namespace; `bpf` and `perf_event_open` are of no use here but to attackers;
/// - a user namespace gives every capability over what is in it. With them root's agent mounts the control groups of the
///   host, which are its user's, and anybody's reaches parts of the kernel that are for administrators;
/// - the set-user-ID bit: a file in the workspace is the operator's, and so would be whoever on the host runs it.
fn refusals() -> Result<BpfProgram, seccompiler::BackendError> {
    let ioctl = |request: u64| {
        let is = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?;
        SeccompRule::new(vec![is])
    };
    let families = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    let other_family = families
        .into_iter()
        .map(|family| {
            let family = u64::from(family.unsigned_abs());
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let new_user = || SeccompRule::new(vec![has(0, libc::CLONE_NEWUSER.unsigned_abs())?]);
    let set_user_id = |argument| SeccompRule::new(vec![has(argument, libc::S_ISUID)?]);
    let makes_set_user_id = |flags: u8, mode| {
        [libc::O_CREAT, libc::O_TMPFILE]
            .map(|flag| {
                let flag = has(flags, flag.unsigned_abs())?;
                SeccompRule::new(vec![flag, has(mode, libc::S_ISUID)?])
            })
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    };
    let mut rules = vec![
        (
            libc::SYS_ioctl,
            vec![ioctl(libc::TIOCSTI)?, ioctl(libc::TIOCLINUX)?],
        ),
        (libc::SYS_socket, vec![SeccompRule::new(other_family)?]),
        (libc::SYS_io_uring_setup, vec![]),
        (libc::SYS_add_key, vec![]),
        (libc::SYS_keyctl, vec![]),
        (libc::SYS_request_key, vec![]),
        (libc::SYS_bpf, vec![]),
        (libc::SYS_perf_event_open, vec![]),
        (libc::SYS_userfaultfd, vec![]),
        (libc::SYS_unshare, vec![new_user()?]),
        (libc::SYS_clone, vec![new_user()?]),
        (libc::SYS_fchmod, vec![set_user_id(1)?]),
        (libc::SYS_fchmodat, vec![set_user_id(2)?]),
        (SYS_FCHMODAT2, vec![set_user_id(2)?]),
        (libc::SYS_mknodat, vec![set_user_id(2)?]),
        (libc::SYS_openat, makes_set_user_id(2, 3)?),
    ];
    #[cfg(target_arch = "x86_64")]
    rules.extend([
        (libc::SYS_chmod, vec![set_user_id(1)?]),
        (libc::SYS_creat, vec![set_user_id(1)?]),
        (libc::SYS_mknod, vec![set_user_id(1)?]),
        (libc::SYS_open, makes_set_user_id(1, 2)?),
    ]);
    let mut program = filter::refusing(rules, libc::EPERM)?;
    if cfg!(target_arch = "x86_64") {
        program.splice(0..0, filter::none_from(X32_BIT, libc::EPERM));
    }
    Ok(program)
}

/// System calls whose arguments no filter can see, since they are in memory. To a program that tries them they do not
/// exist, so that it takes the older ones.
fn absences() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = vec![(libc::SYS_clone3, vec![]), (libc::SYS_openat2, vec![])];
    filter::refusing(rules, libc::ENOSYS)
}

/// The numbers of the x32 ABI: on x86-64 they are the same calls under other numbers, and the filters compare numbers
/// (seccomp(2), AUDIT_ARCH_X86_64).
const X32_BIT: u32 = 0x4000_0000;

/// The same number on every architecture (Linux 6.6); the C library's crate does not have it everywhere.
const SYS_FCHMODAT2: i64 = 452;

#[cfg(test)]
mod tests {
    #[test]
    fn the_filters_compile_for_this_machine() {
        for filter in [super::refusals(), super::absences()] {
            assert!(!filter.expect("a program").is_empty());
        }
    }
}
