//! CVE-2021-30465 and CVE-2024-45310: the place of a mount is exchanged for a link to the host while
//! it is looked for.

use gamut_tests::{Bundle, Daemon, Session, hostile, racing_time};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn cve_2021_30465_exchanged_mount_targets_stay_inside() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    // The same path exists on the host, with something that must not be seen or touched.
    let outside = daemon.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "the host's\n").unwrap();
    let outside_text = outside.display().to_string();
    let prepare =
        format!("mkdir /shared/place; ln -s {outside_text} /shared/link; ln -s / /shared/root");
    let _ = daemon.shell(&["-v", "shared:/shared"], &prepare).ok();
    for (number, other) in ["link", "root"].iter().enumerate() {
        let script = format!("exec attacker exchange /shared/place /shared/{other}");
        daemon.detached(
            &format!("racer{number}"),
            &["-v", "shared:/shared"],
            &script,
        );
        let due = Instant::now() + racing_time();
        let mut runs = 0;
        while Instant::now() < due {
            // A mount on the place itself, a missing directory and a missing file below it.
            let file = format!(
                "{}:/shared/place/made/file",
                outside.join("secret").display()
            );
            let options = [
                "-v",
                "shared:/shared",
                "-v",
                "other:/shared/place/deep/down",
                "-v",
                &file,
                "--tmpfs",
                "/shared/place/tmp",
            ];
            let script = format!("ls {outside_text}/ 2>/dev/null; cat {outside_text}/secret; true");
            let output = daemon.shell(&options, &script);
            assert!(!output.stdout.contains("the host's"), "{output:#?}");
            assert_eq!(
                names(&outside),
                ["secret"],
                "something was made on the host"
            );
            runs += 1;
        }
        println!("{runs} starts against {other}");
        daemon.ok(&["rm", "-f", &format!("racer{number}")]);
    }
    assert_eq!(
        fs::read_to_string(outside.join("secret")).unwrap(),
        "the host's\n"
    );
    // No mount has found its way to the host: `finish` compares its mounts.
    daemon.finish();
}

#[test]
fn cve_2024_45310_the_runtime_makes_no_mount_target_outside() {
    let Some(rootfs) = hostile() else { return };
    let Some(mut bundle) = Bundle::new(rootfs, &["/bin/true"]) else {
        return;
    };
    let outside = bundle.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    let source = bundle.directory().join("source");
    fs::write(&source, "").unwrap();
    // The host itself plays the other container: the exchange is the same system call.
    let shared = bundle.rootfs().join("shared");
    fs::create_dir_all(shared.join("place")).unwrap();
    std::os::unix::fs::symlink(&outside, shared.join("link")).unwrap();
    let up = format!("../../../../../../../..{}", outside.display());
    std::os::unix::fs::symlink(up, shared.join("up")).unwrap();
    for name in ["file", "deep/file"] {
        bundle.mount(
            json!({"destination": format!("/shared/place/{name}"), "type": "bind",
            "source": source, "options": ["bind"]}),
        );
    }
    bundle.mount(
        json!({"destination": "/shared/place/directory", "type": "tmpfs",
        "source": "tmpfs"}),
    );
    bundle.config["process"]["cwd"] = json!("/shared/place/cwd");
    for other in ["link", "up"] {
        let mut attacker = std::process::Command::new(bundle.rootfs().join("bin/attacker"));
        attacker
            .arg("exchange")
            .arg(shared.join("place"))
            .arg(shared.join(other));
        let racer = Session::start(&mut attacker);
        racer.expect("ready");
        let due = Instant::now() + racing_time();
        while Instant::now() < due {
            let _ = bundle.run();
            assert_eq!(names(&outside), [""; 0], "something was made on the host");
        }
        drop(racer);
    }
}
