//! Containers that stop what comes in: the engine must not wait for ever for them.

use gamut_tests::Daemon;
use std::time::Duration;

#[test]
fn a_container_that_stops_exec_sessions_does_not_stop_the_engine() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    daemon.detached("stopper", &[], "exec attacker stop");
    gamut_tests::eventually("it has begun", || {
        daemon.ok(&["logs", "stopper"]).contains("ready")
    });
    let sessions: Vec<_> = (0..6)
        .map(|_| daemon.spawn(&["exec", "stopper", "sleep", "1000"]))
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    // Others are served, and it can be looked at and removed.
    assert_eq!(daemon.shell(&[], "echo on").ok(), "on");
    let limit = Duration::from_secs(20);
    for words in [
        ["ps", "-a"].as_slice(),
        &["inspect", "stopper"],
        &["logs", "stopper"],
        &["kill", "stopper"],
        &["rm", "-f", "stopper"],
    ] {
        let output = daemon.spawn(words).wait_within(limit);
        assert!(
            output.code == 0 || words[0] == "kill",
            "{words:?}: {output:#?}"
        );
    }
    for session in sessions {
        let output = session.wait_within(limit);
        assert_ne!(output.code, 0, "{output:#?}");
    }
    daemon.finish();
}
