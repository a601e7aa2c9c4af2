//! Containers with user ids of their own: `--userns`, and mounts whose ids are mapped.

use std::fs;
use std::os::unix::fs::MetadataExt;

use gamut_tests::{Daemon, eventually};

/// First id and number of ids of a running container, as its own processes see them.
fn range(daemon: &Daemon, name: &str) -> (u32, u32) {
    let map = daemon.ok(&["exec", name, "cat", "/proc/self/uid_map"]);
    let words: Vec<u32> = map
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    assert_eq!(words[0], 0, "{map}");
    assert_eq!(words.len(), 3, "{map}");
    (words[1], words[2])
}

#[test]
fn root_of_a_container_is_nobody_outside() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let options = ["--userns", "auto", "-p", "8080:80"];
    let web = "echo page > /srv/index.html; exec httpd -f -p 80 -h /srv";
    daemon.detached("one", &options, web);
    let (first, count) = range(&daemon, "one");
    assert!(first >= 0x7000_0000 && count == 65_536, "{first} {count}");
    let pid = daemon.container_pid("one");
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), first);

    // Files of the image belong to whom they belong to, and may be changed by them.
    let script = "stat -c %u /etc/passwd /home/alice; touch /etc/new; chown alice /etc/new; \
                  stat -c %u /etc/new; su -s /bin/sh alice -c 'touch /home/alice/own && id -u'";
    let said = daemon.ok(&["exec", "one", "sh", "-c", script]);
    assert_eq!(said, "0\n1000\n1000\n1000");
    // The generated files are its own, too.
    daemon.ok(&[
        "exec",
        "one",
        "sh",
        "-c",
        "echo 192.0.2.1 added >> /etc/hosts",
    ]);

    // It is root over its network, which works as any other.
    let caps = ["--userns", "auto", "--cap-add", "NET_ADMIN"];
    let script = "ip link set eth0 mtu 1400 && cat /sys/class/net/eth0/mtu";
    assert_eq!(daemon.shell(&caps, script).ok(), "1400");
    eventually("the page is served", || {
        daemon.fetch("127.0.0.1:8080").as_deref() == Some("page\n")
    });
    let none = ["--userns", "auto", "--network", "none"];
    assert_eq!(daemon.shell(&none, "ls /sys/class/net").ok(), "lo");
    // A terminal and an init.
    let init = ["--userns", "auto", "--init"];
    assert_eq!(daemon.shell(&init, "id -u").ok(), "0");

    // What is written has the ids of the inside, so that it can be looked at from outside.
    daemon.ok(&["stop", "-t", "0", "one"]);
    let out = daemon.directory().join("new");
    daemon.ok(&["cp", "one:/etc/new", &out.display().to_string()]);
    assert!(out.is_file());
    let diff = daemon.json(&["inspect", "one"])[0]["HostConfig"]["UsernsMode"].take();
    assert_eq!(diff, "auto");
    daemon.ok(&["start", "one"]);
    assert_eq!(range(&daemon, "one"), (first, count));
    assert_eq!(
        daemon.ok(&["exec", "one", "stat", "-c", "%u", "/etc/new"]),
        "1000"
    );
    daemon.finish();
}

#[test]
fn a_removed_directory_stays_removed_with_mapped_layers() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    // A second layer hides what the first has: only who may read overlayfs' marks sees that.
    let archive = daemon.directory().join("layers.tar");
    fs::write(&archive, gamut_tests::two_layers()).unwrap();
    daemon.ok(&["load", "-i", &archive.display().to_string()]);
    for options in [&["--userns", "auto"][..], &[]] {
        let run = [
            &["run", "--rm"],
            options,
            &["layered", "sh", "-c", "ls /data /opaque"],
        ]
        .concat();
        let listed = daemon.ok(&run);
        assert_eq!(listed, "/data:\n\n/opaque:\nnew", "{options:?}");
    }
    daemon.finish();
}

