//! Entering the namespaces, and giving up all that came with them before the command starts.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::plan::{Failed, Step};
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

/// Gives up every capability for this process and all that come of it, and closes the ways around that.
pub(super) fn give_up() -> Result<(), Failed> {
    let failed = |about| move |error: io::Error| Failed::new(Step::Privileges, about, &error);
    drop_capabilities().map_err(failed("capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(|error| failed("no_new_privs")(error.into()))?;
    // The agent is the same user, and may neither look into this process nor stop it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| failed("PR_SET_DUMPABLE")(error.into()))?;
    let program = filter().map_err(|error| failed("seccomp")(io::Error::other(error)))?;
    seccompiler::apply_filter(&program).map_err(|error| failed("seccomp")(io::Error::other(error)))
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
/// - keys are kept by user, and not by namespace; `bpf` and `perf_event_open` are of no use here but to attackers.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
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
    let rules = [
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
    ];
    SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_filter_compiles_for_this_machine() {
        assert!(!super::filter().expect("a program").is_empty());
    }
}
