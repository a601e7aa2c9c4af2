//! What a workload may do: capabilities, system calls, devices, paths.

use gamut_tests::Daemon;

fn status_line(daemon: &Daemon, options: &[&str], name: &str) -> String {
    let script = format!("grep {name}: /proc/self/status | cut -f2");
    daemon.shell(options, &script).ok()
}

#[test]
fn capabilities_are_the_fields_default_and_can_be_changed() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    assert_eq!(status_line(&daemon, &[], "CapEff"), "00000000a80425fb");
    assert_eq!(
        status_line(&daemon, &["--cap-drop", "ALL"], "CapEff"),
        "0000000000000000"
    );
    let one = ["--cap-drop", "all", "--cap-add", "NET_BIND_SERVICE"];
    assert_eq!(status_line(&daemon, &one, "CapEff"), "0000000000000400");
    let added = status_line(&daemon, &["--cap-add", "CAP_SYS_PTRACE"], "CapEff");
    assert_eq!(added, "00000000a80c25fb");
    // Other users have none, though the bounding set allows them.
    assert_eq!(
        status_line(&daemon, &["-u", "alice"], "CapEff"),
        "0000000000000000"
    );
    assert_eq!(
        status_line(&daemon, &["-u", "alice"], "CapBnd"),
        "00000000a80425fb"
    );
    let error = daemon
        .gamut(&["run", "--rm", "--cap-add", "FLYING", "busybox", "true"])
        .fails(125);
    assert!(error.contains("FLYING"), "{error}");

    // They matter: chown needs one.
    let chown = "chown 5:5 /data/notes 2>&1 && stat -c %u /data/notes";
    assert_eq!(daemon.shell(&[], chown).ok(), "5");
    let refused = daemon.shell(&["--cap-drop", "CHOWN"], chown);
    assert!(refused.stdout.contains("not permitted"), "{refused:#?}");
    daemon.finish();
}

#[test]
fn system_calls_are_filtered() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    assert_eq!(status_line(&daemon, &[], "Seccomp"), "2");
    let unconfined = ["--security-opt", "seccomp=unconfined"];
    assert_eq!(status_line(&daemon, &unconfined, "Seccomp"), "0");
    // The default profile forbids a new user namespace; unconfined allows it.
    let unshare = "unshare -U true 2>&1";
    let refused = daemon.shell(&[], unshare);
    assert!(
        refused.code != 0 && refused.stdout.contains("not permitted"),
        "{refused:#?}"
    );
    let _ = daemon.shell(&unconfined, unshare).ok();

    // A profile of one's own.
    let profile = daemon.directory().join("no-mkdir.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    std::fs::write(&profile, text).unwrap();
    let option = format!("seccomp={}", profile.display());
    let refused = daemon
        .shell(&["--security-opt", &option], "mkdir /tmp/x 2>&1; true")
        .ok();
    assert!(refused.contains("not supported"), "{refused}");
    // exec is filtered as the main process is.
    daemon.detached("filtered", &["--security-opt", &option], "sleep 1000");
    let refused = daemon.ok(&["exec", "filtered", "sh", "-c", "mkdir /tmp/x 2>&1; true"]);
    assert!(refused.contains("not supported"), "{refused}");
    std::fs::write(&profile, "{ no json").unwrap();
    let _ = daemon
        .gamut(&["run", "--rm", "--security-opt", &option, "busybox", "true"])
        .fails(125);
    daemon.finish();
}

#[test]
fn no_new_privileges() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    assert_eq!(status_line(&daemon, &[], "NoNewPrivs"), "0");
    let option = ["--security-opt", "no-new-privileges"];
    assert_eq!(status_line(&daemon, &option, "NoNewPrivs"), "1");
    // A setuid program gives nothing then.
    let setuid = gamut_tests::Rootfs::new()
        .copy(std::path::Path::new("/usr/bin/busybox"), "busybox", 0o4755)
        .finish();
    daemon.import(&setuid, "setuid", &["ENTRYPOINT [\"/busybox\"]"]);
    let id = ["id", "-u"];
    let run = |options: &[&str]| {
        let head = ["run", "--rm", "-u", "1000"].iter().chain(options);
        let line: Vec<_> = head
            .chain(&["setuid"])
            .chain(&["sh", "-c", "grep Uid: /proc/self/status | cut -f3"])
            .copied()
            .collect();
        daemon.gamut(&line)
    };
    let _ = id;
    // busybox drops what it need not have, so ask the kernel: the effective user id of the process.
    let with = run(&[]);
    let without = run(&option);
    assert_eq!(without.ok(), "1000");
    assert!(with.ok() == "1000" || with.ok() == "0");
    daemon.finish();
}

#[test]
fn devices_are_allowed_one_by_one() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    // A node one makes oneself does not open: the device is not allowed.
    let make = "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg 2>&1; true";
    let refused = daemon.shell(&[], make).ok();
    assert!(refused.contains("not permitted"), "{refused}");
    // With --device it is there and opens, with the rights that were given.
    let loopback = ["--device", "/dev/full:/dev/brimful:rw"];
    let full = daemon
        .shell(&loopback, "echo x 2>&1 > /dev/brimful; ls -l /dev/brimful")
        .stdout;
    assert!(
        full.contains("No space left") && full.contains("1,   7"),
        "{full}"
    );
    let error = daemon
        .gamut(&["run", "--rm", "--device", "/dev/no-such", "busybox", "true"])
        .fails(125);
    assert!(error.contains("/dev/no-such"), "{error}");
    daemon.finish();
}

#[test]
fn the_kernels_own_files_are_masked_or_read_only() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/sys/firmware",
    ] {
        let script = format!("test -d {path} && ls {path} || head -c 10 {path} 2>/dev/null");
        let seen = daemon.shell(&[], &format!("{script}; true")).ok();
        assert_eq!(seen, "", "{path}");
    }
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_seqnum",
    ] {
        let script = format!("echo x > {path}");
        let refused = daemon.shell(&[], &script);
        assert_ne!(refused.code, 0, "{path}: {refused:#?}");
    }
    let mount = daemon
        .shell(&[], "mount -t tmpfs none /tmp 2>&1; true")
        .ok();
    assert!(
        mount.contains("denied") || mount.contains("not permitted"),
        "{mount}"
    );

    // Privileged: as much as the engine itself has.
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:\t"))
        .unwrap()
        .to_owned();
    assert_eq!(status_line(&daemon, &["--privileged"], "CapEff"), own);
    let mount = daemon.shell(
        &["--privileged"],
        "mount -t tmpfs none /tmp && stat -f -c %T /tmp",
    );
    assert_eq!(mount.ok(), "tmpfs");
    daemon.finish();
}
