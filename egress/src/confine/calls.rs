//! The system calls that the sidecar gives up, with seccomp(2). It names what is refused, and not what is allowed:
//! a resolver's modules, the C library and the runtime make calls of their own, which differ by version and machine.
//! What is newer than this list does not exist for the process, so that no call is allowed because nobody knew it.

use seccompiler::{BackendError, BpfProgram, SeccompCmpArgLen, SeccompCmpOp};
use seccompiler::{SeccompCondition, SeccompRule};

use super::filter::{has, masked, none_from, refusing};

/// The filters: refusals, then what does not exist. A process that writes files may cut them short, too.
///
/// # Errors
///
/// The library's: there is no filter for this architecture.
pub(super) fn filters(writes_files: bool) -> Result<[BpfProgram; 2], BackendError> {
    // SQLite cuts the files beside a database short that it shares with readers.
    let refused = REFUSED
        .iter()
        .filter(|call| !writes_files || **call != libc::SYS_ftruncate);
    let mut rules: Vec<_> = refused.map(|call| (*call, vec![])).collect();
    rules.extend([
        (libc::SYS_socket, other_sockets()?),
        // A thread shares its process; whatever does not is another process.
        (
            libc::SYS_clone,
            vec![rule(masked(0, libc::CLONE_THREAD.unsigned_abs(), 0)?)?],
        ),
        (libc::SYS_mmap, new_code()?),
        (libc::SYS_mprotect, vec![rule(has(2, EXEC)?)?]),
        (libc::SYS_pkey_mprotect, vec![rule(has(2, EXEC)?)?]),
        (libc::SYS_prctl, undone()?),
        // Its own limits are process 0's, and the C library asks for them so.
        (libc::SYS_prlimit64, vec![none_of(0, &[0])?]),
        // Its own threads stand back for one another; it sets no other process's priority.
        (
            libc::SYS_setpriority,
            vec![none_of(0, &[PRIO_PROCESS])?, none_of(1, &[0])?],
        ),
        (libc::SYS_ioctl, typed()?),
    ]);
    let mut refusals = refusing(rules, libc::EPERM)?;
    refusals.splice(0..0, none_from(FIRST_UNKNOWN, libc::ENOSYS));
    // Its arguments are in memory, where no filter sees them. Without it the C library takes `clone`.
    let absences = refusing(vec![(libc::SYS_clone3, vec![])], libc::ENOSYS)?;
    Ok([refusals, absences])
}

/// The number after cachestat's (Linux 6.5). From 424 on a number is the same call on every architecture; those of x32 are
/// larger still.
const FIRST_UNKNOWN: u32 = 452;

/// The C library's own has another type in each.
const PRIO_PROCESS: i32 = libc::PRIO_PROCESS as i32;

const EXEC: u32 = libc::PROT_EXEC.unsigned_abs();

/// Other families than Unix and the internet's two, other kinds than streams and datagrams, other protocols than TCP and
/// UDP. The C library asks a netlink socket for this machine's addresses, and does without where there is none.
fn other_sockets() -> Result<Vec<SeccompRule>, BackendError> {
    /// The kind is in the low four bits; flags are above them.
    const KIND: u32 = 0xf;
    let family = none_of(0, &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6])?;
    let protocol = none_of(2, &[0, libc::IPPROTO_TCP, libc::IPPROTO_UDP])?;
    // Of all kinds only 1 and 2 are allowed: SOCK_STREAM and SOCK_DGRAM.
    let mut rules = vec![family, protocol, rule(masked(1, KIND, 0)?)?];
    for kind in 3..=KIND {
        rules.push(rule(masked(1, KIND, kind)?)?);
    }
    Ok(rules)
}

/// Memory that could be filled with instructions and run: what is executable and writable, or no file's. Modules of the
/// resolver are files, and are mapped executable.
fn new_code() -> Result<Vec<SeccompRule>, BackendError> {
    let anonymous = libc::MAP_ANONYMOUS.unsigned_abs();
    Ok(vec![
        rule(has(2, EXEC | libc::PROT_WRITE.unsigned_abs())?)?,
        SeccompRule::new(vec![has(2, EXEC)?, has(3, anonymous)?])?,
    ])
}

/// What would undo measures before this one, or move the block that was wiped.
fn undone() -> Result<Vec<SeccompRule>, BackendError> {
    [libc::PR_SET_DUMPABLE, libc::PR_SET_PTRACER, libc::PR_SET_MM]
        .into_iter()
        .map(|option| rule(equal(0, option.unsigned_abs())?))
        .collect()
}

/// What types into the terminal that it was started from (CVE-2017-5226).
fn typed() -> Result<Vec<SeccompRule>, BackendError> {
    [libc::TIOCSTI, libc::TIOCLINUX]
        .into_iter()
        .map(|request| rule(equal(1, request as u32)?))
        .collect()
}

