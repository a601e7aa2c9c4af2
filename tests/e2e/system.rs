//! `gamut system`, `info`, `version`, and the socket itself.

use gamut_tests::Daemon;

#[test]
fn version_and_info() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let version = daemon.ok(&["version"]);
    assert!(
        version.contains("Client") && version.contains("Server"),
        "{version}"
    );
    daemon.detached("one", &[], "sleep 1000");
    let info = daemon.json(&["info", "--format", "{{json .}}"]);
    assert_eq!(info["ContainersRunning"], 1, "{info}");
    assert_eq!(
        info["DockerRootDir"],
        daemon.data_root().display().to_string()
    );
    let dump = daemon.json(&["system", "dump"]);
    assert!(dump.to_string().contains("\"one\""), "{dump}");
    daemon.finish();
}

#[test]
fn df_and_prune() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached(
        "stopped",
        &["-v", "/anonymous"],
        "head -c 3000000 /dev/zero > /data/big",
    );
    daemon.ok(&["wait", "stopped"]);
    daemon.detached("running", &["-v", "kept:/kept"], "sleep 1000");
    let df = daemon.ok(&["system", "df"]);
    for row in ["Images", "Containers", "Local Volumes"] {
        assert!(df.contains(row), "{df}");
    }
    let containers = df
        .lines()
        .find(|line| line.starts_with("Containers"))
        .unwrap();
    assert!(
        containers.contains("3MB") || containers.contains("3.0"),
        "{df}"
    );

    // Removes what is stopped, and nothing that is used.
    let pruned = daemon.ok(&["system", "prune", "-f", "--volumes"]);
    assert!(pruned.contains("Total reclaimed space"), "{pruned}");
    assert_eq!(
        daemon.ok(&["ps", "-a", "--format", "{{.Names}}"]),
        "running"
    );
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "kept");
    assert_eq!(daemon.ok(&["exec", "running", "echo", "fine"]), "fine");
    daemon.ok(&["system", "prune", "-f", "-a"]);
    assert!(
        daemon.ok(&["images", "-q", "busybox"]).len() > 4,
        "it is in use"
    );
    assert_eq!(daemon.ok(&["images", "-q", "hello-world"]), "", "it is not");

    // A store that is in order has no findings.
    let fsck = daemon.gamut(&["system", "fsck"]);
    assert_eq!(fsck.code, 0, "{fsck:#?}");
    daemon.finish();
}

#[test]
fn nouns_and_verbs_are_the_same_commands() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    assert_eq!(
        daemon.ok(&["container", "run", "--rm", "busybox", "echo", "noun"]),
        "noun"
    );
    assert_eq!(
        daemon.ok(&["container", "ls", "-a", "-q"]),
        daemon.ok(&["ps", "-a", "-q"])
    );
    assert_eq!(
        daemon.ok(&["image", "ls", "-q"]),
        daemon.ok(&["images", "-q"])
    );
    let error = daemon.gamut(&["fly"]);
    assert_ne!(error.code, 0);
    assert!(error.stderr.contains("fly"), "{error:#?}");
    for verb in ["run", "exec", "ps", "volume", "system"] {
        let help = daemon.gamut(&[verb, "--help"]);
        assert!(help.ok().contains("Usage"), "{verb}");
    }
    daemon.finish();
}

#[test]
fn the_api_speaks_dockers_shapes() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let ping = daemon.http("GET", "/_ping", "");
    assert_eq!((ping.status, ping.text().as_str()), (200, "OK"));
    assert!(
        ping.head.to_lowercase().contains("api-version: 1."),
        "{}",
        ping.head
    );
    let version = daemon.http("GET", "/v1.41/version", "").json();
    assert!(version["ApiVersion"].is_string(), "{version}");

    let body = r#"{"Image":"busybox","Cmd":["sh","-c","exit 5"]}"#;
    let created = daemon.http("POST", "/v1.41/containers/create?name=raw", body);
    assert_eq!(created.status, 201, "{}", created.text());
    let id = created.json()["Id"].as_str().unwrap().to_owned();
    assert_eq!(
        daemon
            .http("POST", &format!("/v1.41/containers/{id}/start"), "")
            .status,
        204
    );
    let waited = daemon.http("POST", "/v1.41/containers/raw/wait", "");
    assert_eq!(waited.json()["StatusCode"], 5);
    assert_eq!(
        daemon.http("DELETE", "/v1.41/containers/raw", "").status,
        204
    );

    for (method, path, body, status) in [
        ("GET", "/v1.41/containers/nobody/json", "", 404),
        ("GET", "/v1.41/no/such/route", "", 404),
        ("POST", "/v1.41/containers/create", "{ no json", 400),
        (
            "POST",
            "/v1.41/containers/create",
            r#"{"Image":"no-such-image"}"#,
            404,
        ),
        ("GET", "/v1.41/containers/json?filters=nonsense", "", 400),
        ("GET", "/v9.99/version", "", 400),
    ] {
        let answer = daemon.http(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert!(
            answer.json()["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
    }
    daemon.finish();
}

#[test]
fn clients_that_hang_up_leave_nothing_behind() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("quiet", &["-i"], "echo begun; cat");
    let before = daemon.snapshot_at_rest();
    // Not `attach`: its end of input may be meant as that only, so it stays until the next output.
    let commands: [&[&str]; 5] = [
        &["events"],
        &["logs", "-f", "quiet"],
        &["wait", "quiet"],
        &["stats", "quiet"],
        &["exec", "-i", "quiet", "cat"],
    ];
    for command in commands {
        let client = daemon.spawn(command);
        gamut_tests::eventually("the client is connected", || {
            !daemon.snapshot().difference(&before).is_empty()
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(client); // SIGKILL
        gamut_tests::eventually(&format!("{command:?} is forgotten"), || {
            daemon.snapshot().difference(&before).is_empty()
        });
    }
    daemon.finish();
}

#[test]
fn a_daemon_that_stops_takes_its_socket_along() {
    let Some(mut daemon) = Daemon::start() else {
        return;
    };
    assert_eq!(daemon.http("GET", "/_ping", "").status, 200);
    daemon.terminate();
    // Whoever waits for the file does not find that of a daemon that has gone.
    assert!(!daemon.socket().exists());
    daemon.restart();
    daemon.finish();
}
