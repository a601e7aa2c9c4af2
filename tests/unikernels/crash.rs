//! Guests that end badly say why, and where.

use crate::guest::probe;

/// Runs `probe crash WAY`.
fn crash(way: &str, code: i32, texts: &[&str]) {
    let Some((found, output)) = probe(&["crash", way]) else {
        return;
    };
    // QEMU hands seven bits on.
    assert_eq!(found, code & 0x7f, "{way}: {output}");
    for text in texts {
        assert!(output.contains(text), "{way}: no {text:?} in: {output}");
    }
    if code > 127 {
        let said = format!("guest ended with exit code {code}\n");
        assert!(output.ends_with(&said), "{way}: {output}");
    }
    assert!(!output.contains("nothing stopped"), "{way}: {output}");
}

#[test]
fn a_panic_says_where() {
    crash(
        "panic",
        101,
        &[
            "guest panicked at probe/src/crash.rs:",
            ": as asked\n",
            "  at 0x",
        ],
    );
}

#[test]
fn exhausted_memory_says_how_much_was_wanted() {
    crash(
        "oom",
        137,
        &["guest out of memory: 256 KiB more were wanted\n"],
    );
}

#[test]
fn faults_are_reported_with_registers_and_backtrace() {
    for (way, text) in [
        ("null", "exception 14 (error code 0x2)"),
        ("high", "address 0x7ffffffff000"),
        ("jump", "exception 14 (error code 0x10) at 0x10,"),
        // Code cannot be written, data not executed, and the stack has an end.
        ("wx", "exception 14 (error code 0x3)"),
        ("execute", "exception 14 (error code 0x11)"),
        ("stack", "exception 14 (error code 0x2)"),
    ] {
        crash(
            way,
            139,
            &["guest crashed: ", text, " rax=0x", " rsp=0x", "  at 0x1"],
        );
    }
}
