//! Verbs on containers that run: exec, hooks, descriptors, terminals, the freezer, limits.
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
use std::os::unix::net::UnixListener;

/// A container that runs until it is killed.
fn running() -> Option<Rig> {
    let rig = Rig::new(&["sleep", "1000"])?;
    rig.create("a");
    rig.ok(&["start", "a"]);
    Some(rig)
}

#[test]
fn exec_passes_output_and_exit_code_on() {
    let Some(rig) = running() else { return };
    let output = rig.output(&["exec", "a", "sh", "-c", "echo $A; pwd; id -u; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\n/\n0\n");
    let changed = [
        "exec",
        "-e",
        "A=b",
        "--cwd",
        "/bin",
        "--user",
        "5:6",
        "-g",
        "7",
        "a",
        "sh",
        "-c",
        "echo $A; pwd; id -u; id -G",
    ];
    assert_eq!(rig.ok(&changed), "b\n/bin\n5\n6 7\n");
    let more = rig.ok(&["exec", "--cap", "CAP_KILL", "a", "cat", "/proc/self/status"]);
    assert!(more.contains("CapEff:\t0000000000000020"), "{more}");
    // The process is in the container's group.
    let groups = rig.ok(&["exec", "a", "cat", "/proc/self/cgroup"]);
    assert!(groups.contains(&rig.cgroup), "{groups}");
    rig.ok(&["delete", "-f", "a"]);
    rig.assert_clean();
}

#[test]
fn exec_takes_a_whole_process_and_can_be_left() {
    let Some(rig) = running() else { return };
    // Without a user: that is root.
    let process = json!({"args": ["sh", "-c", "echo $B; sleep 1000"], "cwd": "/",
        "env": ["PATH=/bin", "B=c"]});
    fs::write(rig.path("process.json"), process.to_string()).unwrap();
    let (file, pid_file) = (rig.path("process.json"), rig.path("exec.pid"));
    let out = fs::File::create(rig.path("out")).unwrap();
    let status = rig
        .command(&["exec", "-d", "--pid-file", &pid_file, "-p", &file, "a"])
        .stdout(out)
        .status()
        .unwrap();
    assert!(status.success());
    let pid: u32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert!(rig.group().processes().unwrap().contains(&pid));
    let listed: Vec<u32> = serde_json::from_str(&rig.ok(&["ps", "-f", "json", "a"])).unwrap();
    assert!(listed.contains(&pid), "{listed:?}");
    rig.ok(&["delete", "-f", "a"]);
    assert_eq!(rig.out(), "c\n");
    rig.assert_clean();
}

#[test]
fn exec_that_fails_exits_with_255() {
    let Some(rig) = running() else { return };
    for (words, problem) in [
        (&["exec", "a", "/nonsense"][..], "no such file"),
        (
            &["exec", "a", "nonsense"],
            "executable file not found in $PATH",
        ),
        (&["exec", "a", "/proc"], "is a directory"),
        (&["exec", "b", "true"], "does not exist"),
        (&["exec", "--cwd", "relative", "a", "true"], "process.cwd"),
        (
            &["exec", "--preserve-fds", "400", "a", "true"],
            "preserved-fd",
        ),
        (&["exec", "-d", "-t", "a", "true"], "console socket"),
    ] {
        let output = rig.output(words);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(255), "{words:?}: {text}");
        assert!(text.contains(problem), "{words:?}: {text}");
    }
    rig.ok(&["kill", "a", "KILL"]);
    rig.wait_for("a", "stopped");
    let text = rig.fails(&["exec", "a", "true"]);
    assert!(text.contains("stopped container"), "{text}");
    rig.ok(&["delete", "a"]);
    rig.assert_clean();
}

