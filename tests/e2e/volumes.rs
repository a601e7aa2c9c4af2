//! Binds, named and anonymous volumes.

use std::fs;
use std::os::unix::fs::MetadataExt;

use gamut_tests::{Daemon, eventually};

#[test]
fn binds_show_the_hosts_files() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let host = daemon.directory().join("shared");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("greeting"), "hello from the host\n").unwrap();
    let host = host.display().to_string();

    let bind = format!("{host}:/mnt/shared");
    let script = "cat /mnt/shared/greeting; echo back > /mnt/shared/answer";
    let read = daemon.shell(&["-v", &bind], script).ok();
    assert_eq!(read, "hello from the host");
    assert_eq!(
        fs::read_to_string(format!("{host}/answer")).unwrap(),
        "back\n"
    );

    let readonly = format!("{bind}:ro");
    let refused = daemon
        .shell(&["-v", &readonly], "touch /mnt/shared/x 2>&1; true")
        .ok();
    assert!(refused.contains("Read-only"), "{refused}");

    // One file.
    let one = format!("{host}/greeting:/etc/greeting:ro");
    assert_eq!(
        daemon.shell(&["-v", &one], "cat /etc/greeting").ok(),
        "hello from the host"
    );

    // --mount must find its source, -v makes a directory.
    let missing = format!("type=bind,source={host}/nothing,target=/x");
    let error = daemon.gamut(&["run", "--rm", "--mount", &missing, "busybox", "true"]);
    let error = error.fails(125);
    assert!(error.contains("nothing"), "{error}");
    let made = format!("{host}/made:/x");
    let _ = daemon.shell(&["-v", &made], "touch /x/y").ok();
    assert!(fs::metadata(format!("{host}/made/y")).unwrap().is_file());
    let error = daemon
        .gamut(&["run", "--rm", "-v", "relative/path:/x", "busybox"])
        .fails(125);
    assert!(error.contains("relative/path"), "{error}");
    daemon.finish();
}

#[test]
fn a_bind_cannot_be_led_out_of_the_container() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    // The target is a link to an absolute path: it is meant inside the container.
    let outside = daemon.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    let archive = gamut_tests::Rootfs::new()
        .copy(std::path::Path::new("/usr/bin/busybox"), "busybox", 0o755)
        .directory("inner", 0o755, 0)
        .link("out", &outside.display().to_string())
        .link("up", "../../../../../../..")
        .finish();
    daemon.import(&archive, "hostile", &["CMD [\"/busybox\", \"true\"]"]);
    let shared = daemon.directory().join("shared");
    fs::create_dir(&shared).unwrap();
    for target in ["/out/deep", "/up/deep"] {
        let bind = format!("{}:{target}", shared.display());
        let _ = daemon.gamut(&["run", "--rm", "-v", &bind, "hostile"]);
    }
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "something was made outside"
    );
    assert!(
        !std::path::Path::new("/deep").exists(),
        "something was made outside"
    );
    daemon.finish();
}

#[test]
fn named_volumes_outlive_containers_and_start_with_the_images_content() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    // First use copies what the image has there, with its owner and mode.
    let options = ["-v", "site:/srv/site"];
    let first = daemon
        .shell(
            &options,
            "cat /srv/site/index.html; stat -c '%u %a' /srv/site",
        )
        .ok();
    assert_eq!(first, "<h1>from the image</h1>\n1000 750");
    let _ = daemon
        .shell(&options, "echo changed > /srv/site/index.html")
        .ok();
    assert_eq!(
        daemon.shell(&options, "cat /srv/site/index.html").ok(),
        "changed"
    );
    // Elsewhere it is the same volume; a volume that is not empty gets no copy.
    let elsewhere = daemon
        .shell(&["-v", "site:/data"], "cat /data/index.html; ls /data")
        .ok();
    assert_eq!(elsewhere, "changed\nindex.html");
    // nocopy asks for an empty one.
    assert_eq!(
        daemon
            .shell(&["-v", "empty:/srv/site:nocopy"], "ls /srv/site")
            .ok(),
        ""
    );
    // Read-only for one, writable for another.
    let refused = daemon
        .shell(&["-v", "site:/srv/site:ro"], "touch /srv/site/x 2>&1; true")
        .ok();
    assert!(refused.contains("Read-only"), "{refused}");

    let volumes = daemon.ok(&["volume", "ls", "--format", "{{.Name}} {{.Driver}}"]);
    assert_eq!(volumes, "empty local\nsite local");
    let inspected = daemon.json(&["volume", "inspect", "site"])[0].take();
    let path = inspected["Mountpoint"].as_str().unwrap();
    assert_eq!(
        fs::read_to_string(format!("{path}/index.html")).unwrap(),
        "changed\n"
    );
    assert_eq!(fs::metadata(path).unwrap().uid(), 1000);

    // In use, it stays.
    daemon.detached("user", &options, "sleep 1000");
    let error = daemon.gamut(&["volume", "rm", "site"]).fails(1);
    assert!(error.contains("in use"), "{error}");
    daemon.ok(&["rm", "-f", "user"]);
    daemon.ok(&["volume", "rm", "site"]);
    let error = daemon.gamut(&["volume", "inspect", "site"]).stderr;
    assert!(error.contains("site"), "{error}");
    assert!(!std::path::Path::new(path).exists());
    daemon.finish();
}

