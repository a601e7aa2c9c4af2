//! Gamut in a Gamut container, and what `--privileged` gives.

use gamut_tests::{Daemon, Output, busybox, debian, supervisor, target_binary, until};

/// A daemon in the privileged container `outer` of another one.
struct Nested {
    host: Daemon,
}

impl Nested {
    /// Starts both. `None`, said aloud, if the machine cannot.
    fn start(options: &[&str]) -> Option<Self> {
        let archive = debian()?;
        let host = Daemon::start()?;
        host.import(&archive, "debian", &["CMD [\"gamut\", \"daemon\"]"]);
        let binaries = [
            format!("{}:/usr/local/bin/gamut:ro", target_binary().display()),
            format!(
                "{}:/usr/local/bin/gamut-supervisor:ro",
                supervisor().display()
            ),
        ];
        let mut line = vec!["run", "-d", "--name", "outer", "--privileged"];
        line.extend(["-v", &binaries[0], "-v", &binaries[1]]);
        line.extend(options);
        line.push("debian");
        host.ok(&line);
        let nested = Self { host };
        until("the inner daemon listens", || {
            let socket = ["exec", "outer", "test", "-S", "/run/gamut/gamut.sock"];
            (nested.host.gamut(&socket).code == 0).then_some(())
        });
        Some(nested)
    }

    /// Runs the inner `gamut` to its end.
    #[track_caller]
    fn gamut(&self, arguments: &[&str]) -> Output {
        self.host
            .gamut(&[&["exec", "outer", "gamut"], arguments].concat())
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        self.gamut(arguments).ok()
    }

    /// Loads the tests' image inside. `None`, said aloud, without it.
    fn load_busybox(&self) -> Option<()> {
        let import = ["exec", "-i", "outer", "gamut", "import", "-", "busybox"];
        let _ = self.host.gamut_with_input(&import, busybox()?).ok();
        Some(())
    }
}

#[test]
fn an_engine_runs_in_a_container_of_its_own_kind() {
    let Some(nested) = Nested::start(&[]) else {
        return;
    };
    if nested.load_busybox().is_none() {
        return nested.host.finish();
    }
    // No overlay can have its writable layer on the overlay that is the outer container's root.
    assert_eq!(nested.ok(&["info", "-f", "{{.Driver}}"]), "copy");
    assert!(nested.ok(&["run", "--rm", "hello-world"]).contains("Hello"));

    // Files stay over restarts, and are the container's own.
    nested.ok(&[
        "run",
        "-d",
        "--name",
        "first",
        "busybox",
        "sh",
        "-c",
        "echo more >>/data/notes; exec sleep 1000",
    ]);
    assert_eq!(
        nested.ok(&["exec", "first", "cat", "/data/notes"]),
        "notes of the image\nmore"
    );
    nested.ok(&["restart", "-t", "0", "first"]);
    assert_eq!(
        nested.ok(&["exec", "first", "cat", "/data/notes"]),
        "notes of the image\nmore\nmore"
    );
    assert_eq!(
        nested.ok(&["run", "--rm", "busybox", "cat", "/data/notes"]),
        "notes of the image"
    );
    assert_eq!(
        nested.ok(&["run", "--rm", "busybox", "stat", "-c", "%u %a", "/srv/site"]),
        "1000 750"
    );

    // The network: a published port, and containers among each other.
    nested.ok(&["run", "-d", "--name", "web", "-p", "8080:80", "hello-http"]);
    let fetch = [
        "exec",
        "outer",
        "busybox",
        "wget",
        "-qO-",
        "http://127.0.0.1:8080/",
    ];
    until("the published port answers", || {
        (nested.host.gamut(&fetch).code == 0).then_some(())
    });
    let address = nested.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
    let page = nested.ok(&[
        "exec",
        "first",
        "wget",
        "-qO-",
        &format!("http://{address}/"),
    ]);
    assert!(page.contains("Hello"), "{page}");

    // Limits are carried out below the outer container's.
    let memory = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true";
    let limit = nested.ok(&["run", "--rm", "-m", "32m", "busybox", "sh", "-c", memory]);
    assert_eq!(limit, (32 << 20).to_string());
    assert_eq!(
        nested
            .gamut(&["run", "--rm", "busybox", "sh", "-c", "exit 9"])
            .code,
        9
    );

    // Copying files, in a container that was never started, too.
    nested.ok(&["create", "--name", "idle", "busybox", "true"]);
    let copied = nested.host.ok(&[
        "exec",
        "outer",
        "sh",
        "-c",
        "echo in >/tmp/in && gamut cp /tmp/in idle:/tmp/in && gamut cp idle:/tmp/in - | tar -xO",
    ]);
    assert_eq!(copied, "in");

    nested.ok(&["rm", "-f", "first", "web", "idle"]);
    assert_eq!(nested.ok(&["ps", "-aq"]), "");
    let left = nested
        .host
        .ok(&["exec", "outer", "sh", "-c", "ls /var/lib/gamut/containers"]);
    assert_eq!(left, "");
    nested.host.finish();
}

