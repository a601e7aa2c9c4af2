//! What the commands say, in words that other engines know, and to whom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod rig;

use rig::Rig;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

#[test]
fn debug_names_the_steps_that_all_runtimes_take() {
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    rig.configure_with(&["sleep", "1000"], |config| {
        config["process"]["execCPUAffinity"] = json!({"initial": "0"});
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
    });
    let log = rig.path("log");
    let told = |words: &[&str]| {
        let _ = fs::remove_file(&log);
        let out = fs::File::create(rig.path("out")).unwrap();
        let mut command = rig.command(&["--debug", "--log", &log, "--log-format", "json"]);
        let command = command.args(words).stdout(out.try_clone().unwrap());
        assert!(command.stderr(out).status().unwrap().success());
        assert_eq!(rig.out(), "", "the log has a file of its own");
        let text = fs::read_to_string(&log).unwrap();
        let lines = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["level"], "debug", "{line}");
            line["msg"].as_str().unwrap().to_owned()
        });
        lines.collect::<Vec<_>>()
    };
    let has = |lines: &[String], wanted: &str| {
        assert!(
            lines.iter().any(|line| line.contains(wanted)),
            "{wanted}: {lines:?}"
        );
    };
    let run = told(&["run", "-d", "a"]);
    for wanted in [
        "nsexec container setup",
        "child process in init()",
        "init: closing the pipe to signal completion",
        "seccomp filter flags: 2",
    ] {
        has(&run, wanted);
    }
    let exec = told(&["exec", "a", "true"]);
    for wanted in [
        "nsexec container setup",
        "nsexec: affinity: 0x1",
        "child process in init()",
        "setns_init: about to exec",
    ] {
        has(&exec, wanted);
    }
    rig.ok(&["delete", "--force", "a"]);
    rig.assert_clean();
}

#[test]
fn errors_say_which_program_failed_at_what() {
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    rig.configure_with(&["true"], |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"source": "/no/such/place", "destination": "/mnt", "type": "bind",
            "options": ["bind"]}),
        );
    });
    let wanted = "run failed: unable to start container process: error during container init: \
        error mounting \"/no/such/place\" to rootfs at \"/mnt\": bind it: no such file or \
        directory (container a)\n";
    assert_eq!(rig.fails(&["run", "a"]), format!("gamut-runtime {wanted}"));
    // By whatever name it is called.
    let other = rig.path("runc");
    symlink(env!("CARGO_BIN_EXE_gamut-runtime"), &other).unwrap();
    let output = rig
        .program(&other)
        .arg("--root")
        .arg(rig.state_root())
        .args(["run", "a"])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!("runc {wanted}")
    );
    // An interpreter that is missing: as a shell would have it.
    let script = rig.path("bundle/rootfs/script");
    fs::write(&script, "#!/no/such/shell\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    rig.configure(&["/script"]);
    let output = rig.output(&["run", "a"]);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "exec /script: no such file or directory\n"
    );
    rig.assert_clean();
}

#[test]
fn the_agent_of_a_filter_is_told_by_create_and_by_exec() {
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    let socket = rig.path("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    rig.configure_with(&["sleep", "1000"], |config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": socket, "listenerMetadata": "more",
            "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_NOTIFY"}]});
    });
    let told = |status: &str| {
        let mut text = String::new();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_string(&mut text).unwrap();
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["state"]["status"], status);
        assert_eq!(told["state"]["id"], "a");
        assert_eq!(told["state"]["bundle"], rig.path("bundle"));
        assert_eq!(told["metadata"], "more");
        assert_eq!(told["pid"], told["state"]["pid"]);
        told["pid"].clone()
    };
    rig.create("a");
    assert_eq!(rig.status("a"), "created");
    let state: Value = serde_json::from_str(&rig.ok(&["state", "a"])).unwrap();
    assert_eq!(told("creating"), state["pid"]);
    rig.ok(&["start", "a"]);
    rig.ok(&["exec", "a", "true"]);
    assert_ne!(told("running"), state["pid"]);
    rig.ok(&["delete", "--force", "a"]);
    rig.assert_clean();
}

#[test]
fn a_limit_of_no_process_is_one() {
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    let script = "( true ) || echo alone";
    rig.configure_with(&["sh", "-c", script], |config| {
        config["linux"]["resources"] = json!({"pids": {"limit": 0}});
    });
    let output = rig.output(&["run", "a"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("can't fork"), "{text}");
    // One that is left out is none.
    rig.configure_with(&["sh", "-c", script], |config| {
        config["linux"]["resources"] = json!({"pids": {}});
    });
    assert_eq!(rig.ok(&["run", "a"]), "");
    rig.assert_clean();
}
