//! Images of Solo5 on a real machine, by both front doors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use common::{MONITOR, Outcome, compile, finish, has_kvm, setup};
use gamut_abi::monitor::BlockConfig;

fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| compile("solo5"))
}

fn solo5_hvt(arguments: &[&str], what: &[&str]) -> Outcome {
    let mut command = Command::new(MONITOR);
    command.arg("solo5").args(arguments).arg("--");
    command.arg(image()).args(what);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    finish(command.spawn().expect("the monitor"))
}

#[test]
fn privileged_instructions_and_exceptions_are_the_guests() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    std::fs::write(&disk, [0; 8192]).expect("a file");
    let disk = format!("--block:storage={}", disk.display());
    let case = |what: &[&str], code, output: &str, errors: &str| {
        let outcome = solo5_hvt(&["--mem=2", &disk], what);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.output.contains(output), "{outcome:?}");
        assert!(outcome.errors.contains(errors), "{outcome:?}");
    };
    case(&["ok", "--then", "more"], 0, "ok --then more", "");
    case(&["null"], 255, "a page fault.", "");
    case(
        &["code"],
        1,
        "code",
        "host/guest translation fault: rip=0x100",
    );
    case(&["halt"], 1, "halt", "halts its processor");
    case(&["disk"], 0, "disk", "");
    case(
        &["g"],
        1,
        "g",
        "16 bytes at 0x1000 are not the guest's to read",
    );
}

#[test]
fn an_abort_leaves_a_core_file() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    std::fs::write(&disk, [0; 8192]).expect("a file");
    let disk = format!("--block:storage={}", disk.display());
    let cores = folder.path().join("cores");
    std::fs::create_dir(&cores).expect("a folder");
    let into = format!("--dumpcore={}", cores.display());
    let names = || {
        let names = std::fs::read_dir(&cores).expect("a folder");
        names
            .map(|one| one.expect("a file").path())
            .collect::<Vec<_>>()
    };
    assert_eq!(solo5_hvt(&["--mem=2", &disk, &into], &["ok"]).code, Some(0));
    assert!(names().is_empty(), "{:?}", names());
    let outcome = solo5_hvt(&["--mem=2", &disk, &into], &["null"]);
    assert_eq!(outcome.code, Some(255), "{outcome:?}");
    let [core] = &names()[..] else {
        panic!("{outcome:?}");
    };
    let name = core
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    assert!(name.starts_with("core.solo5-hvt."), "{name}");
    assert!(outcome.errors.trim_end().ends_with(name), "{outcome:?}");
    let bytes = std::fs::read(core).expect("a file");
    assert!(bytes.starts_with(b"\x7fELF") && bytes.len() > 2 << 20);
}

#[test]
fn what_does_not_fit_is_named() {
    if !has_kvm() {
        return;
    }
    let case = |arguments: &[&str], problem: &str| {
        let outcome = solo5_hvt(arguments, &["ok"]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.errors.contains(problem), "{outcome:?}");
    };
    case(
        &[],
        "Device 'storage' of type BLOCK_BASIC declared but not attached",
    );
    case(
        &["--block:other=/dev/null"],
        "Resource not declared in manifest: 'other'",
    );
    case(
        &["--net:storage=tap0"],
        "Resource not declared in manifest: 'storage'",
    );
    case(
        &["--mem=8192", "--block:storage=/nonexistent"],
        "/nonexistent",
    );
}

#[test]
fn below_the_engine_devices_are_found_by_their_names() {
    if !has_kvm() {
        return;
    }
    let mut setup = setup("disk");
    let disk = setup.folder.path().join("disk");
    std::fs::write(&disk, [0; 8192]).expect("a file");
    let path = disk.to_str().expect("a plain path");
    setup.config.image_path = image().to_str().expect("a plain path").to_owned();
    let block = |name: &str| BlockConfig {
        name: name.to_owned(),
        path: path.to_owned(),
        read_only: false,
    };
    setup.config.blocks = vec![block("/storage")];
    let outcome = setup.run();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.output, "disk");
    let read = std::fs::read(&disk).expect("a file");
    assert_eq!(read[512..520], 0x1234_5678_90ab_cdef_u64.to_le_bytes());
    setup.config.blocks = vec![];
    let outcome = setup.run();
    assert_eq!(outcome.code, Some(126), "{outcome:?}");
    assert!(outcome.errors.contains("-v NAME:/storage"), "{outcome:?}");
    setup.config.blocks = vec![block("/a"), block("/storage")];
    let outcome = setup.run();
    assert!(
        outcome
            .errors
            .contains("declares no block device \"a\"; it has storage"),
        "{outcome:?}"
    );
    setup.config.blocks = vec![block("/storage")];
    setup.config.args = vec!["x".to_owned(), "code".to_owned()];
    let outcome = setup.run();
    assert_eq!(outcome.code, Some(139), "{outcome:?}");
}
