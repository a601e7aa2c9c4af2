//! `run`: what the workload gets, and what the caller gets back.

use super::{Level, at_every_level, state};

at_every_level!(
    arguments_and_environment_arrive,
    exit_codes_are_the_workloads,
    logs_are_kept,
    inspect_ps_and_events_know_it,
);

fn arguments_and_environment_arrive(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    let run = |options: &[&str], words: &[&str]| level.run(&daemon, options, words).ok();
    let args = run(&[], &["args", "a b", "", "ü", "--flag=x"]);
    let args: Vec<&str> = args.lines().skip(1).collect();
    assert_eq!(args, ["args", "a b", "", "ü", "--flag=x"]);
    let env = run(&["-e", "COLOUR=blue and green", "-e", "EMPTY="], &["env"]);
    for line in ["COLOUR=blue and green", "EMPTY="] {
        assert!(env.lines().any(|have| have == line), "{env}");
    }
    assert_eq!(run(&["--hostname", "crater"], &["hostname"]), "crater");
    assert_eq!(
        run(&["--add-host", "db:10.9.8.7"], &["resolve", "db"]),
        "10.9.8.7"
    );
    let entrypoint = run(&["--network", "none"], &["print", "alone"]);
    assert_eq!(entrypoint, "alone");
    daemon.finish();
}

fn exit_codes_are_the_workloads(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    for code in [0, 3, 255] {
        let output = level.run(&daemon, &[], &["exit", &code.to_string()]);
        assert_eq!(output.code, code, "{output:#?}");
    }
    level.start(&daemon, "ended", &[], &["exit", "21"]);
    assert_eq!(daemon.ok(&["wait", "ended"]), "21");
    assert_eq!(state(&daemon, "ended", "ExitCode"), 21);
    assert_eq!(state(&daemon, "ended", "Status"), "exited");
    // Started again, it ends again.
    daemon.ok(&["start", "ended"]);
    assert_eq!(daemon.ok(&["wait", "ended"]), "21");
    daemon.ok(&["rm", "ended"]);
    daemon.finish();
}

fn logs_are_kept(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    let lines = ["line 1", "line 2", "line 3"];
    level.start(&daemon, "talker", &[], &[&["print"], &lines[..]].concat());
    daemon.ok(&["wait", "talker"]);
    assert_eq!(daemon.ok(&["logs", "talker"]), lines.join("\n"));
    assert_eq!(daemon.ok(&["logs", "--tail", "1", "talker"]), "line 3");
    level.start(&daemon, "ticker", &[], &["tick", "50"]);
    let follower = daemon.spawn(&["logs", "-f", "ticker"]);
    follower.expect("tick 3");
    daemon.ok(&["stop", "ticker"]);
    assert_eq!(follower.wait().code, 0);
    daemon.finish();
}

fn inspect_ps_and_events_know_it(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    level.start(&daemon, "one", &["--label", "a=b"], &["stop", "wait"]);
    super::said(&daemon, "one", "waiting");
    let inspected = daemon.inspect("one");
    let host = &inspected["HostConfig"];
    assert_eq!(inspected["Isolation"], level.word());
    let (runtime, accelerator) = match level {
        Level::Container => ("gamut", serde_json::Value::Null),
        Level::Unikernel => ("gamut-unikernel", "kvm".into()),
        Level::Translated => ("gamut-unikernel", "tcg".into()),
    };
    assert_eq!(host["Runtime"], runtime);
    assert_eq!(inspected["Machine"]["Accelerator"], accelerator);
    assert_eq!(inspected["State"]["Running"], true);
    let names = |filter: &str| daemon.ok(&["ps", "--format", "{{.Names}}", "--filter", filter]);
    assert_eq!(names(&format!("isolation={}", level.word())), "one");
    assert_eq!(names("isolation=microvm"), "");
    assert_eq!(names("ancestor=probe"), "one");
    let stats = daemon.ok(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.MemUsage}}",
        "one",
    ]);
    assert!(
        stats.starts_with("one ") && !stats.contains(" 0B /"),
        "{stats}"
    );
    daemon.ok(&["stop", "one"]);
    daemon.ok(&["rm", "one"]);
    let story = daemon.ok(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "container=one",
        "--format",
        "{{.Action}}",
    ]);
    let story: Vec<&str> = story.lines().collect();
    for action in ["create", "start", "die", "stop", "destroy"] {
        assert!(story.contains(&action), "{story:?}");
    }
    daemon.finish();
}
