//! Containers without a mount namespace: what is mounted for them on the host is taken away.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod rig;

use rig::Rig;
use serde_json::json;
use std::fs;

/// A rig in a mount namespace of this thread's own: nothing of it is ever seen on the machine.
fn rig() -> Option<Rig> {
    let rig = Rig::new(&["true"])?;
    // SAFETY: the path is a C string, the other pointers may be null.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        let (none, flags) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        assert_eq!(
            libc::mount(none, c"/".as_ptr(), none, flags, none.cast()),
            0
        );
    }
    Some(rig)
}

fn without_mount_namespace(rig: &Rig, args: &[&str]) {
    rig.configure_with(args, |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "mount");
    });
}

/// Mounts at or below the bundle, as this thread sees them.
fn mounted(rig: &Rig) -> usize {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let place = format!(" {}", rig.path("bundle"));
    table.lines().filter(|line| line.contains(&place)).count()
}

#[test]
fn its_mounts_are_seen_on_the_host_until_it_is_deleted() {
    let Some(rig) = rig() else {
        return;
    };
    without_mount_namespace(&rig, &["sleep", "1000"]);
    assert_eq!(mounted(&rig), 0);
    rig.create("a");
    // The root, /proc and /dev.
    assert_eq!(mounted(&rig), 3);
    assert!(!rig.fails(&["create", "a"]).is_empty());
    rig.ok(&["start", "a"]);
    rig.wait_for("a", "running");
    // A further process has the same root.
    assert_eq!(
        rig.ok(&["exec", "a", "readlink", "/proc/1/exe"]),
        "/bin/busybox\n"
    );
    assert_eq!(
        rig.ok(&["exec", "a", "sh", "-c", "cd /; cd ..; pwd; echo /bundle*"]),
        "/\n/bundle*\n"
    );
    rig.ok(&["kill", "a", "KILL"]);
    rig.wait_for("a", "stopped");
    assert_eq!(mounted(&rig), 3);
    rig.ok(&["delete", "a"]);
    assert_eq!(mounted(&rig), 0);
    rig.assert_clean();
}

#[test]
fn its_mounts_go_with_a_run_that_ends_or_fails() {
    let Some(rig) = rig() else {
        return;
    };
    without_mount_namespace(&rig, &["sh", "-c", "echo $$; readlink /proc/self/ns/mnt"]);
    let here = fs::read_link("/proc/thread-self/ns/mnt").unwrap();
    assert_eq!(rig.ok(&["run", "a"]), format!("1\n{}\n", here.display()));
    assert_eq!(mounted(&rig), 0);
    without_mount_namespace(&rig, &["/bin/nonsense"]);
    for verb in ["run", "create"] {
        assert!(rig.fails(&[verb, "a"]).contains("/bin/nonsense"));
        assert_eq!(mounted(&rig), 0, "{verb}");
    }
    // What else is mounted there stays: only the mount itself is taken away, by its number.
    without_mount_namespace(&rig, &["sleep", "1000"]);
    rig.create("a");
    let root = rig.path("bundle/rootfs");
    let mount = |args: &[&str]| {
        let status = std::process::Command::new(args[0])
            .args(&args[1..])
            .status();
        assert!(status.unwrap().success(), "{args:?}");
    };
    mount(&["umount", "-l", &root]);
    mount(&["mount", "-t", "tmpfs", "tmpfs", &root]);
    rig.ok(&["delete", "--force", "a"]);
    assert_eq!(mounted(&rig), 1);
    mount(&["umount", &root]);
    rig.assert_clean();
}

#[test]
fn what_would_reach_the_hosts_own_mounts_is_refused_by_field() {
    let Some(rig) = rig() else {
        return;
    };
    for (field, value) in [
        ("maskedPaths", json!(["/proc/kcore"])),
        ("readonlyPaths", json!(["/proc/sys"])),
    ] {
        rig.configure_with(&["true"], |config| {
            config["linux"]["namespaces"] = json!([{"type": "pid"}]);
            config["linux"][field] = value;
        });
        let error = rig.fails(&["run", "a"]);
        assert!(error.contains(&format!("linux.{field}")), "{error}");
        assert!(error.contains("private MNT namespace"), "{error}");
    }
    rig.configure_with(&["true"], |config| {
        let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
        config["linux"]["namespaces"] = json!([{"type": "user"}]);
        config["linux"]["uidMappings"] = ids.clone();
        config["linux"]["gidMappings"] = ids;
    });
    let error = rig.fails(&["run", "a"]);
    assert!(error.contains("linux.namespaces"), "{error}");
    rig.assert_clean();
}