#[test]
fn volumes_and_binds_are_mapped() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let auto = |mount: &'static str| ["--userns", "auto", "-v", mount];
    // A volume is everybody's, whatever his ids: it holds those of the inside.
    let script = "stat -c %u /home /home/alice; touch /home/mine";
    assert_eq!(daemon.shell(&auto("kept:/home"), script).ok(), "0\n1000");
    let again = daemon.shell(&["-v", "kept:/home"], "stat -c %u /home/mine /home/alice");
    assert_eq!(again.ok(), "0\n1000");
    let third = daemon.shell(&auto("kept:/home"), "rm /home/mine && echo gone");
    assert_eq!(third.ok(), "gone");

    // A directory of the host stays the host's, unless asked.
    let directory = daemon.directory().join("shared");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("file"), "text").unwrap();
    let path = directory.display();
    let plain = format!("{path}:/shared");
    let options = ["--userns", "auto", "-v", &plain];
    let seen = daemon.shell(&options, "stat -c %u /shared/file; touch /shared/new 2>&1");
    assert!(
        seen.stdout.starts_with("65534\n") && seen.code != 0,
        "{seen:?}"
    );
    let mapped = format!("{path}:/shared:idmap");
    let long = format!("type=bind,src={path},dst=/shared,idmap");
    for options in [["-v", &mapped], ["--mount", &long]] {
        let options = [&["--userns", "auto"][..], &options].concat();
        let script = "stat -c %u /shared/file; touch /shared/new; chown alice /shared/new";
        assert_eq!(daemon.shell(&options, script).ok(), "0");
        assert_eq!(fs::metadata(directory.join("new")).unwrap().uid(), 1000);
    }
    // Without ids of its own there is nothing to map to.
    let error = daemon.shell(&["-v", &mapped], "true").fails(125);
    assert!(error.contains("--userns auto"), "{error}");
    daemon.finish();
}

#[test]
fn ranges_are_leased_to_one_container_each() {
    let Some(mut daemon) = Daemon::with_busybox() else {
        return;
    };
    let sleep = "sleep 1000";
    daemon.detached("one", &["--userns", "auto"], sleep);
    daemon.detached("two", &["--userns", "auto:size=1000"], sleep);
    daemon.kill_9();
    daemon.restart();
    daemon.detached("three", &["--userns", "auto"], sleep);
    daemon.detached("shared", &["--userns", "container:one"], sleep);
    let ranges = ["one", "two", "three"].map(|name| range(&daemon, name));
    assert_eq!(ranges[1].1, 1000);
    for (index, (first, count)) in ranges.iter().enumerate() {
        for (other, _) in &ranges[index + 1..] {
            assert!(first + count <= *other, "{ranges:?}");
        }
    }
    assert_eq!(range(&daemon, "shared"), ranges[0]);

    // What a range frees is leased again.
    daemon.ok(&["rm", "-f", "two"]);
    daemon.detached("four", &["--userns", "auto"], sleep);
    assert_eq!(range(&daemon, "four").0, ranges[1].0);

    // A restart by policy, with the daemon dead, keeps ids and network.
    let script = "ip -4 -o addr show dev eth0 | wc -l; awk '{print $2}' /proc/self/uid_map; exit 1";
    daemon.detached(
        "again",
        &["--userns", "auto", "--restart", "on-failure:1"],
        script,
    );
    eventually("it has run twice", || {
        daemon.ok(&[
            "inspect",
            "-f",
            "{{.State.Status}} {{.RestartCount}}",
            "again",
        ]) == "exited 1"
    });
    let said = daemon.lines(&["logs", "again"]);
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!((&said[0], &said[1]), (&said[2], &said[3]));
    assert_eq!(said[0], "1");
    daemon.finish();
}

#[test]
fn what_a_user_namespace_rules_out_is_refused() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let refusals = [
        (&["--privileged"][..], "privileged mode is incompatible"),
        (&["--network", "host"], "host's network namespace"),
        (&["--pid", "host"], "host PID namespace"),
    ];
    for (options, reason) in refusals {
        let options = [&["--userns", "auto"], options].concat();
        let error = daemon.shell(&options, "true").fails(125);
        assert!(
            error.contains(reason) && error.contains("--userns host"),
            "{error}"
        );
    }
    for mode in ["keep-id", "auto:size=0", "nonsense"] {
        let error = daemon.shell(&["--userns", mode], "true").fails(125);
        assert!(error.contains(mode), "{error}");
    }
    daemon.detached("plain", &[], "sleep 1000");
    let error = daemon
        .shell(&["--userns", "container:plain"], "true")
        .fails(125);
    assert!(error.contains("no user ids of its own"), "{error}");
    daemon.finish();
}

#[test]
fn a_daemon_can_remap_by_default() {
    let Some(daemon) = Daemon::start_with(&["--userns-remap"]) else {
        return;
    };
    let Some(archive) = gamut_tests::busybox() else {
        return;
    };
    daemon.import(archive, "busybox", &["CMD [\"sh\"]"]);
    let map = "awk '{print $2}' /proc/self/uid_map";
    assert_ne!(daemon.shell(&[], map).ok(), "0");
    assert_eq!(daemon.shell(&["--userns", "host"], map).ok(), "0");
    daemon.finish();
}
