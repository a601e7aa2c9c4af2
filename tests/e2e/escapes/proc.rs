//! Mounts over `/proc`, and what stands in for it: CVE-2019-16884, CVE-2019-19921, CVE-2025-31133,
//! CVE-2025-52565, CVE-2025-52881.

use gamut_tests::{Bundle, Daemon, hostile, racing_time};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;

#[test]
fn cve_2019_16884_no_volume_stands_in_for_proc() {
    let Some(rootfs) = hostile() else { return };
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let archive = rootfs
        .link("aside", "/proc")
        .link("round", "etc/../proc/self")
        .finish();
    daemon.import(&archive, "busybox", &["CMD [\"sh\"]"]);
    daemon.import(
        &archive,
        "volume-of-image",
        &["VOLUME /proc", "CMD [\"sh\"]"],
    );
    for target in [
        "/proc",
        "/proc/",
        "/x/../proc",
        "/proc/self",
        "/proc/self/attr",
        "/proc/self/attr/exec",
        "/proc/thread-self/attr/apparmor/exec",
        "/proc/sys",
        "/proc/sys/kernel",
        "/proc/1",
        "/proc/sysrq-trigger",
        "/aside",
        "/aside/self/attr",
        "/round/attr",
    ] {
        for option in [
            format!("type=volume,source=fake,target={target}"),
            format!("type=tmpfs,target={target}"),
        ] {
            let output = daemon.shell(&["--mount", &option], "echo ran");
            assert_ne!(output.code, 0, "{option}: {output:#?}");
            assert!(!output.stdout.contains("ran"), "{option}: {output:#?}");
            assert!(output.stderr.contains("/proc"), "{option}: {output:#?}");
        }
    }
    let output = daemon.gamut(&["run", "--rm", "volume-of-image", "sh", "-c", "echo ran"]);
    assert!(
        output.code != 0 && output.stderr.contains("/proc"),
        "{output:#?}"
    );
    // What describes the machine may be replaced, as lxcfs does.
    let file = daemon.directory().join("uptime");
    fs::write(&file, "1.00 1.00\n").unwrap();
    let mount = format!("{}:/proc/uptime:ro", file.display());
    assert_eq!(
        daemon.shell(&["-v", &mount], "cat /proc/uptime").ok(),
        "1.00 1.00"
    );
    daemon.finish();
}

#[test]
fn cve_2019_19921_a_shared_volume_cannot_turn_proc_around() {
    let Some(rootfs) = hostile() else { return };
    let Some(daemon) = Daemon::start() else {
        return;
    };
    // The image's own /proc is a link into a volume that another container plays with.
    let archive = rootfs.link("proc", "/shared/proc").finish();
    daemon.import(&archive, "linked", &["CMD [\"sh\"]"]);
    let archive = hostile().unwrap().finish();
    daemon.import(&archive, "busybox", &["CMD [\"sh\"]"]);
    daemon.detached(
        "racer",
        &["-v", "shared:/shared"],
        "exec attacker alternate /shared/proc /etc",
    );
    let due = Instant::now() + racing_time();
    while Instant::now() < due {
        let script = "echo ran; ls /proc/self/status /shared/proc/self/status";
        let words = [
            "run",
            "--rm",
            "-v",
            "shared:/shared",
            "linked",
            "sh",
            "-c",
            script,
        ];
        let output = daemon.gamut(&words);
        assert!(
            output.code != 0 && !output.stdout.contains("ran"),
            "{output:#?}"
        );
    }
    daemon.finish();
}

/// Files below /proc that are masked or read-only whatever the image has made of `/dev/null`.
const PROTECTED: &str = "for f in /proc/kcore /proc/keys /proc/timer_list; do \
     head -c 1 $f | wc -c; done; \
     for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger; do \
     (echo x > $f) 2>/dev/null && echo GOT $f; done; true";

#[test]
fn cve_2025_31133_masks_are_made_of_the_hosts_null_device() {
    let Some(rootfs) = hostile() else { return };
    let Some(mut bundle) = Bundle::new(rootfs, &["/bin/sh", "-c", PROTECTED]) else {
        return;
    };
    assert_eq!(bundle.run().ok(), "0\n0\n0");
    // Without a tmpfs of its own, /dev is the image's.
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let null = bundle.rootfs().join("dev/null");
    fs::create_dir_all(bundle.rootfs().join("dev")).unwrap();
    for target in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/etc/passwd",
    ] {
        let _ = fs::remove_file(&null);
        symlink(target, &null).unwrap();
        let output = bundle.run();
        assert!(!output.stdout.contains("GOT"), "{target}: {output:#?}");
        assert!(
            output.code != 0 || output.stdout.starts_with("0\n0\n0"),
            "{target}: {output:#?}"
        );
    }
    // A file, then nothing at all.
    fs::remove_file(&null).unwrap();
    fs::write(&null, "not null").unwrap();
    let output = bundle.run();
    assert!(
        output.code != 0 && output.stderr.contains("/dev/null"),
        "{output:#?}"
    );
    fs::remove_file(&null).unwrap();
    assert_eq!(bundle.run().ok(), "0\n0\n0");
}

