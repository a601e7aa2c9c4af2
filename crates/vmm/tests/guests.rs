//! Guests on a real machine: what they do, and how they end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{finish, has_kvm, read_until, setup};

/// Runs the guest: exit code, console, report.
#[track_caller]
fn ends(what: &str, code: i32, output: &str, errors: &[&str]) {
    let outcome = setup(what).run();
    assert_eq!(outcome.code, Some(code), "{what}: {outcome:?}");
    assert!(outcome.output.contains(output), "{what}: {outcome:?}");
    for text in errors {
        assert!(
            outcome.errors.contains(text),
            "{what}: {text:?} is not in {outcome:?}"
        );
    }
}

#[test]
fn a_guest_says_hello_and_exits() {
    if !has_kvm() {
        return;
    }
    ends("hello", 0, "hello: 4194304 bytes", &[]);
    ends("exit", 7, "", &[]);
    let mut larger = setup("hello");
    larger.config.memory_bytes = Some(9_000_000);
    let outcome = larger.run();
    assert!(
        outcome.output.contains("hello: 8998912 bytes"),
        "{outcome:?}"
    );
}

#[test]
fn floats_clock_and_entropy_work() {
    if !has_kvm() {
        return;
    }
    ends("floats", 0, "sum 28832", &[]);
    ends("entropy", 0, "differs", &[]);
    let outcome = setup("clock").run();
    let words: Vec<u64> = outcome
        .output
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [before, after, wall] = words[..] else {
        panic!("{outcome:?}");
    };
    let host = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos();
    let behind_ns = i128::try_from(host).unwrap() - i128::from(wall);
    assert!(
        (0..60_000_000_000).contains(&behind_ns),
        "{behind_ns}: {outcome:?}"
    );
    assert!(after - before >= 20_000_000, "{outcome:?}");
    assert!(before < 60_000_000_000, "{outcome:?}");
    assert!(outcome.output.contains("not waited"), "{outcome:?}");
}

#[test]
fn panics_tell_their_message_and_the_way_there() {
    if !has_kvm() {
        return;
    }
    ends(
        "panic",
        101,
        "",
        &["the guest panicked: ", "told to", "guest::main+", "_start+"],
    );
    ends("bad-panic", 101, "", &["(its message cannot be read)"]);
    ends(
        "out-of-memory",
        137,
        "",
        &["it has 4096 KiB and could not have 12345 KiB more"],
    );
}

#[test]
fn faults_say_what_they_were() {
    if !has_kvm() {
        return;
    }
    let fault = |what, text: &str| ends(what, 139, "", &[text, "registers:", "rip", "backtrace:"]);
    fault(
        "null",
        "write to 0x10: a null pointer (vector 14, error code 0x6)",
    );
    ends(
        "null",
        139,
        "",
        &["guest::deep+", "guest::main+", "_start+"],
    );
    fault("guard", "the stack has overflowed");
    fault("write-code", "this memory cannot be written");
    fault(
        "write-boot",
        "write to 0x4000: this memory cannot be written",
    );
    fault("read-tables", "read of 0x6000: nothing is mapped there");
    fault(
        "read-descriptors",
        "read of 0x1000: this memory is the monitor's",
    );
    fault("run-data", "this memory holds no code");
    fault("beyond", "read of 0x100000000: nothing is mapped there");
    fault("privileged", "general protection fault");
    fault("foreign-port", "general protection fault");
}

#[test]
fn requests_that_no_guest_may_make_end_it() {
    if !has_kvm() {
        return;
    }
    let refused = |what, text: &str| ends(what, 139, "", &[text, "backtrace:"]);
    refused("small-out", "write of 1 bytes to port 0x6a0 instead of 4");
    refused("in", "read of port 0x6a0, which can only be written");
    refused(
        "bad-buffer",
        "console write: 64 bytes at 0x6000 are not the guest's to read",
    );
    refused("bad-size", "at most 1048576 at once");
    refused("unaligned", "address 0x100001 is not a multiple of 8");
    refused("code-as-buffer", "are not the guest's to write");
}