#[test]
fn volume_commands() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let name = daemon.ok(&["volume", "create", "--label", "tier=gold", "one"]);
    assert_eq!(name, "one");
    assert_eq!(daemon.ok(&["volume", "create", "one"]), "one");
    let anonymous = daemon.ok(&["volume", "create"]);
    assert_eq!(anonymous.len(), 64, "{anonymous}");
    let by_label = daemon.ok(&["volume", "ls", "-q", "--filter", "label=tier=gold"]);
    assert_eq!(by_label, "one");
    let error = daemon.gamut(&["volume", "create", "../escape"]).fails(1);
    assert!(error.contains("../escape"), "{error}");

    // Used by a container, a volume survives pruning; unused anonymous ones do not.
    daemon.detached("user", &["-v", "one:/x", "-v", "/y"], "sleep 1000");
    daemon.ok(&["volume", "prune", "-f"]);
    let left = daemon.lines(&["volume", "ls", "-q"]);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(!left.contains(&anonymous), "{left:?}");
    // rm -v takes the anonymous one along, never the named one.
    daemon.ok(&["rm", "-f", "-v", "user"]);
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "one");
    // Nor does a prune that does not say so.
    daemon.ok(&["volume", "prune", "-f"]);
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "one");
    daemon.ok(&["volume", "prune", "-f", "-a"]);
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "");
    daemon.finish();
}

#[test]
fn volumes_of_another_container() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let bind = daemon.directory().join("shared");
    fs::create_dir(&bind).unwrap();
    let bind = format!("{}:/bound:ro", bind.display());
    let own = [
        "-v",
        "named:/named",
        "-v",
        "/anonymous",
        "-v",
        &bind,
        "--tmpfs",
        "/fast",
    ];
    daemon.detached(
        "first",
        &own,
        "echo text | tee /named/a /anonymous/a; sleep 1000",
    );
    let from = ["--volumes-from", "first"];
    eventually("it has written", || {
        daemon.shell(&from, "cat /named/a /anonymous/a").stdout == "text\ntext\n"
    });
    // A mount of one's own wins; read-only stays read-only; a tmpfs is nobody else's.
    let output = daemon.shell(
        &["--volumes-from", "first:ro", "--tmpfs", "/named"],
        "ls /named; touch /named/b; touch /anonymous/b 2>&1; touch /bound/b 2>&1; ls -d /fast",
    );
    assert_eq!(
        output.stdout.matches("Read-only file system").count(),
        2,
        "{output:?}"
    );
    assert!(output.stderr.contains("/fast"), "{output:?}");
    // What --rm has removed meanwhile were not the other's anonymous volumes.
    assert_eq!(daemon.ok(&["exec", "first", "cat", "/anonymous/a"]), "text");
    daemon.detached("second", &from, "sleep 1000");
    assert_eq!(
        daemon.inspect("second")["HostConfig"]["VolumesFrom"],
        serde_json::json!(["first"])
    );
    for (wrong, reason) in [
        ("gone", "No such container"),
        ("first:what", "invalid mode: what"),
    ] {
        let error = daemon.shell(&["--volumes-from", wrong], "true").fails(125);
        assert!(error.contains(reason), "{error}");
    }
    daemon.ok(&["rm", "-f", "-v", "first"]);
    assert_eq!(
        daemon.ok(&["exec", "second", "cat", "/anonymous/a"]),
        "text"
    );
    daemon.ok(&["rm", "-f", "-v", "second"]);
    assert_eq!(
        daemon.ok(&["volume", "ls", "-q"]),
        "named",
        "the last one removes it"
    );
    daemon.finish();
}
