//! Workloads on a terminal.

use gamut_tests::Daemon;

#[test]
fn a_shell_on_a_terminal() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let mut session = daemon.spawn_on_terminal(&["run", "--rm", "-it", "busybox", "sh"]);
    session.expect("#");
    session.write("tty; stty size; echo $TERM\n");
    session.expect("/dev/pts/0");
    session.expect("24 80");
    session.expect("xterm");
    session.resize(33, 101);
    gamut_tests::eventually("the size arrives", || {
        session.write("stty size\n");
        std::thread::sleep(std::time::Duration::from_millis(100));
        session.stdout().contains("33 101")
    });
    // The terminal is the container's: ^C goes to the foreground process there.
    session.write("sleep 1000; echo interrupted=$?\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    session.write("\u{3}");
    std::thread::sleep(std::time::Duration::from_millis(300));
    session.write("echo still here; exit 7\n");
    session.expect("still here\r\n");
    assert_eq!(session.wait().code, 7);
    daemon.finish();
}

#[test]
fn detaching_leaves_the_workload_alone() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let mut session = daemon.spawn_on_terminal(&["run", "-it", "--name", "left", "busybox", "sh"]);
    session.expect("#");
    session.write("echo first-$((40+2))\n");
    session.expect("first-42");
    session.write("\u{10}\u{11}"); // ^P ^Q
    assert_eq!(session.wait().code, 0);
    assert_eq!(daemon.inspect("left")["State"]["Running"], true);

    let mut again = daemon.spawn_on_terminal(&["attach", "left"]);
    again.write("echo second-$((40+3)); exit 5\n");
    again.expect("second-43");
    assert_eq!(again.wait().code, 5);
    let logs = daemon.ok(&["logs", "left"]);
    assert!(
        logs.contains("first-42") && logs.contains("second-43"),
        "{logs}"
    );

    // -t without a terminal at this end is refused when input is asked for, as docker does.
    let refused = daemon.gamut(&["run", "-it", "--rm", "busybox", "true"]);
    assert_ne!(refused.code, 0, "{refused:#?}");
    // Output only is fine.
    let only_output = daemon.gamut(&["run", "-t", "--rm", "busybox", "tty"]);
    assert_eq!(only_output.stdout, "/dev/pts/0\r\n");
    daemon.finish();
}

#[test]
fn attach_shares_a_workload_and_forwards_signals() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let script = "trap 'echo got-term; exit 9' TERM; echo ready; while read l; do echo heard $l; done; while true; do sleep 0.1; done";
    daemon.detached("shared", &["-i"], script);
    let mut one = daemon.spawn(&["attach", "shared"]);
    let two = daemon.spawn(&["attach", "--no-stdin", "shared"]);
    // Wait until both are there.
    gamut_tests::eventually("both clients are attached", || {
        one.write("ping\n");
        std::thread::sleep(std::time::Duration::from_millis(50));
        one.stdout().contains("heard ping") && two.stdout().contains("heard ping")
    });
    one.signal(libc::SIGTERM);
    one.expect("got-term");
    two.expect("got-term");
    assert_eq!(one.wait().code, 9);
    assert_eq!(two.wait().code, 9);

    let error = daemon.gamut(&["attach", "shared"]).fails(1);
    assert!(
        error.contains("not running") || error.contains("stopped"),
        "{error}"
    );
    daemon.finish();
}

#[test]
fn exec_on_a_terminal() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("host", &[], "sleep 1000");
    let mut session = daemon.spawn_on_terminal(&["exec", "-it", "host", "sh"]);
    session.expect("#");
    session.write("tty; stty size; exit 4\n");
    session.expect("24 80");
    assert_eq!(session.wait().code, 4);
    assert_eq!(daemon.inspect("host")["State"]["Running"], true);
    daemon.finish();
}
