//! Log drivers: options, receivers, and what `logs` tells of them.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use gamut_tests::{Daemon, eventually, has};

/// A daemon with the tests' image, if the docker client is installed.
fn daemon() -> Option<Daemon> {
    has("docker").then(Daemon::with_busybox).flatten()
}

fn run<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let head = ["run", "--rm"].iter().chain(options).copied();
    head.chain(["busybox", "sh", "-c", script]).collect()
}

/// Datagrams that have arrived.
fn received(receive: impl Fn(&mut [u8]) -> std::io::Result<usize>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 65_536];
    while let Ok(count) = receive(&mut buffer) {
        all.push(buffer[..count].to_vec());
    }
    all
}

#[test]
fn rotation_details_and_what_info_says() {
    let Some(daemon) = daemon() else {
        return;
    };
    let ok = |arguments: &[&str]| daemon.docker(arguments).ok();
    let plugins = ok(&[
        "info",
        "--format",
        "{{json .Plugins.Log}} {{.LoggingDriver}}",
    ]);
    assert_eq!(
        plugins,
        r#"["journald","json-file","local","none","syslog"] json-file"#
    );

    let options = [
        "--log-opt",
        "max-size=20k",
        "--log-opt",
        "max-file=3",
        "--log-opt",
        "labels=tier,absent",
        "--log-opt",
        "env=MODE",
        "--log-opt",
        "tag={{.Name}}/{{.ImageName}}",
        "--label",
        "tier=gold one",
        "-e",
        "MODE=x=y",
    ];
    let command = ["busybox", "sh", "-c", "seq 1 5000; sleep 1000"];
    ok(&[&["run", "-d", "--name", "many"], &options[..], &command].concat());
    eventually("all is written", || {
        ok(&["logs", "--tail", "1", "many"]) == "5000"
    });
    let lines = ok(&["logs", "many"]);
    let (first, count) = (
        lines.lines().next().unwrap().parse::<usize>().unwrap(),
        lines.lines().count(),
    );
    assert!(first > 1 && count == 5001 - first, "{first} {count}");
    let details = ok(&["logs", "--details", "--tail", "1", "many"]);
    assert_eq!(details, "MODE=x%3Dy,tag=many%2Fbusybox,tier=gold+one 5000");
    assert_eq!(
        ok(&[
            "inspect",
            "-f",
            "{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-size\"}}",
            "many"
        ]),
        "json-file 20k"
    );
    // Following goes on over a rotation and a restart.
    ok(&["rm", "-f", "many"]);
    let talk = [
        "busybox",
        "sh",
        "-c",
        "seq 1 3000; while read l; do seq 1 3000; echo $l; done",
    ];
    ok(&[
        &["run", "-d", "-i", "--name", "talker"],
        &options[..4],
        &talk,
    ]
    .concat());
    let follower = daemon.spawn_docker(&["logs", "-f", "--since", "1m", "talker"]);
    follower.expect("3000");
    let mut writer = daemon.spawn_docker(&["attach", "talker"]);
    for word in ["one", "two", "three"] {
        writer.write(&format!("{word}\n"));
        follower.expect(&format!("3000\n{word}\n"));
    }
    ok(&["restart", "-t", "0", "talker"]);
    eventually("it has talked again", || {
        ok(&["logs", "--tail", "1", "talker"]) == "3000"
    });
    assert_eq!(ok(&["logs", "--until", "1h", "talker"]), "");
    daemon.finish();
}

#[test]
fn drivers_that_are_not_read_say_so() {
    let Some(daemon) = daemon() else {
        return;
    };
    let refused = |options: &[&str]| {
        let head = [
            &["run", "-d", "--name", "mute"],
            options,
            &["busybox", "echo", "hi"],
        ]
        .concat();
        let _ = daemon.docker(&head).ok();
        let error = daemon.docker(&["logs", "mute"]).fails(1);
        let _ = daemon.docker(&["rm", "-f", "mute"]).ok();
        error
    };
    let words = "configured logging driver does not support reading";
    let error = refused(&["--log-driver", "none"]);
    assert!(error.contains(words), "{error}");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("syslog-address=udp://{}", socket.local_addr().unwrap());
    let syslog = ["--log-driver", "syslog", "--log-opt", &address];
    let error = refused(&[&syslog[..], &["--log-opt", "cache-disabled=true"]].concat());
    assert!(error.contains(words), "{error}");
    for (options, reason) in [
        (
            &["--log-driver", "splunk"][..],
            "no log driver named 'splunk'",
        ),
        (&["--log-opt", "colour=red"], "unknown log opt 'colour'"),
        (
            &[
                "--log-driver",
                "syslog",
                "--log-opt",
                "syslog-address=tcp://127.0.0.1:1",
            ],
            "failed to initialize logging driver: dial 127.0.0.1:1",
        ),
    ] {
        let error = daemon.docker(&run(options, "true"));
        assert!(
            error.code >= 125 && error.stderr.contains(reason),
            "{error:?}"
        );
    }
    daemon.finish();
}

