//! Unikernel bundles: the program is the guest of a monitor, which is what runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod rig;

use rig::Rig;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

/// A static monitor and a unikernel, where `./build` puts them.
fn built(name: &str) -> Option<(PathBuf, PathBuf)> {
    let monitor = std::env::var_os("GAMUT_MONITOR")
        .map(PathBuf::from)
        .or_else(|| {
            let supervisor = PathBuf::from(std::env::var_os("GAMUT_SUPERVISOR")?);
            Some(supervisor.with_file_name("gamut-monitor"))
        });
    let test = std::env::current_exe().unwrap();
    let unikernel = test
        .ancestors()
        .map(|directory| directory.join("unikernels").join(name))
        .find(|path| path.is_file());
    match (monitor.filter(|path| path.is_file()), unikernel) {
        (Some(monitor), Some(unikernel)) => Some((monitor, unikernel)),
        _ => {
            eprintln!("SKIPPED: no monitor or no unikernel {name}; ./build makes them");
            None
        }
    }
}

/// A bundle with a unikernel.
fn rig(name: &str, args: &[&str]) -> Option<(Rig, PathBuf)> {
    let kvm = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    if kvm.is_err() {
        eprintln!("SKIPPED: no /dev/kvm");
        return None;
    }
    let (monitor, unikernel) = built(name)?;
    let rig = Rig::new(args)?;
    let program = rig.directory.path().join("bundle/rootfs/unikernel");
    fs::copy(unikernel, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o555)).unwrap();
    Some((rig, monitor))
}

fn command(rig: &Rig, monitor: &PathBuf, words: &[&str]) -> Command {
    let mut command = rig.command(words);
    command.env("GAMUT_MONITOR", monitor);
    command
}

#[test]
fn a_unikernel_is_told_by_its_program() {
    let Some((rig, monitor)) = rig("hello", &["/unikernel", "a b"]) else {
        return;
    };
    let output = command(&rig, &monitor, &["run", "a"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        text.starts_with("Hello from a unikernel!") && text.contains("argument 1: a b"),
        "{text}"
    );
    rig.assert_clean();
    // What is none is none, whoever says so.
    rig.configure_with(&["/bin/busybox", "true"], |config| {
        config["annotations"]["dev.gamut.isolation"] = "unikernel".into();
    });
    let output = command(&rig, &monitor, &["run", "a"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("is no unikernel"), "{error}");
    rig.configure(&["/bin/busybox", "true"]);
    let link = rig.directory.path().join("gamut-unikernel");
    symlink(env!("CARGO_BIN_EXE_gamut-runtime"), &link).unwrap();
    let output = rig
        .program(link.to_str().unwrap())
        .arg("--root")
        .arg(rig.state_root())
        .args(["run", "a"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("is no unikernel"), "{error}");
    rig.assert_clean();
}

#[test]
fn it_lives_as_a_container_does_and_refuses_what_it_cannot() {
    let Some((rig, monitor)) = rig("probe", &["/unikernel", "stop", "wait"]) else {
        return;
    };
    let out = fs::File::create(rig.directory.path().join("out")).unwrap();
    let made = command(&rig, &monitor, &["create", "a"])
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .status()
        .unwrap();
    assert!(made.success(), "{}", rig.out());
    assert_eq!(rig.status("a"), "created");
    rig.ok(&["start", "a"]);
    rig.wait_for("a", "running");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !rig.out().contains("waiting") {
        assert!(std::time::Instant::now() < until, "{}", rig.out());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for words in [
        &["exec", "a", "true"][..],
        &["ps", "a"],
        &["kill", "a", "HUP"],
        &["update", "--memory", "134217728", "a"],
    ] {
        let error = rig.fails(words);
        assert!(
            error.contains("not supported at isolation level unikernel"),
            "{words:?}: {error}"
        );
    }
    rig.ok(&["pause", "a"]);
    assert_eq!(rig.status("a"), "paused");
    rig.ok(&["resume", "a"]);
    rig.ok(&["update", "--cpu-share", "512", "a"]);
    rig.ok(&["kill", "a", "TERM"]);
    rig.wait_for("a", "stopped");
    assert_eq!(rig.out(), "waiting\nstopping\n");
    rig.ok(&["delete", "a"]);
    rig.assert_clean();
}
