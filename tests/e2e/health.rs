//! Health checks: by command, by HTTP and TCP from within, by the image's, with both clients.

use gamut_tests::{Daemon, eventually, has};
use serde_json::Value;

fn health(daemon: &Daemon, name: &str) -> Value {
    daemon.inspect(name)["State"]["Health"].take()
}

fn is(daemon: &Daemon, name: &str, status: &str) -> bool {
    health(daemon, name)["Status"] == status
}

fn becomes(daemon: &Daemon, name: &str, status: &str) {
    eventually(&format!("{name} is {status}"), || is(daemon, name, status));
}

fn last_probe(daemon: &Daemon, name: &str) -> Value {
    let log = health(daemon, name)["Log"].take();
    log.as_array().unwrap().last().unwrap().clone()
}

/// What happened to a container, oldest first.
fn actions(daemon: &Daemon, name: &str) -> Vec<String> {
    let filter = format!("container={name}");
    daemon.lines(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        &filter,
        "--format",
        "{{.Action}}",
    ])
}

#[test]
fn a_command_decides() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let check = [
        "--health-cmd",
        "echo looked; echo twice >&2; test -e /tmp/well",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
    ];
    let status = |filter: &str| {
        let filter = format!("health={filter}");
        daemon.ok(&[
            "ps",
            "--filter",
            &filter,
            "--format",
            "{{.Names}} {{.Status}}",
        ])
    };
    daemon.detached("plain", &[], "sleep 1000");
    let slow = ["--health-cmd", "true", "--health-interval", "1h"];
    daemon.detached("slow", &slow, "sleep 1000");
    assert!(
        status("starting").contains("slow Up"),
        "{}",
        status("starting")
    );
    assert!(status("starting").ends_with("(health: starting)"));
    assert!(status("none").starts_with("plain Up"));
    assert_eq!(health(&daemon, "plain"), Value::Null);
    assert_eq!(health(&daemon, "slow")["Log"].as_array().unwrap().len(), 0);

    daemon.detached("box", &check, "sleep 1000");
    becomes(&daemon, "box", "unhealthy");
    assert!(status("unhealthy").ends_with("(unhealthy)"));
    let seen = health(&daemon, "box");
    assert!(seen["FailingStreak"].as_u64().unwrap() >= 2, "{seen}");
    let probe = last_probe(&daemon, "box");
    assert_eq!(probe["ExitCode"], 1);
    let output = probe["Output"].as_str().unwrap();
    assert!(
        output.contains("looked\n") && output.contains("twice\n"),
        "{probe}"
    );
    assert!(probe["Start"].as_str() < probe["End"].as_str(), "{probe}");

    daemon.ok(&["exec", "box", "touch", "/tmp/well"]);
    becomes(&daemon, "box", "healthy");
    assert!(status("healthy").starts_with("box Up") && status("healthy").ends_with("(healthy)"));
    assert_eq!(health(&daemon, "box")["FailingStreak"], 0);
    eventually("five probes are remembered", || {
        health(&daemon, "box")["Log"].as_array().unwrap().len() == 5
    });

    // Nobody looks after a container that is frozen or has ended; a start begins anew.
    daemon.ok(&["pause", "box"]);
    assert!(is(&daemon, "box", "unhealthy"));
    daemon.ok(&["unpause", "box"]);
    becomes(&daemon, "box", "healthy");
    daemon.ok(&["stop", "-t", "0", "box"]);
    let stopped = health(&daemon, "box");
    assert_eq!(stopped["Status"], "unhealthy");
    daemon.ok(&["start", "box"]);
    becomes(&daemon, "box", "healthy");

    // An event follows the change that can be seen.
    eventually("the changes are told of", || {
        let seen = actions(&daemon, "box");
        let changes: Vec<_> = seen
            .iter()
            .filter_map(|action| action.strip_prefix("health_status: "))
            .collect();
        changes == ["unhealthy", "healthy", "healthy", "healthy"]
    });
    let seen = actions(&daemon, "box");
    // Probes are no exec sessions of anybody's: one was made by hand.
    let count = |word: &str| {
        seen.iter()
            .filter(|action| action.starts_with(word))
            .count()
    };
    assert_eq!(
        (count("exec_create"), count("exec_die")),
        (1, 1),
        "{seen:?}"
    );
    daemon.finish();
}

#[test]
fn the_start_period_and_its_interval() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    // Failures do not count yet, and probes come at the start interval, not once an hour.
    let check = [
        "--health-cmd",
        "echo x >> /tmp/probes; test -e /tmp/well",
        "--health-interval",
        "1h",
        "--health-retries",
        "1",
        "--health-start-period",
        "1h",
        "--health-start-interval",
        "50ms",
    ];
    daemon.detached("box", &check, "sleep 1000");
    eventually("it is probed often", || {
        daemon
            .ok(&[
                "exec",
                "box",
                "sh",
                "-c",
                "cat /tmp/probes 2>/dev/null || true",
            ])
            .lines()
            .count()
            > 5
    });
    let seen = health(&daemon, "box");
    assert_eq!(
        (&seen["Status"], &seen["FailingStreak"]),
        (&"starting".into(), &0.into())
    );
    daemon.ok(&["exec", "box", "touch", "/tmp/well"]);
    becomes(&daemon, "box", "healthy");
    daemon.finish();
}