fn rule(condition: SeccompCondition) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![condition])
}

fn equal(argument: u8, value: u32) -> Result<SeccompCondition, BackendError> {
    masked(argument, u32::MAX, value)
}

fn none_of(argument: u8, values: &[i32]) -> Result<SeccompRule, BackendError> {
    let differs = |value: &i32| {
        let value = value.unsigned_abs().into();
        let length = SeccompCmpArgLen::Dword;
        SeccompCondition::new(argument, length, SeccompCmpOp::Ne, value)
    };
    SeccompRule::new(values.iter().map(differs).collect::<Result<_, _>>()?)
}

/// Calls that the sidecar makes in no case.
#[rustfmt::skip]
const REFUSED: &[i64] = &[
    // Programs and processes.
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_personality,
    #[cfg(target_arch = "x86_64")] libc::SYS_fork,
    #[cfg(target_arch = "x86_64")] libc::SYS_vfork,
    // Other processes of the same user.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_process_madvise,
    libc::SYS_process_mrelease, libc::SYS_kcmp, libc::SYS_pidfd_open, libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal, libc::SYS_move_pages, libc::SYS_migrate_pages,
    libc::SYS_sched_setscheduler, libc::SYS_sched_setparam, libc::SYS_sched_setattr, libc::SYS_sched_setaffinity,
    libc::SYS_ioprio_set,
    // Who it is, and what it may do.
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid,
    libc::SYS_setresgid, libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_setgroups, libc::SYS_capset,
    // What it sees of the system.
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_chroot, libc::SYS_pivot_root, libc::SYS_mount, libc::SYS_umount2,
    libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount,
    libc::SYS_fspick, libc::SYS_mount_setattr,
    // Changes of files that Landlock does not hold (landlock(7), current limitations), and ways round names.
    libc::SYS_fchmodat, libc::SYS_fchownat, libc::SYS_fchown, libc::SYS_utimensat, libc::SYS_setxattr,
    libc::SYS_lsetxattr, libc::SYS_fsetxattr, libc::SYS_removexattr, libc::SYS_lremovexattr,
    libc::SYS_fremovexattr, libc::SYS_mknodat, libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at,
    // Files that were open before: the log may be one. Landlock holds those that are opened later.
    libc::SYS_truncate, libc::SYS_ftruncate, libc::SYS_fallocate,
    #[cfg(target_arch = "x86_64")] libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")] libc::SYS_chown,
    #[cfg(target_arch = "x86_64")] libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")] libc::SYS_utime,
    #[cfg(target_arch = "x86_64")] libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")] libc::SYS_futimesat,
    #[cfg(target_arch = "x86_64")] libc::SYS_mknod,
    // Files without a name, which could be filled and mapped as a module; memory of other processes.
    libc::SYS_memfd_create, libc::SYS_memfd_secret, libc::SYS_remap_file_pages, libc::SYS_shmget, libc::SYS_shmat,
    libc::SYS_shmctl, libc::SYS_semget, libc::SYS_semctl, libc::SYS_msgget, libc::SYS_msgctl, libc::SYS_mq_open,
    // Round this filter, or into the kernel. io_uring opens files and sockets without a call that is seen.
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_bpf,
    libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl,
    libc::SYS_fanotify_init, libc::SYS_vmsplice,
    // The machine.
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_reboot,
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_quotactl, libc::SYS_quotactl_fd, libc::SYS_syslog,
    libc::SYS_vhangup, libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_settimeofday,
    libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime, libc::SYS_nfsservctl,
    #[cfg(target_arch = "x86_64")] libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")] libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")] libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")] libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")] libc::SYS_uselib,
];

#[cfg(test)]
mod tests {
    use seccompiler::sock_filter;

    use super::{FIRST_UNKNOWN, REFUSED, filters};

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

    #[cfg(target_arch = "x86_64")]
    const NATIVE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const NATIVE: u32 = 0xc000_00b7;

