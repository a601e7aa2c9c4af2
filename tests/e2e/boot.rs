//! What runs again after the host has gone down: all supervisors dead, the run root empty.

use gamut_tests::{Daemon, eventually, has};

/// The host loses power and comes back: whatever ran is gone at once, and so is `/run`.
fn reboot(daemon: &mut Daemon) {
    daemon.kill_9();
    let due = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !daemon.processes().is_empty() {
        for pid in daemon.processes() {
            let pid = i32::try_from(pid).unwrap();
            // SAFETY: kill(2) takes no pointers; the process lives in the test's own namespaces.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        assert!(std::time::Instant::now() < due, "something does not die");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::fs::remove_dir_all(daemon.run_root()).unwrap();
    daemon.restart();
}

fn status(daemon: &Daemon, name: &str) -> String {
    daemon.ok(&["inspect", "-f", "{{.State.Status}}", name])
}

fn runs(daemon: &Daemon, name: &str) {
    eventually(&format!("{name} runs"), || {
        status(daemon, name) == "running"
    });
}

/// Names of started containers since a moment, in order.
fn starts(daemon: &Daemon, since: &str) -> Vec<String> {
    daemon.lines(&[
        "events",
        "--since",
        since,
        "--until",
        "0s",
        "--filter",
        "event=start",
        "--format",
        "{{.Actor.Attributes.name}}",
    ])
}

#[test]
fn policies_decide_what_comes_back() {
    let Some(mut daemon) = Daemon::with_busybox() else {
        return;
    };
    let sleeper = |name: &str, options: &[&str]| daemon.detached(name, options, "sleep 1000");
    sleeper("always", &["--restart", "always"]);
    sleeper("unless", &["--restart", "unless-stopped"]);
    sleeper("failing", &["--restart", "on-failure:3"]);
    sleeper("stopped", &["--restart", "unless-stopped"]);
    sleeper("stopped-always", &["--restart", "always"]);
    sleeper("killed", &["--restart", "unless-stopped"]);
    sleeper("no", &[]);
    sleeper("gone", &["--rm"]);
    daemon.detached("fine", &["--restart", "on-failure"], "exit 0");
    daemon.ok(&[
        "create",
        "--name",
        "never",
        "--restart",
        "always",
        "busybox",
        "sleep",
        "1000",
    ]);
    daemon.ok(&["stop", "-t", "0", "stopped", "stopped-always"]);
    daemon.ok(&["kill", "-s", "TERM", "killed"]);
    daemon.ok(&["wait", "fine"]);
    reboot(&mut daemon);
    for name in ["always", "unless", "failing", "stopped-always"] {
        runs(&daemon, name);
    }
    for name in ["stopped", "killed", "no", "fine"] {
        assert_eq!(status(&daemon, name), "exited", "{name}");
    }
    assert_eq!(status(&daemon, "never"), "created");
    assert_eq!(daemon.inspect("no")["State"]["ExitCode"], 255);
    daemon.gamut(&["inspect", "gone"]).fails(1);
    daemon.finish();
}

#[test]
fn what_others_need_comes_first() {
    let Some(mut daemon) = Daemon::with_busybox() else {
        return;
    };
    let always = ["--restart", "always"];
    let sleeper = |name: &str, options: &[&str]| {
        daemon.detached(name, &[&always[..], options].concat(), "sleep 1000");
    };
    let label = |text: &str| format!("gamut.depends-on={text}");
    let compose = |name: &str, needs: &str| {
        [
            "com.docker.compose.project=shop".to_owned(),
            format!("com.docker.compose.service={name}"),
            format!("com.docker.compose.depends_on={needs}"),
        ]
    };
    // Made in the opposite order, as `compose up` never would.
    for (name, needs, check) in [
        (
            "web",
            "db:service_healthy:false,cache:service_started:true",
            "",
        ),
        ("cache", "", ""),
        (
            "db",
            "",
            "test -e /tmp/well || { sleep 1; touch /tmp/well; false; }",
        ),
    ] {
        let labels = compose(name, needs);
        let mut options: Vec<&str> = labels.iter().flat_map(|label| ["-l", label]).collect();
        if !check.is_empty() {
            options.extend(["--health-cmd", check, "--health-interval", "100ms"]);
        }
        sleeper(name, &options);
    }
    sleeper("owner", &[]);
    sleeper("joined", &["--network", "container:owner"]);
    let (first, second) = (label("chicken"), label("egg"));
    sleeper("egg", &["-l", &first]);
    sleeper("chicken", &["-l", &second]);
    let unwell = label("sick:healthy");
    let sick = [
        "--health-cmd",
        "false",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
    ];
    sleeper("nurse", &["-l", &unwell]);
    sleeper("sick", &sick);
    daemon.ok(&["rm", "-f", "owner"]);
    // Made again: younger than what needs it.
    sleeper("owner", &[]);
    reboot(&mut daemon);
    let names = [
        "web", "cache", "db", "owner", "joined", "egg", "chicken", "nurse", "sick",
    ];
    for name in names {
        if name != "joined" {
            runs(&daemon, name);
        }
    }
    let order = starts(&daemon, "1h");
    let place = |name: &str| order.iter().position(|other| other == name).unwrap();
    assert!(
        place("db") < place("web") && place("cache") < place("web"),
        "{order:?}"
    );
    assert!(place("sick") < place("nurse"), "{order:?}");
    let state = |name: &str| daemon.inspect(name)["State"].take();
    let (web, db) = (state("web"), state("db"));
    assert_eq!(db["Health"]["Status"], "healthy");
    // Its first probe fails and takes a second.
    let waited =
        db["Health"]["Log"].as_array().unwrap().iter().any(|probe| {
            probe["ExitCode"] == 0 && probe["End"].as_str() <= web["StartedAt"].as_str()
        });
    assert!(
        waited || db["Health"]["Log"].as_array().unwrap().len() == 5,
        "{db} {web}"
    );
    assert!(daemon.log().contains("in a circle"), "{}", daemon.log());
    assert!(
        daemon.log().contains("not as it should be"),
        "{}",
        daemon.log()
    );
    // It joins by name, whichever container that is now.
    eventually("it has joined", || status(&daemon, "joined") == "running");
    assert!(place("owner") < place("joined"), "{order:?}");
    daemon.finish();
}

#[test]
fn one_that_cannot_start_does_not_hold_the_others_up_and_is_tried_again() {
    let Some(mut daemon) = Daemon::with_busybox() else {
        return;
    };
    let policy = ["--restart", "unless-stopped"];
    daemon.detached("broken", &policy, "sleep 1000");
    let label = ["-l", "gamut.depends-on=broken"];
    daemon.detached("after", &[&policy[..], &label].concat(), "sleep 1000");
    // Its own files cannot be written: a start must fail.
    let id = daemon.ok(&["inspect", "-f", "{{.Id}}", "broken"]);
    let hosts = daemon.data_root().join("containers").join(id).join("hosts");
    std::fs::remove_file(&hosts).unwrap();
    std::fs::create_dir(&hosts).unwrap();
    reboot(&mut daemon);
    runs(&daemon, "after");
    assert_eq!(status(&daemon, "broken"), "exited");
    std::fs::remove_dir(&hosts).unwrap();
    reboot(&mut daemon);
    runs(&daemon, "broken");
    daemon.finish();
}

#[test]
fn a_stop_while_it_waits_is_obeyed() {
    let Some(mut daemon) = has("docker").then(Daemon::with_busybox).flatten() else {
        return;
    };
    let policy = ["--restart", "unless-stopped"];
    let slow = [
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "100ms",
        "--health-start-period",
        "1h",
        "--health-start-interval",
        "100ms",
    ];
    daemon.detached(
        "db",
        &[&policy[..], &slow].concat(),
        "rm -f /tmp/well; sleep 1000",
    );
    let label = ["-l", "gamut.depends-on=db:healthy"];
    daemon.detached("web", &[&policy[..], &label].concat(), "sleep 1000");
    daemon.detached("other", &[&policy[..], &label].concat(), "sleep 1000");
    reboot(&mut daemon);
    runs(&daemon, "db");
    assert_eq!(status(&daemon, "web"), "exited");
    let _ = daemon.docker(&["stop", "web"]).ok();
    daemon.ok(&["exec", "db", "touch", "/tmp/well"]);
    runs(&daemon, "other");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(status(&daemon, "web"), "exited");
    daemon.finish();
}

#[test]
fn the_service_managers_unit_is_valid() {
    if !has("systemd-analyze") {
        return;
    }
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../packaging/systemd/gamut.service"
    );
    let text = std::fs::read_to_string(unit).unwrap();
    // It verifies that the program is there.
    let program = gamut_tests::target_binary().display().to_string();
    let text = text.replace("/usr/local/bin/gamut", &program);
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("gamut.service");
    std::fs::write(&copy, text).unwrap();
    let mut verify = std::process::Command::new("systemd-analyze");
    let output = verify
        .args(["verify", "--man=no"])
        .arg(&copy)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // Other units of the machine are none of ours.
    let about_it: Vec<_> = said.lines().filter(|line| line.contains("gamut")).collect();
    assert!(about_it.is_empty(), "{said}");
}
