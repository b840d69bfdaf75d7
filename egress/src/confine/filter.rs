//! Filters of system calls, seccomp(2): what a launch's box and the sidecar itself are both held by.

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, sock_filter,
};

/// A filter under which calls fail with `error`: each whose rules one matches, and each without rules. A call of another
/// architecture than this one's ends the process.
///
/// # Errors
///
/// The library's: there is no filter for this architecture.
pub fn refusing(
    rules: Vec<(i64, Vec<SeccompRule>)>,
    error: i32,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(error.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

/// Whether an argument has all of these bits.
///
/// # Errors
///
/// The library's: no call has an argument of that number.
pub fn has(argument: u8, bits: u32) -> Result<SeccompCondition, BackendError> {
    masked(argument, bits, bits)
}

/// Whether those bits of an argument are these.
///
/// # Errors
///
/// The library's: no call has an argument of that number.
pub fn masked(argument: u8, mask: u32, bits: u32) -> Result<SeccompCondition, BackendError> {
    let compare = SeccompCmpOp::MaskedEq(mask.into());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, bits.into())
}

/// The head of a filter under which calls from this number on fail with `error`.
pub fn none_from(number: u32, error: i32) -> [sock_filter; 3] {
    let statement = |code: u32, jf, k| sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    [
        // The number of the call is the first word.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, number),
        statement(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_ERRNO | error.unsigned_abs(),
        ),
    ]
}
