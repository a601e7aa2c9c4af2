//! CVE-2024-21626 and its kin: descriptors of the host that a container inherits.

use gamut_tests::{Bundle, Daemon, Output, hostile};
use std::fs::{self, File};
use std::os::fd::AsRawFd;

/// A directory of the host whose descriptor is inherited by every child of this process.
fn leak(path: &std::path::Path) -> File {
    let directory = File::open(path).unwrap();
    // SAFETY: no pointers; the descriptor is open.
    let done = unsafe { libc::fcntl(directory.as_raw_fd(), libc::F_SETFD, 0) };
    assert_eq!(done, 0);
    directory
}

/// Numbers of the descriptors that the hostile program has found.
#[track_caller]
fn numbers(output: &Output) -> Vec<String> {
    let text = output.ok();
    let number = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    text.lines().map(number).collect()
}

#[test]
fn nothing_but_the_standard_streams_is_inherited() {
    // The daemon's parent was careless.
    let _leak = leak(&std::env::temp_dir());
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    for options in [
        ["run", "--rm"].as_slice(),
        &["run", "--rm", "-i"],
        &["run", "--rm", "-t"],
        &["run", "--rm", "--network", "host", "--pid", "host"],
        &["run", "--rm", "--privileged"],
        &["run", "--rm", "--init"],
        &["run", "--rm", "-v", "vol:/vol", "--log-driver", "none"],
    ] {
        let words = [options, &["busybox", "attacker", "descriptors"]].concat();
        let found = numbers(&daemon.gamut(&words));
        assert_eq!(found, ["0", "1", "2"], "{options:?}");
    }
    daemon.detached("here", &[], "exec sleep 1000");
    for options in [["exec"].as_slice(), &["exec", "-i"], &["exec", "-t"]] {
        let words = [options, &["here", "attacker", "descriptors"]].concat();
        let found = numbers(&daemon.gamut(&words));
        assert_eq!(found, ["0", "1", "2"], "{options:?}");
    }
    // The supervisor has none of the daemon's either.
    let fds = format!("/proc/{}/fd", daemon.supervisor_pid("here"));
    for entry in fs::read_dir(fds).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap();
        assert_ne!(target, std::env::temp_dir(), "leaked to the supervisor");
    }
    daemon.finish();
}

#[test]
fn the_runtime_hands_nothing_of_its_caller_on() {
    let Some(rootfs) = hostile() else { return };
    let _leak = leak(&std::env::temp_dir());
    let Some(bundle) = Bundle::new(rootfs, &["/bin/attacker", "descriptors"]) else {
        return;
    };
    assert_eq!(numbers(&bundle.run()), ["0", "1", "2"]);
    let (code, text) = bundle.verb(&["create", "--bundle", &bundle.path(), "a"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(bundle.verb(&["start", "a"]).0, 0);
}

#[test]
fn cve_2024_21626_no_working_directory_leads_out() {
    let Some(rootfs) = hostile() else { return };
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let secret = daemon.directory().join("secret");
    fs::write(&secret, "the host's\n").unwrap();
    let links = (3..16).fold(rootfs, |rootfs, number| {
        rootfs.link(&format!("fd{number}"), &format!("/proc/self/fd/{number}"))
    });
    let archive = links.link("up", "../../../../..").finish();
    daemon.import(&archive, "busybox", &["CMD [\"sh\"]"]);
    daemon.import(&archive, "image-chooses", &["WORKDIR /proc/self/fd/8"]);
    let climb = format!("pwd; cat {}{}", "../".repeat(12), secret.display());
    let check = |output: &Output, what: &str| {
        assert!(!output.stdout.contains("the host's"), "{what}: {output:#?}");
        assert!(
            output.code != 0 || output.stdout.starts_with('/'),
            "{what}: {output:#?}"
        );
    };
    daemon.detached("here", &[], "exec sleep 1000");
    for number in 3..16 {
        for directory in [
            format!("/proc/self/fd/{number}"),
            format!("/fd{number}"),
            format!("/proc/self/fd/{number}/../.."),
            format!("/proc/1/fd/{number}"),
        ] {
            check(&daemon.shell(&["-w", &directory], &climb), &directory);
            let words = ["exec", "-w", &directory, "here", "sh", "-c", &climb];
            check(&daemon.gamut(&words), &directory);
        }
    }
    for directory in ["/proc/self/cwd", "/proc/1/root", "/proc/1/cwd", "/up"] {
        check(&daemon.shell(&["-w", directory], &climb), directory);
        let words = ["exec", "-w", directory, "here", "sh", "-c", &climb];
        check(&daemon.gamut(&words), directory);
    }
    let words = ["run", "--rm", "image-chooses", "sh", "-c", &climb];
    check(&daemon.gamut(&words), "WORKDIR of the image");
    // A program by way of a descriptor is one of the container's, or none.
    for number in 3..16 {
        let program = format!("/proc/self/fd/{number}{}", secret.display());
        let output = daemon.gamut(&["exec", "here", &program]);
        assert_ne!(output.code, 0, "{program}: {output:#?}");
    }
    daemon.finish();
}

#[test]
fn cve_2024_21626_nor_does_the_runtimes() {
    let Some(rootfs) = hostile() else { return };
    let Some(mut bundle) = Bundle::new(rootfs, &["/bin/sh", "-c", "pwd; ls -a"]) else {
        return;
    };
    let outside = bundle.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "").unwrap();
    let _leak = leak(&outside);
    for number in 3..24 {
        bundle.config["process"]["cwd"] = serde_json::json!(format!("/proc/self/fd/{number}"));
        let output = bundle.run();
        assert_ne!(output.code, 0, "{number}: {output:#?}");
        assert!(!output.stdout.contains("secret"), "{number}: {output:#?}");
    }
}
