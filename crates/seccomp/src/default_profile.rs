//! The field's default profile: what docker, containerd and podman run containers with.
//!
//! Content: moby/profiles `seccomp/default_linux.go`, as far as it concerns x86. A call is allowed
//! if it is listed, and fails with EPERM if not.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// When a group of calls is allowed.
enum When {
    Always,
    /// With this capability, by number.
    Capability(u32),
    /// From this kernel on.
    Kernel(u32, u32),
}

struct Group {
    when: When,
    /// Names, separated by blanks.
    names: &'static str,
}

const fn group(when: When, names: &'static str) -> Group {
    Group { when, names }
}

const GROUPS: &[Group] = &[
    // Files, directories and their attributes.
    group(
        When::Always,
        "access cachestat chdir chmod chown chown32 creat faccessat faccessat2 fanotify_mark \
            fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fgetxattr flistxattr \
            fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 ftruncate \
            ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat \
            inotify_add_watch inotify_init inotify_init1 inotify_rm_watch lchown lchown32 \
            lgetxattr link linkat listmount listxattr listxattrat llistxattr lremovexattr \
            lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat mq_unlink name_to_handle_at \
            newfstatat open openat openat2 readlink readlinkat removexattr removexattrat rename \
            renameat renameat2 rmdir setxattr setxattrat stat stat64 statfs statfs64 statmount \
            statx symlink symlinkat truncate truncate64 umask unlink unlinkat utime utimensat \
            utimensat_time64 utimes",
    ),
    // Reading, writing and waiting on descriptors.
    group(
        When::Always,
        "close close_range copy_file_range dup dup2 dup3 epoll_create epoll_create1 epoll_ctl \
            epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 \
            fadvise64 fadvise64_64 fallocate fcntl fcntl64 fdatasync flock fsync io_cancel ioctl \
            io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set \
            io_setup io_submit _llseek lseek _newselect pipe pipe2 poll ppoll ppoll_time64 \
            pread64 preadv preadv2 pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read \
            readahead readv select sendfile sendfile64 signalfd signalfd4 splice sync \
            sync_file_range syncfs tee timerfd_create timerfd_gettime timerfd_gettime64 \
            timerfd_settime timerfd_settime64 vmsplice write writev",
    ),
    // Memory.
    group(
        When::Always,
        "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock \
            mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap \
            pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages shmat shmctl \
            shmdt shmget",
    ),
    // Sockets; `socket` itself is below.
    group(
        When::Always,
        "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom \
            recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown \
            socketcall socketpair",
    ),
    // Signals and time.
    group(
        When::Always,
        "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 \
            clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 futex_time64 \
            getitimer gettimeofday kill mq_timedreceive mq_timedreceive_time64 mq_timedsend \
            mq_timedsend_time64 nanosleep pause pidfd_open pidfd_send_signal rt_sigaction \
            rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
            rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo \
            sched_rr_get_interval_time64 semtimedop semtimedop_time64 setitimer sigaltstack \
            sigprocmask sigreturn tgkill time timer_create timer_delete timer_getoverrun \
            timer_gettime timer_gettime64 timer_settime timer_settime64 times tkill",
    ),
    // Message queues, semaphores and futexes.
    group(
        When::Always,
        "futex futex_requeue futex_wait futex_waitv futex_wake get_robust_list ipc \
            mq_getsetattr mq_notify mq_open msgctl msgget msgrcv msgsnd semctl semget semop \
            set_robust_list",
    ),
    // Processes, their identity and limits.
    group(
        When::Always,
        "capget capset execve execveat exit exit_group fork getcpu getegid getegid32 geteuid \
            geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid \
            getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit \
            getrusage getsid get_thread_area gettid getuid getuid32 landlock_add_rule \
            landlock_create_ruleset landlock_restrict_self prctl prlimit64 restart_syscall rseq \
            sched_getaffinity sched_getattr sched_getparam sched_get_priority_max \
            sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_setaffinity \
            sched_setattr sched_setparam sched_setscheduler sched_yield seccomp setfsgid \
            setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid \
            setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid \
            setreuid32 setrlimit setsid set_thread_area set_tid_address setuid setuid32 sysinfo \
            ugetrlimit uname uretprobe vfork wait4 waitid waitpid",
    ),
    // Of x86 alone.
    group(When::Always, "arch_prctl modify_ldt"),
    // Before 4.8 a tracer could get around the filter.
    group(
        When::Kernel(4, 8),
        "process_vm_readv process_vm_writev ptrace",
    ),
    group(When::Capability(DAC_READ_SEARCH), "open_by_handle_at"),
    group(
        When::Capability(SYS_ADMIN),
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
            lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
            open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns \
            syslog umount umount2 unshare",
    ),
    group(When::Capability(SYS_BOOT), "reboot"),
    group(When::Capability(SYS_CHROOT), "chroot"),
    group(
        When::Capability(SYS_MODULE),
        "delete_module init_module finit_module",
    ),
    group(When::Capability(SYS_PACCT), "acct"),
    group(
        When::Capability(SYS_PTRACE),
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    group(When::Capability(SYS_RAWIO), "iopl ioperm"),
    group(
        When::Capability(SYS_TIME),
        "settimeofday stime clock_settime clock_settime64",
    ),
    group(When::Capability(SYS_TTY_CONFIG), "vhangup"),
    group(
        When::Capability(SYS_NICE),
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    group(When::Capability(SYSLOG), "syslog"),
    group(When::Capability(BPF), "bpf"),
    group(When::Capability(PERFMON), "perf_event_open"),
];

// Numbers of linux/capability.h.
const DAC_READ_SEARCH: u32 = 2;
const SYS_MODULE: u32 = 16;
const SYS_RAWIO: u32 = 17;
const SYS_CHROOT: u32 = 18;
const SYS_PTRACE: u32 = 19;
const SYS_PACCT: u32 = 20;
const SYS_ADMIN: u32 = 21;
const SYS_BOOT: u32 = 22;
const SYS_NICE: u32 = 23;
const SYS_TIME: u32 = 25;
const SYS_TTY_CONFIG: u32 = 26;
const SYSLOG: u32 = 34;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Socket families below this one are allowed; above it, those of [`FAMILIES`]. Left out are
/// families that Linux no longer has (DECnet, Econet, IrDA, ISDN, CAIF, ...), AF_ALG for the
/// kernel surface that it opens (38), and AF_VSOCK, which reaches around network namespaces (40).
const FAMILIES_BELOW: u64 = 12;
const FAMILIES: &[u64] = &[
    13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44,
    45,
];

/// Execution domains that personality(2) may set: Linux, Linux with 32-bit uname, and "tell".
const PERSONALITIES: &[u64] = &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET`.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// The field's default profile for a process whose bounding set is `capabilities` (one bit per
/// capability number, capabilities(7)), on a kernel of version `kernel` (major, minor).
#[must_use]
pub fn default_profile(capabilities: u64, kernel: (u32, u32)) -> LinuxSeccomp {
    let has = |capability: u32| capabilities >> capability & 1 == 1;
    let applies = |when: &When| match *when {
        When::Always => true,
        When::Capability(capability) => has(capability),
        When::Kernel(major, minor) => kernel >= (major, minor),
    };
    let mut rules: Vec<LinuxSyscall> = GROUPS
        .iter()
        .filter(|group| applies(&group.when))
        .map(|group| allow(group.names, None))
        .collect();
    let equal = LinuxSeccompOperator::ScmpCmpEq;
    let below = argument(LinuxSeccompOperator::ScmpCmpLt, FAMILIES_BELOW, None);
    rules.push(allow("socket", Some(below)));
    rules.extend(
        FAMILIES
            .iter()
            .map(|family| allow("socket", Some(argument(equal, *family, None)))),
    );
    rules.extend(
        PERSONALITIES
            .iter()
            .map(|domain| allow("personality", Some(argument(equal, *domain, None)))),
    );
    if !has(SYS_ADMIN) {
        let masked = LinuxSeccompOperator::ScmpCmpMaskedEq;
        rules.push(allow(
            "clone",
            Some(argument(masked, CLONE_NAMESPACES, Some(0))),
        ));
        // Its flags are in memory, where a filter cannot look; C libraries fall back to clone.
        let mut clone3 = allow("clone3", None);
        clone3
            .set_action(LinuxSeccompAction::ScmpActErrno)
            .set_errno_ret(Some(ENOSYS));
        rules.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(vec![
            Arch::ScmpArchX86_64,
            Arch::ScmpArchX86,
            Arch::ScmpArchX32,
        ]))
        .set_syscalls(Some(rules));
    profile
}

fn allow(names: &str, argument: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let names: Vec<String> = names.split_ascii_whitespace().map(str::to_owned).collect();
    let mut rule = LinuxSyscall::default();
    rule.set_names(names)
        .set_action(LinuxSeccompAction::ScmpActAllow)
        .set_args(argument.map(|argument| vec![argument]));
    rule
}

fn argument(op: LinuxSeccompOperator, value: u64, second: Option<u64>) -> LinuxSeccompArg {
    let mut builder = LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .op(op)
        .value(value);
    if let Some(second) = second {
        builder = builder.value_two(second);
    }
    // Every field has a default, so building cannot fail; "equals 0" would allow less.
    builder.build().unwrap_or_default()
}