/// Where the data root is something else than an overlay, overlayfs is used.
fn takes_overlay(options: &[&str]) {
    let Some(nested) = Nested::start(options) else {
        return;
    };
    assert_eq!(
        nested.ok(&["info", "-f", "{{.Driver}}"]),
        "overlay2",
        "{options:?}"
    );
    if nested.load_busybox().is_some() {
        let root = nested.ok(&[
            "run",
            "--rm",
            "busybox",
            "grep",
            " / overlay ",
            "/proc/mounts",
        ]);
        assert!(root.starts_with("overlay"), "{options:?}: {root}");
    }
    nested.host.finish();
}

#[test]
fn a_volume_or_tmpfs_at_the_data_root_makes_overlay_work() {
    takes_overlay(&["-v", "inner:/var/lib/gamut"]);
    takes_overlay(&["--tmpfs", "/var/lib/gamut"]);
}

#[test]
fn an_engine_ends_with_the_container_it_runs_in() {
    let Some(nested) = Nested::start(&["--restart", "always", "-v", "inner:/var/lib/gamut"]) else {
        return;
    };
    if nested.load_busybox().is_none() {
        return nested.host.finish();
    }
    nested.ok(&[
        "run",
        "-d",
        "--name",
        "stays",
        "--restart",
        "always",
        "busybox",
        "sleep",
        "1000",
    ]);
    // The group that it has divided is of use again.
    nested.host.ok(&["restart", "-t", "5", "outer"]);
    until("the inner daemon has started its container again", || {
        let state = nested.gamut(&["inspect", "-f", "{{.State.Status}}", "stays"]);
        (state.stdout.trim() == "running").then_some(())
    });
    nested.host.finish();
}

#[test]
fn copies_of_images_do_where_overlay_cannot() {
    let Some(archive) = busybox() else { return };
    let Some(daemon) = Daemon::start_with(&["--storage-driver", "copy"]) else {
        return;
    };
    daemon.import(archive, "busybox", &["CMD [\"sh\"]"]);
    assert_eq!(daemon.ok(&["info", "-f", "{{.Driver}}"]), "copy");
    let driver = "{{.GraphDriver.Name}}";
    assert_eq!(
        daemon.ok(&["image", "inspect", "-f", driver, "busybox"]),
        "copy"
    );
    daemon.detached(
        "box",
        &["-v", "site:/srv/site"],
        "echo mine >/data/mine; exec sleep 1000",
    );
    assert_eq!(
        daemon.ok(&["exec", "box", "cat", "/srv/site/index.html"]),
        "<h1>from the image</h1>"
    );
    daemon.ok(&["stop", "-t", "0", "box"]);
    let gone = daemon.shell(&[], "ls /data").ok();
    assert_eq!(gone, "notes");
    // A stopped one is read from its copy, mounts included.
    let copied = daemon.gamut(&["cp", "box:/data/mine", "-"]);
    assert!(copied.stdout.contains("mine"), "{copied:?}");
    let copied = daemon.gamut(&["cp", "box:/srv/site/index.html", "-"]);
    assert!(copied.stdout.contains("from the image"), "{copied:?}");
    let refused = daemon.shell(&["--read-only"], "touch /data/x").fails(1);
    assert!(refused.contains("Read-only"), "{refused}");
    // The ids of a copy are not mapped.
    let refused = daemon.shell(&["--userns", "auto"], "true").fails(125);
    assert!(
        refused.contains("storage driver copy") && refused.contains("--userns host"),
        "{refused}"
    );
    daemon.finish();
}

#[test]
fn privileged_means_all_that_the_engine_has() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap()
        .trim();
    let script =
        "grep CapEff: /proc/self/status | cut -f2; grep Seccomp: /proc/self/status | cut -f2";
    assert_eq!(
        daemon.shell(&["--privileged"], script).ok(),
        format!("{own}\n0")
    );

    // Every device of the host, with leave to use it.
    let disk = std::fs::read_dir("/sys/block").unwrap().flatten().next();
    if let Some(disk) = disk.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let there = format!("test -b /dev/{disk} && head -c 0 /dev/{disk} && echo there");
        if std::path::Path::new("/dev").join(&disk).exists() {
            assert_eq!(daemon.shell(&["--privileged"], &there).ok(), "there");
        }
    }
    let renamed = ["--privileged", "--device", "/dev/null:/dev/void"];
    let void = "echo x >/dev/void && stat -c %t:%T /dev/void";
    assert_eq!(daemon.shell(&renamed, void).ok(), "1:3");
    // Nothing is masked or read-only, and mounting works.
    let open = "set -e; test -w /sys/kernel; \
        if grep -E ' (/sys|/sys/fs/cgroup[^ ]*) [^ ]+ ro[, ]' /proc/mounts; then exit 1; fi; \
        if grep -E ' /proc/(sys|kcore|keys) ' /proc/mounts; then exit 1; fi; \
        mkdir /m; mount -t tmpfs none /m; echo mounted";
    assert_eq!(daemon.shell(&["--privileged"], open).ok(), "mounted");
    let group = "mkdir /sys/fs/cgroup/*/mine /sys/fs/cgroup/mine 2>/dev/null; \
        ls -d /sys/fs/cgroup/mine /sys/fs/cgroup/*/mine 2>/dev/null | grep -q mine && echo made";
    assert_eq!(daemon.shell(&["--privileged"], group).ok(), "made");
    let refused = daemon.shell(&[], "mkdir /m && mount -t tmpfs none /m");
    assert_ne!(refused.code, 0);
    daemon.finish();
}
