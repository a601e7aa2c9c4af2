//! Guests in QEMU, as where there is no `/dev/kvm`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{MONITOR, Outcome, Setup, finish, read_until, setup};
use gamut_abi::guest::rofs;
use gamut_abi::monitor::{Accelerator, BlockConfig};

/// The unikernel that does what its arguments say. `None`, said aloud, if this machine cannot.
fn probe() -> Option<PathBuf> {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test").to_owned();
    if !Path::new("/usr/bin/qemu-system-x86_64").exists() {
        eprintln!("SKIPPED: {test}: qemu-system-x86_64 is not installed");
        return None;
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../unikernels/probe");
    if !program.exists() {
        eprintln!("SKIPPED: {test}: no unikernel probe (scripts/unikernel probe builds it)");
        return None;
    }
    Some(program)
}

/// A monitor to be, with the translator.
fn translated(words: &[&str]) -> Option<Setup> {
    let program = probe()?;
    let mut setup = setup("");
    let config = &mut setup.config;
    config.image_path = program.to_str().expect("a plain path").to_owned();
    config.memory_bytes = Some(16 << 20);
    config.args = std::iter::once("probe")
        .chain(words.iter().copied())
        .map(str::to_owned)
        .collect();
    config.accelerator = Accelerator::Tcg;
    // QEMU reads there as nobody.
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(setup.folder.path(), everybody).expect("our own folder");
    let place = |name: &str| setup.folder.path().join(name).to_str().map(str::to_owned);
    config.scratch_path = place("");
    config.status_path = place("status");
    std::fs::write(setup.folder.path().join("status"), "").expect("a file");
    Some(setup)
}

#[track_caller]
fn ends(words: &[&str], code: i32, output: &str, errors: &[&str]) {
    let Some(setup) = translated(words) else {
        return;
    };
    let outcome = setup.run();
    assert_eq!(outcome.code, Some(code), "{words:?}: {outcome:?}");
    assert!(outcome.output.contains(output), "{words:?}: {outcome:?}");
    for text in errors {
        assert!(
            outcome.errors.contains(text),
            "{words:?}: {text:?}: {outcome:?}"
        );
    }
    if errors.is_empty() {
        assert_eq!(outcome.errors, "", "{words:?}");
    }
    let status = std::fs::read_to_string(setup.folder.path().join("status")).expect("a file");
    assert_eq!(status, r#"{"accelerator":"tcg"}"#);
}

#[test]
fn arguments_arrive_and_exit_codes_come_back() {
    ends(&["args", "a b", ""], 0, "probe\nargs\na b\n\n", &[]);
    ends(&["env"], 0, "KEY=value\n", &[]);
    for code in [1, 127, 128, 255] {
        ends(&["exit", &code.to_string()], code, "", &[]);
    }
}

#[test]
fn reports_are_those_of_a_machine_of_ours() {
    ends(
        &["crash", "panic"],
        101,
        "",
        &["the guest panicked: ", "as asked", "probe::crash::crash+"],
    );
    ends(
        &["crash", "null"],
        139,
        "",
        &[
            "write to 0x0: a null pointer",
            "registers:",
            "  rip ",
            "probe::crash::",
        ],
    );
    ends(&["crash", "stack"], 139, "", &["the stack has overflowed"]);
    ends(
        &["crash", "wx"],
        139,
        "",
        &["this memory cannot be written"],
    );
    ends(
        &["crash", "execute"],
        139,
        "",
        &["this memory holds no code"],
    );
    ends(
        &["crash", "oom"],
        137,
        "",
        &[
            "it has 16384 KiB and could not have",
            "give it more (--memory)",
        ],
    );
}

#[test]
fn a_guest_is_asked_to_stop_and_what_it_printed_is_not_lost() {
    for words in [
        &["stop", "wait"][..],
        // Busy, not idle, when it is asked.
        &[
            "do", "print", "waiting", "then", "tick", "1", "then", "print", "stopping",
        ],
    ] {
        let Some(setup) = translated(words) else {
            return;
        };
        let mut child = setup.command().spawn().expect("unshare runs");
        read_until(child.stdout.as_mut().expect("piped"), "waiting");
        signal(child.id(), libc::SIGTERM);
        let outcome = finish(child);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.output.ends_with("stopping\n"), "{outcome:?}");
    }
    // Asked before it can hear anything.
    let Some(setup) = translated(&["stop", "wait"]) else {
        return;
    };
    let child = setup.command().spawn().expect("unshare runs");
    qemu_of(&child);
    signal(child.id(), libc::SIGTERM);
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.output, "waiting\nstopping\n");
}

fn signal(process: u32, signal: i32) {
    let process = i32::try_from(process).expect("a process id");
    // SAFETY: plain numbers.
    unsafe { libc::kill(process, signal) };
}

