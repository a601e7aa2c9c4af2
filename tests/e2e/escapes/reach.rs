//! What of the engine a container, or an ordinary user of the host, can reach.

use gamut_tests::{Daemon, eventually};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

#[test]
fn no_socket_of_the_engine_can_be_connected_to() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    daemon.detached("other", &[], "exec sleep 1000");
    for options in [
        [].as_slice(),
        &["--network", "host"],
        &[
            "--network",
            "host",
            "--pid",
            "host",
            "--ipc",
            "host",
            "--uts",
            "host",
        ],
    ] {
        let output = daemon.shell(options, "attacker sockets").ok();
        println!("{options:?}: {output}");
        assert!(output.contains("done"), "{output}");
        assert!(!output.contains("GOT"), "{options:?}: {output}");
        // An abstract one would be in reach of every container in the host's network.
        assert!(!output.contains("seen @"), "{options:?}: {output}");
    }
    daemon.finish();
}

#[test]
fn directories_of_the_engine_are_in_no_container() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    daemon.detached("other", &["-v", "vol:/vol"], "exec sleep 1000");
    let roots = [daemon.data_root(), daemon.run_root()];
    let script = format!(
        "ls {} {} 2>/dev/null && echo GOT a directory; \
         for link in /proc/[0-9]*/root /proc/[0-9]*/cwd; do \
         ls $link{} 2>/dev/null && echo GOT by $link; done; true",
        roots[0].display(),
        roots[1].display(),
        roots[1].display()
    );
    for options in [[].as_slice(), &["--pid", "host"], &["--ipc", "host"]] {
        let output = daemon.shell(options, &script).ok();
        assert!(!output.contains("GOT"), "{options:?}: {output}");
    }
    daemon.finish();
}

/// CVE-2021-41091: set-user-id programs in writable layers, reached by users of the host.
#[test]
fn ordinary_users_of_the_host_get_into_no_directory_of_the_engine() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    daemon.detached(
        "here",
        &["-v", "vol:/vol"],
        "cp /bin/busybox /vol/root; chmod 6755 /vol/root; exec sleep 1000",
    );
    eventually("the program is there", || {
        daemon
            .gamut(&["exec", "here", "test", "-u", "/vol/root"])
            .code
            == 0
    });
    // The directory of the test itself is closed; what counts is what the engine makes.
    for root in [daemon.data_root(), daemon.run_root()] {
        let mut open = vec![root.clone()];
        let mode = fs::metadata(&root).unwrap().permissions().mode();
        println!("{}: {mode:o}", root.display());
        if mode & 0o007 == 0 {
            continue;
        }
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let relative = path.strip_prefix(&root).unwrap().display();
                assert!(
                    !meta.is_file() || meta.mode() & 0o6000 == 0,
                    "set-user-id {relative}"
                );
                assert!(
                    meta.is_symlink() || meta.mode() & 0o002 == 0,
                    "{relative} can be written by everybody"
                );
                if meta.is_dir() && meta.mode() & 0o005 != 0 {
                    open.push(path.clone());
                }
            }
        }
    }
    let socket = fs::metadata(daemon.socket()).unwrap();
    assert_eq!(socket.mode() & 0o007, 0, "the socket is open to everybody");
    assert_eq!(socket.uid(), 0);
    assert!(Path::new(&daemon.socket()).exists());
    daemon.finish();
}
