//! Hostile `/etc/passwd` and `/etc/group`.

use gamut_tests::{Daemon, Rootfs, hostile};
use std::time::Duration;

#[test]
fn user_files_of_an_image_neither_block_nor_lead_out_nor_fill_the_memory() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let secret = daemon.directory().join("passwd");
    std::fs::write(&secret, "alice:x:0:0:::\n").unwrap();
    let secret = secret.display().to_string();
    // How both files are replaced, and whether an identity may come of it.
    type Change = Box<dyn Fn(Rootfs, &str) -> Rootfs>;
    let huge = b"x:x:1:1::/:\n".repeat(600_000);
    let long = [&b"x".repeat(3 << 20)[..], b":x:1:1::/:\nalice:x:7:7::/:\n"].concat();
    let hostile_home = b"alice:x:1000:1000::/\x1b[2J\x07:/bin/sh\n".to_vec();
    let wrapped = b"alice:x:4294967296:1000::/:\nalice:x:-1:-1::/:\nalice:x:0x0:0::/:\n".to_vec();
    let cases: Vec<(&str, Change, bool)> = vec![
        (
            "a pipe",
            Box::new(|rootfs, path| rootfs.fifo(path, 0o666)),
            false,
        ),
        (
            "a directory",
            Box::new(|rootfs, path| rootfs.directory(path, 0o755, 0)),
            false,
        ),
        (
            "a link out",
            Box::new(move |rootfs, path| rootfs.link(path, &secret)),
            false,
        ),
        (
            "a link up",
            Box::new(|rootfs, path| rootfs.link(path, "../../../../etc/shadow")),
            false,
        ),
        (
            "a loop",
            Box::new(|rootfs, path| rootfs.link(path, path)),
            false,
        ),
        (
            "the kernel's log",
            Box::new(|rootfs, path| rootfs.link(path, "/proc/kmsg")),
            false,
        ),
        (
            "a device",
            Box::new(|rootfs, path| rootfs.link(path, "/dev/zero")),
            false,
        ),
        (
            "a terminal",
            Box::new(|rootfs, path| rootfs.link(path, "/dev/tty")),
            false,
        ),
        (
            "memory",
            Box::new(|rootfs, path| rootfs.link(path, "/proc/self/mem")),
            false,
        ),
        (
            "the environment",
            Box::new(|rootfs, path| rootfs.link(path, "/proc/self/environ")),
            false,
        ),
        (
            "huge",
            Box::new(move |rootfs, path| rootfs.file(path, 0o644, &huge)),
            false,
        ),
        (
            "numbers out of range",
            Box::new(move |rootfs, path| rootfs.file(path, 0o644, &wrapped)),
            false,
        ),
        (
            "a long line",
            Box::new(move |rootfs, path| rootfs.file(path, 0o644, &long)),
            true,
        ),
        (
            "a home with escapes",
            Box::new(move |rootfs, path| rootfs.file(path, 0o644, &hostile_home)),
            true,
        ),
    ];
    for (what, change, may_work) in cases {
        let Some(rootfs) = hostile() else { return };
        // The later entry of an archive replaces the earlier one.
        let archive = change(rootfs, "etc/passwd").finish();
        daemon.import(&archive, "hostile", &["CMD [\"sh\"]"]);
        let script = ["run", "--rm", "-u", "alice", "hostile", "id", "-u"];
        let output = daemon.spawn(&script).wait_within(Duration::from_secs(30));
        println!(
            "{what}: {} {} {}",
            output.code,
            output.stdout.trim(),
            output.stderr.trim()
        );
        assert_eq!(output.code == 0, may_work, "{what}: {output:#?}");
        assert_ne!(output.stdout.trim(), "0", "{what}");
        if !may_work {
            assert!(
                output.stderr.contains("/etc/passwd") || output.stderr.contains("alice"),
                "{what}: {output:#?}"
            );
        }
        // Numbers need no file, and a group of the image's does no harm either.
        let Some(rootfs) = hostile() else { return };
        let archive = change(rootfs, "etc/group").finish();
        daemon.import(&archive, "hostile", &["CMD [\"sh\"]"]);
        let script = ["run", "--rm", "-u", "1000:alice", "hostile", "id", "-g"];
        let output = daemon.spawn(&script).wait_within(Duration::from_secs(30));
        println!("{what} (group): {} {}", output.code, output.stderr.trim());
        assert_ne!(output.stdout.trim(), "0", "{what}: {output:#?}");
    }
    daemon.finish();
}
