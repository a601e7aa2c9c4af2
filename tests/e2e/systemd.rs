//! System containers: systemd as the first process, with services, a journal and a clean end.

use gamut_tests::{Daemon, debian, until};
use std::path::PathBuf;

/// A daemon with the image `debian`. `None`, said aloud, without one or the other.
fn daemon_with_debian() -> Option<Daemon> {
    let archive = debian()?;
    let daemon = Daemon::start()?;
    daemon.import(&archive, "debian", &["CMD [\"/sbin/init\"]"]);
    Some(daemon)
}

const SERVICE: &str = "[Unit]\nDescription=a service of the test\n\
    [Service]\nExecStart=/bin/sh -c 'echo the service runs; exec sleep 1000'\n\
    ExecStop=/bin/sh -c 'echo stopped in order >/state/stopped'\n\
    [Install]\nWantedBy=multi-user.target\n";

/// Writes the unit and its state directory; options that show both to a container.
fn unit(daemon: &Daemon) -> (PathBuf, Vec<String>) {
    let state = daemon.directory().join("state");
    std::fs::create_dir(&state).unwrap();
    let unit = daemon.directory().join("demo.service");
    std::fs::write(&unit, SERVICE).unwrap();
    let options = [
        format!("{}:/etc/systemd/system/demo.service:ro", unit.display()),
        format!("{}:/state", state.display()),
    ];
    let options = options
        .into_iter()
        .flat_map(|volume| ["-v".to_owned(), volume]);
    (state, options.collect())
}

fn start(daemon: &Daemon, options: &[String]) {
    let mut line = vec!["run", "-d", "--name", "box"];
    line.extend(options.iter().map(String::as_str));
    line.push("debian");
    daemon.ok(&line);
}

/// Waits until systemd has started what it should; its word for how that went.
fn settled(daemon: &Daemon) -> String {
    until("systemd has started everything", || {
        let output = daemon.gamut(&["exec", "box", "systemctl", "is-system-running"]);
        let state = output.stdout.trim().to_owned();
        matches!(state.as_str(), "running" | "degraded").then_some(state)
    })
}

fn inside(daemon: &Daemon, script: &str) -> String {
    daemon.ok(&["exec", "box", "sh", "-c", script])
}

#[test]
fn systemd_runs_services_and_ends_in_order() {
    let Some(daemon) = daemon_with_debian() else {
        return;
    };
    let (state, options) = unit(&daemon);
    start(&daemon, &options);
    let failed =
        |daemon: &Daemon| inside(daemon, "systemctl list-units --failed --plain --no-legend");
    assert_eq!(settled(&daemon), "running", "{}", failed(&daemon));

    // What it is told about where it is.
    assert_eq!(
        inside(
            &daemon,
            "tr '\\0' '\\n' </proc/1/environ | grep ^container="
        ),
        "container=gamut"
    );
    let id = daemon.ok(&["inspect", "-f", "{{.Id}}", "box"]);
    assert_eq!(inside(&daemon, "cat /etc/machine-id"), id[..32]);
    for place in ["/run", "/run/lock", "/tmp", "/var/log/journal"] {
        let kind = inside(
            &daemon,
            &format!("findmnt -n -o FSTYPE {place} || stat -f -c %T {place}"),
        );
        assert_eq!(kind, "tmpfs", "{place}");
    }
    assert_eq!(inside(&daemon, "stat -f -c %T /sys/fs/cgroup"), "cgroup2fs");

    // The unit runs, in a control group of its own, and is heard.
    inside(&daemon, "systemctl enable --now demo");
    assert_eq!(inside(&daemon, "systemctl is-active demo"), "active");
    let group = "cat /proc/$(systemctl show -P MainPID demo)/cgroup | grep ^0::";
    assert_eq!(inside(&daemon, group), "0::/system.slice/demo.service");
    until("the journal has its line", || {
        inside(&daemon, "journalctl --no-pager -o cat -u demo")
            .contains("the service runs")
            .then_some(())
    });
    inside(
        &daemon,
        "systemctl restart demo && systemctl is-active demo",
    );
    std::fs::remove_file(state.join("stopped")).unwrap();

    // `stop` speaks systemd's language: units are stopped, nothing is killed.
    daemon.ok(&["stop", "-t", "50", "box"]);
    let stopped = std::fs::read_to_string(state.join("stopped")).unwrap();
    assert_eq!(stopped, "stopped in order\n");
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.State.ExitCode}}", "box"]),
        "0"
    );

    // It comes up again from what it has left.
    daemon.ok(&["start", "box"]);
    assert_eq!(settled(&daemon), "running");
    assert_eq!(inside(&daemon, "systemctl is-active demo"), "active");
    daemon.finish();
}

#[test]
fn reboot_inside_ends_the_run_and_the_restart_policy_begins_the_next() {
    let Some(daemon) = daemon_with_debian() else {
        return;
    };
    start(&daemon, &["--restart".to_owned(), "always".to_owned()]);
    settled(&daemon);
    let first = daemon.container_pid("box");
    let _ = daemon.gamut(&["exec", "box", "systemctl", "reboot"]);
    until("it has started again", || {
        let pid = daemon.inspect("box")["State"]["Pid"].as_u64();
        pid.filter(|pid| *pid != 0 && *pid != u64::from(first))
    });
    assert_eq!(settled(&daemon), "running");
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.RestartCount}}", "box"]),
        "1"
    );
    daemon.ok(&["stop", "-t", "50", "box"]);
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.State.ExitCode}}", "box"]),
        "0"
    );
    daemon.finish();
}

#[test]
fn systemd_greets_on_a_terminal() {
    let Some(daemon) = daemon_with_debian() else {
        return;
    };
    start(&daemon, &["-t".to_owned()]);
    settled(&daemon);
    let logs = daemon.ok(&["logs", "box"]);
    assert!(
        logs.contains("Welcome to") && logs.contains("Debian"),
        "{logs}"
    );
    assert_eq!(
        inside(
            &daemon,
            "readlink /proc/1/exe; test -c /dev/console && echo console"
        ),
        "/usr/lib/systemd/systemd\nconsole"
    );
    daemon.finish();
}

#[test]
fn systemd_is_set_up_for_only_where_it_is_wanted() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let shown = "echo \"$container\"; grep -c ' /run tmpfs ' /proc/mounts; true";
    assert_eq!(daemon.shell(&[], shown).ok(), "0");
    assert_eq!(
        daemon.shell(&["--systemd", "always"], shown).ok(),
        "gamut\n1"
    );
    for (options, word) in [
        (["--systemd=always", "--init"], "--init"),
        (["--systemd=always", "--pid=host"], "--pid"),
        (["--systemd=always", "--cgroupns=host"], "--cgroupns"),
    ] {
        let refused = daemon.shell(&options, "true").fails(125);
        assert!(
            refused.contains("--systemd=always") && refused.contains(word),
            "{refused}"
        );
    }
    let refused = daemon
        .shell(&["--annotation", "gamut.systemd=perhaps"], "true")
        .fails(125);
    assert!(refused.contains("true, false or always"), "{refused}");
    daemon.finish();
}
