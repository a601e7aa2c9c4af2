//! System calls that a thread keeps. Every other one kills the process.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::error::{Error, Result};

/// `_IO(0xae, 0x80)`: runs the guest.
const KVM_RUN: u64 = 0xae80;
/// Reading registers, for reports and saving.
const KVM_GET_REGS: u64 = 0x8090_ae81;
const KVM_GET_SREGS: u64 = 0x8138_ae83;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What both kinds of threads need to go on and to end.
const COMMON: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_munmap,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
];

/// Input and output of the guest.
const PROCESSOR: &[i64] = &[
    libc::SYS_close,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_getrandom,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_statx,
];

/// Waiting for signals.
const MAIN: &[i64] = &[libc::SYS_rt_sigtimedwait];

/// The filter of the thread that runs the guest.
pub(super) fn processor() -> Result<BpfProgram> {
    let mut rules = rules(PROCESSOR)?;
    let mut requests = Vec::new();
    for request in [KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS] {
        requests.push(when(1, SeccompCmpOp::Eq, request)?);
    }
    rules.insert(libc::SYS_ioctl, requests);
    compile(rules)
}

/// Reading what QEMU and its guest send, and ending it.
const TRANSLATOR: &[i64] = &[
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_poll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_statx,
    libc::SYS_wait4,
];

/// Nothing that QEMU needs when it is given descriptors; its own filter comes on top.
const NOT_FOR_QEMU: &[i64] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_connect,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_listen,
    libc::SYS_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_setns,
    libc::SYS_socket,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// The filter of the thread that stands beside QEMU.
pub(super) fn translator() -> Result<BpfProgram> {
    let mut rules = rules(TRANSLATOR)?;
    let kill = u64::from(libc::SIGKILL.unsigned_abs());
    rules.insert(libc::SYS_kill, vec![when(1, SeccompCmpOp::Eq, kill)?]);
    compile(rules)
}

/// The filter of QEMU.
pub(super) fn qemu() -> Result<BpfProgram> {
    let rules: Rules = NOT_FOR_QEMU
        .iter()
        .map(|call| (*call, Vec::new()))
        .collect();
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        TargetArch::x86_64,
    )
    .and_then(TryInto::try_into)
    .map_err(|error| refused(&error))
}

/// The filter of the thread that waits for signals.
pub(super) fn main() -> Result<BpfProgram> {
    compile(rules(MAIN)?)
}

/// Installs a filter in this thread.
pub(super) fn apply(filter: Result<BpfProgram>) -> Result<()> {
    seccompiler::apply_filter(&filter?).map_err(|error| {
        Error::system(
            "confine a thread of the monitor (seccomp)",
            std::io::Error::other(error.to_string()),
        )
    })
}

fn rules(own: &[i64]) -> Result<Rules> {
    let mut rules: Rules = COMMON
        .iter()
        .chain(own)
        .map(|call| (*call, Vec::new()))
        .collect();
    // Memory, but never code: not executable, and of no file.
    let no_code = SeccompCmpOp::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs()));
    let anonymous = u64::from(libc::MAP_ANONYMOUS.unsigned_abs());
    let memory = SeccompRule::new(vec![
        condition(2, no_code.clone(), 0)?,
        condition(3, SeccompCmpOp::MaskedEq(anonymous), anonymous)?,
    ])
    .map_err(|error| refused(&error))?;
    rules.insert(libc::SYS_mmap, vec![memory]);
    rules.insert(libc::SYS_mprotect, vec![when(2, no_code, 0)?]);
    rules.insert(libc::SYS_mremap, Vec::new());
    // The standard library looks, with debug assertions, before it closes something.
    let look = u64::from(libc::F_GETFD.unsigned_abs());
    rules.insert(libc::SYS_fcntl, vec![when(1, SeccompCmpOp::Eq, look)?]);
    Ok(rules)
}

fn refused(error: &seccompiler::BackendError) -> Error {
    Error::system(
        "make a system call filter",
        std::io::Error::other(error.to_string()),
    )
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .map_err(|error| refused(&error))
}

fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    SeccompRule::new(vec![condition(argument, operator, value)?]).map_err(|error| refused(&error))
}

fn compile(rules: Rules) -> Result<BpfProgram> {
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )
    .and_then(TryInto::try_into)
    .map_err(|error| refused(&error))
}
