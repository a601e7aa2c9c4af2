//! `--mount` in full, volumes with options of their driver, and what may not be mounted.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};

use gamut_tests::{Daemon, has};

/// A daemon with the tests' image, if the docker client is installed.
fn daemon() -> Option<Daemon> {
    has("docker").then(Daemon::with_busybox).flatten()
}

fn mountinfo(daemon: &Daemon) -> String {
    fs::read_to_string(format!("/proc/{}/mountinfo", daemon.pid())).unwrap()
}

#[test]
fn a_volume_that_is_a_mount_is_mounted_while_it_is_used() {
    let Some(mut daemon) = daemon() else {
        return;
    };
    let ok = |daemon: &Daemon, arguments: &[&str]| daemon.docker(arguments).ok();
    let host = daemon.directory().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("a"), "of the host\n").unwrap();
    let device = format!("device={}", host.display());
    let bind = ["--opt", "type=none", "--opt", "o=bind", "--opt", &device];
    ok(
        &daemon,
        &[&["volume", "create"], &bind[..], &["bound"]].concat(),
    );
    let memory = "type=tmpfs,device=tmpfs";
    let memory: Vec<&str> = memory.split(',').flat_map(|one| ["--opt", one]).collect();
    let size = ["--opt", "o=size=1m,uid=7,mode=750"];
    ok(
        &daemon,
        &[&["volume", "create"], &memory[..], &size, &["memory"]].concat(),
    );
    assert_eq!(
        ok(
            &daemon,
            &[
                "volume",
                "inspect",
                "-f",
                "{{.Options.o}} {{.Options.type}}",
                "memory"
            ]
        ),
        "size=1m,uid=7,mode=750 tmpfs"
    );

    // cp sees what is mounted as well, and leaves nothing mounted.
    let run = ["-v", "bound:/bound", "-v", "memory:/memory"];
    let sleep = ["busybox", "sleep", "1000"];
    ok(
        &daemon,
        &[&["create", "--name", "first"], &run[..], &sleep].concat(),
    );
    assert!(!mountinfo(&daemon).contains("/volumes/"));
    assert_eq!(
        ok(
            &daemon,
            &[
                "cp",
                "first:/bound/a",
                &daemon.directory().join("copy").display().to_string()
            ]
        ),
        ""
    );
    assert_eq!(
        fs::read_to_string(daemon.directory().join("copy")).unwrap(),
        "of the host\n"
    );
    assert!(!mountinfo(&daemon).contains("/volumes/"));

    ok(&daemon, &["start", "first"]);
    ok(
        &daemon,
        &[&["run", "-d", "--name", "second"], &run[..], &sleep].concat(),
    );
    let script = "cat /bound/a; stat -c '%u %a' /memory; df -k /memory | tail -n 1 | awk '{print $2}'; echo shared > /memory/x";
    assert_eq!(
        ok(&daemon, &["exec", "first", "sh", "-c", script]),
        "of the host\n7 750\n1024"
    );
    assert_eq!(
        ok(&daemon, &["exec", "second", "cat", "/memory/x"]),
        "shared"
    );
    assert_eq!(mountinfo(&daemon).matches("/volumes/").count(), 2);

    // One of two users leaves; the daemon is killed; then the last one leaves.
    ok(&daemon, &["rm", "-f", "first"]);
    assert_eq!(mountinfo(&daemon).matches("/volumes/").count(), 2);
    daemon.kill_9();
    daemon.restart();
    assert_eq!(
        ok(&daemon, &["exec", "second", "cat", "/memory/x"]),
        "shared"
    );
    assert_eq!(mountinfo(&daemon).matches("/volumes/").count(), 2);
    ok(&daemon, &["rm", "-f", "second"]);
    assert!(
        !mountinfo(&daemon).contains("/volumes/"),
        "{}",
        mountinfo(&daemon)
    );
    assert_eq!(fs::read_to_string(host.join("a")).unwrap(), "of the host\n");

    // By --mount, with a name and without one.
    let inline = "type=volume,target=/m,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=64k,volume-label=a=b";
    let free = ok(
        &daemon,
        &[
            "run",
            "--rm",
            "--mount",
            inline,
            "busybox",
            "sh",
            "-c",
            "df -k /m | tail -n 1 | awk '{print $2}'",
        ],
    );
    assert_eq!(free, "64");
    ok(&daemon, &["volume", "rm", "bound", "memory"]);
    assert_eq!(ok(&daemon, &["volume", "ls", "-q"]), "");
    assert_eq!(fs::read_to_string(host.join("a")).unwrap(), "of the host\n");
    daemon.finish();
}

