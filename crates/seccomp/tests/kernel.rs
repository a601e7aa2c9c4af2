//! The default profile in the kernel.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use gamut_seccomp::{Program, compile, default_profile};
use std::ffi::CString;

/// Installs a program in a forked child, runs `body` there and returns the wait status.
fn in_child(program: &Program, body: fn() -> i32) -> i32 {
    #[repr(C)]
    struct SockFprog {
        length: u16,
        filter: *const u64,
    }
    let fprog = SockFprog {
        length: u16::try_from(program.instructions.len()).unwrap(),
        filter: program.instructions.as_ptr(),
    };
    // SAFETY: the child calls only functions that are safe after a fork of a threaded process
    // (raw system calls, execve, _exit) and does not return.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0);
        if pid == 0 {
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
                libc::_exit(100);
            }
            let result = libc::syscall(libc::SYS_seccomp, 1, program.flags, &raw const fprog);
            if result != 0 {
                libc::_exit(101);
            }
            libc::_exit(body());
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        status
    }
}

fn errno_of(number: libc::c_long, first: u64, second: u64) -> i32 {
    // SAFETY: the calls made here fail in the filter, or touch no memory.
    let result = unsafe { libc::syscall(number, first, second, 0, 0, 0) };
    if result >= 0 {
        return 0;
    }
    // SAFETY: errno's location is valid in every thread.
    unsafe { *libc::__errno_location() }
}

fn forbidden_calls() -> i32 {
    let wanted = [
        (libc::SYS_keyctl, 0, 0, libc::EPERM),
        (libc::SYS_unshare, 0x1000_0000, 0, libc::EPERM),
        (libc::SYS_clone, 0x1000_0011, 0, libc::EPERM),
        (libc::SYS_clone3, 0, 0, libc::ENOSYS),
        (libc::SYS_mount, 0, 0, libc::EPERM),
        (libc::SYS_bpf, 0, 0, libc::EPERM),
        (libc::SYS_socket, 38, 5, libc::EPERM),
        (libc::SYS_socket, 40, 1, libc::EPERM),
        (libc::SYS_personality, 1, 0, libc::EPERM),
        (libc::SYS_personality, 0xffff_ffff, 0, 0),
        (libc::SYS_getpid, 0, 0, 0),
        (470, 0, 0, libc::ENOSYS),
        (-1, 0, 0, libc::ENOSYS),
    ];
    for (at, (number, first, second, errno)) in (1..).zip(wanted) {
        if errno_of(number, first, second) != errno {
            return at;
        }
    }
    0
}

#[test]
fn forbidden_calls_fail_as_the_profile_says() {
    let program = compile(&default_profile(0, (6, 1))).unwrap();
    assert_eq!(in_child(&program, forbidden_calls), 0);
}

#[test]
fn an_ordinary_program_runs() {
    fn execute() -> i32 {
        let program = c"/bin/true";
        let arguments = [program.as_ptr(), std::ptr::null()];
        // SAFETY: NUL-terminated strings in a null-terminated list.
        unsafe { libc::execv(program.as_ptr(), arguments.as_ptr()) };
        102
    }
    let program = compile(&default_profile(0, (6, 1))).unwrap();
    assert_eq!(in_child(&program, execute), 0);
}

#[test]
fn a_shell_with_a_pipe_runs() {
    fn execute() -> i32 {
        let arguments =
            [c"sh", c"-c", c"test \"$(echo a | tr a b)\" = b"].map(|text| text.as_ptr());
        let arguments = [arguments[0], arguments[1], arguments[2], std::ptr::null()];
        // SAFETY: NUL-terminated strings in a null-terminated list.
        unsafe { libc::execv(c"/bin/sh".as_ptr(), arguments.as_ptr()) };
        102
    }
    let program = compile(&default_profile(0, (6, 1))).unwrap();
    assert_eq!(in_child(&program, execute), 0);
}

#[test]
fn unlisted_architectures_are_killed() {
    fn x32_call() -> i32 {
        errno_of(0x4000_0000 + 39, 0, 0)
    }
    let profile = serde_json::from_str(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
    let program = compile(&profile).unwrap();
    let status = in_child(&program, x32_call);
    assert!(
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS,
        "{status:#x}"
    );
}

#[test]
fn every_flag_and_action_is_accepted() {
    fn nothing() -> i32 {
        0
    }
    let text = CString::new(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        "syscalls":[
          {"names":["acct"],"action":"SCMP_ACT_KILL"},{"names":["reboot"],"action":"SCMP_ACT_KILL_PROCESS"},
          {"names":["mount"],"action":"SCMP_ACT_TRAP"},{"names":["umount2"],"action":"SCMP_ACT_TRACE","errnoRet":65535},
          {"names":["swapon"],"action":"SCMP_ACT_LOG"},{"names":["swapoff"],"action":"SCMP_ACT_ERRNO","errnoRet":4095}]}"#,
    )
    .unwrap();
    let program = compile(&serde_json::from_slice(text.as_bytes()).unwrap()).unwrap();
    assert_eq!(in_child(&program, nothing), 0);
}
