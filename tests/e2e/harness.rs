//! The harness itself: what leaks is seen.

use gamut_tests::{Daemon, Session, eventually};

#[test]
fn the_leak_checker_sees_what_is_left_behind() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let before = daemon.snapshot();
    let left = |what: &str| {
        let difference = daemon.snapshot().difference(&before);
        assert!(
            difference.iter().any(|line| line.starts_with(what)),
            "{what} is not among {difference:#?}"
        );
    };
    let run = |line: &str| {
        Session::start(daemon.command("sh").args(["-c", line]))
            .wait()
            .ok()
    };

    let file = daemon.data_root().join("containers/forgotten");
    std::fs::write(&file, "").unwrap();
    left("file: ");
    std::fs::remove_file(file).unwrap();

    let target = daemon.data_root();
    let target = target.display();
    run(&format!("mount -t tmpfs none {target}/volumes"));
    left("mount: ");
    run(&format!("umount {target}/volumes"));

    run("ip link add left0 type bridge");
    left("ip: ");
    run("ip link del left0");

    run("nft add table ip left");
    left("nft: ");
    run("nft delete table ip left");

    let process = daemon.command("sleep").arg("100").spawn();
    left("process: sleep");
    let mut process = process.unwrap();
    process.kill().unwrap();
    process.wait().unwrap();

    daemon.detached("left", &[], "sleep 100");
    left("cgroup: ");
    left("process: ");
    left("descriptor: ");
    daemon.ok(&["rm", "-f", "left"]);
    eventually("all is as it was", || {
        daemon.snapshot().difference(&before).is_empty()
    });
    daemon.finish();
}
