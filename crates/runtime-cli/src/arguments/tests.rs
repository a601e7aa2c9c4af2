use super::verbs::Callers;
use super::*;

fn parse(line: &str) -> Result<Arguments, String> {
    let words = std::iter::once("gamut-runtime").chain(line.split_whitespace());
    Arguments::parse(words.map(OsString::from)).map_err(|failed| failed.0.to_string())
}

fn verb(line: &str) -> Verb {
    parse(line).unwrap().verb
}

#[test]
fn a_whole_line() {
    let line = "--root /r --log=/l --log-format json create -b /b --pid-file /p c-1.x_2";
    assert_eq!(
        parse(line).unwrap(),
        Arguments {
            name: "gamut-runtime".to_owned(),
            global: Global {
                root: PathBuf::from("/r"),
                root_is_given: true,
                systemd_cgroup: false,
                log: Log {
                    program: "gamut-runtime".to_owned(),
                    file: Some(PathBuf::from("/l")),
                    json: true,
                    debug: false,
                },
            },
            verb: Verb::Create(Launch {
                id: "c-1.x_2".to_owned(),
                bundle: Some(PathBuf::from("/b")),
                callers: Callers {
                    pid_file: Some(PathBuf::from("/p")),
                    ..Callers::default()
                },
                ..Launch::default()
            }),
        }
    );
}

#[test]
fn what_comes_behind_the_container_is_the_commands() {
    let Verb::Exec(exec) = verb("exec -t -e A=b --user=1:2 -g 3 c ls -l --color") else {
        panic!("no exec");
    };
    assert_eq!(exec.args, ["ls", "-l", "--color"]);
    assert!(exec.terminal);
    assert_eq!(exec.user, Some((1, Some(2))));
    assert_eq!(exec.additional_gids, [3]);
    assert_eq!(exec.env, ["A=b"]);
    let Verb::Processes(processes) = verb("ps -f table c -e -o pid") else {
        panic!("no ps");
    };
    assert_eq!(processes.ps_options, ["-e", "-o", "pid"]);
    assert!(parse("exec c").unwrap_err().contains("cannot be empty"));
    assert!(parse("exec -p /f c").is_ok());
}

#[test]
fn groups_below_are_named_once() {
    let Verb::Exec(exec) = verb("exec --cgroup cpu,cpuacct:a --cgroup memory:b c true") else {
        panic!("no exec");
    };
    assert_eq!(exec.subgroups.len(), 2);
    for (line, problem) in [
        ("exec --cgroup .. c true", "bad sub cgroup path"),
        (
            "exec --cgroup a --cgroup cpu:b c true",
            "missing <controller>",
        ),
        (
            "exec --cgroup cpu:a --cgroup cpu:b c true",
            "multiple times",
        ),
        ("exec --cgroup ,cpu:a c true", "empty <controller>"),
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.contains(problem), "{line}: {error}");
    }
}

#[test]
fn kill_takes_names_and_numbers() {
    for (line, expected) in [
        ("kill c", 15),
        ("kill c 9", 9),
        ("kill c KILL", 9),
        ("kill c 0", 0),
    ] {
        match verb(line) {
            Verb::Kill(kill) => assert_eq!(kill.signal, expected, "{line}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(parse("kill c NOSUCH").unwrap_err().contains("signal"));
}

#[test]
fn times_are_those_of_go() {
    for (text, expected_ms) in [
        ("5s", 5_000),
        ("1.5s", 1_500),
        ("100ms", 100),
        ("1m30s", 90_000),
    ] {
        let Verb::Events(events) = verb(&format!("events --interval {text} c")) else {
            panic!("no events");
        };
        assert_eq!(events.interval_ms, expected_ms, "{text}");
    }
    for text in ["0s", "5", "s", "-1s", "1.x5s", "99999999999999999999h"] {
        assert!(
            parse(&format!("events --interval {text} c")).is_err(),
            "{text}"
        );
    }
}

#[test]
fn ids_that_are_no_names_are_refused() {
    for id in ["..", ".", "a/b", "", "cgroup.procs", "a b", "é"] {
        let words = ["gamut-runtime", "state", id].map(OsString::from);
        assert!(Arguments::parse(words.into_iter()).is_err(), "{id:?}");
    }
}

#[test]
fn help_is_known_for_every_verb() {
    for line in [
        "-h",
        "--help",
        "",
        "help",
        "create -h",
        "run --help",
        "checkpoint -h",
    ] {
        assert!(matches!(verb(line), Verb::Help(_)), "{line}");
    }
    assert!(help("runc", "exec").contains("runc exec"));
    assert!(parse("nonsense -h").unwrap_err().contains("No help topic"));
}

#[test]
fn what_is_still_to_come_says_so() {
    for line in ["checkpoint c", "restore c"] {
        let error = parse(line).unwrap_err();
        assert!(error.contains("not supported yet"), "{line}: {error}");
    }
    for line in [
        "frobnicate c",
        "run --nonsense c",
        "create -d c",
        "run",
        "run a b",
        "--rootless maybe list",
        "list --format xml",
        "run --detach=perhaps c",
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.contains("--help"), "{line}: {error}");
    }
}

#[test]
fn one_dash_and_values_behind_equals_signs_are_fine() {
    let Verb::Run(run) = verb("run -detach=true --keep=false -pid-file=/p c") else {
        panic!("no run");
    };
    assert!(run.detach && !run.keep);
    assert_eq!(run.callers.pid_file, Some(PathBuf::from("/p")));
}