#[test]
fn cve_2025_31133_not_even_while_dev_is_raced_with() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    daemon.detached(
        "racer",
        &["-v", "dev:/shared"],
        "exec attacker alternate /shared/null /proc/sys/kernel/core_pattern",
    );
    let due = Instant::now() + racing_time();
    while Instant::now() < due {
        let output = daemon.shell(&["-v", "dev:/dev"], PROTECTED);
        assert!(!output.stdout.contains("GOT"), "{output:#?}");
        assert!(
            output.code != 0 || output.stdout.starts_with("0\n0\n0"),
            "{output:#?}"
        );
    }
    daemon.finish();
}

#[test]
fn cve_2025_52565_the_console_is_the_terminal_and_nothing_else() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    let script = "stat -c %t:%T /dev/console; (echo x > /dev/console) && echo wrote; \
        (echo x > /proc/sysrq-trigger) 2>/dev/null && echo GOT sysrq; true";
    let output = daemon
        .gamut(&["run", "--rm", "-t", "busybox", "sh", "-c", script])
        .ok();
    assert!(
        output.contains("wrote") && !output.contains("GOT"),
        "{output}"
    );
    // A volume in place of the terminals, with links where their names will be.
    let prepare = "for n in 0 1 2 3; do ln -sf /proc/sysrq-trigger /pts/$n; done; \
        ln -sf /proc/sysrq-trigger /pts/ptmx; ln -sf /proc/sysrq-trigger /pts/console";
    let _ = daemon.shell(&["-v", "pts:/pts"], prepare).ok();
    for target in ["/dev/pts", "/dev"] {
        let mount = format!("pts:{target}");
        let words = [
            "run", "--rm", "-t", "-v", &mount, "busybox", "sh", "-c", script,
        ];
        let output = daemon.gamut(&words);
        assert!(!output.stdout.contains("GOT"), "{target}: {output:#?}");
        if target == "/dev/pts" {
            assert_ne!(output.code, 0, "{output:#?}");
        }
        // Nor does exec take the container's word for what a terminal is.
        daemon.detached("here", &["-v", &mount], "exec sleep 1000");
        let output = daemon.gamut(&["exec", "-t", "here", "sh", "-c", script]);
        assert!(!output.stdout.contains("GOT"), "{target}: {output:#?}");
        daemon.ok(&["rm", "-f", "here"]);
    }
    daemon.finish();
}

#[test]
fn cve_2025_52881_what_is_written_to_proc_goes_to_proc() {
    let Some(rootfs) = hostile() else { return };
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /fake 2>/dev/null; true";
    let Some(mut bundle) = Bundle::new(rootfs, &["/bin/sh", "-c", script]) else {
        return;
    };
    let before = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    assert_eq!(bundle.run().ok(), "77");
    // Names that leave the tree, and machine-wide ones.
    for name in [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net...kernel.core_pattern",
        "vm.panic_on_oom",
    ] {
        bundle.config["linux"]["sysctl"] = json!({name: "|/bin/evil"});
        let output = bundle.run();
        assert_ne!(output.code, 0, "{name}: {output:#?}");
        assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
    }
    // Something else in the place of what is written to.
    let plain = bundle.config["mounts"].clone();
    let fake = bundle.rootfs().join("fake");
    fs::create_dir_all(fake.join("sys/net/ipv4")).unwrap();
    symlink(
        "/proc/sysrq-trigger",
        fake.join("sys/net/ipv4/ip_unprivileged_port_start"),
    )
    .unwrap();
    let source = fake.display().to_string();
    for (destination, is_refused) in [
        ("/proc", true),
        ("/proc/sys", true),
        ("/proc/sys/net", true),
        ("/proc/self", true),
        ("/proc/self/attr", true),
        ("/proc/thread-self", true),
        ("/sys", false),
    ] {
        bundle.config["mounts"] = plain.clone();
        bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "78"});
        bundle.mount(
            json!({"destination": destination, "type": "bind", "source": source,
            "options": ["rbind"]}),
        );
        let output = bundle.run();
        if is_refused {
            assert_ne!(output.code, 0, "{destination}: {output:#?}");
            assert!(
                output.stderr.contains(destination),
                "{destination}: {output:#?}"
            );
        } else {
            assert!(output.ok().starts_with("78"), "{destination}");
        }
    }
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
}
