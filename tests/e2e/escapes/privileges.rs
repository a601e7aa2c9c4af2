//! What a container may do: capabilities (CVE-2022-29162), system calls, keys, the kernel's knobs,
//! devices.

use gamut_tests::Daemon;
use std::collections::BTreeMap;
use std::fs;

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

#[test]
fn cve_2022_29162_nothing_is_inheritable() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    let script = "grep -E 'Cap(Inh|Amb)' /proc/self/status | cut -f2 | sort -u";
    let none = "0000000000000000";
    for options in [
        [].as_slice(),
        &["--cap-add", "NET_ADMIN"],
        &["-u", "alice"],
        &["--privileged"],
        &["--init"],
    ] {
        assert_eq!(daemon.shell(options, script).ok(), none, "{options:?}");
        let name = ["--name", "here"];
        let words = [
            &["run", "-d"],
            &name[..],
            options,
            &["busybox", "sleep", "1000"],
        ]
        .concat();
        daemon.ok(&words);
        for options in [
            ["exec"].as_slice(),
            &["exec", "-u", "alice"],
            &["exec", "--privileged"],
            &["exec", "-t"],
        ] {
            let words = [options, &["here", "sh", "-c", script]].concat();
            assert_eq!(daemon.ok(&words), none, "{words:?}");
        }
        daemon.ok(&["rm", "-f", "here"]);
    }
    daemon.finish();
}

/// What the hostile program's calls come to, by name.
fn calls(daemon: &Daemon, options: &[&str]) -> BTreeMap<String, i32> {
    let output = daemon.shell(options, "attacker calls").ok();
    let line = |line: &str| {
        let (name, errno) = line.split_once(' ')?;
        Some((name.to_owned(), errno.parse().ok()?))
    };
    output.lines().filter_map(line).collect()
}

#[test]
fn system_calls_of_escapes_are_refused_by_the_default_profile() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    let found = calls(&daemon, &[]);
    println!("{found:#?}");
    assert!(found.len() > 50, "{found:#?}");
    for (name, errno) in &found {
        // A C library that meets ENOSYS takes clone(2), whose flags the filter can read.
        let wanted = match name.as_str() {
            "clone3" => [ENOSYS, ENOSYS],
            // An interface that this kernel may not have at all.
            name if name.starts_with("i386") || name.starts_with("x32") => [EPERM, ENOSYS],
            _ => [EPERM, EPERM],
        };
        assert!(wanted.contains(errno), "{name}: errno {errno}");
    }
    // It is the filter: without it, a user namespace is to be had for the asking.
    let unconfined = calls(&daemon, &["--security-opt", "seccomp=unconfined"]);
    assert_eq!(unconfined["unshare-user"], 0, "{unconfined:#?}");
    // A process of exec is held as the first one is.
    daemon.detached("here", &[], "exec sleep 1000");
    let exec = daemon.ok(&["exec", "here", "attacker", "calls"]);
    for (name, errno) in &found {
        assert!(exec.contains(&format!("{name} {errno}")), "{name}: {exec}");
    }
    daemon.finish();
}

#[test]
fn keys_of_the_host_are_out_of_reach() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    let refused = format!("refused {EPERM}");
    assert_eq!(daemon.shell(&[], "attacker keys").ok(), refused);
    assert_eq!(daemon.shell(&[], "cat /proc/keys").ok(), "");
    // Without the filter the session is still not that of whoever started the engine.
    // SAFETY: KEYCTL_GET_KEYRING_ID (0) of the session (-3) takes numbers only.
    let host = unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0, 0, 0) };
    assert!(host > 0, "{}", std::io::Error::last_os_error());
    let unconfined = ["--security-opt", "seccomp=unconfined"];
    let of_host = format!("session {host}");
    let inside = daemon.shell(&unconfined, "attacker keys").ok();
    assert!(
        inside.starts_with("session") && inside != of_host,
        "{inside}"
    );
    let options = [&["run", "-d", "--name", "here"], &unconfined[..]].concat();
    daemon.ok(&[&options[..], &["busybox", "sleep", "1000"]].concat());
    let exec = daemon.ok(&["exec", "here", "attacker", "keys"]);
    assert!(exec.starts_with("session") && exec != of_host, "{exec}");
    daemon.finish();
}