#[test]
fn what_is_wrong_with_a_volumes_options_is_named() {
    let Some(daemon) = daemon() else {
        return;
    };
    for (options, reason) in [
        (&["--opt", "color=red"][..], "invalid option: \"color\""),
        (
            &["--opt", "type=tmpfs"],
            "missing required option: \"device\"",
        ),
        (&["--opt", "size=1g"], "no quota support"),
        (&["--driver", "magic"], "plugin"),
    ] {
        let error = daemon.docker(&[&["volume", "create"], options, &["bad"]].concat());
        assert!(error.fails(1).contains(reason), "{options:?}: {error:?}");
    }
    // What only mounting shows is told by the start, and leaves nothing behind.
    for (options, reason) in [
        ("type=tmpfs,device=tmpfs,o=bogus=1", "o=bogus"),
        ("type=tmpfs,device=tmpfs,o=size=abc", "o=size"),
        ("type=nofs,device=x", "type=nofs"),
        (
            "type=none,device=/no/such/place,o=bind",
            "device=/no/such/place",
        ),
    ] {
        let words: Vec<&str> = options.split(',').flat_map(|one| ["--opt", one]).collect();
        let _ = daemon
            .docker(&[&["volume", "create"], &words[..], &["bad"]].concat())
            .ok();
        let run = daemon.docker(&["run", "--rm", "-v", "bad:/x", "busybox", "true"]);
        assert!(run.code >= 125, "{run:?}");
        assert!(
            run.stderr.contains(reason) && run.stderr.contains("failed to mount local volume bad"),
            "{options}: {run:?}"
        );
        let _ = daemon.docker(&["volume", "rm", "bad"]).ok();
    }
    daemon.finish();
}

#[test]
fn a_sub_path_of_a_volume_leads_nowhere_else() {
    let Some(daemon) = daemon() else {
        return;
    };
    let outside = daemon.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret\n").unwrap();
    let _ = daemon.docker(&["volume", "create", "vol"]).ok();
    let path = daemon
        .docker(&["volume", "inspect", "-f", "{{.Mountpoint}}", "vol"])
        .ok();
    let root = std::path::Path::new(&path);
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/file"), "beneath\n").unwrap();
    fs::write(root.join("one"), "one file\n").unwrap();
    symlink("a/b", root.join("inside")).unwrap();
    symlink(&outside, root.join("absolute")).unwrap();
    symlink("../../../../../../../..", root.join("up")).unwrap();

    let mount =
        |subpath: &str| format!("type=volume,source=vol,target=/m,volume-subpath={subpath}");
    // Through the API at once: the stock client sends sub-paths to API 1.45 and later only.
    let run = |subpath: &str, script: &str| {
        daemon.docker(&[
            "run",
            "--rm",
            "--mount",
            &mount(subpath),
            "busybox",
            "sh",
            "-c",
            script,
        ])
    };
    assert_eq!(
        run("a/b", "cat /m/file; ls /m; echo more > /m/written").ok(),
        "beneath\nfile"
    );
    assert_eq!(
        fs::read_to_string(root.join("a/b/written")).unwrap(),
        "more\n"
    );
    assert_eq!(run("inside", "cat /m/file").ok(), "beneath");
    assert_eq!(run("one", "cat /m").ok(), "one file");
    for (subpath, reason) in [
        ("absolute", "sub-path absolute"),
        ("up/etc", "sub-path up/etc"),
        ("missing", "sub-path missing"),
        (
            "../vol",
            "subpath must be a relative path within the volume",
        ),
        ("/etc", "subpath must be a relative path within the volume"),
    ] {
        let output = run(subpath, "ls /m");
        assert!(output.code >= 125, "{subpath}: {output:?}");
        assert!(output.stderr.contains(reason), "{subpath}: {output:?}");
    }
    // The same for files of a container that does not run.
    let _ = daemon
        .docker(&[
            "create",
            "--name",
            "idle",
            "--mount",
            &mount("a/b"),
            "busybox",
            "true",
        ])
        .ok();
    assert_eq!(daemon.docker(&["cp", "idle:/m/file", "-"]).code, 0);
    let target = daemon.directory().join("fetched").display().to_string();
    let _ = daemon.docker(&["cp", "idle:/m/file", &target]).ok();
    assert_eq!(fs::read_to_string(&target).unwrap(), "beneath\n");
    daemon.finish();
}