    /// What a filter says of a call, as the kernel would run it (as much of classic BPF as the library makes).
    fn run(program: &[sock_filter], number: u32, arch: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [number, arch, 0, 0].map(u32::to_ne_bytes).concat();
        data.extend(arguments.map(u64::to_ne_bytes).concat());
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let line = program.get(at).expect("a filter ends with its word");
            at += 1;
            let jump = |holds: bool| usize::from(if holds { line.jt } else { line.jf });
            match u32::from(line.code) {
                0x20 => {
                    let from = line.k as usize;
                    let word = data.get(from..from + 4).expect("a word of the data");
                    accumulator = u32::from_ne_bytes(word.try_into().expect("four bytes"));
                }
                0x54 => accumulator &= line.k,
                0x05 => at += line.k as usize,
                0x15 => at += jump(accumulator == line.k),
                0x25 => at += jump(accumulator > line.k),
                0x35 => at += jump(accumulator >= line.k),
                0x06 => return line.k,
                other => panic!("an instruction that is not known here: {other:#x}"),
            }
        }
    }

    /// What both filters say together: the stricter of the two (seccomp(2)).
    fn verdict(number: i64, arguments: [u64; 6]) -> u32 {
        let number = u32::try_from(number).expect("a call's number");
        let filters = filters(false).expect("filters");
        let verdicts = filters.map(|filter| run(&filter, number, NATIVE, arguments));
        let refusal = verdicts.into_iter().find(|verdict| *verdict != ALLOW);
        refusal.unwrap_or(ALLOW)
    }

    #[test]
    fn each_call_of_the_list_is_refused_and_what_is_newer_does_not_exist() {
        for call in REFUSED {
            assert_eq!(verdict(*call, [0; 6]), EPERM, "{call}");
        }
        let unknown = i64::from(FIRST_UNKNOWN);
        for call in [
            libc::SYS_clone3,
            unknown,
            unknown + 1,
            0x4000_0000,
            0x4000_003b,
        ] {
            assert_eq!(verdict(call, [0; 6]), ENOSYS, "{call:#x}");
        }
        for call in [
            libc::SYS_read,
            libc::SYS_openat,
            libc::SYS_connect,
            unknown - 1,
        ] {
            assert_eq!(verdict(call, [0; 6]), ALLOW, "{call}");
        }
        // The numbers of another architecture are other calls.
        for filter in filters(false).expect("filters") {
            assert_eq!(run(&filter, 11, 0x4000_0003, [0; 6]), KILL);
        }
    }

    #[test]
    fn arguments_tell_what_is_allowed_of_a_call() {
        let high = 1 << 32;
        let clone = u64::from(libc::CLONE_THREAD.unsigned_abs());
        let (tcp, udp) = (6, 17);
        for (call, arguments, expected) in [
            (libc::SYS_clone, [clone | 0x3d_0f00, 0, 0, 0], ALLOW),
            (libc::SYS_clone, [17, 0, 0, 0], EPERM),
            (libc::SYS_socket, [2, 1 | 0o2_004_000, 0, 0], ALLOW),
            (libc::SYS_socket, [10, 1, tcp, 0], ALLOW),
            (libc::SYS_socket, [2, 2, udp, 0], ALLOW),
            (libc::SYS_socket, [1, 1, 0, 0], ALLOW),
            (libc::SYS_socket, [1 | high, 1, 0, 0], ALLOW),
            (libc::SYS_socket, [16, 3, 0, 0], EPERM),
            (libc::SYS_socket, [2, 3, 1, 0], EPERM),
            (libc::SYS_socket, [2, 2, 1, 0], EPERM),
            (libc::SYS_socket, [2, 1, 262, 0], EPERM),
            (libc::SYS_socket, [1, 5, 0, 0], EPERM),
            (libc::SYS_socket, [40, 1, 0, 0], EPERM),
            (libc::SYS_mmap, [0, 9, 3, 0x22], ALLOW),
            (libc::SYS_mmap, [0, 9, 5, 0x02], ALLOW),
            (libc::SYS_mmap, [0, 9, 7, 0x02], EPERM),
            (libc::SYS_mmap, [0, 9, 5, 0x22], EPERM),
            (libc::SYS_mprotect, [0, 9, 3, 0], ALLOW),
            (libc::SYS_mprotect, [0, 9, 4, 0], EPERM),
            (libc::SYS_pkey_mprotect, [0, 9, 5, 0], EPERM),
            // PR_SET_DUMPABLE, PR_SET_NAME.
            (libc::SYS_prctl, [4, 1, 0, 0], EPERM),
            (libc::SYS_prctl, [4 | high, 1, 0, 0], EPERM),
            (libc::SYS_prctl, [15, 1, 0, 0], ALLOW),
            (libc::SYS_prlimit64, [0, 7, 0, 0], ALLOW),
            (libc::SYS_prlimit64, [1, 7, 0, 0], EPERM),
            // TIOCSTI, TIOCLINUX, FIONBIO.
            (libc::SYS_ioctl, [0, 0x5412, 0, 0], EPERM),
            (libc::SYS_ioctl, [0, 0x5412 | high, 0, 0], EPERM),
            (libc::SYS_ioctl, [0, 0x541c, 0, 0], EPERM),
            (libc::SYS_ioctl, [0, 0x5421, 0, 0], ALLOW),
        ] {
            let [a, b, c, d] = arguments;
            let told = verdict(call, [a, b, c, d, 0, 0]);
            assert_eq!(told, expected, "{call} {arguments:?}");
        }
    }
}
