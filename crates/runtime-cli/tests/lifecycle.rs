//! The commands on real containers: a bundle with a static busybox.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod rig;

use rig::Rig;
use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn run_passes_output_and_exit_code_on_and_leaves_nothing() {
    let Some(rig) = Rig::new(&["sh", "-c", "echo $$; exit 7"]) else {
        return;
    };
    let output = rig.output(&["run", "a"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n");
    assert_eq!(output.status.code(), Some(7));
    rig.assert_clean();
}

#[test]
fn a_container_cannot_reach_the_executable_it_was_made_by() {
    // CVE-2019-5736: a container executes /proc/self/exe, which is what made it.
    let Some(rig) = Rig::new(&["/proc/self/exe", "version"]) else {
        return;
    };
    let output = rig.output(&["run", "a"]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("gamut-runtime version"), "{text}");
    rig.assert_clean();
}

#[test]
fn create_start_state_delete() {
    let Some(rig) = Rig::new(&["sh", "-c", "echo started; exec sleep 1000"]) else {
        return;
    };
    let pid_file = rig.directory.path().join("pid");
    rig.create("a");
    assert_eq!(rig.status("a"), "created");
    assert_eq!(rig.out(), "", "the program runs before its start");
    assert!(rig.fails(&["create", "a"]).contains("in use"));
    assert!(!pid_file.exists());
    rig.ok(&["start", "a"]);
    rig.wait_for("a", "running");
    assert!(rig.fails(&["start", "a"]).contains("only a created one"));
    assert!(rig.fails(&["delete", "a"]).contains("--force"));
    assert_eq!(rig.ok(&["list", "-q"]), "a\n");
    rig.ok(&["kill", "a", "KILL"]);
    rig.wait_for("a", "stopped");
    assert_eq!(rig.out(), "started\n");
    assert!(rig.fails(&["kill", "a"]).contains("stopped"));
    rig.ok(&["delete", "a"]);
    assert!(rig.fails(&["state", "a"]).contains("does not exist"));
    rig.assert_clean();
}

#[test]
fn delete_kills_what_was_created_or_runs() {
    let Some(rig) = Rig::new(&["sleep", "1000"]) else {
        return;
    };
    rig.create("a");
    rig.ok(&["delete", "a"]);
    rig.assert_clean();
    rig.create("a");
    rig.ok(&["start", "a"]);
    rig.ok(&["delete", "--force", "a"]);
    rig.assert_clean();
    rig.ok(&["delete", "--force", "a"]);
}

#[test]
fn a_program_that_is_not_there_is_told_and_leaves_nothing() {
    let Some(rig) = Rig::new(&["/bin/nonsense"]) else {
        return;
    };
    let output = rig.output(&["run", "a"]);
    assert_eq!(output.status.code(), Some(127));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("/bin/nonsense"), "{text}");
    rig.assert_clean();
    let log = rig.directory.path().join("log");
    let log_text = log.to_str().unwrap();
    rig.fails(&["--log", log_text, "--log-format=json", "create", "a"]);
    let line = fs::read_to_string(&log).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    rig.assert_clean();
}

#[test]
fn run_forwards_signals() {
    let script = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.02; done";
    let Some(rig) = Rig::new(&["sh", "-c", script]) else {
        return;
    };
    let out = rig.directory.path().join("out");
    let mut child = rig
        .command(&["run", "a"])
        .stdout(fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while rig.out().is_empty() {
        assert!(Instant::now() < until);
        sleep(Duration::from_millis(5));
    }
    // SAFETY: plain call on a child that has not been waited for.
    unsafe { libc::kill(libc::pid_t::try_from(child.id()).unwrap(), libc::SIGTERM) };
    assert_eq!(child.wait().unwrap().code(), Some(42));
    rig.assert_clean();
}

#[test]
fn the_pid_file_names_the_first_process() {
    let Some(rig) = Rig::new(&["sleep", "1000"]) else {
        return;
    };
    let path = rig.directory.path().join("pid");
    let text = path.to_str().unwrap();
    let status = rig
        .command(&["create", "--pid-file", text, "b"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let pid = fs::read_to_string(&path).unwrap();
    let state: serde_json::Value = serde_json::from_str(&rig.ok(&["state", "b"])).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    rig.ok(&["delete", "--force", "b"]);
    rig.assert_clean();
}

#[test]
fn a_bad_bundle_is_told_by_field_and_leaves_nothing() {
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    let config = rig.directory.path().join("bundle/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"/proc\"", "\"/proc\\u0000\"")).unwrap();
    assert!(rig.fails(&["run", "a"]).contains("mounts[0]"));
    fs::write(&config, &text[..40]).unwrap();
    assert!(rig.fails(&["run", "a"]).contains("config.json"));
    fs::remove_file(&config).unwrap();
    assert!(rig.fails(&["create", "a"]).contains("config.json"));
    rig.assert_clean();
}