#[test]
fn a_paused_container_is_seen_to_be_and_resumes() {
    let Some(rig) = running() else { return };
    rig.ok(&["pause", "a"]);
    assert_eq!(rig.status("a"), "paused");
    assert!(
        rig.fails(&["pause", "a"])
            .contains("not running or created")
    );
    assert!(
        rig.fails(&["exec", "a", "true"])
            .contains("--ignore-paused")
    );
    assert!(rig.fails(&["delete", "a"]).contains("paused"));
    rig.ok(&["resume", "a"]);
    assert_eq!(rig.status("a"), "running");
    assert!(rig.fails(&["resume", "a"]).contains("not paused"));
    rig.ok(&["exec", "a", "true"]);
    // The dead do not stay frozen.
    rig.ok(&["pause", "a"]);
    rig.ok(&["kill", "a", "KILL"]);
    rig.wait_for("a", "stopped");
    rig.ok(&["delete", "a"]);
    rig.assert_clean();
}

#[test]
fn limits_change_and_what_is_used_is_shown() {
    let Some(rig) = running() else { return };
    let limit = |rig: &Rig| {
        let line = rig.ok(&["events", "--stats", "a"]);
        assert!(
            line.starts_with("{\"type\":\"stats\",\"id\":\"a\",\"data\":"),
            "{line}"
        );
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["data"]["pids"]["current"], 1);
        event["data"]["pids"]["limit"].clone()
    };
    assert_eq!(limit(&rig), 32);
    rig.ok(&["update", "--pids-limit", "9", "a"]);
    assert_eq!(limit(&rig), 9);
    fs::write(rig.path("limits"), "{\"pids\": {\"limit\": 11}}").unwrap();
    let changes = fs::File::open(rig.path("limits")).unwrap();
    let status = rig
        .command(&["update", "-r", "-", "a"])
        .stdin(changes)
        .status();
    assert!(status.unwrap().success());
    assert_eq!(limit(&rig), 11);
    assert!(
        rig.fails(&["update", "--memory", "many", "a"])
            .contains("memory")
    );
    assert!(
        rig.fails(&["update", "--cpu-share", "-1", "a"])
            .contains("cpu-share")
    );
    rig.ok(&["delete", "-f", "a"]);
    rig.assert_clean();
}

#[test]
fn containers_are_listed_with_all_that_callers_read() {
    let Some(rig) = running() else { return };
    let list: Value = serde_json::from_str(&rig.ok(&["list", "-f", "json"])).unwrap();
    for key in [
        "ociVersion",
        "id",
        "pid",
        "status",
        "bundle",
        "rootfs",
        "created",
        "owner",
    ] {
        assert!(!list[0][key].is_null(), "{key}: {list}");
    }
    let table = rig.ok(&["list"]);
    let heading: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        heading,
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    );
    assert!(rig.ok(&["ps", "a"]).contains("sleep 1000"));
    let features: Value = serde_json::from_str(&rig.ok(&["features"])).unwrap();
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    let version = rig.ok(&["--version"]);
    assert!(
        version.lines().any(|line| line.starts_with("spec: 1.")),
        "{version}"
    );
    rig.ok(&["delete", "-f", "a"]);
    rig.assert_clean();
}

