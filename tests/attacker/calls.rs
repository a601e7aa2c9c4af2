//! Every system call that has been part of an escape, tried: `NAME ERRNO`, 0 if it worked.

use crate::kernel::{call, call_32, text};
use std::fs::File;
use std::os::fd::AsRawFd;

const CLONE_NEWUSER: usize = 0x1000_0000;
const CLONE_NEWNS: usize = 0x2_0000;
const CLONE_NEWCGROUP: usize = 0x200_0000;
const CLONE_NEWPID: usize = 0x2000_0000;
const CLONE_NEWNET: usize = 0x4000_0000;
const X32: i64 = 0x4000_0000;

/// Tries them all.
pub fn all() {
    let own = File::open("/proc/self/ns/mnt").map_or(0, |file| {
        let fd = file.as_raw_fd();
        // It stays open to the end.
        std::mem::forget(file);
        usize::try_from(fd).unwrap_or(0)
    });
    let (none, tmp, tmpfs) = (text("none"), text("/tmp"), text("tmpfs"));
    let (none, tmp, tmpfs) = (
        none.as_ptr().addr(),
        tmp.as_ptr().addr(),
        tmpfs.as_ptr().addr(),
    );
    // Zeros are a valid argument block for every call that takes one.
    let zeros = [0_u64; 64];
    let zeros = zeros.as_ptr().addr();
    let table: &[(&str, i64, [usize; 6])] = &[
        ("mount", 165, [none, tmp, tmpfs, 0, 0, 0]),
        ("umount2", 166, [tmp, 0, 0, 0, 0, 0]),
        ("pivot_root", 155, [tmp, tmp, 0, 0, 0, 0]),
        ("setns", 308, [own, 0, 0, 0, 0, 0]),
        ("unshare-user", 272, [CLONE_NEWUSER, 0, 0, 0, 0, 0]),
        ("unshare-mount", 272, [CLONE_NEWNS, 0, 0, 0, 0, 0]),
        ("unshare-cgroup", 272, [CLONE_NEWCGROUP, 0, 0, 0, 0, 0]),
        ("unshare-pid", 272, [CLONE_NEWPID, 0, 0, 0, 0, 0]),
        ("unshare-net", 272, [CLONE_NEWNET, 0, 0, 0, 0, 0]),
        ("clone-user", 56, [CLONE_NEWUSER | 17, 0, 0, 0, 0, 0]),
        ("clone3", 435, [zeros, 88, 0, 0, 0, 0]),
        ("fsopen", 430, [tmpfs, 0, 0, 0, 0, 0]),
        ("open_tree", 428, [usize::MAX - 99, tmp, 1, 0, 0, 0]),
        ("move_mount", 429, [own, none, own, none, 4, 0]),
        ("mount_setattr", 442, [usize::MAX - 99, tmp, 0, zeros, 32, 0]),
        ("open_by_handle_at", 304, [own, zeros, 0, 0, 0, 0]),
        ("bpf", 321, [0, zeros, 128, 0, 0, 0]),
        ("userfaultfd", 323, [1, 0, 0, 0, 0, 0]),
        ("io_uring_setup", 425, [4, zeros, 0, 0, 0, 0]),
        ("io_uring_enter", 426, [0, 0, 0, 0, 0, 0]),
        ("io_uring_register", 427, [0, 0, 0, 0, 0, 0]),
        ("perf_event_open", 298, [zeros, 0, usize::MAX, usize::MAX, 0, 0]),
        ("kexec_load", 246, [0, 0, 0, 0, 0, 0]),
        ("kexec_file_load", 320, [0, 0, 0, 0, 0, 0]),
        ("init_module", 175, [zeros, 8, none, 0, 0, 0]),
        ("finit_module", 313, [own, none, 0, 0, 0, 0]),
        ("delete_module", 176, [none, 0, 0, 0, 0, 0]),
        ("add_key", 248, [none, none, zeros, 1, usize::MAX - 2, 0]),
        ("request_key", 249, [none, none, 0, 0, 0, 0]),
        ("keyctl", 250, [0, usize::MAX - 2, 0, 0, 0, 0]),
        ("swapon", 167, [none, 0, 0, 0, 0, 0]),
        ("reboot", 169, [0, 0, 0, 0, 0, 0]),
        ("settimeofday", 164, [zeros, 0, 0, 0, 0, 0]),
        ("clock_settime", 227, [0, zeros, 0, 0, 0, 0]),
        ("iopl", 172, [3, 0, 0, 0, 0, 0]),
        ("ioperm", 173, [0x80, 1, 1, 0, 0, 0]),
        ("syslog", 103, [3, zeros, 8, 0, 0, 0]),
        ("acct", 163, [0, 0, 0, 0, 0, 0]),
        ("quotactl", 179, [0, none, 0, zeros, 0, 0]),
        ("sethostname", 170, [none, 4, 0, 0, 0, 0]),
        ("fanotify_init", 300, [0, 0, 0, 0, 0, 0]),
        ("lookup_dcookie", 212, [0, zeros, 8, 0, 0, 0]),
        ("move_pages", 279, [0, 0, 0, 0, 0, 0]),
        ("vm86-personality", 135, [0x0100_0000, 0, 0, 0, 0, 0]),
        ("socket-vsock", 41, [40, 1, 0, 0, 0, 0]),
        ("socket-alg", 41, [38, 5, 0, 0, 0, 0]),
        ("pidfd_getfd", 438, [own, 0, 0, 0, 0, 0]),
        ("x32-getpid", X32 | 39, [0; 6]),
        ("x32-mount", X32 | 165, [none, tmp, tmpfs, 0, 0, 0]),
    ];
    for (name, number, arguments) in table {
        let errno = call(*number, *arguments).err().unwrap_or(0);
        println!("{name} {errno}");
    }
    let table_32: &[(&str, u32, [u32; 3])] = &[
        ("i386-mount", 21, [0, 0, 0]),
        ("i386-unshare", 310, [0x1000_0000, 0, 0]),
        ("i386-keyctl", 288, [0, 0, 0]),
        ("i386-setns", 346, [0, 0, 0]),
        ("i386-bpf", 357, [0, 0, 0]),
    ];
    for (name, number, arguments) in table_32 {
        println!("{name} {}", call_32(*number, *arguments).err().unwrap_or(0));
    }
}
