//! `gamut logs`.

use gamut_tests::Daemon;

#[test]
fn logs_are_complete_and_can_be_cut() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let script = "for n in 1 2 3 4 5; do echo line $n; done; echo problem >&2";
    daemon.detached("talker", &[], script);
    daemon.ok(&["wait", "talker"]);
    let all = daemon.gamut(&["logs", "talker"]);
    assert_eq!(all.stdout, "line 1\nline 2\nline 3\nline 4\nline 5\n");
    assert_eq!(all.stderr, "problem\n");

    let tail = daemon.gamut(&["logs", "--tail", "2", "talker"]);
    assert_eq!(
        (tail.stdout.as_str(), tail.stderr.as_str()),
        ("line 5\n", "problem\n")
    );
    let none = daemon.gamut(&["logs", "--tail", "0", "talker"]);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", ""));

    let stamped = daemon.gamut(&["logs", "-t", "talker"]).stdout;
    for line in stamped.lines() {
        let (stamp, text) = line.split_once(' ').unwrap();
        assert!(
            stamp.ends_with('Z') && stamp.contains('T') && stamp.len() >= 30,
            "{line}"
        );
        assert!(text.starts_with("line "), "{line}");
    }

    let error = daemon.gamut(&["logs", "nobody"]).fails(1);
    assert!(error.contains("nobody"), "{error}");
    daemon.finish();
}

#[test]
fn since_and_until_cut_by_time() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("slow", &[], "echo early; sleep 1.2; echo late");
    daemon.ok(&["wait", "slow"]);
    let stamped = daemon.ok(&["logs", "-t", "slow"]);
    let late = stamped.lines().last().unwrap().split(' ').next().unwrap();
    assert_eq!(daemon.ok(&["logs", "--since", late, "slow"]), "late");
    let before = daemon.gamut(&["logs", "--until", late, "slow"]).stdout;
    assert!(before.starts_with("early\n"), "{before}");
    assert_eq!(daemon.ok(&["logs", "--since", "1h", "slow"]), "early\nlate");
    assert_eq!(daemon.ok(&["logs", "--until", "1h", "slow"]), "");
    daemon.finish();
}

#[test]
fn following_ends_with_the_container() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached(
        "ticker",
        &["-i"],
        "echo start; while read l; do echo $l; done; echo stop",
    );
    let follower = daemon.spawn(&["logs", "-f", "ticker"]);
    let fresh = daemon.spawn(&["logs", "-f", "--tail", "0", "ticker"]);
    follower.expect("start");
    let mut writer = daemon.spawn(&["attach", "ticker"]);
    gamut_tests::eventually("both follow", || {
        writer.write("tick\n");
        std::thread::sleep(std::time::Duration::from_millis(50));
        follower.stdout().contains("tick") && fresh.stdout().contains("tick")
    });
    daemon.ok(&["stop", "-t", "0", "ticker"]);
    let output = follower.wait();
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(!fresh.wait().stdout.contains("start"));
    daemon.finish();
}

#[test]
fn odd_output_arrives_whole() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    // A last line without its end, a line longer than any buffer, bytes that are no text.
    let script = "head -c 300000 /dev/zero | tr '\\0' x; echo; printf '\\377\\000end'";
    daemon.detached("odd", &[], script);
    daemon.ok(&["wait", "odd"]);
    let logs = daemon.gamut(&["logs", "odd"]);
    assert_eq!(logs.code, 0);
    let (long, rest) = logs.stdout.split_once('\n').unwrap();
    assert_eq!(long.len(), 300_000);
    assert!(rest.ends_with("\0end"), "{rest:?}");

    // Many lines, all there, in order.
    daemon.detached("many", &[], "seq 1 100000");
    daemon.ok(&["wait", "many"]);
    let many = daemon.gamut(&["logs", "many"]).stdout;
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(many == expected, "{} lines", many.lines().count());
    daemon.finish();
}
