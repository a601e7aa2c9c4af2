//! Sharing namespaces, and `--init` where it is not process 1.

use gamut_tests::{Daemon, until};

fn namespace(kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    link.to_string_lossy().into_owned()
}

#[test]
fn shared_memory_is_shared_with_who_may_join() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let sleeps = "echo from the donor >/dev/shm/note; sleep 1000";
    daemon.detached("donor", &["--ipc", "shareable"], sleeps);
    daemon.detached("closed", &[], sleeps);
    let link = "readlink /proc/self/ns/ipc; cat /dev/shm/note; echo back >/dev/shm/answer";
    let joined = daemon.shell(&["--ipc", "container:donor"], link).ok();
    let donors = daemon.ok(&["exec", "donor", "readlink", "/proc/self/ns/ipc"]);
    assert_eq!(joined, format!("{donors}\nfrom the donor"));
    assert_ne!(donors, namespace("ipc"));
    assert_eq!(
        daemon.ok(&["exec", "donor", "cat", "/dev/shm/answer"]),
        "back"
    );
    // Where it is mounted, it is as limited as in the donor.
    let mounted = daemon
        .shell(
            &["--ipc", "container:donor"],
            "grep ' /dev/shm ' /proc/mounts",
        )
        .ok();
    assert!(mounted.contains("nosuid,nodev,noexec"), "{mounted}");

    let refused = daemon
        .shell(&["--ipc", "container:closed"], "true")
        .fails(125);
    assert!(refused.contains("--ipc shareable"), "{refused}");
    daemon.ok(&["stop", "-t", "0", "donor"]);
    let refused = daemon
        .shell(&["--ipc", "container:donor"], "true")
        .fails(125);
    assert!(refused.contains("non running"), "{refused}");

    let own = daemon
        .shell(
            &["--ipc", "none"],
            "readlink /proc/self/ns/ipc; grep -c /dev/shm /proc/mounts; true",
        )
        .ok();
    let (own, mounts) = own.split_once('\n').unwrap();
    assert!(
        own != namespace("ipc") && own != donors && mounts == "0",
        "{own} {mounts}"
    );
    let host = daemon
        .shell(&["--ipc", "host"], "readlink /proc/self/ns/ipc")
        .ok();
    assert_eq!(host, namespace("ipc"));
    let mode = daemon.ok(&[
        "inspect",
        "-f",
        "{{.HostConfig.IpcMode}}",
        "donor",
        "closed",
    ]);
    assert_eq!(mode, "shareable\nprivate");
    let refused = daemon.shell(&["--ipc", "bogus"], "true").fails(125);
    assert!(refused.contains("invalid IPC mode"), "{refused}");
    daemon.finish();
}

#[test]
fn processes_are_seen_in_a_shared_pid_namespace() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("donor", &[], "exec sleep 1234");
    let seen = daemon
        .shell(
            &["--pid", "container:donor"],
            "tr '\\0' ' ' </proc/1/cmdline; readlink /proc/self/ns/pid",
        )
        .ok();
    let own = daemon.ok(&["exec", "donor", "readlink", "/proc/self/ns/pid"]);
    assert_eq!(seen, format!("sleep 1234 {own}"));
    let killed = daemon
        .shell(&["--pid", "container:donor"], "kill -KILL 1; echo sent")
        .ok();
    assert_eq!(killed, "sent");
    // The first process of a namespace takes signals of its own namespace only if it wants them.
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.State.Running}}", "donor"]),
        "true"
    );
    let host = daemon
        .shell(&["--pid", "host"], "readlink /proc/self/ns/pid")
        .ok();
    assert_eq!(host, namespace("pid"));
    daemon.finish();
}

#[test]
fn names_and_groups_are_the_hosts_if_asked_for() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = daemon
        .shell(&["--uts", "host"], "readlink /proc/self/ns/uts; hostname")
        .ok();
    assert_eq!(host, format!("{}\n{}", namespace("uts"), name.trim()));
    let own = daemon.shell(&["-h", "own"], "hostname").ok();
    assert_eq!(own, "own");

    let groups = "cat /proc/self/cgroup";
    let private = daemon.shell(&["--cgroupns", "private"], groups).ok();
    assert!(private.lines().any(|line| line == "0::/"), "{private}");
    let host = daemon.shell(&["--cgroupns", "host"], groups).ok();
    let parent = daemon.cgroup().path().to_owned();
    assert!(
        host.lines()
            .any(|line| line.starts_with(&format!("0::{parent}/"))),
        "{host}"
    );
    let refused = daemon
        .shell(&["--cgroupns", "container:x"], "true")
        .fails(125);
    assert!(
        refused.contains("[possible values: host, private]"),
        "{refused}"
    );
    daemon.finish();
}

/// A shell that leaves an orphan behind which ends soon, and then waits for signals.
const ORPHAN: &str = "(sh -c 'sleep 0.2; exit' & echo orphan $!); trap 'echo told; exit 7' TERM; \
    touch /tmp/ready; while true; do sleep 0.1; done";

/// With `--init`, orphans are reaped and signals arrive, wherever the init's processes are counted.
fn reaps_and_forwards(options: &[&str]) {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("donor", &[], "exec sleep 1000");
    daemon.detached("box", &[&["--init"], options].concat(), ORPHAN);
    until("it is ready", || {
        (daemon
            .gamut(&["exec", "box", "test", "-e", "/tmp/ready"])
            .code
            == 0)
            .then_some(())
    });
    let logged = until("the orphan is named", || {
        let logs = daemon.ok(&["logs", "box"]);
        logs.strip_prefix("orphan ")
            .map(|pid| pid.trim().to_owned())
    });
    // Reaped, not only ended: nothing is left of it, not even a zombie.
    until("the orphan is reaped", || {
        let status = [
            "exec",
            "box",
            "test",
            "-e",
            &format!("/proc/{logged}/status"),
        ];
        (daemon.gamut(&status).code == 1).then_some(())
    });
    daemon.ok(&["stop", "box"]);
    assert!(daemon.ok(&["logs", "box"]).ends_with("told"));
    let code = daemon.ok(&["inspect", "-f", "{{.State.ExitCode}}", "box"]);
    assert_eq!(code, "7", "{options:?}");
    daemon.finish();
}

#[test]
fn an_init_reaps_and_forwards_signals() {
    reaps_and_forwards(&[]);
}

#[test]
fn an_init_that_is_not_the_first_process_does_so_too() {
    reaps_and_forwards(&["--pid", "host"]);
    reaps_and_forwards(&["--pid", "container:donor"]);
}

#[test]
fn an_init_gives_its_program_the_terminal() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let mut session = daemon.spawn_on_terminal(&[
        "run",
        "--rm",
        "-it",
        "--init",
        "busybox",
        "sh",
        "-c",
        "trap 'echo interrupted; exit 3' INT; echo pid $$; while true; do sleep 0.1; done",
    ]);
    session.expect("pid 2");
    // Control-C: to the foreground group, which is the program's.
    session.write("\u{3}");
    session.expect("interrupted");
    assert_eq!(session.wait().code, 3);
    daemon.finish();
}
