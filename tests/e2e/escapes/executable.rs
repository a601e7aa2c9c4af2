//! CVE-2019-5736: overwriting the runtime's program through `/proc/self/exe`.

use gamut_tests::{Bundle, Daemon, hostile, runtime, supervisor, target_binary};

/// Content of the engine's programs on disk.
fn programs() -> Vec<Vec<u8>> {
    [target_binary(), supervisor(), runtime()]
        .map(|path| std::fs::read(path).unwrap())
        .to_vec()
}

/// A program that makes whoever executes it execute itself again, inside.
const TRAP: &[u8] = b"#!/proc/self/exe\n";

#[test]
fn cve_2019_5736_the_engines_program_cannot_be_changed_through_proc_self_exe() {
    let Some(rootfs) = hostile() else { return };
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let archive = rootfs.file("bin/trap", 0o755, TRAP).finish();
    daemon.import(&archive, "busybox", &["CMD [\"sh\"]"]);
    let before = programs();
    for bait in ["/bin/trap", "/proc/self/exe"] {
        daemon.detached("thief", &[], "exec attacker steal-executable");
        gamut_tests::until("the engine's program is seen", || {
            let _ = daemon.gamut(&["exec", "thief", bait]);
            daemon.ok(&["logs", "thief"]).contains("done").then_some(())
        });
        let log = daemon.ok(&["logs", "thief"]);
        println!("{log}");
        assert!(!log.contains("GOT"), "{log}");
        daemon.ok(&["rm", "-f", "thief"]);
        // The engine goes on as if nothing had been.
        assert_eq!(daemon.shell(&[], "echo on").ok(), "on");
    }
    // As the container's own first process.
    for bait in ["/bin/trap", "/proc/self/exe"] {
        let output = daemon.gamut(&["run", "--rm", "--entrypoint", bait, "busybox", "version"]);
        assert_ne!(output.code, 0, "{output:#?}");
    }
    assert!(programs() == before, "a program of the engine has changed");
    daemon.finish();
}

#[test]
fn cve_2019_5736_nor_can_the_runtimes() {
    let Some(rootfs) = hostile() else { return };
    let rootfs = rootfs.file("bin/trap", 0o755, TRAP);
    // The first process waits for nobody: the thief is a child of the container's own shell, and
    // the trap is what the runtime executes.
    let Some(mut bundle) = Bundle::new(rootfs, &["/bin/trap"]) else {
        return;
    };
    let before = programs();
    for args in [["/bin/trap"].as_slice(), &["/proc/self/exe", "version"]] {
        bundle.config["process"]["args"] = serde_json::json!(args);
        let output = bundle.run();
        assert_ne!(output.code, 0, "{output:#?}");
        assert!(!output.stdout.contains("version"), "{output:#?}");
    }
    assert!(programs() == before, "a program of the runtime has changed");
}
