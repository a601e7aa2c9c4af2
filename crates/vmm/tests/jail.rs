//! What a thread of the monitor cannot do any more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use gamut_vmm::jail;

const VARIABLE: &str = "GAMUT_TEST_JAIL";

/// Runs [`child`] in a process of its own.
fn run(what: &str) -> Output {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
        .env(VARIABLE, what)
        .output()
        .expect("it runs")
}

/// Says something without the standard library.
fn say(text: &str) {
    // SAFETY: valid for reads of its length.
    unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
}

/// The inside of these tests: enters the jail and tries something.
#[test]
fn child() {
    let Ok(what) = std::env::var(VARIABLE) else {
        return;
    };
    let (thread, what) = what.split_once(' ').expect("thread and attempt");
    jail::enter().expect("the jail");
    match thread {
        "processor" => jail::confine_processor_thread().expect("confined"),
        "main" => jail::confine_main_thread().expect("confined"),
        _ => {}
    }
    say("inside\n");
    attempt(what);
    say("survived\n");
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) };
}

fn attempt(what: &str) {
    let path = c"/etc/passwd".as_ptr();
    let code = libc::PROT_READ | libc::PROT_EXEC;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: each is a system call with valid arguments; most are never carried out.
    let result = unsafe {
        match what {
            "open" => i64::from(libc::open(path, libc::O_RDONLY)),
            "folder" => i64::from(libc::mkdir(c"/tmp/gamut-test-jail".as_ptr(), 0o700)),
            "socket" => i64::from(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
            "execute" => i64::from(libc::execve(path, std::ptr::null(), std::ptr::null())),
            "fork" => libc::syscall(libc::SYS_fork),
            "clone" => libc::syscall(libc::SYS_clone3, null, 0),
            "trace" => libc::ptrace(libc::PTRACE_TRACEME, 0, null, null),
            "code" => libc::mmap(null, 4096, code, anonymous, -1, 0) as i64,
            "map a file" => libc::mmap(null, 4096, libc::PROT_READ, libc::MAP_PRIVATE, 0, 0) as i64,
            "memory" => libc::mmap(null, 4096, libc::PROT_READ, anonymous, -1, 0) as i64,
            "make code" => i64::from(libc::mprotect(null, 4096, code)),
            "other ioctl" => i64::from(libc::ioctl(0, 0xae01, 0)),
            "kill" => i64::from(libc::kill(1, 0)),
            "unshare" => i64::from(libc::unshare(libc::CLONE_NEWUSER)),
            "ring" => libc::syscall(libc::SYS_io_uring_setup, 8, null),
            "bpf" => libc::syscall(libc::SYS_bpf, 0, null, 0),
            "descriptor" => i64::from(libc::dup(0)),
            "count" => i64::from(libc::eventfd(0, 0)),
            "root" => libc::syscall(libc::SYS_setuid, 0),
            "debugged" => i64::from(libc::prctl(libc::PR_GET_DUMPABLE)),
            "user" => i64::from(libc::getuid()),
            "write" => 0,
            other => panic!("no such attempt: {other}"),
        }
    };
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    say(&format!(
        "result {result} error {}\n",
        if result < 0 { error } else { 0 }
    ));
}

#[test]
fn system_calls_that_are_not_needed_kill_the_monitor() {
    let forbidden = [
        "open",
        "socket",
        "execute",
        "fork",
        "clone",
        "trace",
        "code",
        "map a file",
        "make code",
        "other ioctl",
        "kill",
        "unshare",
        "ring",
        "bpf",
        "descriptor",
        "count",
        "root",
    ];
    for thread in ["processor", "main"] {
        for what in forbidden {
            let output = run(&format!("{thread} {what}"));
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("inside"), "{thread} {what}: {output:?}");
            assert_eq!(
                output.status.signal(),
                Some(libc::SIGSYS),
                "{thread} {what}: {output:?}"
            );
        }
        for what in ["write", "memory"] {
            let output = run(&format!("{thread} {what}"));
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("survived"), "{thread} {what}: {output:?}");
        }
    }
}

#[test]
fn what_is_left_without_the_filter_is_nothing_either() {
    // Each line: what is tried, and what it comes to.
    let cases = [
        // Anybody may make one there: it is Landlock that refuses.
        ("folder", "result -1 error 13"),
        ("open", "result -1 error 24"),
        ("descriptor", "result -1 error 24"),
        ("count", "result -1 error 24"),
        ("debugged", "result 0"),
    ];
    for (what, expected) in cases {
        let output = run(&format!("none {what}"));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{what}: {output:?}");
    }
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED: what_is_left_without_the_filter_is_nothing_either: not root");
        return;
    }
    for (what, expected) in [("root", "result -1 error 1"), ("user", "result 65534")] {
        let output = run(&format!("none {what}"));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{what}: {output:?}");
    }
}