#[test]
fn probes_that_hang_or_cannot_be_made() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let often = ["--health-interval", "50ms", "--health-retries", "1"];
    let hanging = [
        "--health-cmd",
        "echo begun; sleep 1000",
        "--health-timeout",
        "300ms",
    ];
    daemon.detached("hangs", &[&often[..], &hanging].concat(), "sleep 2000");
    becomes(&daemon, "hangs", "unhealthy");
    let probe = last_probe(&daemon, "hangs");
    assert_eq!(probe["ExitCode"], -1);
    assert_eq!(
        probe["Output"],
        "Health check exceeded timeout (300ms): begun\n"
    );
    eventually("several have been made", || {
        health(&daemon, "hangs")["Log"].as_array().unwrap().len() == 5
    });
    // The shells are killed; what one has started is its own affair, as in any exec.
    let shells = daemon.ok(&["exec", "hangs", "ps", "-o", "args"]);
    let shells = shells
        .lines()
        .filter(|line| line.starts_with("/bin/sh -c echo"))
        .count();
    assert!(shells <= 1, "{shells} probes are left");

    let mut body = serde_json::json!({"Image": "busybox", "Cmd": ["sleep", "1000"],
        "Healthcheck": {"Test": ["CMD", "no-such-program"], "Interval": 50_000_000, "Retries": 1}});
    let created = daemon.http("POST", "/containers/create?name=lacks", &body.to_string());
    assert_eq!(created.status, 201, "{created:?}");
    daemon.ok(&["start", "lacks"]);
    becomes(&daemon, "lacks", "unhealthy");
    let probe = last_probe(&daemon, "lacks");
    assert_eq!(probe["ExitCode"], -1);
    assert!(
        probe["Output"].as_str().unwrap().contains("not found"),
        "{probe}"
    );

    // An endless talker is cut.
    let talk = ["--health-cmd", "head -c 10000 /dev/zero | tr '\\0' x"];
    daemon.detached("talks", &[&often[..], &talk].concat(), "sleep 1000");
    becomes(&daemon, "talks", "healthy");
    let output = last_probe(&daemon, "talks")["Output"].take();
    assert_eq!(output.as_str().unwrap(), format!("{}...", "x".repeat(4096)));

    // What makes no sense is refused when the container is made.
    for (test, interval) in [
        ("[\"WHAT\", \"x\"]", 0),
        ("[\"CMD\"]", 0),
        ("[\"CMD\", \"x\"]", 5),
    ] {
        body["Healthcheck"] =
            serde_json::from_str(&format!("{{\"Test\": {test}, \"Interval\": {interval}}}"))
                .unwrap();
        let refused = daemon.http("POST", "/containers/create", &body.to_string());
        assert_eq!(refused.status, 400, "{test}: {refused:?}");
    }
    daemon
        .gamut(&["run", "--health-tcp", "0", "busybox"])
        .fails(125);
    daemon.finish();
}

