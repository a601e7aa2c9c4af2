//! Looking at the engine's processes on their way into a container (CVE-2016-9962 and its kin).

use gamut_tests::Daemon;

/// Has the hostile program lie in wait while processes come in, and says what it got.
fn lie_in_wait(daemon: &Daemon, name: &str, options: &[&str], come_in: &dyn Fn(&Daemon)) -> String {
    daemon.detached(name, options, "exec attacker processes");
    gamut_tests::eventually("it lies in wait", || {
        daemon.ok(&["logs", name]).contains("ready")
    });
    for _ in 0..40 {
        come_in(daemon);
    }
    let log = daemon.ok(&["logs", name]);
    println!("{options:?}: {log}");
    daemon.ok(&["rm", "-f", name]);
    log
}

#[test]
fn processes_on_their_way_in_cannot_be_looked_into() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    let exec = |daemon: &Daemon| drop(daemon.ok(&["exec", "spy", "true"]));
    let join = |daemon: &Daemon| {
        drop(daemon.shell(&["--pid", "container:spy"], "true").ok());
    };
    for options in [
        [].as_slice(),
        &["--security-opt", "seccomp=unconfined"],
        &["--init"],
    ] {
        for come_in in [&exec as &dyn Fn(&Daemon), &join] {
            let log = lie_in_wait(&daemon, "spy", options, come_in);
            assert!(!log.contains("GOT"), "{options:?}: {log}");
        }
    }
    daemon.finish();
}

#[test]
fn supervisors_cannot_be_looked_into_from_the_hosts_process_ids() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    daemon.detached("other", &["-e", "SECRET=word"], "exec sleep 1000");
    let pid = daemon.supervisor_pid("other");
    let script = format!(
        "for f in environ mem maps; do head -c 1 /proc/{pid}/$f 2>/dev/null | grep -q . && echo GOT $f; done; \
         for f in root cwd exe fd/3; do readlink /proc/{pid}/$f && echo GOT $f; done; \
         tr '\\0' ' ' < /proc/{pid}/cmdline"
    );
    let output = daemon.shell(&["--pid", "host"], &script);
    assert!(!output.stdout.contains("GOT"), "{output:#?}");
    // What anybody may see tells which container it is, and nothing of it.
    assert!(!output.stdout.contains("SECRET"), "{output:#?}");
    daemon.finish();
}
