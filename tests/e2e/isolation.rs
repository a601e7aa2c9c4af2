//! The point of it all: a container cannot see the host or another container.

use gamut_tests::{Daemon, eventually};
use std::fs;

#[test]
fn a_container_sees_neither_the_host_nor_another_container() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let marker = format!("marker-{}", std::process::id());
    let secret = daemon.directory().join(&marker);
    fs::write(&secret, "the host's").unwrap();
    let script = "echo secret > /data/secret; adduser -D carol; exec sleep 4321";
    daemon.detached("other", &["--hostname", "other"], script);
    eventually("the other runs", || {
        daemon.ok(&["top", "other"]).contains("4321")
    });

    let seen = |script: &str| daemon.shell(&[], script).ok();
    // Processes: its own only, and it is number 1.
    assert_eq!(seen("echo $$; set -- /proc/[0-9]*; echo $#"), "1\n1");
    assert_eq!(
        seen("ps -o args | grep -v grep | grep -c -e 4321 -e daemon; true"),
        "0"
    );
    // Files.
    assert_eq!(
        seen(&format!(
            "ls {} /data/secret 2>/dev/null; true",
            secret.display()
        )),
        ""
    );
    let mounts = seen("cat /proc/self/mountinfo");
    let visible = mounts
        .lines()
        .filter(|line| line.split(' ').nth(4) == Some("/"))
        .count();
    assert_eq!(visible, 1, "{mounts}");
    assert!(
        !mounts.contains("/sys/fs/cgroup/memory/gamut-test"),
        "{mounts}"
    );
    // Users.
    assert_eq!(seen("grep -c carol /etc/passwd; true"), "0");
    // Hostname.
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let name = seen("hostname");
    assert!(name != host.trim() && name != "other", "{name}");
    let _ = seen("hostname x 2>/dev/null; true");
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/hostname").unwrap(),
        host
    );
    // Network: its own loopback and one interface; nothing of the daemon's.
    let links = seen("ls /sys/class/net");
    assert!(links.contains("lo") && !links.contains("gamut0"), "{links}");
    assert_eq!(seen("ls /sys/class/net | wc -l"), "2");
    let listeners = seen("cat /proc/net/tcp /proc/net/unix | grep -c gamut; true");
    assert_eq!(listeners, "0");
    // System V objects and the host's namespaces: all eight are its own.
    let own = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let pid = daemon.container_pid("other").to_string();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        assert_ne!(own(&pid, kind), own("self", kind), "{kind}");
    }
    daemon.finish();
}

#[test]
fn each_container_has_a_process_1_and_the_parent_sees_nested_ones() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("one", &[], "exec sleep 1001");
    daemon.detached("two", &[], "exec sleep 1002");
    for (name, sleep) in [("one", "1001"), ("two", "1002")] {
        let first = daemon.ok(&["exec", name, "cat", "/proc/1/cmdline"]);
        assert_eq!(first.replace('\0', " ").trim(), format!("sleep {sleep}"));
        // From the host it has another number, and the kernel knows both.
        let pid = daemon.container_pid(name);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let numbers = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .unwrap();
        let numbers: Vec<_> = numbers.split_whitespace().collect();
        assert_eq!(numbers, [pid.to_string().as_str(), "1"]);
    }

    // (The outer shell stays process 1 and keeps the container's own /proc.)
    // A namespace inside a namespace: process 1 of the inner has three numbers; the container
    // sees it under its own, the inner sees nothing of the container.
    let script = "unshare -p -f --mount-proc sh -c 'echo $$ > /data/inner; ls /proc | grep -c ^[0-9] >> /data/inner; exec sleep 2002'; true";
    daemon.detached(
        "nest",
        &[
            "--cap-add",
            "SYS_ADMIN",
            "--security-opt",
            "seccomp=unconfined",
        ],
        script,
    );
    eventually("the inner runs", || {
        daemon.ok(&["top", "nest"]).contains("sleep 2002")
    });
    let inner = daemon.ok(&["exec", "nest", "cat", "/data/inner"]);
    assert_eq!(inner.lines().next(), Some("1"), "{inner}");
    let seen = daemon.ok(&["exec", "nest", "sh", "-c", "pidof sleep"]);
    let in_container = seen;
    let status = daemon.ok(&[
        "exec",
        "nest",
        "grep",
        "NSpid",
        &format!("/proc/{in_container}/status"),
    ]);
    let numbers: Vec<_> = status.split_whitespace().skip(1).collect();
    assert_eq!(numbers, [in_container.as_str(), "1"], "{status}");
    daemon.finish();
}

#[test]
fn shared_namespaces_are_shared_on_request_only() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("base", &[], "exec sleep 1003");
    let joined = daemon
        .shell(
            &["--pid", "container:base"],
            "tr '\\0' ' ' < /proc/1/cmdline",
        )
        .ok();
    assert_eq!(joined.trim(), "sleep 1003");
    let host_pid = std::process::id().to_string();
    let host = daemon.shell(
        &["--pid", "host"],
        &format!("test -d /proc/{host_pid} && echo seen"),
    );
    assert_eq!(host.ok(), "seen");
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(
        daemon.shell(&["--uts", "host"], "hostname").ok(),
        own.trim()
    );
    daemon.finish();
}