#[test]
fn lines_go_to_syslog_by_every_way() {
    let Some(daemon) = daemon() else {
        return;
    };
    let script = "echo out; echo err >&2";
    let docker = |options: &[&str]| daemon.docker(&run(options, script)).ok();
    let base = ["--log-driver", "syslog", "--name", "talker", "--log-opt"];

    // UDP, in the daemon's network namespace.
    let socket = daemon
        .namespaces()
        .inside(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let address = format!("syslog-address=udp://{}", socket.local_addr().unwrap());
    let more = [
        "--log-opt",
        "syslog-format=rfc5424",
        "--log-opt",
        "syslog-facility=local3",
        "--log-opt",
        "tag={{.Name}}",
    ];
    docker(&[&base[..], &[&address], &more].concat());
    let texts: Vec<String> = received(|buffer| socket.recv(buffer))
        .into_iter()
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .collect();
    // local3 is 19: informational and error.
    assert!(
        texts
            .iter()
            .any(|one| one.starts_with("<158>1 ") && one.ends_with(" talker - out\n")),
        "{texts:?}"
    );
    assert!(
        texts
            .iter()
            .any(|one| one.starts_with("<155>1 ") && one.ends_with(" talker - err\n")),
        "{texts:?}"
    );

    // A unix datagram socket, and a stream socket.
    let path = daemon.directory().join("dgram");
    let datagrams = UnixDatagram::bind(&path).unwrap();
    datagrams.set_nonblocking(true).unwrap();
    docker(
        &[
            &base[..],
            &[&format!("syslog-address=unixgram://{}", path.display())],
        ]
        .concat(),
    );
    let all: Vec<u8> = received(|buffer| datagrams.recv(buffer)).concat();
    let all = String::from_utf8(all).unwrap();
    assert!(all.contains("]: out\n") && all.starts_with('<'), "{all}");
    let path = daemon.directory().join("stream");
    let listener = UnixListener::bind(&path).unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        // The first one only asks whether anybody listens.
        for _ in 0..2 {
            listener
                .accept()
                .unwrap()
                .0
                .read_to_string(&mut text)
                .unwrap();
        }
        text
    });
    docker(
        &[
            &base[..],
            &[&format!("syslog-address=unix://{}", path.display())],
        ]
        .concat(),
    );
    let text = reader.join().unwrap();
    assert!(
        text.contains("]: out\n") && text.contains("]: err\n"),
        "{text}"
    );

    // What was sent elsewhere can be read here, too.
    let named = [
        "run",
        "-d",
        "--name",
        "kept",
        "--log-driver",
        "syslog",
        "--log-opt",
    ];
    let _ = daemon
        .docker(&[&named[..], &[&address, "busybox", "echo", "kept"]].concat())
        .ok();
    eventually("it is kept", || {
        daemon.docker(&["logs", "kept"]).stdout == "kept\n"
    });
    daemon.finish();
}

#[test]
fn a_receiver_that_does_not_read_holds_nobody_up() {
    let Some(daemon) = daemon() else {
        return;
    };
    // A server that takes the connection and then nothing; one that is gone.
    let listener = daemon
        .namespaces()
        .inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = format!("syslog-address=tcp://{}", listener.local_addr().unwrap());
    let options = [
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "mode=non-blocking",
        "--log-opt",
        "max-buffer-size=64k",
    ];
    let command = [
        "busybox",
        "sh",
        "-c",
        "yes 0123456789012345678901234567890123456789 | head -n 400000; echo done; read l",
    ];
    let _ = daemon
        .docker(
            &[
                &["run", "-d", "-i", "--name", "loud"],
                &options[..],
                &command,
            ]
            .concat(),
        )
        .ok();
    eventually("the workload has gone on", || {
        daemon.docker(&["logs", "--tail", "1", "loud"]).stdout == "done\n"
    });
    // A supervisor that leaves tells how much was not delivered.
    let _ = daemon.docker(&["kill", "loud"]).ok();
    eventually("it is told", || {
        daemon
            .docker(&["logs", "--tail", "1", "loud"])
            .stderr
            .contains("lines of output were not delivered")
    });
    drop(listener);
    daemon.finish();
}

