//! The stock docker client against Gamut.

use gamut_tests::{Daemon, Registry, eventually, has};

/// A daemon with the tests' image, if the docker client is installed.
fn daemon() -> Option<Daemon> {
    has("docker").then(Daemon::with_busybox).flatten()
}

#[test]
fn run_ps_exec_logs_stop_rm() {
    let Some(daemon) = daemon() else {
        return;
    };
    let ok = |arguments: &[&str]| daemon.docker(arguments).ok();

    assert!(ok(&["version"]).contains("Server"));
    assert!(ok(&["run", "--rm", "hello-world"]).contains("Hello"));
    let output = daemon.docker(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
    ]);
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (3, "out\n", "err\n")
    );
    assert_eq!(
        daemon
            .docker(&["run", "--rm", "busybox", "no-such-command"])
            .code,
        127
    );
    assert_eq!(
        daemon
            .docker(&["run", "--rm", "busybox", "/etc/not-executable"])
            .code,
        126
    );

    let web = "echo 'served to docker' > /srv/index.html; exec httpd -f -p 80 -h /srv";
    let limits = [
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "64",
        "-v",
        "state:/state",
        "-e",
        "A=b",
    ];
    let head = ["run", "-d", "--name", "web", "-p", "8080:80"];
    let line: Vec<_> = head
        .iter()
        .chain(&limits)
        .chain(&["busybox", "sh", "-c", web])
        .copied()
        .collect();
    let id = ok(&line);
    eventually("the page is served", || {
        daemon.fetch("127.0.0.1:8080").as_deref() == Some("served to docker\n")
    });
    assert!(ok(&["ps"]).contains("0.0.0.0:8080->80/tcp"));
    assert_eq!(ok(&["ps", "-q", "--no-trunc"]), id);
    assert_eq!(
        ok(&[
            "inspect",
            "-f",
            "{{.HostConfig.Memory}} {{.State.Running}}",
            "web"
        ]),
        "67108864 true"
    );
    assert_eq!(ok(&["exec", "web", "sh", "-c", "echo $A; exit 0"]), "b");
    assert_eq!(
        daemon.docker(&["exec", "web", "sh", "-c", "exit 9"]).code,
        9
    );
    assert_eq!(daemon.docker(&["exec", "web", "no-such-command"]).code, 127);
    let mut cat = daemon.spawn_docker(&["exec", "-i", "web", "cat"]);
    cat.write("through docker");
    cat.close_stdin();
    assert_eq!(cat.wait().ok(), "through docker");
    assert!(ok(&["top", "web"]).contains("httpd"));
    assert_eq!(
        ok(&["port", "web"]).lines().next(),
        Some("80/tcp -> 0.0.0.0:8080")
    );
    let stats = ok(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.MemUsage}} {{.PIDs}}",
        "web",
    ]);
    assert!(
        stats.starts_with("web ") && stats.contains("64MiB") && stats.ends_with(" 1"),
        "{stats}"
    );
    ok(&["pause", "web"]);
    assert!(ok(&["ps"]).contains("(Paused)"));
    ok(&["unpause", "web"]);
    ok(&["update", "--cpus", "0.25", "web"]);
    ok(&["rename", "web", "site"]);
    ok(&["restart", "-t", "0", "site"]);
    ok(&["stop", "-t", "0", "site"]);
    assert_eq!(ok(&["wait", "site"]), "137");
    assert_eq!(ok(&["rm", "site"]), "site");
    assert_eq!(ok(&["ps", "-a", "-q"]), "");
    assert_eq!(ok(&["volume", "ls", "-q"]), "state");
    daemon.finish();
}