#[test]
fn random_requests_end_the_guest_or_are_answered() {
    if !has_kvm() {
        return;
    }
    for _ in 0..20 {
        let outcome = setup("random").run();
        assert!(matches!(outcome.code, Some(0 | 139)), "{outcome:?}");
    }
}

#[test]
fn a_guest_is_asked_to_stop() {
    if !has_kvm() {
        return;
    }
    let setup = setup("wait-stop");
    let mut child = setup.command().spawn().expect("unshare runs");
    read_until(child.stdout.as_mut().expect("piped"), "waiting");
    kill(&child, libc::SIGTERM);
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.output.contains("woken: stop 1 1"), "{outcome:?}");
    assert!(
        outcome.output.contains("again: stop 1 waited true"),
        "{outcome:?}"
    );
}

fn kill(child: &std::process::Child, signal: i32) {
    let process = i32::try_from(child.id()).expect("a process id");
    // SAFETY: plain numbers.
    unsafe { libc::kill(process, signal) };
}

#[test]
fn a_guest_that_does_not_listen_is_killed_from_outside() {
    if !has_kvm() {
        return;
    }
    for what in ["loop", "ignore-stop"] {
        let setup = setup(what);
        let mut child = setup.command().spawn().expect("unshare runs");
        std::thread::sleep(std::time::Duration::from_millis(200));
        kill(&child, libc::SIGTERM);
        kill(&child, libc::SIGINT);
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(child.try_wait().expect("a child"), None, "{what}");
        kill(&child, libc::SIGKILL);
        assert_eq!(finish(child).code, None, "{what}");
    }
}

#[test]
fn a_guest_reads_its_configuration() {
    if !has_kvm() {
        return;
    }
    let mut setup = setup("config");
    let hosts = setup.folder.path().join("hosts");
    std::fs::write(&hosts, "10.0.0.7 seven\n").expect("a file");
    setup.config.hosts_path = hosts.to_str().map(str::to_owned);
    let outcome = setup.run();
    let expected = "arg=guest\narg=config\nenv=KEY=value\nhostname=host\nhost=10.0.0.7 seven\n";
    assert_eq!(outcome.output, expected, "{outcome:?}");
}

#[test]
fn a_block_device_is_read_and_written() {
    if !has_kvm() {
        return;
    }
    let mut setup = setup("block");
    let path = setup.folder.path().join("disk");
    std::fs::write(&path, [b"x".repeat(512), b"hello".repeat(2000)].concat()).expect("a file");
    setup.config.blocks = vec![gamut_abi::monitor::BlockConfig {
        name: "/data".to_owned(),
        path: path.to_str().expect("a plain path").to_owned(),
        read_only: false,
    }];
    let outcome = setup.run();
    assert_eq!(
        outcome.output,
        "read 0 [104, 101, 108, 108, 111]\nwrite 0\nflush 0\ndiscard 0\nbeyond 22\noverflow 22\n\
         unaligned 22\n",
        "{outcome:?}"
    );
    let disk = std::fs::read(&path).expect("the file");
    assert_eq!(&disk[1024..1029], b"guest");
    assert_eq!(disk[2048..3072], [0; 1024]);
    setup.config.blocks[0].read_only = true;
    let outcome = setup.run();
    assert!(
        outcome.output.contains("write 30\nflush 0\ndiscard 30\n"),
        "{outcome:?}"
    );
}

#[test]
fn a_read_only_file_system_is_the_file_itself() {
    if !has_kvm() {
        return;
    }
    let mut setup = setup("rofs");
    let path = setup.folder.path().join("rofs");
    std::fs::write(&path, "the image").expect("a file");
    setup.config.rofs_path = path.to_str().map(str::to_owned);
    let outcome = setup.run();
    assert_eq!(outcome.code, Some(139), "{outcome:?}");
    assert!(
        outcome.output.contains("rofs: the imagelast 101"),
        "{outcome:?}"
    );
    assert!(
        outcome.errors.contains("this memory cannot be written"),
        "{outcome:?}"
    );
    assert_eq!(std::fs::read(&path).expect("the file"), b"the image");
}