/// A journal of our own in the daemon's mount namespace.
#[test]
fn lines_go_to_the_journal_with_dockers_fields() {
    let Some(daemon) = daemon() else {
        return;
    };
    let place = daemon.directory().join("journal");
    fs::create_dir(&place).unwrap();
    let socket = UnixDatagram::bind(place.join("socket")).unwrap();
    socket.set_nonblocking(true).unwrap();
    // Whatever the machine has there, in this mount namespace it is ours.
    let target = "/run/systemd/journal";
    let tool = |program: &str, arguments: &[&str]| {
        let status = daemon.command(program).args(arguments).status();
        assert!(status.unwrap().success(), "{program} {arguments:?}");
    };
    tool("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
    let refused = daemon.docker(&run(&["--log-driver", "journald"], "true"));
    assert!(
        refused
            .stderr
            .contains("journald is not enabled on this host"),
        "{refused:?}"
    );
    tool("mkdir", &["-p", target]);
    tool("mount", &["--bind", &place.display().to_string(), target]);
    let options = [
        "--log-driver",
        "journald",
        "--name",
        "teller",
        "--label",
        "com.example.tier=gold",
        "--log-opt",
        "labels=com.example.tier",
    ];
    let _ = daemon
        .docker(&run(&options, "echo hello; printf 'no end'; echo bad >&2"))
        .ok();
    let entries: Vec<String> = received(|buffer| socket.recv(buffer))
        .iter()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect();
    let hello = entries
        .iter()
        .find(|one| one.starts_with("MESSAGE=hello\n"))
        .expect("it has arrived");
    for field in [
        "PRIORITY=6",
        "CONTAINER_NAME=teller",
        "IMAGE_NAME=busybox",
        "COM_EXAMPLE_TIER=gold",
    ] {
        assert!(hello.lines().any(|line| line == field), "{field}: {hello}");
    }
    for field in [
        "CONTAINER_ID=",
        "CONTAINER_ID_FULL=",
        "CONTAINER_TAG=",
        "SYSLOG_IDENTIFIER=",
        "SYSLOG_TIMESTAMP=",
    ] {
        assert!(
            hello.lines().any(|line| line.starts_with(field)),
            "{field}: {hello}"
        );
    }
    assert!(
        entries
            .iter()
            .any(|one| one.starts_with("MESSAGE=bad\nPRIORITY=3\n")),
        "{entries:?}"
    );
    assert!(
        entries.iter().any(|one| one.contains("MESSAGE=no end\n")
            && one.contains("CONTAINER_PARTIAL_MESSAGE=true\n")),
        "{entries:?}"
    );
    tool("umount", &[target]);
    tool("umount", &["/run"]);
    daemon.finish();
}

#[test]
fn the_daemons_settings_are_for_containers_that_say_nothing() {
    if !has("docker") {
        return;
    }
    let Some(daemon) = Daemon::start_with(&["--log-driver", "local", "--log-opt", "max-file=2"])
    else {
        return;
    };
    daemon.import(
        gamut_tests::busybox().unwrap(),
        "busybox",
        &["CMD [\"sh\"]"],
    );
    let ok = |arguments: &[&str]| daemon.docker(arguments).ok();
    assert_eq!(ok(&["info", "--format", "{{.LoggingDriver}}"]), "local");
    ok(&["run", "-d", "--name", "plain", "busybox", "echo", "hi"]);
    ok(&[
        "run",
        "-d",
        "--name",
        "own",
        "--log-driver",
        "json-file",
        "busybox",
        "echo",
        "hi",
    ]);
    let config = |name: &str| ok(&["inspect", "-f", "{{json .HostConfig.LogConfig}}", name]);
    assert_eq!(
        config("plain"),
        r#"{"Type":"local","Config":{"max-file":"2"}}"#
    );
    assert_eq!(config("own"), r#"{"Type":"json-file","Config":{}}"#);
    eventually("it can be read", || ok(&["logs", "plain"]) == "hi");
    daemon.finish();
}