#[test]
fn logs_attach_events_and_terminals() {
    let Some(daemon) = daemon() else {
        return;
    };
    let ok = |arguments: &[&str]| daemon.docker(arguments).ok();
    let script = "echo first; echo problem >&2; while read l; do echo heard $l; done; exit 4";
    ok(&[
        "run", "-d", "-i", "--name", "talker", "busybox", "sh", "-c", script,
    ]);
    let follower = daemon.spawn_docker(&["logs", "-f", "talker"]);
    follower.expect("first");
    let mut attached = daemon.spawn_docker(&["attach", "talker"]);
    attached.write("docker\n");
    attached.expect("heard docker");
    follower.expect("heard docker");
    let logs = daemon.docker(&["logs", "talker"]);
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("first\nheard docker\n", "problem\n")
    );
    assert_eq!(ok(&["logs", "--tail", "1", "talker"]), "heard docker");
    assert!(ok(&["logs", "-t", "talker"]).contains("Z first"));
    daemon.ok(&["kill", "talker"]);
    assert_eq!(attached.wait().code, 137);
    assert_eq!(follower.wait().code, 0);

    let docker = gamut_tests::on_path("docker").unwrap();
    let mut command = daemon.command(docker);
    command.args(["run", "--rm", "-it", "busybox", "sh"]);
    let mut shell = gamut_tests::Session::start_on_terminal(&mut command);
    shell.expect("#");
    shell.write("stty size; tty; exit 6\n");
    shell.expect("24 80");
    shell.expect("/dev/pts/0");
    assert_eq!(shell.wait().code, 6);

    // The client tells `--until` in whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let events = ok(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "container=talker",
        "--format",
        "{{.Action}}",
    ]);
    let actions: Vec<_> = events.lines().collect();
    assert!(
        actions.starts_with(&["create"]) && actions.contains(&"start") && actions.contains(&"die"),
        "{events}"
    );
    daemon.finish();
}

#[test]
fn images_load_save_pull_cp() {
    let Some(daemon) = daemon() else {
        return;
    };
    let ok = |arguments: &[&str]| daemon.docker(arguments).ok();
    let archive = daemon.directory().join("image.tar");
    let path = archive.display().to_string();
    let id = ok(&["images", "-q", "--no-trunc", "busybox"]);
    ok(&["save", "-o", &path, "busybox"]);
    ok(&["tag", "busybox", "other:2"]);
    ok(&["rmi", "busybox"]);
    ok(&["rmi", "other:2"]);
    assert_eq!(ok(&["images", "-q", "busybox"]), "");
    assert!(ok(&["load", "-i", &path]).contains("busybox"));
    assert_eq!(ok(&["images", "-q", "--no-trunc", "busybox"]), id);
    assert!(ok(&["history", "busybox"]).contains("IMAGE"));
    assert_eq!(ok(&["image", "inspect", "-f", "{{.Id}}", "busybox"]), id);

    if let Some(registry) = Registry::start(&daemon) {
        let reference = registry.push(&daemon, &archive, "tool:1");
        let progress = ok(&["pull", &reference]);
        assert!(progress.contains("Digest: sha256:"), "{progress}");
        assert_eq!(ok(&["run", "--rm", &reference, "echo", "pulled"]), "pulled");
        let error = daemon.docker(&["pull", "127.0.0.1:5000/absent:1"]).fails(1);
        assert!(error.contains("absent"), "{error}");
    }

    ok(&["create", "--name", "box", "busybox", "true"]);
    let source = daemon.directory().join("file");
    std::fs::write(&source, "copied by docker\n").unwrap();
    ok(&["cp", &source.display().to_string(), "box:/data/new"]);
    let back = daemon.directory().join("back");
    ok(&["cp", "box:/data/new", &back.display().to_string()]);
    assert_eq!(std::fs::read_to_string(back).unwrap(), "copied by docker\n");
    ok(&[
        "cp",
        "box:/srv",
        &daemon.directory().join("srv").display().to_string(),
    ]);
    assert!(daemon.directory().join("srv/site/index.html").is_file());
    ok(&["system", "df"]);
    ok(&["info"]);
    daemon.finish();
}