#[test]
fn read_only_means_the_mounts_below_too() {
    let Some(daemon) = daemon() else {
        return;
    };
    let host = daemon.directory().join("tree");
    fs::create_dir_all(host.join("below")).unwrap();
    let below = host.join("below").display().to_string();
    let mut mount = daemon.command("mount");
    assert!(
        mount
            .args(["-t", "tmpfs", "tmpfs", &below])
            .status()
            .unwrap()
            .success()
    );
    let touch = "touch /m/below/x 2>&1; true";
    let run = |options: &str| {
        let mount = format!("type=bind,source={},target=/m{options}", host.display());
        daemon.docker(&[
            "run", "--rm", "--mount", &mount, "busybox", "sh", "-c", touch,
        ])
    };
    let volume = format!("{}:/m:ro", host.display());
    let by_volume = daemon
        .docker(&["run", "--rm", "-v", &volume, "busybox", "sh", "-c", touch])
        .ok();
    assert!(by_volume.contains("Read-only"), "{by_volume}");
    assert!(run(",readonly").ok().contains("Read-only"));
    assert!(
        run(",readonly,bind-recursive=readonly,bind-propagation=rprivate")
            .ok()
            .contains("Read-only")
    );
    assert_eq!(run(",readonly,bind-recursive=writable").ok(), "");
    // Without recursion the place below is the host's plain directory.
    assert!(
        run(",readonly,bind-recursive=disabled")
            .ok()
            .contains("Read-only")
    );
    assert_eq!(run("").ok(), "");
    let mut unmount = daemon.command("umount");
    assert!(unmount.arg(&below).status().unwrap().success());
    daemon.finish();
}

#[test]
fn an_empty_volume_takes_each_images_content_with_its_owners() {
    let Some(daemon) = daemon() else {
        return;
    };
    let _ = daemon.docker(&["volume", "create", "vol"]).ok();
    // A container that has nothing at the place leaves the volume to the next one.
    let _ = daemon
        .docker(&["run", "--rm", "-v", "vol:/nothing/here", "busybox", "true"])
        .ok();
    let mount = ["--mount", "source=vol,target=/srv/site"];
    let list = [
        "busybox",
        "sh",
        "-c",
        "cat /srv/site/index.html; stat -c '%u %a' /srv/site",
    ];
    assert_eq!(
        daemon
            .docker(&[&["run", "--rm"], &mount[..], &list].concat())
            .ok(),
        "<h1>from the image</h1>\n1000 750"
    );
    let nocopy = ["--mount", "source=wol,target=/srv/site,volume-nocopy"];
    let output = daemon.docker(
        &[
            &["run", "--rm"],
            &nocopy[..],
            &["busybox", "ls", "/srv/site"],
        ]
        .concat(),
    );
    assert_eq!(output.ok(), "");
    // An owner that the volume got since is not the image's business.
    let path = daemon
        .docker(&["volume", "inspect", "-f", "{{.Mountpoint}}", "vol"])
        .ok();
    chown(&path, Some(42), None).unwrap();
    let _ = daemon
        .docker(&[&["run", "--rm"], &mount[..], &["busybox", "true"]].concat())
        .ok();
    assert_eq!(fs::metadata(&path).unwrap().uid(), 42);
    daemon.finish();
}