#[test]
fn http_and_tcp_without_a_process() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let often = ["--health-interval", "50ms", "--health-retries", "1"];
    let run = |name: &str, options: &[&str]| {
        let head = [
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "none",
            "--pids-limit",
            "1",
        ];
        daemon.ok(&[&head[..], &often, options, &["hello-http"]].concat());
    };
    // The image holds one program and nothing else, and no second process may be made.
    run("http", &["--health-http", "80"]);
    run("tcp", &["--health-tcp", "80"]);
    run("closed", &["--health-tcp", "81"]);
    run("command", &["--health-cmd", "true"]);
    becomes(&daemon, "http", "healthy");
    becomes(&daemon, "tcp", "healthy");
    becomes(&daemon, "closed", "unhealthy");
    becomes(&daemon, "command", "unhealthy");
    let output = |name: &str| {
        last_probe(&daemon, name)["Output"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(output("http").starts_with("HTTP/1."), "{}", output("http"));
    assert!(output("http").contains(" 200 "), "{}", output("http"));
    assert_eq!(output("tcp"), "connected to port 80");
    assert!(output("closed").contains("refused"), "{}", output("closed"));
    let config = daemon.inspect("http")["Config"]["Healthcheck"].take();
    assert_eq!(config["Test"], serde_json::json!(["HTTP", "80"]));

    // A page that is missing, a server that is none, one that never answers.
    let server = "httpd -p 80 -h /srv/site; exec nc -ll -p 81 -e sh -c 'echo SSH-2.0-x; sleep 1'";
    daemon.detached(
        "missing",
        &[&often[..], &["--health-http", "80/none"]].concat(),
        server,
    );
    becomes(&daemon, "missing", "unhealthy");
    eventually("the page is not found", || {
        output("missing").contains(" 404 ")
    });
    daemon.detached(
        "site",
        &[&often[..], &["--health-http", "80/index.html"]].concat(),
        server,
    );
    becomes(&daemon, "site", "healthy");
    daemon.detached(
        "ssh",
        &[&often[..], &["--health-http", "81/"]].concat(),
        server,
    );
    becomes(&daemon, "ssh", "unhealthy");
    eventually("it is no HTTP", || output("ssh").contains("not HTTP"));
    let silent = ["--health-http", "80/", "--health-timeout", "200ms"];
    daemon.detached(
        "silent",
        &[&often[..], &silent].concat(),
        "nc -ll -p 80 -e sleep 1000",
    );
    becomes(&daemon, "silent", "unhealthy");
    eventually("it takes too long", || {
        output("silent").contains("exceeded timeout (200ms)")
    });
    // In the host's network, and in another container's.
    let host = ["--network", "host", "--health-tcp", "8099"];
    daemon.detached(
        "host",
        &[&often[..], &host].concat(),
        "nc -ll -p 8099 -e true",
    );
    becomes(&daemon, "host", "healthy");
    let joined = ["--network", "container:http", "--health-http", "80"];
    daemon.detached("joined", &[&often[..], &joined].concat(), "sleep 1000");
    becomes(&daemon, "joined", "healthy");
    daemon.finish();
}

#[test]
fn an_images_check_outlives_the_daemon() {
    let Some(mut daemon) = Daemon::with_busybox() else {
        return;
    };
    let archive = gamut_tests::busybox().unwrap();
    let check = "HEALTHCHECK --interval=50ms --retries=1 CMD test -e /tmp/well";
    daemon.import(archive, "checked", &["CMD [\"sleep\", \"1000\"]", check]);
    daemon.ok(&["run", "-d", "--name", "own", "checked"]);
    daemon.ok(&["run", "-d", "--name", "none", "--no-healthcheck", "checked"]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "rarely",
        "--health-interval",
        "1h",
        "checked",
    ]);
    becomes(&daemon, "own", "unhealthy");
    assert_eq!(health(&daemon, "none"), Value::Null);
    assert_eq!(
        daemon.inspect("rarely")["Config"]["Healthcheck"],
        serde_json::json!({"Test": ["CMD-SHELL", "test -e /tmp/well"],
            "Interval": 3_600_000_000_000_u64, "Retries": 1})
    );
    daemon.ok(&["exec", "own", "touch", "/tmp/well"]);
    becomes(&daemon, "own", "healthy");
    daemon.kill_9();
    daemon.restart();
    assert!(is(&daemon, "own", "healthy"), "it is known to be well");
    assert!(is(&daemon, "rarely", "starting"));
    daemon.ok(&["exec", "own", "rm", "/tmp/well"]);
    becomes(&daemon, "own", "unhealthy");
    // Restarted by its policy, it begins anew.
    daemon.ok(&["update", "--restart", "always", "own"]);
    daemon.ok(&["exec", "own", "touch", "/tmp/well"]);
    becomes(&daemon, "own", "healthy");
    daemon.finish();
}

#[test]
fn with_the_docker_client() {
    let Some(daemon) = has("docker").then(Daemon::with_busybox).flatten() else {
        return;
    };
    let ok = |arguments: &[&str]| daemon.docker(arguments).ok();
    let events = daemon.spawn_docker(&[
        "events",
        "--since",
        "1h",
        "--filter",
        "event=health_status",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ]);
    let often = [
        "--health-interval",
        "100ms",
        "--health-retries",
        "1",
        "--health-start-period",
        "1ms",
    ];
    let image = ["busybox", "httpd", "-f", "-p", "80", "-h", "/srv/site"];
    let command = [
        "run",
        "-d",
        "--name",
        "shell",
        "--health-cmd",
        "test -e /tmp/well",
    ];
    ok(&[&command[..], &often, &image].concat());
    let label = [
        "run",
        "-d",
        "--name",
        "label",
        "--label",
        "gamut.health.http=80/index.html",
    ];
    ok(&[&label[..], &often, &image].concat());
    let status = "{{.State.Health.Status}}";
    for (name, wanted) in [("shell", "unhealthy"), ("label", "healthy")] {
        eventually(&format!("{name} is {wanted}"), || {
            ok(&["inspect", "-f", status, name]) == wanted
        });
        assert!(ok(&["ps"]).contains(&format!("({wanted})")));
        let filter = format!("health={wanted}");
        assert_eq!(
            ok(&["ps", "--filter", &filter, "--format", "{{.Names}}"]),
            name
        );
        events.expect(&format!("health_status: {wanted} {name}"));
    }
    let log = ok(&[
        "inspect",
        "-f",
        "{{(index .State.Health.Log 0).ExitCode}}",
        "shell",
    ]);
    assert_eq!(log, "1");
    drop(events);
    daemon.finish();
}