#[test]
fn the_kernels_knobs_cannot_be_turned() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    let before = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let script = "echo start; \
        for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger \
            /proc/sys/kernel/hotplug /proc/sys/fs/binfmt_misc/register /proc/sys/vm/panic_on_oom \
            /proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_forward /proc/irq/0/smp_affinity \
            /proc/bus/pci /sys/kernel/uevent_helper /sys/power/state /sys/module/kvm/uevent \
            /sys/kernel/mm/ksm/run /proc/mtrr /proc/acpi/alarm /proc/fs/nfsd/x \
            /sys/devices/system/cpu/cpu1/online; do \
            (echo x > $f) 2>/dev/null && echo GOT $f; \
        done; \
        mount -o remount,rw /proc/sys 2>/dev/null && echo GOT remount; \
        umount /proc/sys 2>/dev/null && echo GOT umount; \
        umount /proc/kcore 2>/dev/null && echo GOT unmask; \
        mount -t proc none /tmp 2>/dev/null && echo GOT proc; \
        unshare -Urpfm mount -t proc none /tmp 2>/dev/null && echo GOT proc; \
        for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /sys/firmware/x; do \
            test -s $f && head -c 1 $f 2>/dev/null | grep -q . && echo GOT to read $f; \
        done; true";
    for options in [[].as_slice(), &["--security-opt", "seccomp=unconfined"]] {
        let output = daemon.shell(options, script).ok();
        assert!(
            output.contains("start") && !output.contains("GOT"),
            "{options:?}: {output}"
        );
    }
    daemon.detached("here", &[], "exec sleep 1000");
    let output = daemon.ok(&["exec", "here", "sh", "-c", script]);
    assert!(
        output.contains("start") && !output.contains("GOT"),
        "{output}"
    );
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
    daemon.finish();
}

#[test]
fn nodes_of_the_hosts_devices_do_not_open() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    // Memory, ports, kernel messages, input, fuse, kvm, loop control, and every disk there is.
    let mut nodes: Vec<String> = [
        "c 1 1", "c 1 2", "c 1 4", "c 1 11", "c 10 229", "c 10 232", "c 10 237", "c 13 64",
        "c 4 1", "c 10 200", "b 7 0", "b 8 0", "b 252 0", "b 253 0", "b 254 0", "b 259 0",
    ]
    .map(str::to_owned)
    .to_vec();
    let disks = fs::read_to_string("/proc/partitions").unwrap();
    nodes.extend(disks.lines().skip(2).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some(format!("b {} {}", words.next()?, words.next()?))
    }));
    let open = "for n in \"$@\"; do rm -f /tmp/node; \
        mknod /tmp/node $n || echo no mknod $n; \
        for way in 'dd if=/tmp/node of=/dev/null bs=1 count=1' 'dd if=/dev/null of=/tmp/node'; do \
        $way 2>/tmp/error && echo GOT $n; \
        grep -q -e 'Operation not permitted' /tmp/error || echo \"GOT $n: $(cat /tmp/error)\"; \
        done; done; true";
    let words = |head: &[&'static str]| {
        let mut words: Vec<String> = head.iter().map(|word| (*word).to_owned()).collect();
        words.extend(["sh", "-c", open, "sh"].map(str::to_owned));
        words.extend(nodes.iter().cloned());
        words
    };
    let run = |words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = daemon.ok(&words);
        assert!(!output.contains("GOT"), "{output}");
    };
    run(words(&["run", "--rm", "busybox"]));
    daemon.detached("here", &[], "exec sleep 1000");
    run(words(&["exec", "here"]));
    // Nor after all that the group would need was restarted.
    daemon.ok(&["restart", "-t", "0", "here"]);
    run(words(&["exec", "here"]));
    run(words(&["exec", "--privileged", "here"]));
    daemon.finish();
}
