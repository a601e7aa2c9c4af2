//! Control groups: CVE-2022-0492's release_agent, limits that lift themselves, groups of others.

use gamut_tests::Daemon;

#[test]
fn cve_2022_0492_no_release_agent_can_be_set() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    let marker = daemon.directory().join("escaped");
    // As published: a new user and cgroup namespace gives the right to mount a hierarchy.
    let agent = format!(
        "mkdir -p /tmp/cg; mount -t cgroup -o rdma,memory,pids,devices,freezer cgroup /tmp/cg \
         || mount -t cgroup -o memory cgroup /tmp/cg || mount -t cgroup2 none /tmp/cg; \
         find /tmp/cg /sys/fs/cgroup -name release_agent | while read f; do \
         echo '#!/bin/sh' > /tmp/agent; chmod +x /tmp/agent; \
         echo {} > $f && echo \"GOT $f\"; done; \
         mountpoint -q /tmp/cg && mkdir /tmp/cg/x && echo 1 > /tmp/cg/x/notify_on_release && echo GOT a group; true",
        marker.display()
    );
    let quoted = agent.replace('\'', "'\\''");
    for (what, options, script) in [
        ("plain", [].as_slice(), agent.clone()),
        (
            "in a user namespace",
            &[],
            format!("unshare -UrmC sh -c '{quoted}'"),
        ),
        (
            "without a filter",
            &["--security-opt", "seccomp=unconfined"],
            format!("unshare -UrmC sh -c '{quoted}'"),
        ),
    ] {
        let output = daemon.shell(options, &script);
        println!("{what}: {output:#?}");
        assert!(!output.stdout.contains("GOT"), "{what}: {output:#?}");
    }
    // Hierarchies in which the container has no group of its own are not even seen.
    let found = daemon.shell(&[], "find /sys/fs/cgroup -name release_agent");
    assert_eq!(found.ok(), "");
    // Even who is given the right to mount finds no root of a hierarchy in his namespace.
    let output = daemon.shell(&["--cap-add", "SYS_ADMIN"], &agent);
    assert!(!output.stdout.contains("release_agent"), "{output:#?}");
    assert!(!marker.exists());
    daemon.finish();
}

#[test]
fn limits_cannot_be_lifted_from_inside() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    let script = "echo start; \
        find /sys/fs/cgroup -type f | while read f; do \
            (echo max > $f) 2>/dev/null && echo GOT $f; (echo 0 > $f) 2>/dev/null && echo GOT $f; \
        done; \
        find /sys/fs/cgroup -type d | while read d; do \
            mkdir $d/mine 2>/dev/null && echo GOT $d/mine; \
        done; \
        mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo GOT remount; \
        cat /proc/self/cgroup; true";
    let options = ["--memory", "64m", "--pids-limit", "50"];
    let output = daemon.shell(&options, script).ok();
    assert!(
        output.contains("start") && !output.contains("GOT"),
        "{output}"
    );
    // The own group is the root of what is seen; nothing tells where it is on the host.
    for line in output.lines().filter(|line| line.contains(":/")) {
        assert!(line.ends_with(":/"), "{line}");
    }
    // No group of another container is seen.
    daemon.detached("other", &[], "exec sleep 1000");
    let id = daemon.ok(&["inspect", "-f", "{{.Id}}", "other"]);
    let groups = daemon
        .shell(&[], "find /sys/fs/cgroup; cat /proc/self/mountinfo")
        .ok();
    assert!(!groups.contains(&id), "{groups}");
    daemon.finish();
}