#[test]
fn filters_sizes_and_prune_as_docker_has_them() {
    let Some(daemon) = daemon() else {
        return;
    };
    let ok = |arguments: &[&str]| daemon.docker(arguments).ok();
    ok(&["volume", "create", "--label", "tier=gold", "gold"]);
    ok(&["volume", "create", "--label", "tier=iron", "iron"]);
    let anonymous = ok(&["volume", "create"]);
    ok(&[
        "run",
        "-d",
        "--name",
        "user",
        "-v",
        "gold:/x",
        "busybox",
        "sh",
        "-c",
        "head -c 300000 /dev/zero > /x/zero; sleep 1000",
    ]);
    let names = |filter: &str| {
        let text = ok(&["volume", "ls", "-q", "--filter", filter]);
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names("label=tier"), ["gold", "iron"]);
    assert_eq!(names("label=tier=iron"), ["iron"]);
    assert_eq!(names("name=ol"), ["gold"]);
    assert_eq!(names("dangling=false"), ["gold"]);
    assert_eq!(names("driver=local").len(), 3);
    assert!(names("driver=other").is_empty());
    let mut dangling = names("dangling=true");
    dangling.retain(|name| *name != anonymous);
    assert_eq!(dangling, ["iron"]);
    gamut_tests::eventually("the size is told", || {
        let answer = daemon.http("GET", "/v1.44/system/df", "").json();
        let volumes = answer["Volumes"].as_array().unwrap();
        let gold = volumes.iter().find(|one| one["Name"] == "gold").unwrap();
        gold["UsageData"]["RefCount"] == 1 && gold["UsageData"]["Size"].as_u64().unwrap() >= 300_000
    });
    let error = daemon.docker(&["volume", "rm", "gold"]).fails(1);
    assert!(error.contains("volume is in use - ["), "{error}");
    let pruned = ok(&["volume", "prune", "-f"]);
    assert!(
        pruned.contains(&anonymous) && !pruned.contains("iron"),
        "{pruned}"
    );
    let pruned = ok(&[
        "volume",
        "prune",
        "-f",
        "-a",
        "--filter",
        "label!=tier=iron",
    ]);
    assert!(!pruned.contains("iron"), "{pruned}");
    assert!(ok(&["volume", "prune", "-f", "-a"]).contains("iron"));
    daemon.finish();
}

#[test]
fn events_tell_of_volumes() {
    let Some(daemon) = daemon() else {
        return;
    };
    let mounts = ["-v", "named:/a:ro", "-v", "/b"];
    let _ = daemon
        .docker(&[&["run", "--rm"], &mounts[..], &["busybox", "true"]].concat())
        .ok();
    let soon = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1;
    let told = daemon.docker(&[
        "events",
        "--since",
        "1",
        "--until",
        &soon.to_string(),
        "--filter",
        "type=volume",
        "--format",
        "{{.Action}} {{index .Actor.Attributes \"destination\"}} {{index .Actor.Attributes \"read/write\"}}",
    ]);
    let told = told.ok();
    let count = |line: &str| told.lines().filter(|one| one.trim() == line).count();
    assert_eq!(count("create"), 2, "{told}");
    assert_eq!(count("mount /a false"), 1, "{told}");
    assert_eq!(count("mount /b true"), 1, "{told}");
    assert_eq!(count("unmount"), 2, "{told}");
    // The anonymous one went with its container.
    assert_eq!(count("destroy"), 1, "{told}");
    daemon.finish();
}
