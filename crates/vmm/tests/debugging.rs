//! Debugging guests by the real GDB.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Setup, finish, has_kvm, setup};

/// Whether GDB is installed; says so aloud if not.
fn has_gdb() -> bool {
    let can = Command::new("gdb").arg("--version").output().is_ok();
    if !can {
        eprintln!("SKIPPED: gdb is not installed");
    }
    can
}

fn start(what: &str) -> (Setup, Child) {
    let mut setup = setup(what);
    let socket = setup.folder.path().join("debug.sock");
    setup.config.debug_socket_path = Some(socket.to_str().expect("a plain path").to_owned());
    let child = setup.command().spawn().expect("unshare runs");
    while !socket.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    (setup, child)
}

/// Lets GDB connect and carry out commands: what it says. It gets its symbols by the connection.
fn gdb(setup: &Setup, commands: &[&str]) -> String {
    let socket = setup.folder.path().join("debug.sock");
    let mut command = Command::new("timeout");
    command.args(["60", "gdb", "-batch", "-nx"]);
    command
        .arg("-ex")
        .arg(format!("target remote {}", socket.display()));
    for one in commands {
        command.args(["-ex", one]);
    }
    let output = command.stdin(Stdio::null()).output().expect("timeout runs");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[track_caller]
fn said(text: &str, wanted: &[&str]) {
    for one in wanted {
        assert!(text.contains(one), "{one:?} is not in {text}");
    }
}

#[test]
fn breakpoints_steps_registers_and_memory() {
    if !has_kvm() || !has_gdb() {
        return;
    }
    let (setup, child) = start("tick");
    let text = gdb(
        &setup,
        &[
            "break *tick",
            "continue",
            "printf \"at %d\\n\", $rip == (unsigned long)&tick",
            "printf \"first argument %#lx\\n\", $rdi",
            "x/1xb $rip",
            "stepi",
            "printf \"later %d\\n\", $rip > (unsigned long)&tick",
            "backtrace",
            "continue",
            "printf \"again %#lx\\n\", $rdi",
            // The guest's own variable: it ends when it has become 77.
            "set var *(int *)$rdi = 77",
            "printf \"now %d\\n\", *(int *)$rdi",
            "delete",
            "detach",
        ],
    );
    said(
        &text,
        &[
            "at 1",
            "first argument 0x",
            "later 1",
            "Breakpoint 1",
            "again 0x",
            "now 77",
            "detached",
        ],
    );
    // It went on without the debugger, and saw what was written.
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(77), "{outcome:?} {text}");
}

#[test]
fn a_second_debugger_comes_after_the_first_and_can_interrupt() {
    if !has_kvm() || !has_gdb() {
        return;
    }
    let (setup, child) = start("tick");
    let text = gdb(&setup, &["break *tick", "continue", "kill"]);
    said(&text, &["Breakpoint 1"]);
    // Its breakpoint went with it: otherwise the guest would have died of it.
    let text = gdb(&setup, &["info registers rip", "detach"]);
    said(&text, &["rip  ", "detached"]);
    let text = gdb(
        &setup,
        &[
            "break *tick",
            "continue",
            "set var *(int *)$rdi = 5",
            "delete",
            "continue",
        ],
    );
    said(&text, &["exited with code 05"]);
    assert_eq!(finish(child).code, Some(5), "{text}");
}

#[test]
fn a_guest_that_fails_can_be_looked_at() {
    if !has_kvm() || !has_gdb() {
        return;
    }
    let (setup, child) = start("tick");
    let text = gdb(
        &setup,
        &[
            "break *tick",
            "continue",
            "set $rip = 0x10",
            "delete",
            "continue",
            "info registers rip",
            "continue",
        ],
    );
    said(&text, &["SIGSEGV", "0x10"]);
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(139), "{outcome:?} {text}");
    assert!(outcome.errors.contains("a null pointer"), "{outcome:?}");
}