#[test]
fn hooks_run_in_their_order_and_are_told_the_state() {
    let Some(rig) = Rig::new(&["sleep", "1000"]) else {
        return;
    };
    let log = rig.path("hooks");
    let hook = |name: &str| {
        json!([{"path": "/bin/sh", "args": ["sh", "-c",
            format!("echo {name} $X $(cat) >> {log}")], "env": ["X=y", "PATH=/bin:/usr/bin"]}])
    };
    let configure = |change: &dyn Fn(&mut Value)| {
        rig.configure_with(&["sleep", "1000"], |config| {
            config["hooks"] = json!({
                "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
                "createContainer": hook("createContainer"), "poststart": hook("poststart"),
                "poststop": hook("poststop"),
            });
            change(config);
        });
    };
    let seen = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        text.lines()
            .map(|line| {
                let (name, state) = line.split_once(" y ").unwrap();
                let state: Value = serde_json::from_str(state).unwrap();
                assert_eq!(
                    (&state["id"], &state["ociVersion"]),
                    (&json!("a"), &json!("1.2.0"))
                );
                assert_eq!(state["annotations"]["org.example.key"], "value");
                assert_eq!(state["bundle"].as_str().unwrap(), rig.path("bundle"));
                format!("{name} {}", state["status"].as_str().unwrap())
            })
            .collect::<Vec<_>>()
    };
    configure(&|_| {});
    rig.create("a");
    let made = [
        "prestart creating",
        "createRuntime creating",
        "createContainer creating",
    ];
    assert_eq!(seen(), made);
    rig.ok(&["start", "a"]);
    assert_eq!(seen(), ["poststart running"]);
    rig.ok(&["delete", "-f", "a"]);
    assert_eq!(seen(), ["poststop stopped"]);
    rig.assert_clean();
    // One that fails ends the container, which is removed with all that belongs to it.
    configure(&|config| config["hooks"]["createContainer"] = json!([{"path": "/bin/false"}]));
    let text = rig.fails(&["create", "a"]);
    assert!(
        text.contains("error running createContainer hook #0: /bin/false"),
        "{text}"
    );
    assert_eq!(seen(), [made[0], made[1], "poststop stopped"]);
    rig.assert_clean();
    configure(&|config| config["hooks"]["poststart"] = json!([{"path": "/bin/false"}]));
    rig.create("a");
    assert!(rig.fails(&["start", "a"]).contains("poststart hook #0"));
    rig.wait_for("a", "stopped");
    rig.ok(&["delete", "a"]);
    rig.assert_clean();
}

#[test]
fn descriptors_are_handed_on() {
    let script = "echo $LISTEN_FDS $LISTEN_PID; \
                  for n in 3 4 5; do readlink /proc/self/fd/$n || echo none; done";
    let Some(rig) = Rig::new(&["sh", "-c", script]) else {
        return;
    };
    let files = ["one", "two"].map(|name| rig.path(name));
    for file in &files {
        fs::write(file, "").unwrap();
    }
    // A shell has the descriptors open and becomes the command, as whose process id it knows.
    let run = |before: &str, count: &str| {
        let line = [
            &format!("exec 3<{} 4<{}; {before} exec", files[0], files[1]),
            env!("CARGO_BIN_EXE_gamut-runtime"),
            "--root",
            rig.state_root().to_str().unwrap(),
            "run --preserve-fds",
            count,
            "a",
        ]
        .join(" ");
        let mut shell = rig.program("/bin/sh");
        let output = shell.args(["-c", &line]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        String::from_utf8(output.stdout).unwrap()
    };
    let both = format!("{}\n{}\nnone\n", files[0], files[1]);
    assert_eq!(run("", "2"), format!("\n{both}"));
    assert_eq!(
        run("LISTEN_FDS=1 LISTEN_PID=$$", "1"),
        format!("1 1\n{both}")
    );
    // Meant for another process.
    assert_eq!(run("LISTEN_FDS=1 LISTEN_PID=1", "2"), format!("\n{both}"));
    rig.assert_clean();
}

/// A container with a terminal needs a devpts.
fn with_terminal(config: &mut Value) {
    config["process"]["terminal"] = json!(true);
    config["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["newinstance", "ptmxmode=0666"]
    }));
}

#[test]
fn a_terminal_in_the_foreground_is_relayed() {
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    let script = "test -t 0 && echo terminal; exit 3";
    rig.configure_with(&["sh", "-c", script], with_terminal);
    let output = rig.output(&["run", "a"]);
    // Line ends are those of the program: what the caller shows it on makes of them what it needs.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "terminal\n");
    assert_eq!(output.status.code(), Some(3));
    assert!(
        rig.fails(&["run", "--detach", "a"])
            .contains("console socket")
    );
    rig.assert_clean();
}