/// The process id of a monitor's QEMU, once it is one.
fn qemu_of(monitor: &Child) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(60);
    let children = format!("/proc/{0}/task/{0}/children", monitor.id());
    loop {
        assert!(Instant::now() < deadline, "no QEMU");
        let listed = std::fs::read_to_string(&children).unwrap_or_default();
        let name = listed.trim();
        let program = std::fs::read_link(format!("/proc/{name}/exe")).unwrap_or_default();
        if program.to_string_lossy().contains("qemu") {
            return name.parse().expect("a process id");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A field of a process's status.
fn field(process: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it is there");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("the field")
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

#[test]
fn monitor_and_qemu_have_nothing_and_die_together() {
    for victim in ["monitor", "qemu"] {
        let Some(setup) = translated(&["stop", "wait"]) else {
            return;
        };
        let mut child = setup.command().spawn().expect("unshare runs");
        read_until(child.stdout.as_mut().expect("piped"), "waiting");
        let qemu = qemu_of(&child);
        for process in [child.id(), qemu] {
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(field(process, set), "0000000000000000", "{process} {set}");
            }
            for (name, value) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("Groups", "")] {
                assert_eq!(field(process, name), value, "{process} {name}");
            }
            for name in ["Uid", "Gid"] {
                assert_eq!(
                    field(process, name),
                    "65534\t65534\t65534\t65534",
                    "{process}"
                );
            }
        }
        if victim == "qemu" {
            signal(qemu, libc::SIGKILL);
            let outcome = finish(child);
            assert_eq!(outcome.code, Some(126), "{outcome:?}");
            assert!(
                outcome.errors.contains("QEMU was killed by signal 9"),
                "{outcome:?}"
            );
            continue;
        }
        signal(child.id(), libc::SIGKILL);
        assert_eq!(finish(child).code, None);
        let deadline = Instant::now() + Duration::from_secs(60);
        // Whoever inherits it may leave it as a zombie.
        let is_dead = || {
            let stat = std::fs::read_to_string(format!("/proc/{qemu}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        while !is_dead() {
            assert!(Instant::now() < deadline, "QEMU has outlived its monitor");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn block_devices_are_files_and_read_only_ones_stay_as_they_are() {
    let Some(mut setup) = translated(&["block", "info"]) else {
        return;
    };
    let path = setup.folder.path().join("disk");
    // Not a whole number of sectors: the rest is not the guest's.
    std::fs::write(&path, vec![0; (1 << 20) + 100]).expect("a file");
    setup.config.blocks = vec![BlockConfig {
        name: "/data".to_owned(),
        path: path.to_str().expect("a plain path").to_owned(),
        read_only: false,
    }];
    let mut run = |words: &[&str], read_only| {
        setup.config.blocks[0].read_only = read_only;
        setup.config.args.truncate(1);
        setup
            .config
            .args
            .extend(words.iter().map(|word| (*word).to_owned()));
        setup.run()
    };
    let is = |outcome: Outcome, output: &str| {
        assert_eq!(outcome.output.trim_end(), output, "{outcome:?}");
    };
    is(
        run(&["block", "info"], false),
        &format!("/data {} rw", 1 << 20),
    );
    is(
        run(&["block", "info"], true),
        &format!("/data {} ro", 1 << 20),
    );
    is(run(&["block", "write", "kept"], false), "written");
    is(run(&["block", "read"], true), "kept");
    let refused = run(&["block", "write", "changed"], true);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    is(run(&["block", "read"], false), "kept");
}

#[test]
fn a_read_only_file_system_comes_along() {
    let Some(mut setup) = translated(&["rofs", "read", "www/page"]) else {
        return;
    };
    let page = "a page\n".repeat(2000);
    let image = rofs::build(&[("www/page", page.as_bytes())]).expect("an image");
    let path = setup.folder.path().join("rofs");
    std::fs::write(&path, image).expect("a file");
    setup.config.rofs_path = path.to_str().map(str::to_owned);
    let outcome = setup.run();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.output.contains(&page), "{outcome:?}");
}

#[test]
fn what_is_missing_is_named() {
    let Some(mut setup) = translated(&["args"]) else {
        return;
    };
    let hidden = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs none /usr/bin && exec \"$@\"",
            "sh",
        ])
        .arg(MONITOR)
        .arg(setup.config_path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let outcome = finish(hidden.expect("unshare runs"));
    assert_eq!(outcome.code, Some(126), "{outcome:?}");
    assert!(
        outcome
            .errors
            .contains("install it (package qemu-system-x86)"),
        "{outcome:?}"
    );
    // An image that has no PVH entry.
    let image = common::guest().to_str().map(str::to_owned);
    let program = std::mem::replace(&mut setup.config.image_path, image.expect("a plain path"));
    let outcome = setup.run();
    assert_eq!(outcome.code, Some(126), "{outcome:?}");
    assert!(
        outcome.errors.contains("PVH note: there is none"),
        "{outcome:?}"
    );
    setup.config.image_path = program;
    setup.config.memory_bytes = Some(4 << 30);
    let outcome = setup.run();
    assert!(
        outcome.errors.contains("cannot be had without /dev/kvm"),
        "{outcome:?}"
    );
    setup.config.memory_bytes = Some(16 << 20);
    setup.config.scratch_path = None;
    let outcome = setup.run();
    assert!(
        outcome.errors.contains("scratchPath: is missing"),
        "{outcome:?}"
    );
}