#[test]
fn a_terminal_is_sent_to_its_socket() {
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    rig.configure_with(&["sleep", "1000"], with_terminal);
    let socket = rig.path("console");
    for words in [
        &["run", "-d", "--console-socket", &socket, "a"][..],
        &[
            "exec",
            "-d",
            "-t",
            "--console-socket",
            &socket,
            "a",
            "sleep",
            "1000",
        ],
    ] {
        let listener = UnixListener::bind(&socket).unwrap();
        rig.ok(words);
        let (mut connection, _) = listener.accept().unwrap();
        let mut name = String::new();
        connection.read_to_string(&mut name).unwrap();
        assert_eq!(name, "/dev/ptmx");
        fs::remove_file(&socket).unwrap();
    }
    assert!(
        rig.fails(&["run", "--console-socket", &socket, "b"])
            .contains("--detach")
    );
    rig.ok(&["delete", "-f", "a"]);
    rig.assert_clean();
}

#[test]
fn a_group_that_is_somebody_elses_is_not_shared() {
    let Some(rig) = running() else { return };
    let text = rig.fails(&["run", "b"]);
    assert!(text.contains("container's cgroup is not empty"), "{text}");
    assert_eq!(rig.status("a"), "running");
    rig.ok(&["delete", "-f", "a"]);
    rig.group().create().unwrap();
    rig.group().freeze().unwrap();
    let text = rig.fails(&["run", "b"]);
    assert!(text.contains("unexpectedly frozen"), "{text}");
    rig.group().thaw().unwrap();
    rig.group().remove().unwrap();
    rig.assert_clean();
}

#[test]
fn a_container_that_is_kept_is_there_when_it_has_ended() {
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    rig.ok(&["run", "--keep", "a"]);
    assert_eq!(rig.status("a"), "stopped");
    assert!(rig.fails(&["kill", "a"]).contains("container not running"));
    rig.ok(&["kill", "-a", "a"]);
    rig.ok(&["delete", "a"]);
    rig.assert_clean();
}

#[test]
fn a_container_that_waits_heeds_signals() {
    // The first process of a PID namespace has no default actions.
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    rig.create("a");
    rig.ok(&["kill", "a", "TERM"]);
    rig.wait_for("a", "stopped");
    rig.ok(&["delete", "a"]);
    rig.assert_clean();
}

#[test]
fn what_is_told_twice_is_done_once() {
    let script = "echo \"$A\" $HOME; grep -c /hidden /proc/mounts";
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    fs::create_dir(rig.path("bundle/rootfs/hidden")).unwrap();
    rig.configure_with(&["sh", "-c", script], |config| {
        config["process"]["env"] = json!(["PATH=/bin", "A=b", "HOME=", "A=c"]);
        config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_OF_OTHERS"]});
        config["linux"]["maskedPaths"] = json!(["/hidden", "/hidden", "//hidden/"]);
        config["linux"]["devices"] =
            json!([{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}]);
        config["process"].as_object_mut().unwrap().remove("user");
    });
    let output = rig.output(&["run", "a"]);
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "c /\n1\n",
        "{warning}"
    );
    assert!(warning.contains("CAP_OF_OTHERS"), "{warning}");
    rig.assert_clean();
}

#[test]
fn mounts_are_made_in_their_order() {
    // The second bind has the first as its source.
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    fs::create_dir(rig.path("source")).unwrap();
    fs::write(rig.path("source/file"), "content\n").unwrap();
    for name in ["mnt", "final"] {
        fs::create_dir(rig.path("bundle/rootfs").to_owned() + "/" + name).unwrap();
    }
    rig.configure_with(&["cat", "/final/file"], |config| {
        let bind = |source: String, destination: &str| {
            json!({"source": source, "destination": destination, "type": "bind",
                "options": ["rbind"]})
        };
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(bind(rig.path("source"), "/mnt"));
        mounts.push(bind(rig.path("bundle/rootfs/mnt"), "/final"));
    });
    assert_eq!(rig.ok(&["run", "a"]), "content\n");
    rig.assert_clean();
}
